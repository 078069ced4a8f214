//! What the tests are made of: fleets of shards, waiting without sleeping, values that say where they die.

use crate::pretence;
use corelane::{Builder, Cores, Error, Handle, Limits, Pin, Runtime, ShardId, ShardStats};
use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin as Pinned, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

pub(crate) const FIRST: ShardId = ShardId::new(0);
pub(crate) const SECOND: ShardId = ShardId::new(1);
pub(crate) const THIRD: ShardId = ShardId::new(2);

/// How long a test may take before it counts as hanging. It measures nothing.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(120);

/// Runs `test` on a thread of its own and fails if it does not come to an end.
pub(crate) fn within_reason(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        // Nobody listens any more if the test has been given up.
        let _ = done.send(());
    });
    match ended.recv_timeout(HANGS_AFTER) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        // Done, or panicked.
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Waits until `holds` does.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < HANGS_AFTER / 2, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Default limits, changed.
pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// So many shards, also on a machine with fewer CPUs.
pub(crate) fn shards(count: usize) -> Runtime {
    shards_with(count, Limits::default())
}

pub(crate) fn shards_with(count: usize, limits: Limits) -> Runtime {
    start(count, Runtime::builder().limits(limits)).expect("started")
}

/// Starts so many shards by this builder. Where there are fewer CPUs, they are not pinned.
pub(crate) fn start(count: usize, builder: Builder) -> Result<Runtime, Error> {
    let builder = builder.cores(Cores::Count(count));
    match builder.clone().start() {
        Err(error) if error.is_placement() => {
            pretence::of_cpus(count, || builder.pin(Pin::Off).start())
        }
        other => other,
    }
}

/// Runs `f` on a shard, from a thread that is none, and returns what it returned.
#[track_caller]
pub(crate) fn on<R: Send + 'static>(
    handle: &Handle,
    shard: ShardId,
    f: impl FnOnce() -> R + Send + 'static,
) -> R {
    wait(handle.submit_to(shard, || async { f() }))
        .expect("the shard runs and the call does not panic")
}

/// Runs a future to its end on this thread, which is no shard.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(future)
}

pub(crate) fn thread_of(handle: &Handle, shard: ShardId) -> ThreadId {
    on(handle, shard, || thread::current().id())
}

pub(crate) fn stats(handle: &Handle, shard: ShardId) -> ShardStats {
    handle.stats()[shard.index()]
}

/// The counts of a shard that has come to rest. A shard publishes them when it waits, so on a machine that gives it no
/// time they may be a turn behind: good for upper bounds, not for equality.
pub(crate) fn stats_at_rest(handle: &Handle, shard: ShardId) -> ShardStats {
    on(handle, shard, || ());
    let (mut last, mut same) = (stats(handle, shard), 0);
    eventually("the shard rests", || {
        let now = stats(handle, shard);
        let rests = (now.turns, now.parks, now.polls) == (last.turns, last.parks, last.polls);
        same = if rests { same + 1 } else { 0 };
        last = now;
        same >= 5
    });
    last
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pinned::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a future once, as it is, inside another.
pub(crate) async fn poll_now<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// A panic on purpose: like `panic!`, without the report on stderr.
pub(crate) fn deliberate() -> ! {
    std::panic::resume_unwind(Box::new("deliberate"))
}

/// Keeps the core busy.
pub(crate) fn spin(duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Says on which thread it was dropped.
pub(crate) struct DropSpy {
    dropped: mpsc::Sender<ThreadId>,
}

impl DropSpy {
    pub(crate) fn new() -> (DropSpy, Dropped) {
        let (dropped, threads) = mpsc::channel();
        (DropSpy { dropped }, Dropped(threads))
    }

    /// The same, and not `Send`.
    pub(crate) fn stay(self) -> Homebody {
        Homebody { _spy: self, _not_send: PhantomData }
    }
}

impl Drop for DropSpy {
    fn drop(&mut self) {
        let _ = self.dropped.send(thread::current().id());
    }
}

/// A [`DropSpy`] that cannot leave its thread.
pub(crate) struct Homebody {
    _spy: DropSpy,
    _not_send: PhantomData<Rc<()>>,
}

/// Where a [`DropSpy`] was dropped.
pub(crate) struct Dropped(mpsc::Receiver<ThreadId>);

impl Dropped {
    /// Waits for the drop.
    #[track_caller]
    pub(crate) fn on(&self) -> ThreadId {
        self.0.recv_timeout(HANGS_AFTER / 2).expect("it is dropped")
    }

    /// Not dropped so far.
    pub(crate) fn not_yet(&self) -> bool {
        matches!(self.0.try_recv(), Err(mpsc::TryRecvError::Empty))
    }

    /// Whether it has been dropped, once, without waiting.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.try_recv().is_ok()
    }
}

/// Counts how often it was woken.
#[derive(Default)]
pub(crate) struct WakeCount(AtomicUsize);

impl WakeCount {
    pub(crate) fn new() -> (Arc<WakeCount>, Waker) {
        let count = Arc::new(WakeCount::default());
        (count.clone(), Waker::from(count))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Numbers that differ from run to run. The seed is printed, and shown if the test fails.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        use std::hash::{BuildHasher, Hasher};
        let seed = std::collections::hash_map::RandomState::new().build_hasher().finish() | 1;
        println!("random seed {seed:#x}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// A door that a thread waits at: to hold a shard up on purpose.
pub(crate) struct Gate {
    reached: mpsc::Receiver<()>,
    open: mpsc::Sender<()>,
}

impl Gate {
    /// Blocks a shard, thread and all, until the gate is opened or dropped. Returns when it is blocked.
    pub(crate) fn close(handle: &Handle, shard: ShardId) -> Gate {
        let (tell, reached) = mpsc::channel();
        let (open, wait) = mpsc::channel::<()>();
        let block = move || {
            tell.send(()).expect("somebody closes the gate");
            let _ = wait.recv();
        };
        handle.post(shard, block).expect("a shard with room");
        let gate = Gate { reached, open };
        gate.reached.recv_timeout(HANGS_AFTER / 2).expect("the shard comes to the gate");
        gate
    }

    pub(crate) fn open(self) {
        let _ = self.open.send(());
    }
}

thread_local! {
    static LOCAL_COUNT: Cell<u64> = const { Cell::new(0) };
}

/// A counter of the thread, for tests that own a shard.
pub(crate) fn local_count() -> u64 {
    LOCAL_COUNT.get()
}

pub(crate) fn add_local_count(amount: u64) {
    LOCAL_COUNT.set(LOCAL_COUNT.get() + amount);
}
