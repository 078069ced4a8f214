//! Waiting for an epoll instance, whoever has registered what with it.
//!
//! Through `rustix`: without libc, and with the kernel's bits as they are, which is all that the reactors want. This file
//! owns the buffer that the kernel writes events to, and registers nothing.

#![allow(unsafe_code)]

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// What one event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// Under which its source was registered.
    pub(crate) token: u64,
    /// The bits below.
    pub(crate) bits: u32,
}

/// `EPOLLIN`: there is something to read.
pub(crate) const IN: u32 = epoll::EventFlags::IN.bits();
/// `EPOLLPRI`: there is something urgent to read.
pub(crate) const PRI: u32 = epoll::EventFlags::PRI.bits();
/// `EPOLLOUT`: there is room to write.
pub(crate) const OUT: u32 = epoll::EventFlags::OUT.bits();
/// `EPOLLERR`: an error, or the reading end of a pipe is gone.
pub(crate) const ERR: u32 = epoll::EventFlags::ERR.bits();
/// `EPOLLHUP`: both directions have ended.
pub(crate) const HUP: u32 = epoll::EventFlags::HUP.bits();
/// `EPOLLRDHUP`: the peer has ended its direction.
pub(crate) const RDHUP: u32 = epoll::EventFlags::RDHUP.bits();

/// The events of one wait.
pub(crate) struct Events(Vec<epoll::Event>);

// SAFETY: an event is a number of bits and a token, which `rustix` lets one read as a pointer too. It is a number wherever
// it came from, and nobody here reads it as anything else.
unsafe impl Send for Events {}

impl Events {
    /// So many at a time, at least one.
    pub(crate) fn with_capacity(events: usize) -> Events {
        Events(Vec::with_capacity(events.max(1)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.0
            .iter()
            .map(|&epoll::Event { flags, data }| Event { token: data.u64(), bits: flags.bits() })
    }

    /// Waits for events, up to `timeout`, rounded up to milliseconds. There may be none, as there are after an error.
    ///
    /// # Errors
    /// The operating system's; `Interrupted` if a signal came.
    pub(crate) fn wait(&mut self, epoll: &impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
        self.0.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        epoll::wait(epoll, spare_capacity(&mut self.0), timeout.as_ref())?;
        Ok(())
    }
}
