//! The allocation of a task: header, future or output, and who waits for it.
//!
//! The home alone touches everything here but the header's `word`, `next`, `inbox` and `vtable`. The future is
//! polled and dropped by [`poll`] and [`cancel`], which only [`Home`] calls; memory is freed once, at home by [`free`]
//! or, if the home is gone, by [`free_orphan`] wherever the last reference was. User code (a future's poll or drop, an output's drop, a waker) may panic anywhere:
//! each such place is caught, so the shard goes on.

#![allow(unsafe_code)]

use super::failure::{JoinError, drop_caught, forget_panic};
use super::home::{Home, add};
use super::list::Links;
use super::memory::{FreeList, KEPT_MAX, UNIT};
use super::state::{Next, Word};
use super::waker;
use crate::id::TaskId;
use crate::mesh::call::Reply;
use crate::mesh::inbox::Inbox;
use crate::sync::{Arc, AtomicBool, AtomicPtr, Cell, Ordering, UnsafeCell, dealloc};
use std::alloc::Layout;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, Waker};

/// In the run queue.
const READY: u8 = 1 << 0;
/// Being polled.
const RUNNING: u8 = 1 << 1;
/// The future is gone.
const ENDED: u8 = 1 << 2;
/// To be dropped instead of polled.
const CANCELLED: u8 = 1 << 3;
/// The join handle is gone: nobody will ask for the output.
const DETACHED: u8 = 1 << 4;
/// The home is gone: the cell owns its reference to the inbox.
const ORPHANED: u8 = 1 << 5;
/// The output is there to be taken. Without it nobody looks at the stage, in which user code may be running.
const OUTPUT: u8 = 1 << 6;

/// What every task begins with.
#[repr(C)]
pub(crate) struct Header {
    /// The only field that both sides write.
    pub(super) word: Word,
    /// The link in a wake stack; belongs to whoever set QUEUED, then to the home.
    pub(super) next: AtomicPtr<Header>,
    vtable: &'static Vtable,
    /// Names the home, and is the way there. Borrowed from the home, which outlives the cell or leaves it a reference of
    /// its own (ORPHANED): the two atomic operations of a counted reference would be a fifth of a spawn.
    pub(super) inbox: ManuallyDrop<Arc<Inbox>>,
    /// References made and dropped at home. See [`super::state`].
    pub(super) references: Cell<i64>,
    flags: Cell<u8>,
    /// Whether the task has ended, for those who ask from elsewhere. Not in the word, because the home sets it at every
    /// task's end and a plain store is all it needs.
    finished: AtomicBool,
    id: TaskId,
    /// Its places in the home's lists.
    pub(super) ready: Links,
    pub(super) all: Links,
}

/// The operations that need to know the future's type.
struct Vtable {
    poll: unsafe fn(NonNull<Header>, &Home) -> bool,
    cancel: unsafe fn(NonNull<Header>, &Home),
    join: unsafe fn(NonNull<Header>, &Waker, *mut ()),
    forward: unsafe fn(NonNull<Header>, *const ()),
    detach: unsafe fn(NonNull<Header>, &Home),
    /// Drops the output that nobody has taken; the memory stays.
    drop_output: unsafe fn(NonNull<Header>),
    layout: Layout,
}

#[repr(C)]
struct Allocation<F: Future> {
    header: Header,
    joiner: UnsafeCell<Joiner<F::Output>>,
    stage: UnsafeCell<Stage<F>>,
}

enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Empty,
}

/// Who waits for the output.
enum Joiner<T> {
    Nobody,
    /// A task on this shard, or anything else that polls the handle here.
    Here(Waker),
    /// A handle on another thread: the output is sent there.
    Elsewhere(Arc<Reply<T>>),
}

impl Header {
    pub(super) fn id(&self) -> TaskId {
        self.id
    }

