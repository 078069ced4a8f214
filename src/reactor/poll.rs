//! The kernel's side of a reactor: `mio::Poll` with its event buffer, what is asked of it, and what its events say.

use super::slots::Readiness;
use mio::unix::SourceFd;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// The kernel's side of a reactor.
pub(crate) struct Poll {
    poll: RefCell<mio::Poll>,
    /// None while events are handed out: what they wake may wait for more.
    events: Cell<Option<mio::Events>>,
    capacity: usize,
    registry: mio::Registry,
    fd: RawFd,
}

/// What one event says.
pub(crate) use mio::event::Event;

/// epoll_wait takes a signed 32-bit number of milliseconds; a longer wait is cut in pieces.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

impl Poll {
    pub(crate) fn new(events: usize) -> io::Result<Poll> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let fd = poll.as_raw_fd();
        Ok(Poll {
            poll: RefCell::new(poll),
            events: Cell::new(Some(mio::Events::with_capacity(events))),
            capacity: events,
            registry,
            fd,
        })
    }

    pub(crate) fn registry(&self) -> &mio::Registry {
        &self.registry
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Waits, and hands each event with its token to `each`, which may wait in turn; that of the shard's bell names no
    /// socket.
    pub(crate) fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(u64, &Event)) {
        let mut events =
            self.events.take().unwrap_or_else(|| mio::Events::with_capacity(self.capacity));
        wait_for(&mut self.poll.borrow_mut(), &mut events, timeout);
        for event in events.iter() {
            each(event.token().0 as u64, event);
        }
        self.events.set(Some(events));
    }
}

/// Waits for events, up to `timeout`. There may be none.
pub(super) fn wait_for(poll: &mut mio::Poll, events: &mut mio::Events, timeout: Option<Duration>) {
    if let Err(error) = poll.poll(events, timeout.map(|timeout| timeout.min(LONGEST))) {
        // EINTR: a signal, or the process was stopped and continued. The next turn waits again. Anything else would mean
        // that the epoll fd is not ours any more.
        assert!(
            error.kind() == io::ErrorKind::Interrupted,
            "waiting for sockets failed, the shard cannot go on: {error}"
        );
        events.clear();
    }
}

/// A token is a slot's whole key, and mio's are as wide as a pointer.
const _: () = assert!(usize::BITS >= u64::BITS, "Corelane needs a 64-bit system");

/// Registers a socket for everything.
pub(super) fn register(registry: &mio::Registry, fd: RawFd, token: mio::Token) -> io::Result<()> {
    match registry.register(&mut SourceFd(&fd), token, interest()) {
        // Of a socket that was closed here while somebody held a duplicate of its fd, whose number came back.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            registry.reregister(&mut SourceFd(&fd), token, interest())
        }
        registered => registered,
    }
}

/// Every socket is registered for everything, once.
pub(super) fn interest() -> mio::Interest {
    mio::Interest::READABLE | mio::Interest::WRITABLE | mio::Interest::PRIORITY
}

/// What an event says of its socket.
#[inline]
pub(super) fn readiness_of(event: &Event) -> Readiness {
    let usual = flag(event.is_readable(), Readiness::READABLE)
        .with(flag(event.is_writable(), Readiness::WRITABLE));
    // Nearly every event says no more.
    let more = event.is_error()
        || event.is_priority()
        || event.is_read_closed()
        || event.is_write_closed();
    if more { usual.with(unusual(event)) } else { usual }
}

#[cold]
fn unusual(event: &Event) -> Readiness {
    flag(event.is_read_closed(), Readiness::READ_CLOSED)
        .with(flag(event.is_write_closed(), Readiness::WRITE_CLOSED))
        .with(flag(event.is_priority(), Readiness::PRIORITY))
        .with(flag(event.is_error(), Readiness::ERROR))
}

fn flag(set: bool, flag: Readiness) -> Readiness {
    if set { flag } else { Readiness::NONE }
}
