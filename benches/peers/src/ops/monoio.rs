//! monoio on both of its drivers, with `async-channel` between threads.

use std::time::Duration;

use futures_lite::future::yield_now;
use monoio::task::JoinHandle;

use super::local::Local;

#[derive(Clone, Copy)]
struct Monoio;

impl Local for Monoio {
    type Join = JoinHandle<()>;

    fn spawn_ready(self) -> Self::Join {
        monoio::spawn(async {})
    }

    fn spawn_yields(self, times: u64) -> Self::Join {
        monoio::spawn(async move {
            for _ in 0..times {
                yield_now().await;
            }
        })
    }

    fn spawn_sleep(self, duration: Duration) -> Self::Join {
        monoio::spawn(monoio::time::sleep(duration))
    }

    fn yield_now(self) -> impl Future<Output = ()> {
        yield_now()
    }

    fn sleep(self, duration: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(duration)
    }
}

/// Defines a module that runs on one driver.
macro_rules! on_driver {
    ($module:ident, $driver:ty) => {
        /// Operations on this driver.
        pub(super) mod $module {
            use super::Monoio;
            use crate::ops::cross::{AsyncChannel, measure_with};

            measure_with!(run, Monoio, AsyncChannel);

            fn run<F, T>(body: F) -> Result<T::Output, String>
            where
                F: FnOnce(Monoio) -> T,
                T: Future + 'static,
            {
                let runtime = monoio::RuntimeBuilder::<$driver>::new().enable_timer().build();
                let mut runtime = runtime.map_err(|error| error.to_string())?;
                Ok(runtime.block_on(async { monoio::spawn(body(Monoio)).await }))
            }
        }
    };
}

on_driver!(mio, monoio::LegacyDriver);
on_driver!(uring, monoio::IoUringDriver);
