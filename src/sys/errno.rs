//! Error numbers of the operating system, by what they mean to us.

use std::io;

/// A number that an operation may fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(i32);

/// The number in an error; none if it is not the system's.
pub(crate) fn of(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno)
}

impl Errno {
    /// From `accept`: about the one connection, not about the listener.
    pub(crate) fn is_connection(self) -> bool {
        matches!(
            self.0,
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::EPERM
                | libc::EINTR
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ECONNRESET
                | libc::ETIMEDOUT
        )
    }

    /// The process has as many files open as it may, or the system has.
    pub(crate) fn is_file_limit(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE)
    }

    /// Something is used up that will be freed some time.
    pub(crate) fn is_shortage(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    }
}
