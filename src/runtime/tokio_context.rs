//! The context of a Tokio runtime around the threads of one of ours.
//!
//! Libraries that were made for Tokio look for its runtime in a thread-local: for sockets and timers to register with, and for
//! threads to spawn on. Each thread of ours enters such a context for its life. Futures are still polled where they are; what
//! wakes them is Tokio's driver, on a thread of Tokio's, through an ordinary foreign wake.
//!
//! Order at the end: the shards are closed and their threads joined, all of it within the context; the blocking pool is closed;
//! then the Tokio runtime ends, if it is ours.

use super::builder::{Builder, refused};
use crate::error::{Error, ErrorKind};
use crate::shard::surroundings::{Around, Surroundings};
use crate::sync::lock;
use crate::sys::affinity::AffinityMask;
use std::cell::Cell;
use std::sync::Mutex;
use std::thread;
use tokio::runtime::{Handle, Runtime};

/// A Tokio runtime in whose context the threads of a [`Runtime`](crate::Runtime) are: `tokio::net`, `tokio::time`,
/// `tokio::spawn`, and libraries that need them, work in every task. See [`Builder::tokio_context`].
#[derive(Clone, Debug)]
pub struct TokioContext(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Own { threads: usize },
    Given(Handle),
}

/// Threads that one runtime may be told to have.
const THREADS_MAX: usize = 1024;

impl TokioContext {
    /// One that is started for this purpose, with so many threads, and ends with the Corelane runtime. They drive Tokio's sockets and
    /// timers, run what is spawned with `tokio::spawn`, and are not pinned, nor are those of `tokio::task::spawn_blocking`.
    pub fn threads(threads: usize) -> TokioContext {
        TokioContext(Kind::Own { threads })
    }
}

/// One thread of its own.
impl Default for TokioContext {
    fn default() -> TokioContext {
        TokioContext::threads(1)
    }
}

/// One that is there already. It must outlive the Corelane runtime, which leaves it as it is.
///
/// Threads that it starts for `tokio::task::spawn_blocking` in a shard's task inherit the CPU of that shard, unless its
/// `on_thread_start` gives them another mask.
impl From<Handle> for TokioContext {
    fn from(handle: Handle) -> TokioContext {
        TokioContext(Kind::Given(handle))
    }
}

impl Builder {
    /// Has every thread of the runtime in the context of a Tokio runtime: its shards or workers, the threads of
    /// [`spawn_blocking`](crate::spawn_blocking), and threads in [`Handle::block_on`](crate::Handle::block_on). Default: none.
    ///
    /// A future that uses Tokio's sockets or timers is polled on its shard as any other. Tokio's driver notices on one of Tokio's
    /// threads that it can go on, and that wake crosses cores; a connection or timer of Corelane's own is cheaper.
    /// `tokio::spawn` runs its future on Tokio's threads, so it must be `Send`.
    ///
    /// A [`HostedShard`](crate::HostedShard), and [`block_on`](crate::block_on) without a runtime, are in whatever context their
    /// thread is in.
    ///
    /// # Examples
    /// ```
    /// use corelane::{Runtime, TokioContext};
    /// use std::time::Duration;
    /// let runtime = Runtime::builder().tokio_context(TokioContext::threads(1)).start()?;
    /// let task = runtime.handle().spawn_on(corelane::ShardId::new(0), || async {
    ///     tokio::time::sleep(Duration::from_millis(1)).await; // Panics without the context.
    ///     tokio::spawn(async { 1 + 1 }).await
    /// })?;
    /// assert_eq!(runtime.block_on(task)??, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tokio_context(self, context: impl Into<TokioContext>) -> Self {
        let context = context.into();
        self.surroundings(move |name| match &context.0 {
            Kind::Own { threads } => Ok(Surroundings::new(Own::start(*threads, name)?)),
            Kind::Given(handle) => Ok(Surroundings::new(Given(handle.clone()))),
        })
    }
}

struct Given(Handle);

impl Around for Given {
    fn run(&self, body: &mut dyn FnMut()) {
        let _entered = self.0.enter();
        body();
    }

    fn end(&self) {}
}

thread_local! {
    /// This thread belongs to a Tokio runtime that was started here.
    static IS_TOKIOS: Cell<bool> = const { Cell::new(false) };
}

struct Own {
    handle: Handle,
    /// None when it has ended.
    runtime: Mutex<Option<Runtime>>,
}

impl Own {
    fn start(threads: usize, name: &str) -> Result<Own, Error> {
        if !(1..=THREADS_MAX).contains(&threads) {
            let text = format!(
                "tokio_context is to have {threads} threads, and must have 1 to {THREADS_MAX}"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        // Of this thread, which is not pinned by us. Those that a shard has started would be.
        let mask = AffinityMask::current().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(format!("{name}-tokio"))
            .on_thread_start(move || {
                IS_TOKIOS.set(true);
                if let Some(mask) = &mask {
                    // Refused only where the mask was changed from outside meanwhile; then the inherited one has to do.
                    let _ = mask.apply_to_current_thread();
                }
            })
            .enable_all()
            .build()
            .map_err(|error| refused("the Tokio runtime for tokio_context cannot start", error))?;
        let handle = runtime.handle().clone();
        Ok(Own { handle, runtime: Mutex::new(Some(runtime)) })
    }
}

impl Around for Own {
    fn run(&self, body: &mut dyn FnMut()) {
        let _entered = self.handle.enter();
        body();
    }

    fn end(&self) {
        let Some(runtime) = lock(&self.runtime).take() else { return };
        if IS_TOKIOS.get() {
            // It would wait for itself.
            return runtime.shutdown_background();
        }
        // On a thread of its own: this one may be in a Tokio runtime, where waiting for another panics.
        let runtime = Mutex::new(Some(runtime));
        thread::scope(|scope| {
            let drop_it = || drop(lock(&runtime).take());
            let ending =
                thread::Builder::new().name("tokio-end".into()).spawn_scoped(scope, drop_it);
            if ending.is_err() {
                lock(&runtime).take().into_iter().for_each(Runtime::shutdown_background);
            }
        });
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Whichever thread comes last, possibly one of its own, must not wait.
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}
