//! Closures that run on another shard.
//!
//! Every call says where: the closure is made here, moves to the other shard in a message, runs and is dropped there;
//! the future it makes never leaves that shard and need not be `Send`; its output comes back. A call that finds the
//! other inbox full is told so (`try_submit_to`, `spawn_on`, `post`) or waits for room (`submit_to`, `broadcast`,
//! `map_reduce`). Waiting for room never stops a shard from emptying its own inbox, so shards may call each other in
//! circles; what must not wait is a chain of calls for room that only its own end would make.

use crate::id::ShardId;
use crate::mesh::call::{Answer, Reply};
use crate::mesh::inbox::{Inbox, Refused, RoomWait};
use crate::mesh::thunk::{Closure, Errand, Thunk};
use crate::runtime::Handle;
use crate::shard::context::with_current;
use crate::sync::Arc;
use crate::task::failure::JoinError;
use crate::task::join::JoinHandle;
use crate::task::waker::count_panic;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A closure on its way, and the duty to answer.
struct Call<F, T> {
    make: F,
    answer: Answer<T>,
}

impl<F, Fut, T> Errand for Call<F, T>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    fn run(self) {
        let Call { make, answer } = self;
        let Some(reply) = answer.take() else { return };
        // Somebody holds a `JoinHandle` and may abort.
        let abortable = reply.task().is_some();
        if abortable && reply.is_aborted() {
            return reply.complete(Err(JoinError::never_ran()));
        }
        let future = match catch_unwind(AssertUnwindSafe(make)) {
            Ok(future) => future,
            Err(payload) => {
                count_panic();
                return reply.complete(Err(JoinError::closure_panicked(payload)));
            }
        };
        let task = reply.task();
        let spawned = with_current(|shard| match task {
            Some(task) => JoinHandle::spawn_as(shard.home(), future, task),
            None => JoinHandle::spawn(shard.home(), future),
        });
        match spawned {
            Some(handle) => {
                if abortable {
                    reply.attach(handle.abort_handle());
                }
                handle.send_output_to(reply);
            }
            None => reply.complete(Err(JoinError::never_ran())),
        }
    }
}

impl Handle {
    fn inbox(&self, shard: ShardId) -> Option<&Arc<Inbox>> {
        self.fleet().inbox(shard)
    }

