//! Who is at the other end of a Unix stream.

use crate::sys::socket::Credentials;

/// A user's number.
#[allow(non_camel_case_types, reason = "the name the operating system and Tokio give it")]
pub type uid_t = u32;

/// A group's number.
#[allow(non_camel_case_types, reason = "the name the operating system and Tokio give it")]
pub type gid_t = u32;

/// A process's number.
#[allow(non_camel_case_types, reason = "the name the operating system and Tokio give it")]
pub type pid_t = i32;

/// The process, user and group of a peer.
///
/// They are those of the moment the peer connected, or listened: the process may since have become another user, or
/// ended and left its number to somebody else.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::UnixListener;
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let listener = UnixListener::bind("/run/example")?;
///     let (stream, _) = listener.accept().await?;
///     if stream.peer_cred()?.uid() != 0 {
///         println!("not root");
///     }
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UCred(Credentials);

impl UCred {
    pub(super) fn new(credentials: Credentials) -> UCred {
        UCred(credentials)
    }

    /// The user.
    pub fn uid(&self) -> uid_t {
        self.0.uid
    }

    /// The group.
    pub fn gid(&self) -> gid_t {
        self.0.gid
    }

    /// The process; `None` if it is outside this process's PID namespace.
    pub fn pid(&self) -> Option<pid_t> {
        self.0.pid
    }
}
