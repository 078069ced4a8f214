//! Handles to a task: wait for its output, or cancel it.
//!
//! A handle works from any thread. Polled at the task's home it reads the output where it lies. Polled elsewhere it
//! sends itself home and waits for the output to be sent back, so an output is never read by two threads.

#![allow(unsafe_code)]

use super::cell::{self, Header};
use super::failure::JoinError;
use super::home::Home;
use super::state::Request;
use super::stealable::Job;
use super::waker;
use crate::id::TaskId;
use crate::mesh::call::{Answer, Reply};
use crate::mesh::message::Notice;
use crate::sync::{Arc, Mutex, lock};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

/// Waits for a task's output. Dropping it lets the task run on (it is *detached*), as Tokio's does.
///
/// The handle is `Send` if the output is. The output of a task that nobody waits for is dropped on the task's shard.
///
/// # Cancel safety
/// Polling through a reference (`(&mut handle).await`) and giving up loses nothing.
pub struct JoinHandle<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    /// A task of some shard; owns one reference.
    Task(NonNull<Header>, PhantomData<T>),
    /// An output that is, or will be, sent here.
    Reply(Arc<Reply<T>>),
    /// The output has been taken.
    Taken(TaskId),
}

// SAFETY: a handle reads the output only at the task's home, or through `Reply`, whose `T` is then sent between
// threads; both ask for `T: Send` and nothing else. What it touches of the header elsewhere is atomic.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: through a shared reference there is only `is_finished`, `id` and `abort`, which touch atomic fields and
// constants.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> Unpin for JoinHandle<T> {}
// Panics of a task are caught before they could leave anything half done that a handle sees.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// Spawns on the home of this thread.
    pub(crate) fn spawn<F: Future<Output = T> + 'static>(home: &Home, future: F) -> Self {
        JoinHandle { inner: Inner::Task(home.spawn(future), PhantomData) }
    }

    /// [`spawn`](Self::spawn), under an identity that was given before.
    pub(crate) fn spawn_as<F>(home: &Home, future: F, id: TaskId) -> Self
    where
        F: Future<Output = T> + 'static,
    {
        JoinHandle { inner: Inner::Task(home.spawn_as(future, id), PhantomData) }
    }

    /// A handle whose output comes from elsewhere; the reply names its task.
    pub(crate) fn remote(reply: Arc<Reply<T>>) -> Self {
        JoinHandle { inner: Inner::Reply(reply) }
    }

    /// Cancels the task: its future is dropped, on its shard, at its next turn. Waiting for it then gives an error
    /// for which [`JoinError::is_cancelled`] holds, unless it ended first.
    pub fn abort(&self) {
        match &self.inner {
            // SAFETY: the handle holds a reference.
            Inner::Task(header, _) => unsafe { abort(*header) },
            Inner::Reply(reply) => reply.abort(),
            Inner::Taken(_) => {}
        }
    }

    /// A handle that can only cancel the task.
    pub fn abort_handle(&self) -> AbortHandle {
        match &self.inner {
            // SAFETY: the handle holds a reference, so another may be made.
            Inner::Task(header, _) => unsafe { AbortHandle::of(*header) },
            Inner::Reply(reply) => reply.abort_handle(),
            Inner::Taken(task) => AbortHandle { target: Target::Ended(*task) },
        }
    }

    /// Whether the task has ended in whatever way.
    pub fn is_finished(&self) -> bool {
        match &self.inner {
            // SAFETY: the handle holds a reference.
            Inner::Task(header, _) => unsafe { header.as_ref() }.is_finished(),
            Inner::Reply(reply) => reply.is_finished(),
            Inner::Taken(_) => true,
        }
    }

    /// The task's identity: what [`id`](crate::task::id) says inside it.
    ///
    /// # Examples
    /// ```
    /// corelane::block_on(async {
    ///     let task = corelane::spawn(async { corelane::task::id() });
    ///     let id = task.id();
    ///     assert_eq!(task.await.unwrap(), id);
    /// });
    /// ```
    pub fn id(&self) -> TaskId {
        match &self.inner {
            // SAFETY: the handle holds a reference.
            Inner::Task(header, _) => unsafe { header.as_ref() }.id(),
            Inner::Reply(reply) => reply.task().expect("a join handle's reply names its task"),
            Inner::Taken(task) => *task,
        }
    }

    /// Sends the output to `reply` once there is one, instead of keeping it for this handle. At the task's home.
    pub(crate) fn send_output_to(self, reply: Arc<Reply<T>>) {
        if let Inner::Task(header, _) = &self.inner {
            let answer = Answer::new(reply);
            // SAFETY: this handle owns a reference, and its `T` is the task's output. Elsewhere than at home the
            // answer is dropped, which says that there is none.
            unsafe {
                waker::at_home(*header, |_| {
                    answer.take().map(|reply| cell::forward(*header, reply))
                })
            };
        }
        // What is left is a reference without interest in the output: `Drop` would say "detached".
        self.forget_output();
    }

    /// Gives the reference up without detaching the task.
    fn forget_output(self) {
        if let Inner::Task(header, _) = &self.inner {
            // SAFETY: the handle's reference is given up once, since its own drop is forgotten.
            unsafe { waker::drop_reference(*header) };
            std::mem::forget(self);
        }
    }
}

