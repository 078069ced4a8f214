//! Tasks on the shard that one is on.

use crate::blocking;
use crate::id::TaskId;
use crate::mesh::inbox::Inbox;
use crate::mesh::message::Notice;
use crate::shard::context::{outside, with_current};
use crate::stealing::context::with_worker;
use crate::sync::Arc;
use crate::task::join::JoinHandle;
use std::future::{Future, poll_fn};
use std::task::Poll;

/// Spawns a future that stays on this shard: it is polled and dropped on this thread and need not be `Send`.
///
/// The task runs after the present one yields. Dropping the handle detaches it. If the shard is shutting down, the
/// future is dropped at once and the handle says "cancelled".
///
/// # Panics
/// Outside a shard.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// corelane::block_on(async {
///     let local = Rc::new(5);
///     let task = corelane::spawn_local(async move { *local + 1 });
///     assert_eq!(task.await.unwrap(), 6);
/// });
/// ```
#[track_caller]
#[inline]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match with_current(|shard| JoinHandle::spawn(shard.home(), future)) {
        Some(handle) => handle,
        None => outside("spawn_local"),
    }
}

/// Spawns a `Send` future. In thread-per-core mode it stays on this shard, as with [`spawn_local`]; in work-stealing mode
/// any worker may poll it and drop it, another each time.
///
/// What it may hold between two polls must be `Send`:
/// ```compile_fail
/// corelane::block_on(async {
///     let local = std::rc::Rc::new(5);
///     corelane::spawn(async move {
///         corelane::yield_now().await;
///         drop(local);
///     });
/// });
/// ```
///
/// # Panics
/// Outside a shard.
///
/// # Examples
/// ```
/// corelane::block_on(async {
///     assert_eq!(corelane::spawn(async { 2 + 2 }).await.unwrap(), 4);
/// });
/// ```
#[track_caller]
#[inline]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let spawned = with_current(|shard| match shard.shared() {
        None => Ok(JoinHandle::spawn(shard.home(), future)),
        Some(_) => Err(future),
    });
    match spawned {
        Some(Ok(task)) => task,
        Some(Err(future)) => spawn_in_pool(future),
        None => outside("spawn"),
    }
}

/// On a worker.
fn spawn_in_pool<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut future = Some(future);
    let spawned = with_worker(|worker| future.take().map(|future| worker.spawn(future))).flatten();
    // A worker that has ended is one no more, and cancels what is spawned.
    spawned
        .or_else(|| future.map(spawn_local))
        .expect("the future is spawned in one way or the other")
}

/// Lets the other tasks of this shard that are ready run first.
///
/// # Examples
/// ```
/// corelane::block_on(async { corelane::yield_now().await });
/// ```
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The identity of the task, or of the closure of `spawn_blocking`, that this code runs in.
///
/// # Panics
/// Outside a task: in the future of a `block_on` itself, and on a thread that is neither a shard nor runs a closure of
/// `spawn_blocking`.
///
/// # Examples
/// ```
/// corelane::block_on(async {
///     let task = corelane::spawn(async { corelane::task::id() });
///     let id = task.id();
///     assert_eq!(task.await.unwrap(), id);
/// });
/// ```
#[track_caller]
pub fn id() -> TaskId {
    try_id().expect("task::id was called outside a task")
}

/// [`id`](crate::task::id), or none outside a task.
pub fn try_id() -> Option<TaskId> {
    match with_current(|shard| shard.home().current()) {
        Some(current) => current,
        None => blocking::current(),
    }
}

/// Waits until this shard is asked to stop, or the runtime of the [`block_on`](crate::Handle::block_on) that this
/// is. Long-running tasks wait for it beside their work, so that a shutdown need not wait for its deadline.
///
/// # Panics
/// Outside a shard.
///
/// # Cancel safety
/// Safe: dropped, it leaves nothing behind.
pub async fn shutdown_requested() {
    let mut waiting: Option<Waiting> = None;
    poll_fn(|context| {
        let elsewhere = with_current(|shard| {
            waiting.take_if(|waiting| !Arc::ptr_eq(&waiting.home, shard.inbox()))
        });
        // Dropped where nothing is borrowed.
        drop(elsewhere);
        let stopping = with_current(|shard| {
            if shard.is_asked_to_stop() {
                return true;
            }
            match &waiting {
                Some(waiting) => shard.stop_waiters.renew(waiting.place, context.waker()),
                None => {
                    let place = shard.stop_waiters.join(context.waker());
                    waiting = Some(Waiting { home: shard.inbox().clone(), place });
                }
            }
            // Once more: a waker whose clone turns the shard may have had it asked in between.
            shard.is_asked_to_stop()
        });
        match stopping {
            Some(true) => Poll::Ready(()),
            Some(false) => Poll::Pending,
            None => outside("shutdown_requested"),
        }
    })
    .await;
}

/// A place among those who wait for the end of a shard, given back where it was taken.
struct Waiting {
    home: Arc<Inbox>,
    place: u32,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let place = self.place;
        let at_home = with_current(|shard| {
            let at_home = Arc::ptr_eq(&self.home, shard.inbox());
            if at_home {
                shard.stop_waiters.leave(place);
            }
            at_home
        });
        if at_home != Some(true) {
            let leave = move || {
                with_current(|shard| shard.stop_waiters.leave(place));
            };
            self.home.notify(Notice::Run(Box::new(leave)));
        }
    }
}