    /// Whether the task has ended, seen from anywhere.
    pub(super) fn is_finished(&self) -> bool {
        // Acquire, partner: the store in `end`.
        self.finished.load(Ordering::Acquire)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    fn set(&self, flag: u8) {
        self.flags.set(self.flags.get() | flag);
    }

    fn clear(&self, flag: u8) {
        self.flags.set(self.flags.get() & !flag);
    }

    /// True: the caller must put the task on the run queue.
    #[inline(always)]
    #[must_use]
    pub(super) fn mark_ready(&self) -> bool {
        let wanted = self.flags.get() & (READY | ENDED) == 0;
        if wanted {
            self.set(READY);
        }
        wanted
    }

    /// From now on the task is dropped when its turn comes, not polled.
    pub(super) fn cancel(&self) {
        self.set(CANCELLED);
    }

    /// In the run queue, and nothing else about it.
    fn is_only_ready(&self) -> bool {
        self.flags.get() == READY
    }

    #[inline(always)]
    pub(super) fn is_running_or_ended(&self) -> bool {
        self.flags.get() & (ENDED | RUNNING) != 0
    }

    /// The task is in the run queue no more.
    pub(super) fn leave_queue(&self) {
        self.clear(READY);
    }

    pub(super) fn is_running(&self) -> bool {
        self.has(RUNNING)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.has(ENDED)
    }

    /// Ended, and what the future's drop may still want to do is done: the output is there, or will never be.
    pub(super) fn is_over(&self) -> bool {
        self.has(ENDED) && (self.has(OUTPUT) || !self.has(RUNNING))
    }

    #[inline(always)]
    pub(super) fn is_idle_and_ended(&self) -> bool {
        self.flags.get() & (READY | RUNNING | ENDED) == ENDED
    }
}

/// Makes a task that is ready, with one reference, which the caller owns. `inbox` must be the home's, which keeps it
/// until it has orphaned the cell.
pub(super) fn allocate<F: Future + 'static>(
    future: F,
    id: TaskId,
    inbox: &Arc<Inbox>,
    memory: &FreeList,
) -> NonNull<Header> {
    let block = memory.take(Allocation::<F>::LAYOUT).cast::<Allocation<F>>();
    // Only now that it is known where: it is made there, not moved there.
    let allocation = Allocation {
        header: Header {
            word: Word::new(),
            next: AtomicPtr::new(ptr::null_mut()),
            vtable: &Allocation::<F>::VTABLE,
            // SAFETY: a copy that is never dropped (unless a count was added for it, see `orphan`), of a reference that
            // outlives it.
            inbox: ManuallyDrop::new(unsafe { ptr::read(inbox) }),
            references: Cell::new(1),
            flags: Cell::new(READY),
            finished: AtomicBool::new(false),
            id,
            ready: Links::new(),
            all: Links::new(),
        },
        joiner: UnsafeCell::new(Joiner::Nobody),
        stage: UnsafeCell::new(Stage::Future(future)),
    };
    // SAFETY: the block has the layout of `Allocation<F>`, or is larger, and is nobody's. Header is the first field of
    // a repr(C) struct.
    unsafe { block.write(allocation) };
    block.cast()
}

/// Polls a task that came off the run queue, or drops its future if it was cancelled. True: the task has now ended.
///
/// # Safety
/// The caller is the task's home, and the cell is alive; it neither runs nor has ended.
#[inline]
pub(super) unsafe fn poll(header: NonNull<Header>, home: &Home) -> bool {
    // SAFETY: by contract.
    let task = unsafe { header.as_ref() };
    task.clear(READY);
    // SAFETY: the vtable was made for this allocation's type; the contract is passed on.
    unsafe { (task.vtable.poll)(header, home) }
}

/// Drops the future of a task that has not ended.
///
/// # Safety
/// The caller is the task's home, the cell is alive and not running.
pub(super) unsafe fn cancel(header: NonNull<Header>, home: &Home) {
    // SAFETY: as in `poll`.
    unsafe { (header.as_ref().vtable.cancel)(header, home) }
}

/// Takes the output for a join handle, or leaves its waker.
///
/// # Safety
/// The caller is at the task's home, holds the join handle's reference, and `T` is the output type of the task.
#[inline]
pub(super) unsafe fn join<T>(
    header: NonNull<Header>,
    waker: &Waker,
    home: &Home,
) -> Poll<Result<T, JoinError>> {
    let mut result = Poll::Pending;
    // A task that is ready and awaited by another runs at once, in the other's place: the other would only make room for it.
    // SAFETY: as in `poll`; the handle's reference keeps the cell, which is in the queue, as READY says. `result` has the type
    // that the vtable's function writes.
    unsafe {
        if header.as_ref().is_only_ready() {
            home.poll_in_place(header, || poll(header, home));
        }
        (header.as_ref().vtable.join)(header, waker, (&raw mut result).cast());
    }
    result
}

