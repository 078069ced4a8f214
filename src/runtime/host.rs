//! A shard inside somebody else's event loop.

use super::block_on::refuse_nested;
use super::handle::Handle;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::limits::Limits;
use crate::shard::context;
use crate::shard::fleet::{Fleet, Member};
use crate::shard::surroundings::Surroundings;
use crate::shard::{Seed, Shard};
use crate::sync::Arc;
use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A shard of its own on the calling thread, driven by hand: the host puts the shard's fd into its own event loop and
/// calls [`turn`](HostedShard::turn) when the fd becomes readable or [`next_deadline`](HostedShard::next_deadline) has
/// come. It is shard 0 of a runtime of one, so its [`Handle`] reaches it from any thread.
///
/// Not `Send`: it stays on the thread that made it. Dropping it drops its tasks.
///
/// After [`Handle::request_shutdown`] it goes on until its last task has ended or the deadline has come. The turn that
/// finds it so closes it: tasks that are left are dropped, and whoever calls it from elsewhere is told that it has shut
/// down. Then [`is_stopped`](HostedShard::is_stopped), and the host may drop it.
///
/// # Examples
/// ```
/// use corelane::{HostedShard, Limits};
/// use std::time::Duration;
/// let shard = HostedShard::new(Limits::default())?;
/// let task = shard.enter(|| corelane::spawn_local(async { 40 + 2 }));
/// while !task.is_finished() {
///     shard.turn(Duration::ZERO);
/// }
/// # Ok::<(), corelane::Error>(())
/// ```
pub struct HostedShard {
    shard: Rc<Shard>,
    stopped: Cell<bool>,
}

impl HostedShard {
    /// # Errors
    /// If a limit is out of bounds, or the operating system gives no epoll instance or eventfd.
    ///
    /// # Panics
    /// Inside another shard.
    #[track_caller]
    pub fn new(limits: Limits) -> Result<HostedShard, Error> {
        refuse_nested();
        limits.check().map_err(|text| Error::new(ErrorKind::Config, text))?;
        let refused = |error| {
            Error::new(ErrorKind::Start, "no epoll instance or eventfd for a hosted shard")
                .because(error)
        };
        let seed = Seed::new(&limits).map_err(refused)?;
        let published = Arc::default();
        let member = Member { inbox: seed.inbox.clone(), published: Arc::clone(&published) };
        let pool = crate::blocking::Pool::new(limits.blocking_threads, Surroundings::default());
        let fleet = Fleet::new(limits, vec![member], pool, None);
        let shard = Shard::new(Some(ShardId::new(0)), seed, fleet, published);
        Ok(HostedShard { shard, stopped: Cell::new(false) })
    }

    /// Reaches this shard from any thread.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shard.fleet().clone())
    }

    /// Runs `f` as if on the shard: `spawn_local`, sockets and timers work in it. On one that has stopped, what is
    /// spawned is cancelled at once.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        self.resume();
        let _pause = Pause(&self.shard);
        context::enter(&self.shard, || {
            self.shard.begin_poll();
            let _send = SendGathered(&self.shard);
            f()
        })
    }

    /// One turn: reads the inbox, polls what is ready, fires timers, and waits for at most `timeout` if there is
    /// nothing to do. True: there is more to do now, so turn again before waiting for the fd.
    ///
    /// A waker of the host, or a destructor, may turn the shard that runs it, but must not do so until something happens:
    /// the rest of the batch that woke it comes when it has returned.
    ///
    /// On a shard that has [stopped](HostedShard::is_stopped) there is never anything to do: it waits.
    pub fn turn(&self, timeout: Duration) -> bool {
        if self.stopped.get() {
            self.shard.reactor.poll(Some(timeout));
            return false;
        }
        self.shard.inbox().unparker().awake();
        self.resume();
        {
            let _pause = Pause(&self.shard);
            context::enter(&self.shard, || {
                // Of wakers that the sockets have woken, too: who knows when the host turns again.
                let _send = SendGathered(&self.shard);
                self.shard.turn(Some(timeout));
            });
        }
        // Not below a turn of the same shard, which one of its tasks may have asked for.
        if self.shard.is_stopped() && !self.shard.is_entered() {
            self.close();
            return false;
        }
        self.shard.has_work() || self.shard.is_stopped()
    }

    /// Whether it was asked to shut down and has done so. From then on no task runs, calls from elsewhere are refused,
    /// and nothing wakes the host.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// When to turn next even if the fd does not become readable: for a timer, or the deadline of a shutdown. None:
    /// only the fd matters.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.stopped.get() { None } else { self.shard.next_deadline() }
    }

    /// Before the host waits for the fd: says that the shard sleeps, so that other threads wake it through the fd.
    /// False: something has come in the meantime; turn instead of waiting. The next turn takes it back.
    pub fn prepare_to_wait(&self) -> bool {
        self.stopped.get() || self.shard.announce()
    }

    /// The shard runs again: what the host has done meanwhile was none of its time.
    fn resume(&self) {
        if !self.shard.is_entered() {
            self.shard.resumes();
        }
    }

    fn close(&self) {
        if !self.stopped.replace(true) {
            self.shard.close();
            self.shard.fleet().pool().close();
        }
    }
}

/// The host goes on: what it does is none of the shard's time.
struct Pause<'a>(&'a Shard);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if !self.0.is_entered() {
            self.0.rests(self.0.look_at_clock());
        }
    }
}

/// However it ends, what was written in it is sent.
struct SendGathered<'a>(&'a Shard);

impl Drop for SendGathered<'_> {
    fn drop(&mut self) {
        self.0.reactor.send_gathered();
    }
}

impl AsRawFd for HostedShard {
    /// The epoll instance: readable when a socket is ready or another thread has woken the shard.
    fn as_raw_fd(&self) -> RawFd {
        self.shard.reactor.fd()
    }
}

impl Drop for HostedShard {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for HostedShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostedShard").field("fd", &self.as_raw_fd()).finish()
    }
}