    /// Sends an errand. The sender hears back, so its shard looks out for an answer.
    fn send(
        &self,
        shard: ShardId,
        thunk: Thunk,
        answered: bool,
    ) -> Result<(), (SubmitErrorKind, Thunk)> {
        let Some(inbox) = self.inbox(shard) else {
            return Err((SubmitErrorKind::NoSuchShard, thunk));
        };
        match inbox.call(thunk) {
            Ok(()) if answered => {
                with_current(|shard| shard.expect_answer());
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(Refused::Full(thunk)) => Err((SubmitErrorKind::Full, thunk)),
            Err(Refused::Closed(thunk)) => Err((SubmitErrorKind::Closed, thunk)),
        }
    }

    /// Spawns, on another shard, the future that `make` makes there.
    ///
    /// `make` must be `Send`; the future need not be. It is polled and dropped on that shard only. Aborting the handle
    /// before the closure has arrived keeps it from running.
    ///
    /// # Errors
    /// With the closure: the shard's inbox is full, the shard has shut down, or there is no such shard.
    ///
    /// # Examples
    /// ```
    /// use corelane::{Runtime, ShardId};
    /// use std::rc::Rc;
    /// let runtime = Runtime::builder().cores("1".parse()?).start()?;
    /// let task = runtime.handle().spawn_on(ShardId::new(0), || async { *Rc::new(7) })?;
    /// assert_eq!(corelane::block_on(task)?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn_on<F, Fut, T>(
        &self,
        shard: ShardId,
        make: F,
    ) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        self.try_call(shard, make, true).map(JoinHandle::remote)
    }

    /// Runs `make` on another shard and returns a future of its future's output, which any executor can poll. Unlike
    /// [`Handle::submit_to`] it does not wait for room.
    ///
    /// # Errors
    /// As [`Handle::spawn_on`]. Those of the returned future are [`CallError`]s.
    pub fn try_submit_to<F, Fut, T>(
        &self,
        shard: ShardId,
        make: F,
    ) -> Result<impl Future<Output = Result<T, CallError>> + Send + use<F, Fut, T>, SubmitError<F>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let reply = self.try_call(shard, make, false)?;
        Ok(poll_fn(move |context| reply.poll(context).map_err(CallError::from)))
    }

    fn try_call<F, Fut, T>(
        &self,
        shard: ShardId,
        make: F,
        abortable: bool,
    ) -> Result<Arc<Reply<T>>, SubmitError<F>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let reply =
            if abortable { Reply::of_task(self.fleet().fresh_task()) } else { Reply::new() };
        let call = Call { make, answer: Answer::new(reply.clone()) };
        match self.send(shard, Thunk::new(call), true) {
            Ok(()) => Ok(reply),
            Err((kind, thunk)) => {
                let call = thunk
                    .into_errand::<Call<F, T>>()
                    .expect("a refused message is the one that was sent");
                Err(SubmitError { kind, shard, call: call.make })
            }
        }
    }

    /// Runs `make` on another shard and waits for its future's output. If the inbox there is full, waits for room
    /// first; senders that wait are woken together, in the order in which they came.
    ///
    /// Calling the own shard works, and goes through its inbox like any other call.
    ///
    /// # Errors
    /// The shard has shut down, there is no such shard, or what ran there panicked or was cancelled.
    ///
    /// # Cancel safety
    /// Dropped before the message was sent, nothing runs. Dropped later, the call runs to its end on the other shard
    /// and its output is dropped.
    ///
    /// # Examples
    /// ```
    /// use corelane::{Runtime, ShardId};
    /// let runtime = Runtime::builder().cores("1".parse()?).start()?;
    /// let handle = runtime.handle();
    /// let sum = corelane::block_on(handle.submit_to(ShardId::new(0), || async { 1 + 1 }))?;
    /// assert_eq!(sum, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_to<F, Fut, T>(&self, shard: ShardId, make: F) -> SubmitTo<T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let reply = Reply::new();
        let call = Call { make, answer: Answer::new(reply.clone()) };
        SubmitTo { handle: self.clone(), shard, message: Some(Thunk::new(call)), room: None, reply }
    }

    /// Runs a closure on another shard and does not look back: no future, no answer. The cheapest way across.
    ///
    /// A panic in it is caught and counted on that shard.
    ///
    /// # Errors
    /// As [`Handle::spawn_on`].
    pub fn post<F>(&self, shard: ShardId, run: F) -> Result<(), SubmitError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.send(shard, Thunk::new(Closure(run)), false).map_err(|(kind, thunk)| {
            let Closure(call) = thunk
                .into_errand::<Closure<F>>()
                .expect("a refused message is the one that was sent");
            SubmitError { kind, shard, call }
        })
    }

    /// Waits until the shard's inbox may have room again, or is closed. A hint: others may fill it first.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn room(&self, shard: ShardId) {
        let Some(inbox) = self.inbox(shard) else { return };
        let mut wait = RoomWait::new(inbox.clone());
        poll_fn(|context| {
            if wait.is_over() {
                return Poll::Ready(());
            }
            wait.register(context.waker());
            with_current(|shard| shard.expect_answer());
            if wait.is_over() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Runs `make` once on every shard, at the same time, and returns the outputs in the shards' order. `make` is
    /// cloned for each; the clone for the calling shard goes through its inbox too.
    ///
    /// # Cancel safety
    /// As [`Handle::submit_to`], shard by shard.
    pub async fn broadcast<F, Fut, T>(&self, make: F) -> Vec<Result<T, CallError>>
    where
        F: FnOnce(ShardId) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        /// A call under way, then its result.
        type Slot<T> = (Option<SubmitTo<T>>, Option<Result<T, CallError>>);
        let call = |shard| {
            let make = make.clone();
            (Some(self.submit_to(shard, move || make(shard))), None)
        };
        let mut calls: Vec<Slot<T>> = self.shards().map(call).collect();
        poll_fn(|context| {
            let mut waiting = false;
            for (call, result) in &mut calls {
                let Some(future) = call else { continue };
                match Pin::new(future).poll(context) {
                    Poll::Ready(ready) => (*call, *result) = (None, Some(ready)),
                    Poll::Pending => waiting = true,
                }
            }
            if waiting { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        calls.into_iter().filter_map(|(_, result)| result).collect()
    }

    /// Runs `map` on every shard and folds the outputs, in the shards' order, here.
    ///
    /// # Errors
    /// The first shard's that failed; the others have run all the same.
    ///
    /// # Examples
    /// ```
    /// use corelane::Runtime;
    /// let runtime = Runtime::builder().cores("1".parse()?).start()?;
    /// let handle = runtime.handle();
    /// let shards = corelane::block_on(handle.map_reduce(|_shard| async { 1 }, 0, |sum, one| sum + one))?;
    /// assert_eq!(shards, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn map_reduce<F, Fut, T, A>(
        &self,
        map: F,
        init: A,
        mut reduce: impl FnMut(A, T) -> A,
    ) -> Result<A, CallError>
    where
        F: FnOnce(ShardId) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let outputs = self.broadcast(map).await;
        outputs.into_iter().try_fold(init, |sum, output| Ok(reduce(sum, output?)))
    }
}

/// The future of [`Handle::submit_to`]. Any executor can poll it.
#[must_use = "nothing is sent before the future is polled"]
pub struct SubmitTo<T> {
    handle: Handle,
    shard: ShardId,
    message: Option<Thunk>,
    /// While the message waits.
    room: Option<RoomWait>,
    reply: Arc<Reply<T>>,
}

impl<T> Unpin for SubmitTo<T> {}

impl<T: Send> Future for SubmitTo<T> {
    type Output = Result<T, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(message) = this.message.take()
            && let Err(refused) = this.send(message, context)
        {
            return refused;
        }
        this.reply.poll(context).map_err(CallError::from)
    }
}