/// Sends the output, now or when there is one, to `reply`.
///
/// # Safety
/// As [`join`].
pub(super) unsafe fn forward<T>(header: NonNull<Header>, reply: Arc<Reply<T>>) {
    // SAFETY: as in `poll`; the vtable's function takes the Arc back with the same `T`.
    unsafe { (header.as_ref().vtable.forward)(header, Arc::into_raw(reply).cast()) }
}

/// The join handle is gone.
///
/// # Safety
/// The caller is the task's home, and the cell is alive.
pub(super) unsafe fn detach(header: NonNull<Header>, home: &Home) {
    // SAFETY: as in `poll`.
    unsafe { (header.as_ref().vtable.detach)(header, home) }
}

/// Drops the output, if there is one, and leaves the memory to the references that remain elsewhere, or frees it.
///
/// # Safety
/// The caller is the task's home and does not use the cell again; the future is gone.
pub(super) unsafe fn orphan(header: NonNull<Header>, home: &Home) {
    // SAFETY: the home holds the cell until `orphan` has counted its references into the word. The reference to the
    // inbox that is forgotten here belongs to the cell from now on.
    unsafe {
        detach(header, home);
        let task = header.as_ref();
        std::mem::forget(Arc::clone(&task.inbox));
        task.set(ORPHANED);
        if task.word.orphan(task.references.get()) == Next::Free {
            free_orphan(header);
        }
    }
}

/// Frees an orphan, on whatever thread had the last reference.
///
/// # Safety
/// Nobody else refers to the cell, which `orphan` has given up.
pub(super) unsafe fn free_orphan(header: NonNull<Header>) {
    // SAFETY: by contract; ORPHANED cells own a reference to the inbox.
    unsafe {
        let inbox = ptr::read(&raw const (*header.as_ptr()).inbox);
        let layout = clear(header);
        dealloc(header.as_ptr().cast(), layout);
        drop(ManuallyDrop::into_inner(inbox));
    }
}

/// Frees a cell at home: its memory is kept for the next task.
///
/// # Safety
/// Nobody else refers to the cell, the future is gone, and the caller is its home.
#[inline]
pub(super) unsafe fn free(header: NonNull<Header>, memory: &FreeList) {
    // SAFETY: by contract; the block came from `FreeList::take` with this layout. It is cleared before the memory is
    // borrowed: an output that nobody has taken is dropped then, and may come back here.
    unsafe {
        let layout = clear(header);
        memory.keep(header.cast(), layout);
    }
}

/// Drops what is left in a cell; returns the layout of its memory.
///
/// # Safety
/// As [`free`] or [`free_orphan`].
#[inline]
unsafe fn clear(header: NonNull<Header>) -> Layout {
    // SAFETY: by contract; the vtable was made for this allocation's type.
    unsafe {
        let task = header.as_ref();
        let vtable = task.vtable;
        // The future is gone, and with it whoever waited.
        if task.has(OUTPUT) {
            (vtable.drop_output)(header);
        }
        // Nothing to do but in a model, which notices if anybody still uses it.
        ptr::drop_in_place(header.as_ptr());
        vtable.layout
    }
}

/// For models that do what they should not: touches the task of a waker.
///
/// # Safety
/// `waker` is the data of a task's waker whose memory is still there.
#[cfg(loom)]
pub(crate) unsafe fn touch(waker: *const ()) {
    // SAFETY: by contract; a waker's data is its task's header.
    unsafe { (*waker.cast::<Header>()).finished.load(Ordering::Relaxed) };
}

/// Completes a reply, whose waker may panic, and so may the output's drop if nobody asks for it any more.
fn answer<T>(reply: Arc<Reply<T>>, result: Result<T, JoinError>) -> bool {
    catch_unwind(AssertUnwindSafe(move || reply.complete_and_tell(result)))
        .map_err(forget_panic)
        .unwrap_or(false)
}

