//! Opening and checking pipes that have a name (`mkfifo`), and their mode.
//!
//! It keeps no state and never waits: what it opens is non-blocking from birth.

use socket2::SockRef;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file without waiting for the other end.
pub(crate) fn open(path: &Path, read: bool, write: bool) -> io::Result<File> {
    OpenOptions::new().read(read).write(write).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Fails with `InvalidInput` if the file is no pipe.
pub(crate) fn check_kind(file: &File) -> io::Result<()> {
    if file.metadata()?.file_type().is_fifo() {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "the file is not a pipe"))
}

/// Fails with `InvalidInput` if the file was not opened for reading. Reading nothing neither waits nor takes anything.
pub(crate) fn check_readable(mut file: &File) -> io::Result<()> {
    file.read(&mut []).map(drop).map_err(|error| mode_error(error, "reading"))
}

/// The same for writing.
pub(crate) fn check_writable(mut file: &File) -> io::Result<()> {
    file.write(&[]).map(drop).map_err(|error| mode_error(error, "writing"))
}

fn mode_error(error: io::Error, what: &str) -> io::Error {
    if error.raw_os_error() == Some(libc::EBADF) {
        let message = format!("the pipe is not open for {what}");
        return io::Error::new(ErrorKind::InvalidInput, message);
    }
    error
}

/// Makes a descriptor of any kind block again.
pub(crate) fn set_blocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    SockRef::from(&fd.as_fd()).set_nonblocking(false)?;
    Ok(fd)
}