impl<T: 'static> JoinHandle<T> {
    /// Has `waker` woken when the task has ended, without running it in the caller's place as a poll may. True: it has
    /// ended already, and nobody will be woken.
    pub(crate) fn watch(&mut self, waker: &Waker) -> bool {
        let header = match &self.inner {
            Inner::Task(header, _) => *header,
            Inner::Reply(reply) => return reply.watch(waker),
            Inner::Taken(_) => return true,
        };
        // SAFETY: as in `poll`. A task that has not ended and is not run meanwhile has no output to lose.
        let here = unsafe {
            waker::at_home(header, |home| {
                header.as_ref().is_over()
                    || home.without_handovers(|| cell::join::<T>(header, waker, home)).is_ready()
            })
        };
        here.unwrap_or_else(|| self.go_home(header).watch(waker))
    }

    /// Turns a handle that is polled away from home into one that waits for a reply.
    #[cold]
    fn go_home(&mut self, header: NonNull<Header>) -> Arc<Reply<T>> {
        // SAFETY: the handle holds a reference.
        let task = unsafe { header.as_ref() };
        let reply = Reply::of_task(task.id());
        let inbox = Arc::clone(&task.inbox);
        // SAFETY: as above.
        reply.attach(unsafe { AbortHandle::of(header) });
        let handle = std::mem::replace(self, JoinHandle::remote(reply.clone()));
        let traveller = Traveller(handle, Answer::new(reply.clone()));
        // A closed inbox drops the traveller, which answers the reply.
        inbox.notify(Notice::Run(Box::new(move || traveller.arrive())));
        reply
    }
}

/// A join handle on its way home. Being dropped on the way answers the reply.
struct Traveller<T>(JoinHandle<T>, Answer<T>);

// SAFETY: away from the thread that polled the handle it touches no `T`: dropped on its way it answers "never ran". At
// home it makes the task send its output to the reply. If that is another thread than the one that polled, the handle
// was sent there, so `T: Send` holds, though the bound cannot be written where the handle is polled.
unsafe impl<T> Send for Traveller<T> {}

impl<T> Traveller<T> {
    fn arrive(self) {
        let Traveller(handle, answer) = self;
        if let Some(reply) = answer.take() {
            handle.send_output_to(reply);
        }
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let header = match &self.inner {
            Inner::Task(header, _) => *header,
            Inner::Reply(reply) => return reply.poll(context),
            Inner::Taken(_) => panic!("a JoinHandle was polled after it had given its output"),
        };
        // SAFETY: the handle holds the reference, and its `T` is the task's output type. With the output the handle
        // gives its reference up: nothing is left to detach.
        let here = unsafe {
            waker::at_home(header, |home| {
                let polled = cell::join(header, context.waker(), home);
                if polled.is_ready() {
                    self.inner = Inner::Taken(header.as_ref().id());
                    home.drop_reference(header);
                }
                polled
            })
        };
        match here {
            Some(polled) => polled,
            None => self.go_home(header).poll(context),
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if let Inner::Task(header, _) = &self.inner {
            // SAFETY: the handle owns a reference, and gives it up here.
            unsafe { detach(*header) };
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).finish()
    }
}

/// Cancels a task from anywhere, and does not wait for it.
#[derive(Clone)]
pub struct AbortHandle {
    target: Target,
}

#[derive(Clone)]
enum Target {
    Task(Reference),
    /// A task that any worker may run.
    Stealable(Job),
    /// A task that is still on its way to its shard.
    Early(Arc<Mutex<Early>>, TaskId),
    /// A task whose output has been taken.
    Ended(TaskId),
}

/// Whether a task that has not arrived yet was cancelled, and then, the task.
#[derive(Default)]
pub(crate) struct Early {
    aborted: bool,
    /// There is an answer.
    finished: bool,
    task: Option<AbortHandle>,
}

/// One counted reference to a task.
struct Reference(NonNull<Header>);

// SAFETY: a reference touches the atomic fields of the header alone, unless it is used at the task's home.
unsafe impl Send for Reference {}
// SAFETY: as above.
unsafe impl Sync for Reference {}

// As for JoinHandle.
impl UnwindSafe for AbortHandle {}
impl RefUnwindSafe for AbortHandle {}

impl Clone for Reference {
    fn clone(&self) -> Self {
        // SAFETY: this reference keeps the task while another is made.
        unsafe { waker::clone_reference(self.0) };
        Reference(self.0)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: the reference is given up once.
        unsafe { waker::drop_reference(self.0) };
    }
}

impl AbortHandle {
    /// # Safety
    /// The caller holds a reference to the task.
    unsafe fn of(header: NonNull<Header>) -> AbortHandle {
        // SAFETY: by contract.
        unsafe { waker::clone_reference(header) };
        AbortHandle { target: Target::Task(Reference(header)) }
    }

