//! Tokio's two runtimes: current-thread, and multi-thread with one worker.

use std::time::Duration;

use futures_lite::future::yield_now;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::cross::Link;
use super::local::Local;

/// Tokio's own spawn and sleep, in whichever runtime is current.
///
/// The yield is the runtime-neutral one, which only wakes itself: Tokio's `yield_now` also looks at
/// the driver when no other task is ready and costs a system call then.
#[derive(Clone, Copy)]
struct Tokio;

impl Local for Tokio {
    type Join = JoinHandle<()>;

    fn spawn_ready(self) -> Self::Join {
        tokio::spawn(async {})
    }

    fn spawn_yields(self, times: u64) -> Self::Join {
        tokio::spawn(async move {
            for _ in 0..times {
                yield_now().await;
            }
        })
    }

    fn spawn_sleep(self, duration: Duration) -> Self::Join {
        tokio::spawn(tokio::time::sleep(duration))
    }

    fn yield_now(self) -> impl Future<Output = ()> {
        yield_now()
    }

    fn sleep(self, duration: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(duration)
    }
}

/// A link over Tokio's mpsc channel.
struct Mpsc;

impl Link for Mpsc {
    type Sender = mpsc::Sender<u64>;
    type Receiver = mpsc::Receiver<u64>;
    type Out = Self::Sender;
    type In = Self::Receiver;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        mpsc::channel(capacity)
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
        input.recv().await
    }
}

/// A current-thread runtime on the calling thread.
pub(super) mod current {
    use super::{Mpsc, Tokio};
    use crate::ops::cross::measure_with;

    measure_with!(run, Tokio, Mpsc);

    fn run<F, T>(body: F) -> Result<T::Output, String>
    where
        F: FnOnce(Tokio) -> T,
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let body = body(Tokio);
        runtime.block_on(async { tokio::spawn(body).await.map_err(|error| error.to_string()) })
    }
}

/// A multi-thread runtime whose one worker inherits the calling thread's CPU.
pub(super) mod multi {
    use super::{Mpsc, Tokio};
    use crate::ops::cross::measure_with;

    measure_with!(run, Tokio, Mpsc);

    fn run<F, T>(body: F) -> Result<T::Output, String>
    where
        F: FnOnce(Tokio) -> T,
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let body = body(Tokio);
        // On the worker, not on this thread: that is where a server's tasks run.
        runtime.block_on(async { tokio::spawn(body).await.map_err(|error| error.to_string()) })
    }
}