impl<T: Send> SubmitTo<T> {
    /// Sends the message or leaves a waker for when there is room.
    fn send(
        &mut self,
        message: Thunk,
        context: &Context<'_>,
    ) -> Result<(), Poll<Result<T, CallError>>> {
        let Some(inbox) = self.handle.inbox(self.shard).cloned() else {
            return Err(Poll::Ready(Err(CallError(CallErrorKind::NoSuchShard(self.shard)))));
        };
        let mut message = message;
        for registered in [false, true] {
            message = match inbox.call(message) {
                Ok(()) => {
                    self.room = None;
                    with_current(|shard| shard.expect_answer());
                    return Ok(());
                }
                Err(Refused::Closed(_)) => {
                    return Err(Poll::Ready(Err(CallError(CallErrorKind::Closed(self.shard)))));
                }
                Err(Refused::Full(message)) => message,
            };
            // The second try sees the room that was made before the waker was left.
            if !registered {
                let room = self.room.get_or_insert_with(|| RoomWait::new(inbox.clone()));
                room.register(context.waker());
            }
        }
        with_current(|shard| shard.expect_answer());
        self.message = Some(message);
        Err(Poll::Pending)
    }
}

impl<T> fmt::Debug for SubmitTo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitTo")
            .field("shard", &self.shard)
            .field("sent", &self.message.is_none())
            .finish()
    }
}

/// A message was not taken. The closure comes back in it.
pub struct SubmitError<F> {
    kind: SubmitErrorKind,
    shard: ShardId,
    call: F,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitErrorKind {
    /// The inbox has no room now.
    Full,
    /// The shard has shut down.
    Closed,
    /// The runtime has fewer shards.
    NoSuchShard,
}

impl<F> SubmitError<F> {
    /// Why.
    pub fn kind(&self) -> SubmitErrorKind {
        self.kind
    }

    /// The closure, to be sent again or run elsewhere.
    pub fn into_inner(self) -> F {
        self.call
    }
}

impl<F> fmt::Display for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard = self.shard;
        match self.kind {
            SubmitErrorKind::Full => write!(f, "the inbox of {shard} is full"),
            SubmitErrorKind::Closed => write!(f, "{shard} has shut down"),
            SubmitErrorKind::NoSuchShard => write!(f, "there is no {shard} in this runtime"),
        }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError")
            .field("kind", &self.kind)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

impl<F> std::error::Error for SubmitError<F> {}

/// Why a call to another shard gave no output.
pub struct CallError(CallErrorKind);

enum CallErrorKind {
    Closed(ShardId),
    NoSuchShard(ShardId),
    Task(JoinError),
}

impl CallError {
    /// The shard shut down before the call ran to its end.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            CallErrorKind::Closed(_) => true,
            CallErrorKind::NoSuchShard(_) => false,
            CallErrorKind::Task(error) => error.is_cancelled(),
        }
    }

    /// The runtime has fewer shards.
    pub fn is_no_such_shard(&self) -> bool {
        matches!(self.0, CallErrorKind::NoSuchShard(_))
    }

    /// The closure or its future panicked there.
    pub fn is_panic(&self) -> bool {
        matches!(&self.0, CallErrorKind::Task(error) if error.is_panic())
    }
}

impl From<JoinError> for CallError {
    fn from(error: JoinError) -> Self {
        CallError(CallErrorKind::Task(error))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            CallErrorKind::Closed(shard) => write!(f, "{shard} has shut down"),
            CallErrorKind::NoSuchShard(shard) => write!(f, "there is no {shard} in this runtime"),
            CallErrorKind::Task(error) => write!(f, "the call failed on the other shard: {error}"),
        }
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallError({self})")
    }
}

impl std::error::Error for CallError {}
