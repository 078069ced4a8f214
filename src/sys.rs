//! What only the operating system knows or does: CPU masks, topology, sockets, signals.

pub(crate) mod affinity;
pub(crate) mod bytes;
pub(crate) mod cpus;
#[cfg(feature = "files")]
pub(crate) mod directory;
pub(crate) mod errno;
pub(crate) mod fifo;
#[cfg(feature = "server")]
pub(crate) mod files;
#[cfg(feature = "server")]
pub(crate) mod handed;
#[cfg(feature = "cli")]
#[cfg_attr(not(feature = "compare"), allow(dead_code, reason = "comparing starts processes"))]
pub(crate) mod process;
#[cfg(feature = "server")]
pub(crate) mod send_file;
pub(crate) mod socket;
#[cfg(feature = "server")]
pub(crate) mod socket_file;
#[cfg(feature = "server")]
pub(crate) mod steer;
pub(crate) mod thread;
