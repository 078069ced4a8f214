//! Where a server listens: an internet address, the path of a Unix socket, or a socket that was handed over. Plain data; nothing here asks the system.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes that the path of a Unix socket may have: the size of the kernel's `sun_path`, without the zero at its end.
pub(crate) const SOCKET_PATH_MAX: usize = 107;

/// Where a server listens. Shown as `127.0.0.1:8080`, `unix:/run/app.sock` or `inherited:http`.
///
/// # Examples
/// ```
/// use corelane::server::ListenAddr;
/// let address: std::net::SocketAddr = "127.0.0.1:8080".parse()?;
/// assert_eq!(ListenAddr::from(address).to_string(), "127.0.0.1:8080");
/// assert_eq!(ListenAddr::Unix("/run/app.sock".into()).to_string(), "unix:/run/app.sock");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// TCP, at this address and port.
    Tcp(SocketAddr),
    /// A Unix socket, at this path.
    Unix(PathBuf),
    /// The socket that a service manager has handed over under this name.
    Inherited(String),
}

impl ListenAddr {
    /// The address, if it is one of TCP.
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            ListenAddr::Tcp(address) => Some(*address),
            ListenAddr::Unix(_) | ListenAddr::Inherited(_) => None,
        }
    }

    /// The path, if it is that of a Unix socket.
    pub fn as_unix(&self) -> Option<&Path> {
        match self {
            ListenAddr::Tcp(_) | ListenAddr::Inherited(_) => None,
            ListenAddr::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => address.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddr::Inherited(name) => write!(f, "inherited:{name}"),
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(address: SocketAddr) -> Self {
        ListenAddr::Tcp(address)
    }
}

/// Why no socket can be at a path, whatever is there.
pub(crate) fn unfit_path(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Some("the path of a Unix socket is wanted, and this is empty".to_owned());
    }
    if bytes.contains(&0) {
        return Some("a path has no zero bytes; abstract names are not taken".to_owned());
    }
    if bytes.len() > SOCKET_PATH_MAX {
        let length = bytes.len();
        return Some(format!(
            "the path of a Unix socket has {SOCKET_PATH_MAX} bytes at most, and this has {length}"
        ));
    }
    bytes.ends_with(b"/").then(|| "a path that ends with a slash is that of a directory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_socket_can_have_are_told_apart() {
        for fit in ["/run/app.sock", "app.sock", "./a", &"x".repeat(SOCKET_PATH_MAX)] {
            assert_eq!(unfit_path(Path::new(fit)), None, "{fit}");
        }
        for (unfit, why) in [
            ("", "empty"),
            ("\0name", "abstract"),
            ("/run/", "slash"),
            (&"x".repeat(SOCKET_PATH_MAX + 1), "107 bytes at most, and this has 108"),
        ] {
            assert!(unfit_path(Path::new(unfit)).is_some_and(|said| said.contains(why)), "{unfit}");
        }
    }
}
