//! `std::task::Waker` over a task, and the stack that carries foreign wakes home.
//!
//! A waker's pointer is the task's header. At home (the thread-local [`Home`] is the task's) a wake is a flag and a
//! push on the run queue, and a clone is an increment: no atomic, no lock, no system call. Elsewhere a wake is one
//! transition of the task's word and, for the first of a burst, one push on the home's stack.
//!
//! After a push nothing of the cell is touched: its home may already have freed it. The reference to the inbox that
//! rings the bell is taken before.

#![allow(unsafe_code)]

use super::cell::{self, Header};
use super::failure;
use super::home::Home;
use super::state::{Next, Request};
use crate::mesh::inbox::Inbox;
use crate::sync::{Arc, AtomicPtr, Ordering, thread_cell};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::task::{RawWaker, RawWakerVTable, Waker};

thread_cell! {
    /// The home of this thread for the length of a turn, else null.
    static HOME: Cell<*const Home> = ptr::null()
}

/// Makes `home` this thread's home until the guard is dropped. Guards nest.
pub(crate) fn enter(home: &Home) -> Entered<'_> {
    let previous = HOME.with(|current| current.replace(ptr::from_ref(home)));
    Entered { previous, _home: home }
}

/// See [`enter`].
pub(crate) struct Entered<'a> {
    previous: *const Home,
    _home: &'a Home,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        HOME.with(|current| current.set(self.previous));
    }
}

/// Runs `f` with the home of `header` if this thread is in a turn of it.
///
/// # Safety
/// The header is alive. `f` may free it, which is why it is not passed by reference.
#[inline(always)]
pub(super) unsafe fn at_home<R>(header: NonNull<Header>, f: impl FnOnce(&Home) -> R) -> Option<R> {
    let home = HOME.with(|current| current.get());
    // SAFETY: `enter` stores a pointer to a Home that outlives its guard, and the guard restores the previous pointer;
    // the pointer is this thread's own, so it cannot change while `home` is in use here.
    let home = unsafe { home.as_ref() }?;
    // SAFETY: by contract the header is alive.
    let owned = home.owns(unsafe { header.as_ref() });
    if owned { Some(f(home)) } else { None }
}

/// A waker that borrows the caller's reference: made for the length of one poll.
pub(super) fn borrowed(header: NonNull<Header>) -> ManuallyDrop<Waker> {
    // SAFETY: the vtable's functions keep RawWaker's contract (they are thread-safe, and count a reference for each
    // clone); this waker is never dropped, so it need not own one.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(header.as_ptr().cast(), &VTABLE)) })
}

/// Wakes, and survives a waker that panics.
#[inline]
pub(crate) fn wake_caught(waker: Waker) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()))
        .map_err(failure::drop_caught)
        .is_ok()
}

/// [`wake_caught`]; a panic is counted by the home of this thread, if it has one.
#[inline]
pub(crate) fn wake_counted(waker: Waker) {
    if !wake_caught(waker) {
        count_panic();
    }
}

/// The home of this thread counts a panic that was caught.
#[cold]
pub(crate) fn count_panic() {
    let home = HOME.with(|current| current.get());
    // SAFETY: as in `at_home`.
    if let Some(home) = unsafe { home.as_ref() } {
        super::home::add(&home.counts().panics, 1);
    }
}

