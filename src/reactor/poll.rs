//! The kernel's side of a reactor: the epoll instance, its events, and what they say of a socket.

use super::slots::Readiness;
use crate::sys::epoll::{self, Event, Events};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// See the module.
pub(crate) struct Poll {
    registry: mio::Registry,
    /// None while events are handed out: what they wake may wait for more.
    events: Cell<Option<Events>>,
    capacity: usize,
}

/// epoll_wait takes a signed 32-bit number of milliseconds; a longer wait is cut in pieces.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

impl Poll {
    pub(crate) fn new(events: usize) -> io::Result<Poll> {
        Ok(Poll {
            registry: new_registry()?,
            events: Cell::new(Some(Events::with_capacity(events))),
            capacity: events,
        })
    }

    pub(crate) fn registry(&self) -> &mio::Registry {
        &self.registry
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.registry.as_raw_fd()
    }

    /// Waits, and hands each event to `each`, which may wait in turn; that of the shard's bell names no socket.
    pub(crate) fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(Event)) {
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(self.capacity));
        wait_for(&self.registry, &mut events, timeout);
        events.iter().for_each(&mut each);
        self.events.set(Some(events));
    }
}

/// An epoll instance, which is there for as long as a registry of it is.
pub(super) fn new_registry() -> io::Result<mio::Registry> {
    mio::Poll::new()?.registry().try_clone()
}

/// Waits for events, up to `timeout`. There may be none.
pub(super) fn wait_for(registry: &mio::Registry, events: &mut Events, timeout: Option<Duration>) {
    if let Err(error) = events.wait(registry, timeout.map(|timeout| timeout.min(LONGEST))) {
        // EINTR: a signal, or the process was stopped and continued. The next turn waits again. Anything else would mean
        // that the epoll fd is not ours any more.
        assert!(
            error.kind() == io::ErrorKind::Interrupted,
            "waiting for sockets failed, the shard cannot go on: {error}"
        );
    }
}

/// What a socket is ready for after an event.
#[inline]
pub(super) fn readiness_of(event: Event) -> Readiness {
    // The kernel's bits for these are ours too: most events say nothing else.
    const ALIKE: u32 = epoll::IN | epoll::OUT;
    if event.bits & !ALIKE == 0 { Readiness::from_bits(event.bits as u8) } else { rare(event.bits) }
}

/// Something urgent, an error, or an end. A pipe whose reading end is gone has an error and nothing else, or room besides.
#[cold]
fn rare(bits: u32) -> Readiness {
    let has = |bit: u32| bits & bit != 0;
    let read_closed = has(epoll::HUP) || (has(epoll::IN) && has(epoll::RDHUP));
    let write_closed =
        has(epoll::HUP) || (has(epoll::OUT) && has(epoll::ERR)) || bits == epoll::ERR;
    [
        (has(epoll::IN) || has(epoll::PRI), Readiness::READABLE),
        (has(epoll::OUT), Readiness::WRITABLE),
        (read_closed, Readiness::READ_CLOSED),
        (write_closed, Readiness::WRITE_CLOSED),
        (has(epoll::PRI), Readiness::PRIORITY),
        (has(epoll::ERR), Readiness::ERROR),
    ]
    .into_iter()
    .filter(|(is, _)| *is)
    .fold(Readiness::NONE, |all, (_, one)| all.with(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_bits_say_the_same_as_the_rare_way_does() {
        for bits in [0, epoll::IN, epoll::OUT, epoll::IN | epoll::OUT] {
            assert_eq!(readiness_of(Event { token: 0, bits }), rare(bits), "{bits}");
        }
        let ended = Readiness::READ_CLOSED.with(Readiness::WRITE_CLOSED);
        assert_eq!(rare(epoll::HUP), ended);
        assert_eq!(rare(epoll::RDHUP), Readiness::NONE, "an end is something to read as well");
        assert_eq!(
            rare(epoll::IN | epoll::RDHUP),
            Readiness::READABLE.with(Readiness::READ_CLOSED)
        );
        assert_eq!(rare(epoll::PRI), Readiness::READABLE.with(Readiness::PRIORITY));
        assert_eq!(rare(epoll::ERR), Readiness::ERROR.with(Readiness::WRITE_CLOSED));
    }
}
