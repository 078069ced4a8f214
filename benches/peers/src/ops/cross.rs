//! The operations between two pinned threads, written once for all runtimes that have a channel.
//!
//! The near end measures; the far end answers the messages that ask for it. Both end when the other
//! has dropped its channel, so a runtime that fails on one side does not hang the other.

use std::time::{Duration, Instant};

use super::Operation;
use super::local::Local;
use super::sample::{Figures, LONG_SAMPLES};

/// Messages a queue holds.
pub(super) const QUEUE: usize = 1024;

/// A message that the far end swallows, and one that it sends back.
const KEEP: u64 = 0;
const ANSWER: u64 = 1;

/// How often each operation is repeated.
pub(super) const ROUND_TRIPS: u64 = 8_000;
pub(super) const ROUND_TRIPS_PARKED: u64 = 500;
pub(super) const ONE_WAY_MESSAGES: u64 = 4_000_000;

/// Long enough that no runtime is still spinning, on either side.
pub(super) const PARKED_PAUSE: Duration = Duration::from_millis(2);

/// A bounded queue from one thread's runtime to another's.
pub(super) trait Link: 'static {
    /// The two ends, before they are where they belong.
    type Sender: Send + 'static;
    type Receiver: Send + 'static;
    /// The two ends in use.
    type Out;
    type In;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver);
    fn connect_out(sender: Self::Sender) -> impl Future<Output = Self::Out>;
    fn connect_in(receiver: Self::Receiver) -> impl Future<Output = Self::In>;
    /// False when the other end is gone.
    fn send(out: &mut Self::Out, message: u64) -> impl Future<Output = bool>;
    /// None when the other end is gone.
    fn receive(input: &mut Self::In) -> impl Future<Output = Option<u64>>;
}

/// One side's two ends.
pub(super) struct Side<L: Link> {
    out: L::Sender,
    input: L::Receiver,
}

/// Two sides connected by a queue in each direction.
pub(super) fn sides<L: Link>() -> (Side<L>, Side<L>) {
    let (to_far, from_near) = L::bounded(QUEUE);
    let (to_near, from_far) = L::bounded(QUEUE);
    (Side { out: to_far, input: from_far }, Side { out: to_near, input: from_near })
}

/// The answering end.
pub(super) async fn far<L: Link>(side: Side<L>) -> Option<()> {
    let mut input = L::connect_in(side.input).await;
    let mut out = L::connect_out(side.out).await;
    loop {
        if L::receive(&mut input).await? == ANSWER && !L::send(&mut out, ANSWER).await {
            return None;
        }
    }
}

/// The measuring end.
pub(super) async fn near<R: Local, L: Link>(
    runtime: R,
    side: Side<L>,
    operation: Operation,
) -> Result<Figures, String> {
    let out = L::connect_out(side.out).await;
    let input = L::connect_in(side.input).await;
    let figures = match operation {
        Operation::RoundTrip => round_trips::<R, L>(runtime, out, input, None).await,
        Operation::RoundTripParked => {
            round_trips::<R, L>(runtime, out, input, Some(PARKED_PAUSE)).await
        }
        _ => one_way::<L>(out, input).await,
    };
    figures.ok_or_else(|| "the other thread's runtime has ended".to_owned())
}

async fn round_trips<R: Local, L: Link>(
    runtime: R,
    mut out: L::Out,
    mut input: L::In,
    pause: Option<Duration>,
) -> Option<Figures> {
    let count = if pause.is_some() { ROUND_TRIPS_PARKED } else { ROUND_TRIPS };
    let warm_up = count / 10;
    let mut nanoseconds = Vec::with_capacity(count as usize);
    for index in 0..warm_up + count {
        if let Some(pause) = pause {
            runtime.sleep(pause).await;
        }
        let start = Instant::now();
        if !L::send(&mut out, ANSWER).await {
            return None;
        }
        L::receive(&mut input).await?;
        if index >= warm_up {
            nanoseconds.push(start.elapsed().as_nanos() as f64);
        }
    }
    Some(Figures::of_distribution(&mut nanoseconds))
}

async fn one_way<L: Link>(mut out: L::Out, mut input: L::In) -> Option<Figures> {
    let mut millions_per_second = Vec::with_capacity(LONG_SAMPLES);
    for _ in 0..LONG_SAMPLES {
        let start = Instant::now();
        for _ in 1..ONE_WAY_MESSAGES {
            if !L::send(&mut out, KEEP).await {
                return None;
            }
        }
        if !L::send(&mut out, ANSWER).await {
            return None;
        }
        L::receive(&mut input).await?;
        millions_per_second.push(ONE_WAY_MESSAGES as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    Some(Figures::of_samples(&mut millions_per_second))
}

/// A link over `async-channel`, for runtimes without a queue of their own.
pub(super) struct AsyncChannel;

impl Link for AsyncChannel {
    type Sender = async_channel::Sender<u64>;
    type Receiver = async_channel::Receiver<u64>;
    type Out = Self::Sender;
    type In = Self::Receiver;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        async_channel::bounded(capacity)
    }

    async fn connect_out(sender: Self::Sender) -> Self::Out {
        sender
    }

    async fn connect_in(receiver: Self::Receiver) -> Self::In {
        receiver
    }

    async fn send(out: &mut Self::Out, message: u64) -> bool {
        out.send(message).await.is_ok()
    }

    async fn receive(input: &mut Self::In) -> Option<u64> {
        input.recv().await.ok()
    }
}

/// Defines `measure` for a runtime: where an operation runs, on which thread, on which CPU.
///
/// A macro and not a function because `run` asks for `Send` futures in some runtimes and for
/// none in others.
macro_rules! measure_with {
    ($run:path, $local:ty, $link:ty) => {
        /// Measures one operation; the calling thread is used up for it.
        pub(in crate::ops) fn measure(
            operation: $crate::ops::Operation,
            cpus: [usize; 2],
        ) -> Result<$crate::ops::sample::Figures, String> {
            use $crate::ops::{Operation, cross, local};
            let pin = |cpu| $crate::os::pin(&[cpu]).map_err(|error| format!("pinning: {error}"));
            match operation {
                Operation::RoundTrip | Operation::RoundTripParked | Operation::OneWay => {
                    let (near, far) = cross::sides::<$link>();
                    let answering = std::thread::spawn(move || {
                        pin(cpus[1])?;
                        $run(move |_: $local| cross::far::<$link>(far))
                    });
                    pin(cpus[0])?;
                    let figures = $run(move |runtime: $local| {
                        cross::near::<_, $link>(runtime, near, operation)
                    });
                    match answering.join() {
                        Ok(Ok(_)) => figures?,
                        Ok(Err(reason)) => Err(reason),
                        Err(payload) => std::panic::resume_unwind(payload),
                    }
                }
                _ => {
                    pin(cpus[0])?;
                    $run(move |runtime: $local| local::measure(runtime, operation))?
                }
            }
        }
    };
}
pub(super) use measure_with;
