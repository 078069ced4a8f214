//! Starting a runtime, all or nothing, and stopping it.
//!
//! The starting thread makes every poll and inbox, then the threads; each pins itself and makes its shard, and reports.
//! Only when all have reported does any of them turn. If one fails, the others are told to go home, joined, and the
//! error says which shard failed and why.

use super::handle::Handle;
use super::thread::{Part, Plan, Report};
use super::watch::{self, Trouble, Watch, Watched};
use crate::blocking::Pool;
use crate::error::{Error, ErrorKind};
use crate::id::{CpuId, ShardId};
use crate::limits::{Limits, STALL_THRESHOLD};
use crate::mode::{Mode, Pin};
use crate::shard::counters::PublishedLine;
use crate::shard::fleet::{Fleet, Member};
use crate::shard::shared::Shared;
use crate::shard::surroundings::Surroundings;
use crate::shard::{Seed, context};
use crate::stealing::pool::Pool as StealingPool;
use crate::sync::Arc;
use crate::sys::cpus;
use crate::time::clock;
use crate::topology::{Cores, Placement};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Settings of a runtime that is to be started.
///
/// # Examples
/// ```
/// use corelane::{Runtime, Pin};
/// let runtime = Runtime::builder().cores("1".parse()?).pin(Pin::BestEffort).thread_name("proxy").start()?;
/// assert_eq!(runtime.handle().shard_count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing before start()"]
pub struct Builder {
    cores: Cores,
    mode: Mode,
    pin: Option<Pin>,
    limits: Limits,
    limits_on: HashMap<CpuId, Limits>,
    thread_name: String,
    observer: Option<watch::Observer>,
    stall_threshold: Duration,
    stall_threshold_on: HashMap<CpuId, Duration>,
    surroundings: Option<Prepare>,
}

/// Makes what the threads have around them, given the name of threads.
type Prepare = Arc<dyn Fn(&str) -> Result<Surroundings, Error> + Send + Sync>;

impl Default for Builder {
    fn default() -> Self {
        Builder {
            cores: Cores::All,
            mode: Mode::default(),
            pin: None,
            limits: Limits::default(),
            limits_on: HashMap::new(),
            thread_name: "corelane".into(),
            observer: None,
            stall_threshold: STALL_THRESHOLD,
            stall_threshold_on: HashMap::new(),
            surroundings: None,
        }
    }
}

impl Builder {
    /// Which CPUs get a shard. Default: all that this process may use.
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// How tasks are scheduled. Default: [`Mode::ThreadPerCore`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether shards must be pinned. Default: [`Pin::BestEffort`]; in work-stealing mode [`Pin::Off`], since there the
    /// system may move the workers as it sees fit.
    pub fn pin(mut self, pin: Pin) -> Self {
        self.pin = Some(pin);
        self
    }

    /// Bounds of queues and phases.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds for the shard of one CPU, if it gets one. `blocking_threads` of it means nothing: the pool is one for all, and
    /// so, in work-stealing mode, are the `events`.
    pub fn limits_on(mut self, cpu: CpuId, limits: Limits) -> Self {
        self.limits_on.insert(cpu, limits);
        self
    }

