//! What a shard knows of its tasks: the run queue and the list of all there are.
//!
//! Only the shard's own thread touches a [`Home`]. It never polls by itself: the turn asks for one task at a time.

#![allow(unsafe_code)]

use super::cell::{self, Header};
use super::list::{Chain, Links, List};
use super::memory::FreeList;
use super::waker;
use crate::id::TaskId;
use crate::mesh::inbox::Inbox;
use crate::sync::Arc;
use std::cell::Cell;
use std::future::Future;
use std::ptr::NonNull;

/// The tasks of one shard.
pub(crate) struct Home {
    inbox: Arc<Inbox>,
    ready: List<Ready>,
    /// Every task whose memory has not been freed.
    all: List<All>,
    memory: FreeList,
    next_id: Cell<u64>,
    /// The task being polled, or of which something is being dropped.
    current: Cell<Option<NonNull<Header>>>,
    /// A task without a home that this thread runs.
    guest: Cell<Option<TaskId>>,
    /// Tasks whose future has not ended.
    live: Cell<usize>,
    /// Tasks that the one being polled may still run in its own place.
    handovers: Cell<u32>,
    /// The first task of this turn that made itself ready while it was polled. Never followed: by now it may be gone.
    yielder: Cell<Option<NonNull<Header>>>,
    /// The shard is shutting down: what is spawned now is dropped at once.
    closing: Cell<bool>,
    /// The cells were left to the references that remain: this is nobody's home any more.
    closed: Cell<bool>,
    counts: Counts,
}

struct Ready;

impl Chain for Ready {
    #[inline(always)]
    fn links(header: &Header) -> &Links {
        &header.ready
    }
}

struct All;

impl Chain for All {
    #[inline(always)]
    fn links(header: &Header) -> &Links {
        &header.all
    }
}

/// What happened to tasks here, since the start.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) local_wakes: Cell<u64>,
    pub(crate) foreign_wakes: Cell<u64>,
    pub(crate) spawned: Cell<u64>,
    pub(crate) panics: Cell<u64>,
}

/// Adds to a counter that only its own thread touches.
#[inline(always)]
pub(crate) fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().wrapping_add(amount));
}

impl Home {
    /// The home whose foreign wakes arrive in `inbox`. Task ids start at `first_id`.
    pub(crate) fn new(inbox: Arc<Inbox>, first_id: u64) -> Home {
        Home {
            inbox,
            ready: List::new(),
            all: List::new(),
            memory: FreeList::new(),
            next_id: Cell::new(first_id),
            current: Cell::new(None),
            guest: Cell::new(None),
            live: Cell::new(0),
            handovers: Cell::new(0),
            yielder: Cell::new(None),
            closing: Cell::new(false),
            closed: Cell::new(false),
            counts: Counts::default(),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tasks whose future has not ended.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Tasks whose memory has not been freed.
    #[cfg(loom)]
    pub(crate) fn cells(&self) -> usize {
        // SAFETY: each is in the list.
        std::iter::successors(self.all.first(), |&task| unsafe { self.all.after(task) }).count()
    }

    /// A turn's polls begin: nobody has yielded yet.
    #[inline(always)]
    pub(crate) fn begin_turn(&self) {
        self.yielder.set(None);
    }

    /// Whether a task of this turn has made itself ready while it was polled, as one does that has more to do and lets others
    /// go first.
    #[inline(always)]
    pub(crate) fn has_yielded(&self) -> bool {
        self.yielder.get().is_some()
    }

    /// Whether the first that has yielded is the next to be polled: all others that were ready have been.
    #[inline(always)]
    pub(crate) fn is_round_over(&self) -> bool {
        self.has_yielded() && self.ready.first() == self.yielder.get()
    }

    /// Whether a task is ready to be polled.
    #[inline(always)]
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.first().is_some()
    }

    #[inline(always)]
    pub(super) fn owns(&self, header: &Header) -> bool {
        Arc::ptr_eq(&self.inbox, &header.inbox) && !self.closed.get()
    }

    /// An identity that no other task has.
    #[inline]
    pub(crate) fn fresh_id(&self) -> TaskId {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        TaskId(id)
    }

    /// The task whose code runs: its poll, or the drop of its future or output. None between those.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn current(&self) -> Option<TaskId> {
        // SAFETY: the cell lives for as long as it is polled, and `current` is set for no longer.
        self.current.get().map(|header| unsafe { header.as_ref() }.id()).or(self.guest.get())
    }

