//! The tasks of a pool that are ready: a deque for each worker, which others may steal from, and one queue for everybody.
//!
//! A worker takes the oldest from its deque, so that no task waits for younger ones, but before that what its last task has
//! woken: that finds its data still in the cache. This *last-in slot* may be used a few times in a row and no more, so two
//! tasks that wake each other cannot starve the rest. Others leave it alone unless the same task has stayed there for a
//! while: then its worker is held up, and the task is [rescued](Queues::rescue).
//!
//! The deques grow. There is no second, slower place for tasks that do not fit, and no jump in the latency where it begins.

use crate::sync::{Injector, Mutex, Steal, Stealer, Worker as Deque, lock};
use std::cell::Cell;

/// Times in a row that a worker takes from its last-in slot before it looks at its deque.
pub(crate) const LAST_IN_STREAK: u32 = 3;

/// The queues of all workers. `T` is a task in a queue.
pub(crate) struct Queues<T> {
    injector: Injector<T>,
    ends: Box<[End<T>]>,
}

/// What others may reach of one worker's queue.
struct End<T> {
    stealer: Stealer<T>,
    last_in: Mutex<LastIn<T>>,
}

struct LastIn<T> {
    task: Option<T>,
    /// Tasks that have been put there so far.
    puts: u64,
}

/// What was seen of the last-in slots at the last attempt to rescue, by worker.
#[derive(Default)]
pub(crate) struct Seen(Vec<Option<u64>>);

/// A worker's own side of its queue.
pub(crate) struct Local<T> {
    deque: Deque<T>,
    index: usize,
    streak: Cell<u32>,
}

impl<T> Queues<T> {
    pub(crate) fn new(workers: usize) -> (Queues<T>, Vec<Local<T>>) {
        let locals: Vec<Local<T>> = (0..workers)
            .map(|index| Local { deque: Deque::new_fifo(), index, streak: Cell::new(0) })
            .collect();
        let end = |local: &Local<T>| End {
            stealer: local.deque.stealer(),
            last_in: Mutex::new(LastIn { task: None, puts: 0 }),
        };
        let ends = locals.iter().map(end).collect();
        (Queues { injector: Injector::new(), ends }, locals)
    }

    /// A task for whichever worker comes first.
    pub(crate) fn inject(&self, task: T) {
        self.injector.push(task);
    }

    /// The oldest of those for everybody, and some more for the worker's deque.
    pub(crate) fn take_injected(&self, local: &Local<T>) -> Option<T> {
        settled(|| self.injector.steal_batch_and_pop(&local.deque))
    }

    /// Takes from the others: about half of what the first has that has something. `start` is the worker to begin with.
    pub(crate) fn steal(&self, local: &Local<T>, start: usize) -> Option<T> {
        if let Some(task) = self.take_injected(local) {
            return Some(task);
        }
        let count = self.ends.len();
        (0..count)
            .map(|step| (start + step) % count)
            .filter(|&index| index != local.index)
            .find_map(|index| {
                settled(|| self.ends[index].stealer.steal_batch_and_pop(&local.deque))
            })
    }

    /// A task that has been in another worker's last-in slot since the last call. To be called now and then.
    /// One's own counts as well: it would be run next.
    pub(crate) fn rescue(&self, seen: &mut Seen) -> Option<T> {
        seen.0.resize(self.ends.len(), None);
        for (end, seen) in self.ends.iter().zip(&mut seen.0) {
            let mut slot = lock(&end.last_in);
            let now = slot.task.as_ref().map(|_| slot.puts);
            if now.is_some() && *seen == now {
                *seen = None;
                return slot.task.take();
            }
            *seen = now;
        }
        None
    }

    /// Whether anything is ready that any worker may take.
    pub(crate) fn has_any(&self) -> bool {
        !self.injector.is_empty() || self.ends.iter().any(|end| !end.stealer.is_empty())
    }

    /// Everything there is, at the end.
    pub(crate) fn drain(&self) -> impl Iterator<Item = T> + '_ {
        let injected = std::iter::from_fn(|| settled(|| self.injector.steal()));
        let owned = self.ends.iter().flat_map(|end| {
            let last_in = lock(&end.last_in).task.take();
            last_in.into_iter().chain(std::iter::from_fn(|| settled(|| end.stealer.steal())))
        });
        injected.chain(owned)
    }
}

impl<T> Local<T> {
    /// Behind everything else of this worker.
    pub(crate) fn push(&self, task: T) {
        self.deque.push(task);
    }

    /// Before everything else of this worker. True: another had this place, which is now behind.
    pub(crate) fn push_last_in(&self, queues: &Queues<T>, task: T) -> bool {
        let before = {
            let mut slot = lock(&queues.ends[self.index].last_in);
            slot.puts += 1;
            slot.task.replace(task)
        };
        match before {
            Some(before) => {
                self.deque.push(before);
                true
            }
            None => false,
        }
    }

    /// The next task of this worker.
    pub(crate) fn pop(&self, queues: &Queues<T>) -> Option<T> {
        let streak = self.streak.get();
        if streak < LAST_IN_STREAK || self.deque.is_empty() {
            let last_in = lock(&queues.ends[self.index].last_in).task.take();
            if last_in.is_some() {
                self.streak.set(streak + 1);
                return last_in;
            }
        }
        self.streak.set(0);
        self.deque.pop()
    }

    /// Whether this worker has something to do.
    pub(crate) fn has_any(&self, queues: &Queues<T>) -> bool {
        !self.deque.is_empty() || lock(&queues.ends[self.index].last_in).task.is_some()
    }

    /// Tasks that others may steal.
    pub(crate) fn len(&self) -> usize {
        self.deque.len()
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

/// A steal that was disturbed is tried again: somebody else got on meanwhile.
fn settled<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
