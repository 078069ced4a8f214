//! Who of a pool's workers sleeps, who searches, and how a new task finds one of them.
//!
//! ```text
//! pusher:  push; fence; if nobody searches and somebody sleeps: make one of the sleepers the searcher, and wake it
//! worker:  searches, in vain, unless somebody else does; joins the sleepers and is no searcher any more; fence;
//!          sleeps, unless there is something in a queue and nobody else searches
//! ```
//!
//! One searcher at a time: it wakes the next when it has found something, so a burst of tasks wakes as many workers as it
//! needs, one after the other, and a trickle does not wake all of them for each task. The fences are partners: either the
//! worker's last look sees the task, or the pusher (or the searcher, when it has found something and looks whether there is
//! more) sees that nobody searches and that somebody sleeps.
//!
//! The fence of the worker is that of [`Unparker::announce`](crate::park::Unparker::announce), which it calls in between.
//!
//! While somebody works and others sleep, one of the sleepers is the *guard*, who wakes now and then to see whether the one
//! that works is held up. The same fences see to it that there is one:
//!
//! ```text
//! works:   was awake before; fence; if nobody guards and somebody sleeps: wakes one of the sleepers
//! sleeps:  is the guard if somebody works and nobody guards; joins the sleepers; fence; sleeps, if it guards, or somebody
//!          else does, or all sleep
//! ```

use crate::sync::{AtomicBool, AtomicU32, CachePadded, Mutex, Ordering, fence, lock};

/// See the module.
pub(crate) struct Idle {
    searching: CachePadded<AtomicBool>,
    /// How many sleep; written under the lock.
    count: AtomicU32,
    sleepers: Mutex<Vec<usize>>,
    guarded: AtomicBool,
}

impl Idle {
    pub(crate) fn new() -> Idle {
        Idle {
            searching: CachePadded::new(AtomicBool::new(false)),
            count: AtomicU32::new(0),
            sleepers: Mutex::new(Vec::new()),
            guarded: AtomicBool::new(false),
        }
    }

    /// After a push: the worker that must be woken. It searches from now on.
    pub(crate) fn notify(&self) -> Option<usize> {
        // Partner: the fence between `sleep` and the worker's last look.
        fence(Ordering::SeqCst);
        if self.searching.load(Ordering::Relaxed) || self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut sleepers = lock(&self.sleepers);
        if sleepers.is_empty() || self.searching.swap(true, Ordering::Relaxed) {
            return None;
        }
        let woken = sleepers.pop();
        self.count.store(sleepers.len() as u32, Ordering::Relaxed);
        woken
    }

    /// A worker has nothing to do. True: it is the searcher now.
    #[must_use]
    pub(crate) fn search(&self) -> bool {
        !self.searching.load(Ordering::Relaxed) && !self.searching.swap(true, Ordering::Relaxed)
    }

    /// Whether the worker is still among the sleepers. If not, it was named the searcher, and who named it may have come
    /// before the announcement and not have rung. Asked between the announcement and the sleep.
    pub(crate) fn sleeps(&self, worker: usize) -> bool {
        lock(&self.sleepers).contains(&worker)
    }

    /// Whether another worker searches, so that this one may sleep though there is something in a queue: the other will look
    /// at every queue before it sleeps, and tell the sleepers of what is left. Asked between the announcement and the sleep.
    pub(crate) fn another_searches(&self, worker: usize) -> bool {
        // If this worker is not among the sleepers any more, it is the one that is to search.
        self.searching.load(Ordering::Relaxed) && lock(&self.sleepers).contains(&worker)
    }

    /// The searcher has found something. It looks whether there is more, and if so, calls `notify`: who pushed until now
    /// has relied on it.
    pub(crate) fn found(&self) {
        self.searching.store(false, Ordering::Relaxed);
        // Partner: the fence in `notify`.
        fence(Ordering::SeqCst);
    }

    /// A worker is about to sleep, and if it was the `searcher`, is so no more. It looks at every queue after a fence.
    pub(crate) fn sleep(&self, worker: usize, searcher: bool) {
        let mut sleepers = lock(&self.sleepers);
        sleepers.push(worker);
        self.count.store(sleepers.len() as u32, Ordering::Relaxed);
        drop(sleepers);
        if searcher {
            self.searching.store(false, Ordering::Relaxed);
        }
    }

    /// A worker out of `workers` is about to sleep. True: somebody works and nobody guards, and it is the guard now.
    #[must_use]
    pub(crate) fn take_guard(&self, workers: usize) -> bool {
        let others_sleep = self.count.load(Ordering::Relaxed) as usize + 1 >= workers;
        !others_sleep && !self.guarded.swap(true, Ordering::Relaxed)
    }

    /// The guard is awake.
    pub(crate) fn leave_guard(&self) {
        self.guarded.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded.load(Ordering::Relaxed)
    }

    /// Whether one of `workers` may sleep without being the guard: another is, or there is nobody to look after. Asked
    /// between the announcement and the sleep; whoever begins to work later will see this one among the sleepers.
    pub(crate) fn needs_no_guard(&self, workers: usize) -> bool {
        self.is_guarded() || lock(&self.sleepers).len() >= workers
    }

    /// A worker is awake. True: somebody has made it the searcher.
    #[must_use]
    pub(crate) fn wake(&self, worker: usize) -> bool {
        let mut sleepers = lock(&self.sleepers);
        let place = sleepers.iter().position(|&sleeper| sleeper == worker);
        if let Some(place) = place {
            sleepers.remove(place);
            self.count.store(sleepers.len() as u32, Ordering::Relaxed);
        }
        place.is_none()
    }
}
