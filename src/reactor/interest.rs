//! What to wait for, and what was found.

use super::slots::{Direction, Readiness};
use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// Which kinds of readiness to wait for.
///
/// # Examples
/// ```
/// use corelane::net::Interest;
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.is_readable() && both.is_writable());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest(Readiness);

impl Interest {
    /// Something can be read, or the peer has closed its writing side.
    pub const READABLE: Interest = Interest(Readiness::of(Direction::Read));
    /// Something can be written, or this side can write no more.
    pub const WRITABLE: Interest = Interest(Readiness::of(Direction::Write));

    /// Whether reading is of interest.
    pub const fn is_readable(self) -> bool {
        self.0.intersects(Readiness::READABLE)
    }

    /// Whether writing is of interest.
    pub const fn is_writable(self) -> bool {
        self.0.intersects(Readiness::WRITABLE)
    }

    /// Both.
    #[must_use]
    pub const fn add(self, other: Interest) -> Interest {
        Interest(self.0.with(other.0))
    }

    pub(crate) const fn readiness(self) -> Readiness {
        self.0
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
        match (self.is_readable(), self.is_writable()) {
            (true, true) => write!(f, "READABLE | WRITABLE"),
            (true, false) => write!(f, "READABLE"),
            _ => write!(f, "WRITABLE"),
        }
    }
}

/// What a socket is ready for. A hint: an operation may still say `WouldBlock`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready(Readiness);

impl Ready {
    /// Ready for nothing.
    pub const EMPTY: Ready = Ready(Readiness::NONE);
    /// Something can be read.
    pub const READABLE: Ready = Ready(Readiness::READABLE);
    /// Something can be written.
    pub const WRITABLE: Ready = Ready(Readiness::WRITABLE);

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

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("readable", &self.is_readable())
            .field("writable", &self.is_writable())
            .field("read_closed", &self.is_read_closed())
            .field("write_closed", &self.is_write_closed())
            .field("error", &self.is_error())
            .finish()
    }
}