    /// For a task that is on its way; `Early::arrive` tells it which.
    pub(crate) fn early(early: Arc<Mutex<Early>>, task: TaskId) -> AbortHandle {
        AbortHandle { target: Target::Early(early, task) }
    }

    pub(crate) fn stealable(task: Job) -> AbortHandle {
        AbortHandle { target: Target::Stealable(task) }
    }

    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        match &self.target {
            // SAFETY: this handle holds a reference.
            Target::Task(task) => unsafe { abort(task.0) },
            Target::Stealable(task) => task.clone().abort(),
            Target::Early(early, _) => {
                let task = Early::abort(early);
                if let Some(task) = task {
                    task.abort();
                }
            }
            Target::Ended(_) => {}
        }
    }

    /// As [`JoinHandle::is_finished`].
    pub fn is_finished(&self) -> bool {
        match &self.target {
            // SAFETY: this handle holds a reference.
            Target::Task(task) => unsafe { task.0.as_ref() }.is_finished(),
            Target::Stealable(task) => task.is_finished(),
            Target::Early(early, _) => {
                let early = lock(early);
                early.finished || early.task.as_ref().is_some_and(AbortHandle::is_finished)
            }
            Target::Ended(_) => true,
        }
    }

    /// The task's identity, as [`JoinHandle::id`].
    pub fn id(&self) -> TaskId {
        match &self.target {
            // SAFETY: this handle holds a reference.
            Target::Task(task) => unsafe { task.0.as_ref() }.id(),
            Target::Stealable(task) => task.id(),
            Target::Early(_, task) | Target::Ended(task) => *task,
        }
    }
}

impl Early {
    /// Remembers the wish; returns the task if it has arrived.
    fn abort(early: &Mutex<Early>) -> Option<AbortHandle> {
        let mut early = lock(early);
        early.aborted = true;
        early.task.clone()
    }

    /// The task has arrived. True: it was cancelled on the way.
    pub(crate) fn arrive(early: &Mutex<Early>, task: AbortHandle) -> bool {
        let mut early = lock(early);
        early.task = Some(task);
        early.aborted
    }

    /// There is an answer, whatever became of the wish.
    pub(crate) fn finish(early: &Mutex<Early>) {
        lock(early).finished = true;
    }

    /// Whether the wish came before the task.
    pub(crate) fn is_aborted(early: &Mutex<Early>) -> bool {
        lock(early).aborted
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("id", &self.id()).finish()
    }
}

/// Gives a join handle's reference up, from any thread.
///
/// # Safety
/// The caller owns the reference and does not use it again.
#[inline(never)]
unsafe fn detach(header: NonNull<Header>) {
    // SAFETY: by contract; the reference is given up once, on either path.
    unsafe {
        let here = waker::at_home(header, |home| {
            cell::detach(header, home);
            home.drop_reference(header);
        });
        if here.is_none() {
            waker::request_and_drop(header, Request::Detach);
        }
    }
}

/// Cancels a task from any thread.
///
/// # Safety
/// The caller holds a reference.
unsafe fn abort(header: NonNull<Header>) {
    // SAFETY: by contract.
    unsafe {
        let here = waker::at_home(header, |home| {
            header.as_ref().cancel();
            home.schedule(header);
        });
        if here.is_none() {
            waker::request(header, Request::Abort);
        }
    }
}
