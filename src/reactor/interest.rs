//! What to wait for, and what was found.

use super::slots::{Direction, Readiness};
use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

/// Which kinds of readiness to wait for.
///
/// # Examples
/// ```
/// use corelane::net::Interest;
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.is_readable() && both.is_writable());
/// assert_eq!(both.remove(Interest::WRITABLE), Some(Interest::READABLE));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Something can be read, or the peer has closed its writing side.
    pub const READABLE: Interest = Interest(1 << 0);
    /// Something can be written, or this side can write no more.
    pub const WRITABLE: Interest = Interest(1 << 1);
    /// The socket has an error. Those who wait to read or to write hear of it as well.
    pub const ERROR: Interest = Interest(1 << 2);
    /// Something urgent has arrived, such as out-of-band data of TCP.
    pub const PRIORITY: Interest = Interest(1 << 3);

    /// Whether reading is of interest.
    pub const fn is_readable(self) -> bool {
        self.has(Interest::READABLE)
    }

    /// Whether writing is of interest.
    pub const fn is_writable(self) -> bool {
        self.has(Interest::WRITABLE)
    }

    /// Whether errors are of interest for themselves.
    pub const fn is_error(self) -> bool {
        self.has(Interest::ERROR)
    }

    /// Whether urgent data is of interest.
    pub const fn is_priority(self) -> bool {
        self.has(Interest::PRIORITY)
    }

    const fn has(self, part: Interest) -> bool {
        self.0 & part.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn add(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }

    /// What is left without `other`; none if that is nothing.
    #[must_use = "it changes nothing in place"]
    pub const fn remove(self, other: Interest) -> Option<Interest> {
        match self.0 & !other.0 {
            0 => None,
            left => Some(Interest(left)),
        }
    }

    /// Whether a task with this interest is woken when the direction becomes ready. Urgent data is read, and so is an
    /// error.
    pub(crate) const fn waits_for(self, direction: Direction) -> bool {
        match direction {
            Direction::Read => self.is_readable() || self.is_error() || self.is_priority(),
            Direction::Write => self.is_writable(),
        }
    }

    /// What satisfies it.
    pub(crate) const fn readiness(self) -> Readiness {
        self.choose(
            Readiness::of(Direction::Read),
            Readiness::of(Direction::Write),
            Readiness::PRIORITY.with(Readiness::READ_CLOSED),
        )
    }

    /// What is taken on trust where readiness cannot be seen.
    pub(crate) const fn hoped(self) -> Readiness {
        self.choose(Readiness::READABLE, Readiness::WRITABLE, Readiness::PRIORITY)
    }

    const fn choose(self, read: Readiness, write: Readiness, priority: Readiness) -> Readiness {
        let read = if self.is_readable() { read } else { Readiness::NONE };
        let write = if self.is_writable() { write } else { Readiness::NONE };
        let error = if self.is_error() { Readiness::ERROR } else { Readiness::NONE };
        let priority = if self.is_priority() { priority } else { Readiness::NONE };
        read.with(write).with(error).with(priority)
    }
}

impl BitOr for Interest {
    type Output = Interest;
    fn bitor(self, other: Interest) -> Interest {
        self.add(other)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        *self = *self | other;
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.is_readable(), "READABLE"),
            (self.is_writable(), "WRITABLE"),
            (self.is_error(), "ERROR"),
            (self.is_priority(), "PRIORITY"),
        ];
        let mut parts = parts.into_iter().filter_map(|(is, name)| is.then_some(name));
        f.write_str(parts.next().unwrap_or("NONE"))?;
        parts.try_for_each(|name| write!(f, " | {name}"))
    }
}

/// What a socket is ready for. A hint: an operation may still say `WouldBlock`.
///
/// # Examples
/// ```
/// use corelane::net::Ready;
/// let ready = Ready::READABLE | Ready::READ_CLOSED;
/// assert!(ready.is_readable() && !ready.is_writable());
/// assert_eq!(ready - Ready::READ_CLOSED, Ready::READABLE);
/// assert_eq!(ready & Ready::WRITABLE, Ready::EMPTY);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Default)]
pub struct Ready(Readiness);

impl Ready {
    /// Ready for nothing.
    pub const EMPTY: Ready = Ready(Readiness::NONE);
    /// Something can be read.
    pub const READABLE: Ready = Ready(Readiness::READABLE);
    /// Something can be written.
    pub const WRITABLE: Ready = Ready(Readiness::WRITABLE);
    /// The peer has closed its writing side.
    pub const READ_CLOSED: Ready = Ready(Readiness::READ_CLOSED);
    /// Nothing can be written any more.
    pub const WRITE_CLOSED: Ready = Ready(Readiness::WRITE_CLOSED);
    /// Something urgent has arrived.
    pub const PRIORITY: Ready = Ready(Readiness::PRIORITY);
    /// The socket has an error.
    pub const ERROR: Ready = Ready(Readiness::ERROR);
    /// Ready for everything there is.
    pub const ALL: Ready = Ready(
        Readiness::of(Direction::Read)
            .with(Readiness::of(Direction::Write))
            .with(Readiness::PRIORITY),
    );

    pub(crate) const fn new(readiness: Readiness) -> Ready {
        Ready(readiness)
    }

    /// Ready for nothing.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Reading will not block: there are bytes, the end, or an error.
    pub const fn is_readable(self) -> bool {
        self.0.intersects(Readiness::of(Direction::Read))
    }

    /// Writing will not block: there is room, or an error.
    pub const fn is_writable(self) -> bool {
        self.0.intersects(Readiness::of(Direction::Write))
    }

    /// The peer has closed its writing side: after what is there comes the end.
    pub const fn is_read_closed(self) -> bool {
        self.0.intersects(Readiness::READ_CLOSED)
    }

    /// Nothing can be written any more.
    pub const fn is_write_closed(self) -> bool {
        self.0.intersects(Readiness::WRITE_CLOSED)
    }

    /// Something urgent has arrived, such as out-of-band data of TCP.
    pub const fn is_priority(self) -> bool {
        self.0.intersects(Readiness::PRIORITY)
    }

    /// The socket has an error, which the next operation or `take_error` returns.
    pub const fn is_error(self) -> bool {
        self.0.intersects(Readiness::ERROR)
    }
}

impl BitOr for Ready {
    type Output = Ready;
    fn bitor(self, other: Ready) -> Ready {
        Ready(self.0.with(other.0))
    }
}

impl BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Ready) {
        *self = *self | other;
    }
}

impl BitAnd for Ready {
    type Output = Ready;
    fn bitand(self, other: Ready) -> Ready {
        Ready(self.0.only(other.0))
    }
}

impl Sub for Ready {
    type Output = Ready;
    fn sub(self, other: Ready) -> Ready {
        Ready(self.0.without(other.0))
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("readable", &self.is_readable())
            .field("writable", &self.is_writable())
            .field("read_closed", &self.is_read_closed())
            .field("write_closed", &self.is_write_closed())
            .field("priority", &self.is_priority())
            .field("error", &self.is_error())
            .finish()
    }
}
