//! The operations that stay on one thread, written once for all runtimes.
//!
//! The measuring future is itself a task where that is the faster place, so that every runtime shows
//! its best. It arms at most a hundred timers without yielding, so that a cooperation budget is
//! never what is measured.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Operation;
use super::sample::{Calibration, Figures, LONG_SAMPLES, SAMPLES};

/// Tasks of the operation that spawns many, and yields before timers are allowed to go on.
const BATCH: u64 = 1000;

/// Tasks that yield in turn.
const YIELDERS: u64 = 100;

/// Timers armed and cancelled between two yields.
const TIMER_BATCH: u64 = 100;

/// Deadline of the timers that are cancelled.
const CANCELLED_AFTER: Duration = Duration::from_secs(5);

/// Timers that fire, and the spread of their deadlines.
const SLEEPERS: u64 = 1_000_000;
const SLEEP_MS_MIN: u64 = 5;
const SLEEP_MS_SPREAD: u64 = 201;

/// What a runtime can do on the thread it runs on.
pub(super) trait Local: Copy + 'static {
    /// What a spawned task is joined with.
    type Join: Future;

    /// Spawns a task that is ready at once.
    fn spawn_ready(self) -> Self::Join;
    /// Spawns a task that yields `times` times.
    fn spawn_yields(self, times: u64) -> Self::Join;
    /// Spawns a task that sleeps.
    fn spawn_sleep(self, duration: Duration) -> Self::Join;
    /// Gives way to the other tasks once.
    fn yield_now(self) -> impl Future<Output = ()>;
    /// The runtime's own timer.
    fn sleep(self, duration: Duration) -> impl Future<Output = ()>;
}

/// Measures one operation in nanoseconds. Runs as a task of the runtime.
pub(super) async fn measure<R: Local>(runtime: R, operation: Operation) -> Result<Figures, String> {
    let (first, calibrated, samples) = match operation {
        Operation::SpawnJoin | Operation::YieldOne => (BATCH, true, SAMPLES),
        Operation::SpawnThousand => (BATCH, true, SAMPLES),
        Operation::YieldHundred => (YIELDERS * 10, true, SAMPLES),
        Operation::TimerCancel => (TIMER_BATCH * 10, true, SAMPLES),
        Operation::SleepMillion => (SLEEPERS, false, LONG_SAMPLES),
        Operation::RoundTrip | Operation::RoundTripParked | Operation::OneWay => {
            return Err("this operation needs two threads".to_owned());
        }
    };
    let mut calibration = Calibration::from(first);
    let mut enough = !calibrated;
    while !enough {
        enough = calibration.enough(once(runtime, operation, calibration.repeats()).await);
    }
    let repeats = calibration.repeats();
    let mut figures = Vec::with_capacity(samples);
    for _ in 0..samples {
        let elapsed = once(runtime, operation, repeats).await;
        figures.push(elapsed.as_nanos() as f64 / repeats as f64);
    }
    Ok(Figures::of_samples(&mut figures))
}

async fn once<R: Local>(runtime: R, operation: Operation, repeats: u64) -> Duration {
    match operation {
        Operation::SpawnJoin => spawn_join(runtime, repeats).await,
        Operation::SpawnThousand => spawn_thousand(runtime, repeats).await,
        Operation::YieldHundred => yield_in_turn(runtime, YIELDERS, repeats).await,
        Operation::TimerCancel => timer_cancel(runtime, repeats).await,
        Operation::SleepMillion => sleep_all(runtime, repeats).await,
        _ => yield_in_turn(runtime, 1, repeats).await,
    }
}

async fn spawn_join<R: Local>(runtime: R, repeats: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..repeats {
        runtime.spawn_ready().await;
    }
    start.elapsed()
}

async fn spawn_thousand<R: Local>(runtime: R, repeats: u64) -> Duration {
    let mut tasks = Vec::with_capacity(BATCH as usize);
    let start = Instant::now();
    for _ in 0..repeats / BATCH {
        tasks.extend((0..BATCH).map(|_| runtime.spawn_ready()));
        for task in tasks.drain(..) {
            task.await;
        }
    }
    start.elapsed()
}

async fn yield_in_turn<R: Local>(runtime: R, yielders: u64, repeats: u64) -> Duration {
    let start = Instant::now();
    let tasks: Vec<_> = (0..yielders).map(|_| runtime.spawn_yields(repeats / yielders)).collect();
    for task in tasks {
        task.await;
    }
    start.elapsed()
}

async fn timer_cancel<R: Local>(runtime: R, repeats: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..repeats / TIMER_BATCH {
        for _ in 0..TIMER_BATCH {
            let mut sleep = pin!(runtime.sleep(CANCELLED_AFTER));
            poll_fn(|context| {
                let fired = sleep.as_mut().poll(context).is_ready();
                assert!(!fired, "a timer of five seconds fired at once");
                Poll::Ready(())
            })
            .await;
        }
        runtime.yield_now().await;
    }
    start.elapsed()
}

async fn sleep_all<R: Local>(runtime: R, sleepers: u64) -> Duration {
    let mut tasks = Vec::with_capacity(sleepers as usize);
    let start = Instant::now();
    for index in 0..sleepers {
        // A stride that is coprime to the spread: neighbours do not share a deadline.
        let millis = SLEEP_MS_MIN + index * 7919 % SLEEP_MS_SPREAD;
        tasks.push(runtime.spawn_sleep(Duration::from_millis(millis)));
    }
    for task in tasks {
        task.await;
    }
    start.elapsed()
}