    /// What threads are called: the shard's number is added. Linux shows the first 15 bytes. It must not contain a zero
    /// byte.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Has the shards watched from a thread of its own, and `observer` told of tasks that hold a shard up, of panics, and of CPUs
    /// that go offline. It runs on that thread. Without an observer there is no such thread.
    ///
    /// The observer may shut its own runtime down, or drop it; it is not called again then. A shutdown from elsewhere
    /// waits until the observer has returned.
    pub fn on_trouble(mut self, observer: impl Fn(Trouble) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// How long a task may hold its shard before `on_trouble` is told. Default: 25 milliseconds. It has no influence on
    /// CPUs that go offline: those are looked for every second.
    pub fn stall_threshold(mut self, threshold: Duration) -> Self {
        self.stall_threshold = threshold;
        self
    }

    /// The same for the shard of one CPU, if it gets one.
    pub fn stall_threshold_on(mut self, cpu: CpuId, threshold: Duration) -> Self {
        self.stall_threshold_on.insert(cpu, threshold);
        self
    }

    /// What all threads of the runtime are in.
    #[cfg(feature = "tokio-context")]
    pub(super) fn surroundings(
        mut self,
        prepare: impl Fn(&str) -> Result<Surroundings, Error> + Send + Sync + 'static,
    ) -> Self {
        self.surroundings = Some(Arc::new(prepare));
        self
    }

    /// Starts every shard, or none.
    ///
    /// # Errors
    /// A setting is out of bounds, the CPUs cannot be had, or the operating system refuses a thread, a poll, or a pin
    /// that is [required](Pin::Required). Nothing is left behind.
    pub fn start(self) -> Result<Runtime, Error> {
        self.check()?;
        let Placement { cpus, warnings } = self.place()?;
        let limits = &self.limits;
        // The pool remembers the CPU mask of this thread, which is not pinned by us.
        let prepare = |prepare: &Prepare| prepare(&self.thread_name);
        let surroundings =
            self.surroundings.as_ref().map_or(Ok(Surroundings::default()), prepare)?;
        let pool = Pool::new(limits.blocking_threads, surroundings);
        let shared = match self.mode {
            Mode::ThreadPerCore => None,
            Mode::WorkStealing => {
                let shared = Shared::new(limits.events, clock::now()).map_err(|error| {
                    refused("the workers got no epoll instance or eventfd to share", error)
                })?;
                Some(Arc::new(shared))
            }
        };
        let seed = |(index, cpu): (usize, &CpuId)| {
            let limits = self.limits_on.get(cpu).unwrap_or(limits);
            Seed::sharing(limits, shared.clone()).map_err(|error| {
                refused(format!("shard {index} got no epoll instance or eventfd"), error)
            })
        };
        let seeds = cpus.iter().enumerate().map(seed).collect::<Result<Vec<Seed>, Error>>()?;
        let member = |seed: &Seed| Member {
            inbox: seed.inbox.clone(),
            published: Arc::new(PublishedLine::default()),
        };
        let fleet =
            Fleet::new(limits.clone(), seeds.iter().map(member).collect(), pool, shared.clone());

        let inboxes = seeds.iter().map(|seed| seed.inbox.clone()).collect();
        let (pool, locals) = match shared.map(|shared| StealingPool::new(shared, inboxes)) {
            Some((pool, locals)) => (Some(pool), locals),
            None => (None, Vec::new()),
        };
        let mut locals = locals.into_iter();

        let mut starting = Starting { threads: Vec::new(), fleet };
        for (index, (seed, cpu)) in seeds.into_iter().zip(cpus).enumerate() {
            let part = pool.clone().zip(locals.next());
            // On error `starting` is dropped, which stops and joins those before.
            starting.spawn(&self, ShardId(index as u16), cpu, seed, part)?;
        }
        // Asking for every CPU means siblings too; asking for some that turn out to be siblings may be a mistake.
        let unexpected = matches!(self.cores, Cores::Count(_) | Cores::List(_));
        let warnings = warnings.iter().filter(|_| unexpected).map(ToString::to_string).collect();
        let threshold = |cpu| *self.stall_threshold_on.get(&cpu).unwrap_or(&self.stall_threshold);
        let (mut runtime, watched) = starting.finish(warnings, threshold)?;
        if let Some(observer) = self.observer {
            let fleet = runtime.handle.fleet().clone();
            let watch = Watch::start(fleet, watched, observer);
            runtime.watch = Some(
                watch.map_err(|error| refused("there is no thread to watch the shards", error))?,
            );
        }
        Ok(runtime)
    }

    fn chosen_pin(&self) -> Pin {
        self.pin.unwrap_or(self.mode.default_pin())
    }

    fn place(&self) -> Result<Placement, Error> {
        let usable = cpus::usable()
            .map_err(|error| refused("the CPUs this process may use cannot be read", error))?;
        Placement::on(&usable, &self.cores)
            .map_err(|error| Error::new(ErrorKind::Placement, error.to_string()))
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |text| Err(Error::new(ErrorKind::Config, text));
        if self.thread_name.contains('\0') {
            let name = &self.thread_name;
            return wrong(format!("thread_name is {name:?}, and must not contain a zero byte"));
        }
        self.limits.check().or_else(wrong)?;
        let of_cpu = |(cpu, limits): (&CpuId, &Limits)| {
            limits.check().map_err(|text| format!("{cpu}: {text}"))
        };
        self.limits_on.iter().try_for_each(of_cpu).or_else(wrong)
    }
}

pub(super) fn refused(text: impl Into<String>, error: std::io::Error) -> Error {
    let text = format!("{}: {error}", text.into());
    Error::new(ErrorKind::Start, text).because(error)
}

/// Threads that wait for the word to go. Dropped, it sends them home.
struct Starting {
    threads: Vec<StartingThread>,
    fleet: Arc<Fleet>,
}

struct StartingThread {
    info: ShardInfo,
    go: mpsc::Sender<()>,
    report: mpsc::Receiver<Report>,
    thread: thread::JoinHandle<()>,
}

impl Starting {
    fn spawn(
        &mut self,
        builder: &Builder,
        shard: ShardId,
        cpu: CpuId,
        seed: Seed,
        part: Option<Part>,
    ) -> Result<(), Error> {
        let (go, wait) = mpsc::channel();
        let (tell, report) = mpsc::channel();
        let (fleet, pin) = (self.fleet.clone(), builder.chosen_pin());
        let plan = Plan { id: shard, cpu, pin, seed, part, fleet };
        let name = format!("{}-{}", builder.thread_name, shard.index());
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || super::thread::run(plan, &tell, &wait))
            .map_err(|error| {
                refused(format!("the operating system gave no thread for {shard}"), error)
            })?;
        let info = ShardInfo { shard, cpu, pinned: false };
        self.threads.push(StartingThread { info, go, report, thread });
        Ok(())
    }