impl<F: Future + 'static> Allocation<F> {
    const VTABLE: Vtable = Vtable {
        poll: Self::poll,
        cancel: Self::cancel,
        join: Self::join,
        forward: Self::forward,
        detach: Self::detach,
        drop_output: Self::drop_output,
        layout: Self::LAYOUT,
    };

    /// Whole units. A larger alignment than a unit's is a size of its own, which is never kept.
    const LAYOUT: Layout = {
        let size = size_of::<Self>().div_ceil(UNIT) * UNIT;
        let align = if align_of::<Self>() > UNIT { align_of::<Self>() } else { UNIT };
        let size = if align > UNIT && size <= KEPT_MAX { KEPT_MAX + UNIT } else { size };
        match Layout::from_size_align(size, align) {
            Ok(layout) => layout,
            Err(_) => panic!("a future of this size cannot be"),
        }
    };

    /// # Safety
    /// `header` is alive and was allocated as `Allocation<F>`.
    unsafe fn of<'a>(header: NonNull<Header>) -> &'a Self {
        // SAFETY: by contract; the header is the first field.
        unsafe { header.cast::<Self>().as_ref() }
    }

    unsafe fn poll(header: NonNull<Header>, home: &Home) -> bool {
        // SAFETY: the caller keeps the contract of `super::poll`.
        let this = unsafe { Self::of(header) };
        if this.header.has(CANCELLED) {
            // SAFETY: as above; it does not run.
            unsafe { Self::cancel(header, home) };
            return true;
        }
        this.header.set(RUNNING);
        let waker = waker::borrowed(header);
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // Only the home reaches the stage, and RUNNING tasks are not polled again.
            // SAFETY: as the line above says, nobody else refers to it.
            this.stage.with_mut(|stage| match unsafe { &mut *stage } {
                // SAFETY: the future does not move between its first poll and its drop, which is in place.
                Stage::Future(future) => unsafe { Pin::new_unchecked(future) }.poll(&mut context),
                _ => Poll::Pending,
            })
        }));
        let result = match polled {
            Ok(Poll::Pending) if this.header.has(CANCELLED) => {
                Err(JoinError::cancelled(this.header.id))
            }
            Ok(Poll::Pending) => {
                this.header.clear(RUNNING);
                return false;
            }
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => {
                add(&home.counts().panics, 1);
                Err(JoinError::panicked(this.header.id, payload))
            }
        };
        this.end(result, home);
        true
    }

    #[cold]
    unsafe fn cancel(header: NonNull<Header>, home: &Home) {
        // SAFETY: the caller keeps the contract of `super::cancel`.
        let this = unsafe { Self::of(header) };
        this.header.set(CANCELLED);
        this.end(Err(JoinError::cancelled(this.header.id)), home);
    }

    /// Drops the future, puts the result in its place, and tells whoever waits.
    #[inline(always)]
    fn end(&self, result: Result<F::Output, JoinError>, home: &Home) {
        self.header.set(RUNNING | ENDED);
        let mut calm = self.drop_future();
        // Release, partner: the load in `is_finished`.
        self.header.finished.store(true, Ordering::Release);
        // SAFETY: only the home reaches the joiner, and no reference into it is held across user code.
        let joiner = self.joiner.with_mut(|joiner| unsafe { ptr::replace(joiner, Joiner::Nobody) });
        match joiner {
            _ if self.header.has(DETACHED) => calm &= drop_caught(result),
            Joiner::Elsewhere(reply) => calm &= answer(reply, result),
            Joiner::Nobody => self.keep_output(result),
            Joiner::Here(waker) => {
                self.keep_output(result);
                calm &= waker::wake_caught(waker);
            }
        }
        if !calm {
            add(&home.counts().panics, 1);
        }
        self.header.clear(RUNNING);
    }

    /// Drops the future in place. False: the drop panicked.
    #[inline(always)]
    fn drop_future(&self) -> bool {
        // SAFETY: only the home reaches the stage, and the flags say ENDED and not OUTPUT, so user code that runs in the
        // drop cannot get to it. The drop is in place, as a pinned future asks for; whether it panics or not, the stage is
        // overwritten without being dropped again.
        let drop_it = || self.stage.with_mut(|stage| unsafe { ptr::drop_in_place(stage) });
        let calm = !std::mem::needs_drop::<F>()
            || catch_unwind(AssertUnwindSafe(drop_it)).map_err(forget_panic).is_ok();
        // SAFETY: as above.
        self.stage.with_mut(|stage| unsafe { stage.write(Stage::Empty) });
        calm
    }

    /// Puts the output where the future was.
    #[inline]
    fn keep_output(&self, result: Result<F::Output, JoinError>) {
        self.header.set(OUTPUT);
        // SAFETY: only the home reaches the stage, which holds nothing: `drop_future` came before.
        self.stage.with_mut(|stage| unsafe { stage.write(Stage::Output(result)) });
    }

    /// The output, if it is there.
    fn take_output(&self) -> Option<Result<F::Output, JoinError>> {
        if !self.header.has(OUTPUT) {
            return None;
        }
        self.header.clear(OUTPUT);
        // SAFETY: only the home reaches the stage; it holds the output, which is moved out before the stage is
        // overwritten without being dropped, and nothing here runs user code. The output alone is moved: the stage is as
        // large as the future was.
        self.stage.with_mut(|stage| unsafe {
            let result = match &*stage {
                Stage::Output(result) => Some(ptr::read(result)),
                _ => None,
            };
            stage.write(Stage::Empty);
            result
        })
    }

    unsafe fn join(header: NonNull<Header>, waker: &Waker, result: *mut ()) {
        // SAFETY: the caller keeps the contract of `super::join`.
        let this = unsafe { Self::of(header) };
        if this.header.is_over() {
            let output =
                this.take_output().unwrap_or_else(|| Err(JoinError::cancelled(this.header.id)));
            // SAFETY: `super::join` passes a pointer to this type, which holds `Pending`.
            unsafe {
                result.cast::<Poll<Result<F::Output, JoinError>>>().write(Poll::Ready(output))
            };
            return;
        }
        this.wait(waker);
    }

    /// A handle waits for the output.
    #[inline(never)]
    fn wait(&self, waker: &Waker) {
        // SAFETY: only the home reaches the joiner. `will_wake` runs no user code.
        let known = self.joiner.with_mut(|joiner| match unsafe { &*joiner } {
            Joiner::Here(known) => known.will_wake(waker),
            _ => false,
        });
        if !known {
            let new = Joiner::Here(waker.clone());
            // SAFETY: as above; the clone was made before, the old waker is dropped after the exchange.
            let old = self.joiner.with_mut(|joiner| unsafe { ptr::replace(joiner, new) });
            drop(old);
            if self.header.is_over() {
                // Within the clone or the drop, where nobody was there to be told.
                waker.wake_by_ref();
            }
        }
    }

    unsafe fn forward(header: NonNull<Header>, reply: *const ()) {
        // SAFETY: the caller keeps the contract of `super::forward`, which made `reply` from such an Arc.
        let (this, reply) =
            unsafe { (Self::of(header), Arc::from_raw(reply.cast::<Reply<F::Output>>())) };
        if this.header.is_over() {
            let output =
                this.take_output().unwrap_or_else(|| Err(JoinError::cancelled(this.header.id)));
            if !answer(reply, output) {
                waker::count_panic();
            }
            return;
        }
        let new = Joiner::Elsewhere(reply);
        // SAFETY: only the home reaches the joiner; the old one is dropped after the exchange.
        let old = this.joiner.with_mut(|joiner| unsafe { ptr::replace(joiner, new) });
        drop_caught(old);
    }

    unsafe fn detach(header: NonNull<Header>, home: &Home) {
        // SAFETY: the caller keeps the contract of `super::detach`.
        let this = unsafe { Self::of(header) };
        this.header.set(DETACHED);
        // SAFETY: only the home reaches the joiner; what it held is dropped after the exchange.
        let joiner = this.joiner.with_mut(|joiner| unsafe { ptr::replace(joiner, Joiner::Nobody) });
        if matches!(joiner, Joiner::Nobody) && !this.header.has(OUTPUT) {
            // As of most tasks that nobody is to wait for: there is nothing to drop.
            return;
        }
        let output = this.take_output();
        if !home.as_current(header, || drop_caught(joiner) & drop_caught(output)) {
            add(&home.counts().panics, 1);
        }
    }

    /// # Safety
    /// As `super::free` or `super::free_orphan`; there is an output.
    #[cold]
    unsafe fn drop_output(header: NonNull<Header>) {
        // SAFETY: by contract nobody else refers to the cell.
        drop_caught(unsafe { Self::of(header) }.take_output());
    }
}
