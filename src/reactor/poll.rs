//! `mio::Poll` with its event buffer.

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
