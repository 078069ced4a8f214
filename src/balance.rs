//! Which shard gets a connection: the policies, by name.
//!
//! Plain data. What a policy decides from is passed in; nothing here reads a clock, a counter or a socket.

#[cfg(feature = "server")]
pub(crate) mod choice;
#[cfg(feature = "server")]
pub(crate) mod moves;
#[cfg(any(feature = "server", all(loom, test)))]
pub(crate) mod seats;
#[cfg(feature = "server")]
pub(crate) mod weights;

use std::fmt;
use std::str::FromStr;

/// How the connections of one listening address are spread over the shards that serve it.
///
/// With [`P2c`](Policy::P2c), [`Least`](Policy::Least) and [`RoundRobin`](Policy::RoundRobin) the kernel spreads as with
/// [`Hash`](Policy::Hash), and the shard that accepts a connection may hand it over to another, before anything is read
/// from it. The other serves it with its own service. A hand-over is one message and waits for nothing: if the inbox of
/// the other shard is full, or it takes no connections because it stops or its service could not be made, the shard that has
/// accepted keeps the connection. So a distribution is exact only while inboxes have room. The connections that count
/// are those which the server has open, on all its listeners. What has been handed over counts at once.
///
/// # In writing
///
/// | text | meaning |
/// |---|---|
/// | `hash` | [`Policy::Hash`] |
/// | `cpu` | [`Policy::Cpu`] |
/// | `weighted` | [`Policy::Weighted`] |
/// | `p2c` | [`Policy::P2c`] |
/// | `least` | [`Policy::Least`] |
/// | `round-robin` | [`Policy::RoundRobin`] |
///
/// ```
/// use corelane::balance::Policy;
/// assert_eq!("round-robin".parse(), Ok(Policy::RoundRobin));
/// assert_eq!(Policy::P2c.to_string(), "p2c");
/// let error = "fair".parse::<Policy>().unwrap_err();
/// assert_eq!(error.to_string(), "`fair` is no policy: write hash, cpu, weighted, p2c, least or round-robin");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// The kernel's own choice among the listening sockets of one port: a hash of the addresses and ports. Even over
    /// many connections only.
    #[default]
    Hash,
    /// The shard whose CPU the packet arrived on; for a CPU without a shard, and while the server starts, as `Hash`. For
    /// network cards that spread their queues over the CPUs; on the loopback device it is the client's CPU, which is the
    /// wrong one. A shard that is not pinned to one CPU has none, and gets what is left to the hash.
    Cpu,
    /// The kernel draws lots, weighted so that all shards become equally busy; one that has been held up for about 75 ms
    /// gets none until it has come on. For work that is uneven. What comes before a stall is noticed waits for it, and so
    /// do connections that the shard has already.
    Weighted,
    /// The shard that accepts compares its number of open connections with those of two others, drawn by lot, and hands the
    /// connection over if one of them has clearly fewer: one fewer for each 32 that it has itself, and one more. For few
    /// and long connections. It compares connections, not the work in them.
    P2c,
    /// The shard that has the fewest open connections; if the one that accepts is among them, it keeps it. It looks at every
    /// shard of the listener for each connection. For few connections of equal weight.
    Least,
    /// One shard after the other, whatever each has to do: the shards of a listener share one counter. For tests.
    RoundRobin,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 6] = [
        Policy::Hash,
        Policy::Cpu,
        Policy::Weighted,
        Policy::P2c,
        Policy::Least,
        Policy::RoundRobin,
    ];

    /// Whether the kernel runs a program that chooses among the listening sockets of a port.
    #[cfg(feature = "server")]
    pub(crate) const fn is_by_kernel_program(self) -> bool {
        matches!(self, Policy::Cpu | Policy::Weighted)
    }

    /// The name, as it is written in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Hash => "hash",
            Policy::Cpu => "cpu",
            Policy::Weighted => "weighted",
            Policy::P2c => "p2c",
            Policy::Least => "least",
            Policy::RoundRobin => "round-robin",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    /// Takes the names in the table above.
    ///
    /// # Errors
    /// It is none of them.
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let found = Policy::ALL.into_iter().find(|policy| policy.name() == text);
        found.ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// A text that names no [`Policy`]. It says which there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy(String);

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no policy: write ", self.0)?;
        let [first @ .., before_last, last] = Policy::ALL;
        first.iter().try_for_each(|policy| write!(f, "{policy}, "))?;
        write!(f, "{before_last} or {last}")
    }
}

impl std::error::Error for UnknownPolicy {}
