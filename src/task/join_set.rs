//! `JoinSet`: many tasks, joined as they end.
//!
//! Each task of a set has a number, and the set a waker for each number. A task that ends wakes it: the number goes
//! into a list, and whoever waits for the set is woken. So joining looks at the tasks that have ended and at no other.
//! The list is behind a mutex that is held for a few instructions, since a task may belong to another shard than the
//! one that waits. The wakers stay when a task has been joined, so a set that is filled and emptied in turn allocates
//! nothing of its own.

use crate::blocking::spawn_blocking;
use crate::runtime::Handle;
use crate::runtime::spawn::{spawn, spawn_local};
use crate::sync::{Arc, Mutex, lock};
use crate::table::Table;
use crate::task::coop::poll_proceed;
use crate::task::{AbortHandle, Id, JoinError, JoinHandle};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker, ready};

/// A set of tasks with one type of output, joined in the order in which they end.
///
/// Dropping the set aborts all of its tasks. The set is `Send` if the outputs are, and may be waited for on another
/// shard than that of its tasks.
///
/// # Examples
/// ```
/// use corelane::task::JoinSet;
/// corelane::block_on(async {
///     let mut set = JoinSet::new();
///     for number in 0..10 {
///         set.spawn(async move { number });
///     }
///     let mut seen = [false; 10];
///     while let Some(number) = set.join_next().await {
///         seen[number.unwrap()] = true;
///     }
///     assert_eq!(seen, [true; 10]);
/// });
/// ```
pub struct JoinSet<T> {
    tasks: Table<JoinHandle<T>>,
    /// By the task's number.
    wakers: Vec<Waker>,
    ended: Arc<Ended>,
}

/// The tasks that have ended and were not joined yet, and who waits for one.
struct Ended {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Numbers. Each task is in it about once; a number that was given to another task since is a look in vain.
    numbers: VecDeque<u32>,
    waiting: Option<Waker>,
}

/// The waker of one number.
struct Ticket {
    number: u32,
    ended: Arc<Ended>,
}

impl Wake for Ticket {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ended.push(self.number);
    }
}

impl Ended {
    fn push(&self, number: u32) {
        let mut state = lock(&self.state);
        state.numbers.push_back(number);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn pop(&self) -> Option<u32> {
        lock(&self.state).numbers.pop_front()
    }

    /// [`pop`](Self::pop), or leaves the waker.
    fn pop_or_wait(&self, waker: &Waker) -> Option<u32> {
        if let Some(number) = self.pop() {
            return Some(number);
        }
        // Cloning and dropping a waker may run somebody's code, so both are done without the lock.
        let waker = waker.clone();
        let mut state = lock(&self.state);
        let number = state.numbers.pop_front();
        let old = if number.is_none() { state.waiting.replace(waker) } else { None };
        drop(state);
        drop(old);
        number
    }
}

impl<T> JoinSet<T> {
    /// An empty set. It can be made anywhere.
    pub fn new() -> Self {
        let ended = Arc::new(Ended { state: Mutex::new(State::default()) });
        JoinSet { tasks: Table::new(), wakers: Vec::new(), ended }
    }

    /// How many tasks are in the set: those that run, and those that have ended and were not joined.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no task in the set.
    pub fn is_empty(&self) -> bool {
        self.tasks.len() == 0
    }

    fn handles(&self) -> impl Iterator<Item = &JoinHandle<T>> {
        (0..self.tasks.capacity()).filter_map(|number| self.tasks.get(number))
    }
}

impl<T: 'static> JoinSet<T> {
    /// [`spawn`]s a task on this shard and puts it into the set.
    ///
    /// # Panics
    /// Outside a shard.
    #[track_caller]
    pub fn spawn<F>(&mut self, task: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.insert(spawn(task))
    }

    /// [`spawn_local`]s a task on this shard and puts it into the set.
    ///
    /// # Panics
    /// Outside a shard.
    ///
    /// # Examples
    /// ```
    /// use std::rc::Rc;
    /// corelane::block_on(async {
    ///     let mut set = corelane::task::JoinSet::new();
    ///     let local = Rc::new(5);
    ///     set.spawn_local(async move { *local });
    ///     assert_eq!(set.join_next().await.unwrap().unwrap(), 5);
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_local<F>(&mut self, task: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.insert(spawn_local(task))
    }

