//! Opening files without waiting, and how many this process may have open.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
#[cfg(feature = "compare")]
use rustix::process::{Rlimit, setrlimit};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Raises the limit as far as it may be raised, for this process and those that it starts. A limit that stays is no error:
/// who needs more will be told when it does.
#[cfg(feature = "compare")]
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Files that this process may have open; none if that is not bounded.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Opens a file to write at its end, and makes it if it is not there. A FIFO that nobody reads from is not waited for.
///
/// # Errors
/// It cannot be opened, or is such a FIFO. Writing waits where the system has it so.
pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().append(true).create(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => io::Error::other("it is a FIFO, and nobody reads from it"),
        _ => error,
    })?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}