    /// Waits for every report, then lets all go. Returns what there is to watch, too.
    fn finish(
        mut self,
        warnings: Vec<String>,
        threshold: impl Fn(CpuId) -> Duration,
    ) -> Result<(Runtime, Vec<Watched>), Error> {
        let mut watched = Vec::new();
        for starting in &mut self.threads {
            let ready = starting.report.recv().unwrap_or_else(|_| {
                let shard = starting.info.shard;
                Err(Error::new(
                    ErrorKind::Start,
                    format!("the thread of {shard} ended before it was ready"),
                ))
            })?;
            starting.info.pinned = ready.pinned;
            let threshold = threshold(starting.info.cpu);
            watched.push(Watched { info: starting.info, thread: ready.number, threshold });
        }
        let mut shards = Vec::new();
        let mut threads = Vec::new();
        for starting in self.threads.drain(..) {
            // A thread that has reported waits for this word and nothing else.
            let _ = starting.go.send(());
            shards.push(starting.info);
            threads.push(starting.thread);
        }
        let handle = Handle::new(self.fleet.clone());
        Ok((Runtime { handle, shards, threads, warnings, watch: None }, watched))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        for StartingThread { go, thread, .. } in self.threads.drain(..).rev() {
            // Without a sender the thread's wait ends, and so does the thread.
            drop(go);
            let _ = thread.join();
        }
    }
}

/// Where a shard runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardInfo {
    /// Which shard.
    pub shard: ShardId,
    /// The CPU it was meant for.
    pub cpu: CpuId,
    /// Whether its thread may run on that CPU only.
    pub pinned: bool,
}

/// A running runtime. Dropping it stops it without grace: tasks are dropped where they are, and the threads joined.
pub struct Runtime {
    handle: Handle,
    shards: Vec<ShardInfo>,
    threads: Vec<thread::JoinHandle<()>>,
    warnings: Vec<String>,
    watch: Option<Watch>,
}

/// What a shutdown came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tasks of the runtime's shards that had not ended by the deadline and were dropped. Those of a thread in
    /// [`Handle::block_on`] do not count.
    pub tasks_dropped: usize,
    /// Shards whose thread had ended by a panic in the runtime itself.
    pub shards_panicked: usize,
}

impl Runtime {
    /// Settings for a new runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Reaches the shards from anywhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where the shards run.
    pub fn shards(&self) -> &[ShardInfo] {
        &self.shards
    }

    /// What the user may want to know about the placement: shards that share a physical core, for example.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// As [`Handle::block_on`].
    ///
    /// # Panics
    /// As [`block_on`](crate::block_on).
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Stops every shard: together, when no task is left on any and every call that was taken has run, or at the deadline,
    /// when the remaining tasks are dropped. Then joins the threads. A task that blocks its thread is waited for: no thread can
    /// be stopped from outside.
    ///
    /// # Panics
    /// On one of the runtime's own shards, which would wait for itself.
    #[track_caller]
    pub fn shutdown(mut self, deadline: Duration) -> ShutdownReport {
        self.stop(deadline)
    }

    #[track_caller]
    fn stop(&mut self, deadline: Duration) -> ShutdownReport {
        let inside = context::with_current(|shard| Arc::ptr_eq(shard.fleet(), self.handle.fleet()));
        if inside == Some(true) {
            self.handle.request_shutdown(deadline);
            panic!(
                "a Corelane runtime was dropped or shut down on one of its own shards, which would wait for itself: use \
                 Handle::request_shutdown there, and drop the Runtime on the thread that started it"
            );
        }
        drop(self.watch.take());
        let fleet = self.handle.fleet().clone();
        self.handle.request_shutdown(deadline);
        let joined = self.threads.drain(..).rev().map(thread::JoinHandle::join);
        let shards_panicked = joined.filter(Result::is_err).count();
        fleet.pool().close();
        fleet.surroundings().end();
        ShutdownReport { tasks_dropped: fleet.cut(), shards_panicked }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            if thread::panicking() && context::with_current(|_| ()).is_some() {
                // A second panic would abort the process; the shards end when the process does.
                self.handle.request_shutdown(Duration::ZERO);
                return;
            }
            self.stop(Duration::ZERO);
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cores", &self.cores)
            .field("mode", &self.mode)
            .field("pin", &self.chosen_pin())
            .field("limits", &self.limits)
            .field("thread_name", &self.thread_name)
            .finish_non_exhaustive()
    }
}
