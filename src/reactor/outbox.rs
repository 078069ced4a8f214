//! Gathered writes of a socket that a pool shares: what the slot is to a shard's own.
//!
//! Any thread may write to such a socket, so its bytes stand with it, behind a lock that is nearly always free. Whoever writes
//! next finds what comes before and sends that first. Otherwise the worker does, at the end of the poll that has gathered.
//! For bytes that the kernel does not take the outbox waits itself, as a waker in the socket's slot; tasks wait for the outbox.

use super::engine::{Descriptor, Held, lost};
use super::gather::send_once;
use super::shared::SharedSlot;
use super::slots::{Direction, Readiness};
use crate::limits::GATHER_BYTES;
use crate::sync::{Arc, Mutex, lock};
use crate::sys::socket;
use crate::task::waker::wake_counted;
use std::io;
use std::task::{Poll, Wake, Waker};

/// See the module.
pub(crate) struct Outbox {
    descriptor: Arc<dyn Descriptor>,
    slot: Arc<SharedSlot>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// The kernel has refused the first of them.
    refused: bool,
    /// Bytes are missing: nothing is written any more.
    lost: bool,
    /// Why, for whoever writes or flushes next.
    error: Option<io::Error>,
    /// Who waits until all are sent, or lost: who asked last.
    waiting: Option<Waker>,
    /// The sending direction is to end when all are sent.
    ends: bool,
}

/// What became of bytes that were to be gathered.
#[derive(Debug)]
pub(super) enum Added {
    /// They go at the end of this poll, if nobody sends them before.
    Yes {
        /// There are enough of them: send them now.
        full: bool,
    },
    /// They go behind others for which the outbox waits.
    Behind,
    /// There is no room before the peer reads.
    Full,
    /// An earlier send failed.
    Failed(io::Error),
}

impl Outbox {
    /// `lost`: bytes are missing already.
    pub(super) fn new(
        descriptor: Arc<dyn Descriptor>,
        slot: Arc<SharedSlot>,
        lost: bool,
    ) -> Outbox {
        Outbox { descriptor, slot, state: Mutex::new(State { lost, ..State::default() }) }
    }

    /// Adds bytes, all or nothing. The first go into `spare`, a buffer that is empty.
    pub(super) fn add(&self, bytes: &[u8], spare: &mut Vec<u8>) -> Added {
        let mut state = lock(&self.state);
        if let Some(error) = state.failure() {
            return Added::Failed(error);
        }
        if state.refused {
            if state.bytes.len() + bytes.len() > GATHER_BYTES {
                return Added::Full;
            }
            state.bytes.extend_from_slice(bytes);
            return Added::Behind;
        }
        if state.bytes.is_empty() {
            std::mem::swap(&mut state.bytes, spare);
            self.descriptor.set_held(Held::Gathered, true);
        }
        state.bytes.extend_from_slice(bytes);
        Added::Yes { full: state.bytes.len() >= GATHER_BYTES }
    }

    /// Sends what there is, and waits for room for what the kernel does not take. True: nothing is left. An emptied buffer
    /// goes to `spare`.
    pub(super) fn send(self: &Arc<Self>, spare: Option<&mut Vec<u8>>) -> bool {
        let mut spare = spare;
        loop {
            let mut state = lock(&self.state);
            let look = self.slot.look();
            let left = self.send_once(&mut state);
            let (woken, emptied) = if left {
                self.slot.clear(look, Readiness::over(Direction::Write));
                (None, Vec::new())
            } else {
                (state.waiting.take(), std::mem::take(&mut state.bytes))
            };
            drop(state);
            if let Some(spare) = spare.as_deref_mut().filter(|spare| spare.capacity() == 0) {
                *spare = emptied;
            }
            if let Some(waker) = woken {
                wake_counted(waker);
            }
            if !left || self.waits_for_room() {
                return !left;
            }
        }
    }

    /// Leaves this outbox where it is woken when there is room. False: there may be some by now.
    fn waits_for_room(self: &Arc<Self>) -> bool {
        if self.slot.poll(Direction::Write, &Waker::from(self.clone())).is_some() {
            return false;
        }
        if self.slot.is_closed() {
            // Nobody will say when there is room.
            self.give_up();
        }
        true
    }

    /// One system call, if there is anything to send. True: something is left.
    fn send_once(&self, state: &mut State) -> bool {
        let mut left = false;
        if !state.bytes.is_empty() {
            match send_once(&*self.descriptor, &state.bytes) {
                Ok(sent) if sent < state.bytes.len() => {
                    state.bytes.drain(..sent);
                    left = true;
                }
                Ok(_) => state.bytes.clear(),
                Err(error) => {
                    state.error = Some(error);
                    self.lose(state);
                }
            }
            self.descriptor.set_held(Held::Gathered, false);
        }
        if left != state.refused {
            state.refused = left;
            self.descriptor.set_held(Held::Unsent, left);
        }
        if !left && std::mem::take(&mut state.ends) {
            // Nobody is left to tell.
            let _ = socket::shutdown_write(&self.descriptor.fd());
        }
        left
    }

    /// What there is will not be sent.
    fn lose(&self, state: &mut State) {
        state.bytes.clear();
        state.lost = true;
        self.descriptor.set_held(Held::Lost, true);
    }

    /// The socket is closed, or nobody watches it any more: sends what the kernel takes now, and no more.
    pub(super) fn give_up(&self) {
        let mut state = lock(&self.state);
        if self.send_once(&mut state) {
            self.lose(&mut state);
            // Ends it, and says that nothing is held.
            self.send_once(&mut state);
        }
        let woken = state.waiting.take();
        drop(state);
        if let Some(waker) = woken {
            wake_counted(waker);
        }
    }

    /// Sends what there is. Ready when nothing is left; otherwise the task is woken then.
    pub(super) fn poll_sent(self: &Arc<Self>, waker: &Waker) -> Poll<io::Result<()>> {
        if !self.send(None) {
            let waker = waker.clone();
            let mut state = lock(&self.state);
            if state.refused {
                let known = state.waiting.replace(waker);
                drop(state);
                drop(known);
                return Poll::Pending;
            }
        }
        Poll::Ready(self.failure().map_or(Ok(()), Err))
    }

    /// What whoever writes or flushes is told if bytes are missing.
    pub(super) fn failure(&self) -> Option<io::Error> {
        lock(&self.state).failure()
    }

    /// Ends the sending direction when nothing is left.
    pub(super) fn end_when_sent(self: &Arc<Self>) {
        lock(&self.state).ends = true;
        self.send(None);
    }
}

impl State {
    fn failure(&mut self) -> Option<io::Error> {
        self.lost.then(|| self.error.take().unwrap_or_else(lost))
    }
}

impl Wake for Outbox {
    fn wake(self: Arc<Self>) {
        self.send(None);
    }
}
