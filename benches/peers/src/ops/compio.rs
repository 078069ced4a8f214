//! compio, with `async-channel` between threads.

use std::time::Duration;

use compio::runtime::{JoinHandle, Runtime};
use futures_lite::future::yield_now;

use super::cross::{AsyncChannel, measure_with};
use super::local::Local;

measure_with!(run, Compio, AsyncChannel);

#[derive(Clone, Copy)]
struct Compio;

impl Local for Compio {
    type Join = JoinHandle<()>;

    fn spawn_ready(self) -> Self::Join {
        compio::runtime::spawn(async {})
    }

    fn spawn_yields(self, times: u64) -> Self::Join {
        compio::runtime::spawn(async move {
            for _ in 0..times {
                yield_now().await;
            }
        })
    }

    fn spawn_sleep(self, duration: Duration) -> Self::Join {
        compio::runtime::spawn(compio::time::sleep(duration))
    }

    fn yield_now(self) -> impl Future<Output = ()> {
        yield_now()
    }

    fn sleep(self, duration: Duration) -> impl Future<Output = ()> {
        compio::time::sleep(duration)
    }
}

fn run<F, T>(body: F) -> Result<T::Output, String>
where
    F: FnOnce(Compio) -> T,
    T: Future,
{
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    // Not as a task: a task that waits for another costs compio a system call, its root does not.
    Ok(runtime.block_on(body(Compio)))
}
