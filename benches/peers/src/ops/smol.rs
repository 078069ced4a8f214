//! smol: one `LocalExecutor` per thread, driven by `smol::block_on`, with its own channel.

use std::time::Duration;

use smol::future::yield_now;
use smol::{LocalExecutor, Task, Timer};

use super::cross::{AsyncChannel, measure_with};
use super::local::Local;

measure_with!(run, Smol, AsyncChannel);

#[derive(Clone, Copy)]
struct Smol(&'static LocalExecutor<'static>);

impl Local for Smol {
    type Join = Task<()>;

    fn spawn_ready(self) -> Self::Join {
        self.0.spawn(async {})
    }

    fn spawn_yields(self, times: u64) -> Self::Join {
        self.0.spawn(async move {
            for _ in 0..times {
                yield_now().await;
            }
        })
    }

    fn spawn_sleep(self, duration: Duration) -> Self::Join {
        self.0.spawn(async move {
            Timer::after(duration).await;
        })
    }

    fn yield_now(self) -> impl Future<Output = ()> {
        yield_now()
    }

    async fn sleep(self, duration: Duration) {
        Timer::after(duration).await;
    }
}

fn run<F, T>(body: F) -> Result<T::Output, String>
where
    F: FnOnce(Smol) -> T,
    T: Future + 'static,
    T::Output: 'static,
{
    // Left behind at the end of the process: one per operation, and tasks may refer to it.
    let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
    Ok(smol::block_on(executor.run(executor.spawn(body(Smol(executor))))))
}