    /// Runs `f`, which is a poll of a task that has no home.
    pub(crate) fn as_guest(&self, task: TaskId, f: impl FnOnce()) {
        let outer = self.guest.replace(Some(task));
        f();
        self.guest.set(outer);
    }

    /// Runs `f`, in which the task's code may run: see [`current`](Self::current).
    #[inline(always)]
    pub(super) fn as_current<R>(&self, header: NonNull<Header>, f: impl FnOnce() -> R) -> R {
        let outer = self.current.replace(Some(header));
        let result = f();
        self.current.set(outer);
        result
    }

    /// Runs `f`, in which no task is run in another's place.
    pub(super) fn without_handovers<R>(&self, f: impl FnOnce() -> R) -> R {
        let left = self.replace_handovers(0);
        let result = f();
        self.replace_handovers(left);
        result
    }

    /// Sets how many tasks may still run in the place of the one being polled; returns what it was.
    pub(super) fn replace_handovers(&self, handovers: u32) -> u32 {
        self.handovers.replace(handovers)
    }

    /// Puts a new task on the run queue. The caller owns the one reference, which becomes a JoinHandle.
    #[inline]
    pub(super) fn spawn<F: Future + 'static>(&self, future: F) -> NonNull<Header> {
        self.spawn_as(future, self.fresh_id())
    }

    /// [`spawn`](Self::spawn), under an identity that came from a [`fresh_id`](Self::fresh_id), perhaps elsewhere.
    #[inline]
    pub(super) fn spawn_as<F: Future + 'static>(&self, future: F, id: TaskId) -> NonNull<Header> {
        let header = cell::allocate(future, id, &self.inbox, &self.memory);
        if self.closing.get() {
            self.refuse(header);
        } else {
            self.admit(header);
        }
        header
    }

    /// A task that has just been made.
    #[inline(always)]
    fn admit(&self, header: NonNull<Header>) {
        // SAFETY: the cell has just been made. It leaves the run queue when it is polled, and the other list when it is
        // freed, or given up by `close`.
        unsafe {
            self.all.push_back(header);
            self.ready.push_back(header);
        }
        self.live.set(self.live.get() + 1);
        add(&self.counts.spawned, 1);
    }

    /// A task that has just been made, and too late: the shard is closing.
    #[cold]
    fn refuse(&self, header: NonNull<Header>) {
        if self.closed.get() {
            // SAFETY: the cell belongs to the caller's reference alone from here on.
            unsafe {
                cell::cancel(header, self);
                cell::orphan(header, self);
            }
        } else {
            self.admit(header);
            // SAFETY: the caller's reference keeps the cell.
            unsafe { self.end_now(header) };
        }
    }

    /// Marks the task ready, unless it is or has ended.
    #[inline]
    pub(super) fn schedule(&self, header: NonNull<Header>) {
        // SAFETY: the caller holds a reference; this is the task's home.
        if unsafe { self.make_ready(header) } {
            add(&self.counts.local_wakes, 1);
        }
    }

    /// Puts the task on the run queue. False: it is there, or has ended.
    ///
    /// # Safety
    /// The cell is alive, and this is its home.
    #[inline(always)]
    unsafe fn make_ready(&self, header: NonNull<Header>) -> bool {
        // SAFETY: by contract. A cell that is marked ready is in the queue, and is not freed while it is.
        unsafe {
            let task = header.as_ref();
            let marked = task.mark_ready();
            if marked {
                self.ready.push_back(header);
                if task.is_running() && !self.has_yielded() {
                    self.yielder.set(Some(header));
                }
            }
            marked
        }
    }

    /// A task that came off the run queue, and need not or must not be polled: it has ended, or is being polled further up on
    /// this stack and must not get another poll before that one is over. Counts as a poll.
    #[cold]
    fn refuse_poll(&self, header: NonNull<Header>) -> u32 {
        // SAFETY: this is the task's home, which has just taken it off the queue; it is not freed while it is ready.
        let task = unsafe { header.as_ref() };
        if !task.is_ended() {
            // SAFETY: as above.
            unsafe { self.ready.push_back(header) };
            panic!(
                "task {} took a turn of its own shard, in which it would be polled again",
                task.id()
            );
        }
        task.leave_queue();
        self.free_if_unused(header);
        1
    }

    #[inline(always)]
    #[must_use = "an overflowing count must abort"]
    pub(super) fn clone_reference(&self, task: &Header) -> bool {
        let references = task.references.get();
        task.references.set(references + 1);
        references < i64::MAX / 2
    }

    #[inline]
    pub(super) fn drop_reference(&self, header: NonNull<Header>) {
        // SAFETY: the caller holds the reference that it gives up here; this is the task's home.
        let task = unsafe { header.as_ref() };
        task.references.set(task.references.get() - 1);
        self.free_if_unused(header);
    }

    /// Polls the task that has been ready longest, which may run up to `handovers` others in its own place. Returns how
    /// many polls that were; 0: no task is ready.
    #[inline]
    pub(crate) fn poll_next(&self, handovers: u32) -> u32 {
        let Some(header) = self.ready.pop_front() else { return 0 };
        // SAFETY: as below.
        if unsafe { header.as_ref() }.is_running_or_ended() {
            return self.refuse_poll(header);
        }
        // A host's loop may be inside a task of its own: what is left of the outer poll's share is put back.
        let outer = self.handovers.replace(handovers);
        // SAFETY: a ready task is not freed (see `free_if_unused`), and this is its home.
        let ended = self.as_current(header, || unsafe { cell::poll(header, self) });
        if ended {
            self.live.set(self.live.get() - 1);
        }
        self.free_if_unused(header);
        1 + handovers - self.handovers.replace(outer)
    }

    /// Takes a task out of the run queue and polls it now, on behalf of the one that awaits it, if that may still do so.
    /// Not within another such poll, so that awaits do not pile up on the stack.
    ///
    /// # Safety
    /// The caller holds a reference; the task is in the run queue and does not run. `poll` says whether it has ended.
    #[inline(always)]
    pub(super) unsafe fn poll_in_place(
        &self,
        header: NonNull<Header>,
        poll: impl FnOnce() -> bool,
    ) {
        let left = self.handovers.get();
        if left == 0 {
            return;
        }
        self.handovers.set(0);
        // SAFETY: by contract.
        unsafe { self.ready.remove(header) };
        if self.as_current(header, poll) {
            self.live.set(self.live.get() - 1);
        }
        self.handovers.set(left - 1);
    }

    /// Handles the wakes and other requests that came from elsewhere. Returns how many tasks were in the stack.
    pub(crate) fn take_foreign(&self) -> usize {
        if self.inbox.wakes.is_empty() {
            return 0;
        }
        self.follow_requests(self.inbox.wakes.take())
    }

    fn follow_requests(&self, queued: waker::Queued) -> usize {
        let mut taken = 0;
        for header in queued {
            taken += 1;
            // SAFETY: QUEUED keeps the cell alive until its requests are taken; then `schedule` or the references do,
            // and `free_if_unused` is the last to look at it.
            let task = unsafe { header.as_ref() };
            let requests = task.word.take_requests();
            // A reference of our own: an output that is dropped here may hold the last of the others.
            task.references.set(task.references.get() + 1);
            if requests.detach {
                // SAFETY: this is the task's home.
                unsafe { cell::detach(header, self) };
            }
            if requests.abort {
                task.cancel();
            }
            if requests.abort || requests.wake {
                if requests.wake {
                    add(&self.counts.foreign_wakes, 1);
                }
                // SAFETY: the reference of our own.
                let _: bool = unsafe { self.make_ready(header) };
            }
            task.references.set(task.references.get() - 1 + requests.references);
            self.free_if_unused(header);
        }
        taken
    }

    /// Frees the cell if its future has ended, it is in no queue, and no reference to it exists anywhere.
    #[inline]
    fn free_if_unused(&self, header: NonNull<Header>) {
        // SAFETY: the caller has just used the cell, which nobody but the home frees while the home is there.
        if unsafe { header.as_ref() }.references.get() <= 0 {
            self.free_if_nobodys(header);
        }
    }

    fn free_if_nobodys(&self, header: NonNull<Header>) {
        // SAFETY: as above.
        let task = unsafe { header.as_ref() };
        let (owed, queued) = task.word.take_count();
        let references = task.references.get() + owed;
        task.references.set(references);
        if references == 0 && task.is_idle_and_ended() && !queued {
            // SAFETY: no reference, no queue entry, and the future is gone.
            unsafe {
                self.all.remove(header);
                cell::free(header, &self.memory);
            }
        }
    }

    /// Drops the future of every task, here and now. A task spawned from now on is cancelled at once.
    pub(crate) fn cancel_all(&self) {
        self.closing.set(true);
        let mut cursor = self.all.first();
        while let Some(header) = cursor {
            // SAFETY: the list holds cells that are not freed. A reference of our own keeps this one there while its future
            // is dropped, and user code in that drop changes the list around it.
            unsafe {
                let task = header.as_ref();
                task.references.set(task.references.get() + 1);
                self.end_now(header);
                cursor = self.all.after(header);
                self.drop_reference(header);
            }
        }
        while self.poll_next(0) > 0 {}
    }

    /// Drops every output that nobody has taken, here and now. `cancel_all` came before: nobody here will.
    pub(crate) fn drop_outputs(&self) {
        let mut cursor = self.all.first();
        while let Some(header) = cursor {
            // SAFETY: as in `cancel_all`: user code in the drop changes the list around a cell that is kept.
            unsafe {
                let task = header.as_ref();
                task.references.set(task.references.get() + 1);
                cell::detach(header, self);
                cursor = self.all.after(header);
                self.drop_reference(header);
            }
        }
    }

    /// # Safety
    /// The cell is alive, and this is its home.
    unsafe fn end_now(&self, header: NonNull<Header>) {
        // SAFETY: by contract; a task that is being polled is only marked, and ends when its poll returns.
        unsafe {
            let task = header.as_ref();
            if task.is_running() {
                task.cancel();
            } else if !task.is_ended() {
                self.as_current(header, || cell::cancel(header, self));
                self.live.set(self.live.get() - 1);
            }
        }
        self.free_if_unused(header);
    }

    /// The end: takes the last requests, and leaves the memory of tasks that are still referred to from elsewhere to
    /// the last of those references. `cancel_all` came before.
    pub(crate) fn close(&self) {
        let last = self.inbox.wakes.close();
        self.follow_requests(last);
        while self.poll_next(0) > 0 {}
        self.closing.set(true);
        self.closed.set(true);
        while let Some(header) = self.all.first() {
            // SAFETY: it is in the list. This is the cells' home; none is polled again.
            unsafe {
                self.all.remove(header);
                cell::orphan(header, self);
            }
        }
    }
}

impl Drop for Home {
    /// A home that was never closed (its shard's end panicked) has tasks that borrow its inbox and that others may still
    /// refer to. Both are leaked.
    fn drop(&mut self) {
        if !self.closed.get() && self.all.first().is_some() {
            std::mem::forget(self.inbox.clone());
        }
    }
}
