//! `mio::Poll` with its event buffer.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// The kernel's side of a reactor.
pub(crate) struct Poll {
    inner: RefCell<(mio::Poll, mio::Events)>,
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
        Ok(Poll { inner: RefCell::new((poll, mio::Events::with_capacity(events))), registry, fd })
    }

    pub(crate) fn registry(&self) -> &mio::Registry {
        &self.registry
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Waits, and hands each event with its token to `each`; that of the shard's bell names no socket.
    pub(crate) fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(u64, &Event)) {
        let mut inner = self.inner.borrow_mut();
        let (poll, events) = &mut *inner;
        if let Err(error) = poll.poll(events, timeout.map(|timeout| timeout.min(LONGEST))) {
            // EINTR: a signal, or the process was stopped and continued. The next turn waits again. Anything else
            // would mean that the epoll fd is not ours any more.
            assert!(
                error.kind() == io::ErrorKind::Interrupted,
                "waiting for sockets failed, the shard cannot go on: {error}"
            );
            return;
        }
        for event in events.iter() {
            each(event.token().0 as u64, event);
        }
    }
}