    /// Runs `f` on the blocking pool, as [`spawn_blocking`] does, as one of the set.
    ///
    /// # Panics
    /// Outside a shard.
    ///
    /// # Examples
    /// ```
    /// corelane::block_on(async {
    ///     let mut set = corelane::task::JoinSet::new();
    ///     set.spawn_blocking(|| std::fs::metadata("/proc").is_ok());
    ///     assert_eq!(set.join_all().await, [true]);
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, f: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.insert(spawn_blocking(f))
    }

    /// Runs `f` on the blocking pool of a runtime, from any thread.
    pub fn spawn_blocking_on<F>(&mut self, f: F, handle: &Handle) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.insert(handle.spawn_blocking(f))
    }

    /// Puts a task into the set that runs already, on this shard or on another: with
    /// [`Handle::spawn_on`] a set can have tasks on every shard.
    ///
    /// # Examples
    /// ```
    /// use corelane::{Runtime, ShardId, task::JoinSet};
    /// let runtime = Runtime::builder().cores("1".parse()?).start()?;
    /// let mut set = JoinSet::new();
    /// for shard in runtime.handle().shards() {
    ///     set.insert(runtime.handle().spawn_on(shard, || async { ShardId::current() })?);
    /// }
    /// assert_eq!(corelane::block_on(set.join_all()), [Some(ShardId::new(0))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert(&mut self, task: JoinHandle<T>) -> AbortHandle {
        let abort = task.abort_handle();
        let number = self.tasks.insert(task);
        if self.wakers.len() <= number as usize {
            let ticket = Ticket { number, ended: self.ended.clone() };
            self.wakers.push(Waker::from(Arc::new(ticket)));
        }
        let task = self.tasks.get_mut(number).expect("it has just been put there");
        if task.watch(&self.wakers[number as usize]) {
            self.ended.push(number);
        }
        abort
    }

    /// Waits until one of the tasks ends, takes it out of the set and returns its output. None: the set is empty.
    ///
    /// # Errors
    /// The task panicked or was cancelled.
    ///
    /// # Cancel safety
    /// Safe: a task whose output was not returned is still in the set.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| self.poll_join_next(context)).await
    }

    /// [`join_next`](Self::join_next), which says also which task it was.
    ///
    /// # Errors
    /// The task panicked or was cancelled: [`JoinError::id`] says which.
    ///
    /// # Cancel safety
    /// Safe: a task whose output was not returned is still in the set.
    pub async fn join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        poll_fn(|context| self.poll_join_next_with_id(context)).await
    }

    /// Takes a task out of the set that has ended. None: there is none, though others may still run.
    ///
    /// # Errors
    /// The task panicked or was cancelled.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.try_join_next_with_id().map(without_id)
    }

    /// [`try_join_next`](Self::try_join_next), which says also which task it was.
    ///
    /// # Errors
    /// The task panicked or was cancelled: [`JoinError::id`] says which.
    pub fn try_join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        loop {
            let number = self.ended.pop()?;
            if let Some(joined) = self.join(number) {
                return Some(joined);
            }
        }
    }

    /// Polls for [`join_next`](Self::join_next).
    ///
    /// Only the task that polled last is woken. `Ready(None)`: the set is empty.
    pub fn poll_join_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, JoinError>>> {
        self.poll_join_next_with_id(context).map(|joined| joined.map(without_id))
    }

    /// Polls for [`join_next_with_id`](Self::join_next_with_id), as [`poll_join_next`](Self::poll_join_next) does.
    pub fn poll_join_next_with_id(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(Id, T), JoinError>>> {
        // Somebody who joins a great many tasks that have ended yields from time to time.
        let spent = ready!(poll_proceed(context));
        while !self.is_empty() {
            let Some(number) = self.ended.pop_or_wait(context.waker()) else {
                return Poll::Pending;
            };
            if let Some(joined) = self.join(number) {
                spent.made_progress();
                return Poll::Ready(Some(joined));
            }
        }
        Poll::Ready(None)
    }

    /// The output of a task that is said to have ended. None: it has not, or there is none of that number any more.
    fn join(&mut self, number: u32) -> Option<Result<(Id, T), JoinError>> {
        let task = self.tasks.get_mut(number)?;
        if !task.watch(&self.wakers[number as usize]) {
            return None;
        }
        let mut context = Context::from_waker(&self.wakers[number as usize]);
        let Poll::Ready(joined) = Pin::new(&mut *task).poll(&mut context) else {
            return None;
        };
        let id = task.id();
        drop(self.tasks.remove(number));
        Some(joined.map(|output| (id, output)))
    }

    /// Aborts all tasks and waits until they have ended. Their outputs, if they still had one, are dropped.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the tasks are aborted and those not yet joined are still in the set.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// Waits for all tasks and returns their outputs, in the order in which they ended.
    ///
    /// # Panics
    /// If a task panicked, with the same payload, or was cancelled. The tasks that are left are aborted.
    ///
    /// # Cancel safety
    /// Dropping the future drops the set, which aborts its tasks.
    ///
    /// # Examples
    /// ```
    /// use corelane::task::JoinSet;
    /// corelane::block_on(async {
    ///     let set: JoinSet<i32> = (0..3).map(|number| async move { number }).collect();
    ///     let mut numbers = set.join_all().await;
    ///     numbers.sort();
    ///     assert_eq!(numbers, [0, 1, 2]);
    /// });
    /// ```
    pub async fn join_all(mut self) -> Vec<T> {
        let mut outputs = Vec::with_capacity(self.len());
        while let Some(joined) = self.join_next().await {
            match joined {
                Ok(output) => outputs.push(output),
                Err(error) => match error.try_into_panic() {
                    Ok(payload) => resume_unwind(payload),
                    Err(cancelled) => panic!("{cancelled}"),
                },
            }
        }
        outputs
    }

    /// Aborts all tasks. They stay in the set until they are joined.
    pub fn abort_all(&mut self) {
        self.handles().for_each(JoinHandle::abort);
    }

    /// Takes all tasks out of the set and lets them run on; their outputs will be dropped.
    pub fn detach_all(&mut self) {
        for number in 0..self.tasks.capacity() {
            drop(self.tasks.remove(number));
        }
        lock(&self.ended.state).numbers.clear();
    }
}

fn without_id<T>(joined: Result<(Id, T), JoinError>) -> Result<T, JoinError> {
    joined.map(|(_, output)| output)
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.handles().for_each(JoinHandle::abort);
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        JoinSet::new()
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish()
    }
}

/// Spawns every future on this shard.
///
/// # Panics
/// Outside a shard.
impl<T, F> FromIterator<F> for JoinSet<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut set = JoinSet::new();
        set.extend(futures);
        set
    }
}

/// Spawns every future on this shard.
///
/// # Panics
/// Outside a shard.
impl<T, F> Extend<F> for JoinSet<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        for future in futures {
            self.spawn(future);
        }
    }
}
