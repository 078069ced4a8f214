//! Corelane: `submit_to` for a round trip, `post` into the bounded inbox for messages one way.

use std::cell::Cell;
use std::time::{Duration, Instant};

use corelane::{Cores, CpuId, Handle, JoinHandle, Runtime, ShardId, SubmitErrorKind};

use super::Operation;
use super::cross::{ONE_WAY_MESSAGES, PARKED_PAUSE, ROUND_TRIPS, ROUND_TRIPS_PARKED};
use super::local::{self, Local};
use super::sample::{Figures, LONG_SAMPLES};

const NEAR: ShardId = ShardId::new(0);
const FAR: ShardId = ShardId::new(1);

thread_local! {
    /// Sum of the messages that arrived on this shard.
    static ARRIVED: Cell<u64> = const { Cell::new(0) };
}

/// Measures one operation on the first shard of a runtime of one or two.
pub(super) fn measure(operation: Operation, cpus: [usize; 2]) -> Result<Figures, String> {
    match operation {
        Operation::RoundTrip => on_shards(&cpus, |handle| round_trips(handle, None)),
        Operation::RoundTripParked => {
            on_shards(&cpus, |handle| round_trips(handle, Some(PARKED_PAUSE)))
        }
        Operation::OneWay => on_shards(&cpus, one_way),
        _ => on_shards(&cpus[..1], move |_| local::measure(Corelane, operation)),
    }
}

/// Starts a shard on each CPU and runs `body` on the first.
fn on_shards<F, T>(cpus: &[usize], body: F) -> Result<Figures, String>
where
    F: FnOnce(Handle) -> T + Send + 'static,
    T: Future<Output = Result<Figures, String>> + 'static,
{
    let cores = Cores::List(cpus.iter().copied().map(CpuId).collect());
    let runtime = Runtime::builder().cores(cores).start().map_err(|error| error.to_string())?;
    let handle = runtime.handle();
    let task = handle.spawn_on(NEAR, {
        let handle = handle.clone();
        move || body(handle)
    });
    let task = task.map_err(|error| error.to_string())?;
    corelane::block_on(task).map_err(|error| error.to_string())?
}

#[derive(Clone, Copy)]
struct Corelane;

impl Local for Corelane {
    type Join = JoinHandle<()>;

    fn spawn_ready(self) -> Self::Join {
        corelane::spawn_local(async {})
    }

    fn spawn_yields(self, times: u64) -> Self::Join {
        corelane::spawn_local(async move {
            for _ in 0..times {
                corelane::yield_now().await;
            }
        })
    }

    fn spawn_sleep(self, duration: Duration) -> Self::Join {
        corelane::spawn_local(corelane::time::sleep(duration))
    }

    fn yield_now(self) -> impl Future<Output = ()> {
        corelane::yield_now()
    }

    fn sleep(self, duration: Duration) -> impl Future<Output = ()> {
        corelane::time::sleep(duration)
    }
}

async fn round_trips(handle: Handle, pause: Option<Duration>) -> Result<Figures, String> {
    let count = if pause.is_some() { ROUND_TRIPS_PARKED } else { ROUND_TRIPS };
    let warm_up = count / 10;
    let mut nanoseconds = Vec::with_capacity(count as usize);
    for index in 0..warm_up + count {
        if let Some(pause) = pause {
            corelane::time::sleep(pause).await;
        }
        let start = Instant::now();
        let answer = handle.submit_to(FAR, move || async move { index }).await;
        let elapsed = start.elapsed();
        if answer.map_err(|error| error.to_string())? != index {
            return Err("the answer is another call's".to_owned());
        }
        if index >= warm_up {
            nanoseconds.push(elapsed.as_nanos() as f64);
        }
    }
    Ok(Figures::of_distribution(&mut nanoseconds))
}

async fn one_way(handle: Handle) -> Result<Figures, String> {
    let mut millions_per_second = Vec::with_capacity(LONG_SAMPLES);
    for sample in 1..=LONG_SAMPLES as u64 {
        let start = Instant::now();
        for message in 0..ONE_WAY_MESSAGES {
            send(&handle, message).await?;
        }
        // Behind all the messages in the same inbox: when it answers, they have arrived.
        let arrived = handle.submit_to(FAR, || async { ARRIVED.get() }).await;
        let elapsed = start.elapsed();
        let expected = sample * (ONE_WAY_MESSAGES * (ONE_WAY_MESSAGES - 1) / 2);
        if arrived.map_err(|error| error.to_string())? != expected {
            return Err("messages were lost".to_owned());
        }
        millions_per_second.push(ONE_WAY_MESSAGES as f64 / elapsed.as_secs_f64() / 1e6);
    }
    Ok(Figures::of_samples(&mut millions_per_second))
}

/// Sends one message; waits for room while the inbox is full.
async fn send(handle: &Handle, message: u64) -> Result<(), String> {
    let mut call = move || ARRIVED.set(ARRIVED.get() + message);
    loop {
        match handle.post(FAR, call) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == SubmitErrorKind::Full => call = error.into_inner(),
            Err(error) => return Err(error.to_string()),
        }
        handle.room(FAR).await;
    }
}
