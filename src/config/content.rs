//! The content of a file that a configuration is, or names.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Why there is none.
pub(super) enum Unread {
    /// What follows the file's name in a message.
    Failed(String),
    /// It has more bytes than it may have.
    TooLong,
}

/// The bytes of a regular file, so many at most.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let failed = |error: std::io::Error| Unread::Failed(format!("cannot be read: {error}"));
    let metadata = fs::metadata(path).map_err(failed)?;
    // Opening a FIFO would wait for a writer; reading a device may never end.
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "no regular file" };
        return Err(Unread::Failed(format!("cannot be read: it is {what}")));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(failed)?;
    if bytes.len() as u64 > most { Err(Unread::TooLong) } else { Ok(bytes) }
}