/// Whether a waker is one of ours, so that waking it runs no code but ours. It may say no of one that is.
#[inline]
pub(crate) fn is_task(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

fn header_of(data: *const ()) -> NonNull<Header> {
    // SAFETY: wakers are made from a header's NonNull pointer only.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: whoever calls holds a reference, or is inside the poll that borrows the home's own.
    unsafe { clone_reference(header_of(data)) };
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: as in `clone`.
    unsafe { wake_by_reference(header_of(data)) }
}

unsafe fn wake(data: *const ()) {
    let header = header_of(data);
    // SAFETY: the waker owns a reference, which is given up on each path: at home by `drop_reference`, elsewhere by
    // the transition. The header is not touched after that.
    unsafe {
        let woken = at_home(header, |home| {
            home.schedule(header);
            home.drop_reference(header);
        });
        if woken.is_none() {
            follow(header, header.as_ref().word.request_and_drop(Request::Wake));
        }
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker owns a reference and gives it up here.
    unsafe { drop_reference(header_of(data)) }
}

/// One more reference to the task, from any thread.
///
/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn clone_reference(header: NonNull<Header>) {
    // SAFETY: by contract the header is alive.
    let counted = unsafe {
        let task = header.as_ref();
        at_home(header, |home| home.clone_reference(task))
            .unwrap_or_else(|| task.word.clone_reference())
    };
    if !counted {
        // A count that wraps would free a task in use. Nothing else is safe to do; Arc does the same.
        std::process::abort();
    }
}

/// Gives a reference up, from any thread.
///
/// # Safety
/// The caller holds a reference and does not use it again.
pub(super) unsafe fn drop_reference(header: NonNull<Header>) {
    // SAFETY: by contract the header is alive until the reference is given up.
    unsafe {
        if at_home(header, |home| home.drop_reference(header)).is_none() {
            follow(header, header.as_ref().word.drop_reference());
        }
    }
}

/// Wakes the task, from any thread.
///
/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn wake_by_reference(header: NonNull<Header>) {
    // SAFETY: by contract the header is alive.
    unsafe {
        if at_home(header, |home| home.schedule(header)).is_none() {
            follow(header, header.as_ref().word.request(Request::Wake));
        }
    }
}

/// Asks the home for something, from a foreign thread.
///
/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn request(header: NonNull<Header>, request: Request) {
    // SAFETY: by contract the header is alive.
    unsafe { follow(header, header.as_ref().word.request(request)) }
}

/// [`request`], and gives the reference up.
///
/// # Safety
/// The caller holds a reference and does not use it again.
pub(super) unsafe fn request_and_drop(header: NonNull<Header>, request: Request) {
    // SAFETY: by contract the header is alive until the transition.
    unsafe { follow(header, header.as_ref().word.request_and_drop(request)) }
}

/// Does what a foreign transition asks for.
///
/// # Safety
/// `next` comes from a transition of this header's word that this thread has just made.
unsafe fn follow(header: NonNull<Header>, next: Next) {
    match next {
        Next::Nothing => {}
        // SAFETY: `Push` means that this thread set QUEUED, so the home does not free the cell before it has taken it
        // from the stack or seen the push fail. The inbox is cloned first because it must outlive the push.
        Next::Push => unsafe {
            let inbox: Arc<Inbox> = Arc::clone(&header.as_ref().inbox);
            if inbox.wakes.push(header) {
                inbox.unpark();
            } else if header.as_ref().word.push_failed() == Next::Free {
                cell::free_orphan(header);
            }
        },
        // SAFETY: `Free` means that this was the last reference to an orphan.
        Next::Free => unsafe { cell::free_orphan(header) },
    }
}

/// Tasks on their way home: a stack that any thread pushes to and only the home empties, whole. It needs no memory of
/// its own and holds each task at most once, so it can be neither full nor longer than the tasks that live.
pub(crate) struct WakeStack {
    head: AtomicPtr<Header>,
}

/// The head of a stack that takes no more.
fn closed() -> *mut Header {
    ptr::without_provenance_mut(1)
}

impl WakeStack {
    pub(crate) fn new() -> Self {
        WakeStack { head: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Pushes a header whose QUEUED bit the caller has set. False: the stack is closed.
    fn push(&self, header: NonNull<Header>) -> bool {
        // Release, partner: the swap in `take`: the home sees `next`.
        let pushed = self.head.fetch_update(Ordering::Release, Ordering::Relaxed, |head| {
            if head == closed() {
                return None;
            }
            // SAFETY: QUEUED keeps the cell alive, and makes this thread the only one that writes `next`.
            unsafe { header.as_ref() }.next.store(head, Ordering::Relaxed);
            Some(header.as_ptr())
        });
        pushed.is_ok()
    }

    /// The home takes everything, oldest first.
    pub(super) fn take(&self) -> Queued {
        Queued::reversed(self.head.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// The home takes everything for the last time.
    pub(super) fn close(&self) -> Queued {
        Queued::reversed(self.head.swap(closed(), Ordering::Acquire))
    }
}

/// Tasks taken from a [`WakeStack`], each still QUEUED, oldest first.
pub(super) struct Queued(*mut Header);

impl Queued {
    fn reversed(mut node: *mut Header) -> Queued {
        let mut oldest = ptr::null_mut();
        if node == closed() {
            return Queued(oldest);
        }
        // SAFETY: each node was pushed by a thread that set its QUEUED bit; it stays alive until the home clears it.
        while let Some(task) = unsafe { node.as_ref() } {
            let newer = task.next.load(Ordering::Relaxed);
            task.next.store(oldest, Ordering::Relaxed);
            oldest = node;
            node = newer;
        }
        Queued(oldest)
    }
}

impl Iterator for Queued {
    type Item = NonNull<Header>;

    /// The next task. Its `next` field is free again for another push once the caller has taken its requests.
    fn next(&mut self) -> Option<NonNull<Header>> {
        let header = NonNull::new(self.0)?;
        // SAFETY: as in `reversed`; the caller has not cleared this node's bit yet.
        self.0 = unsafe { header.as_ref() }.next.load(Ordering::Relaxed);
        Some(header)
    }
}
