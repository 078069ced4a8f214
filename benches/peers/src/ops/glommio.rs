//! glommio: an unbound executor on the calling, already pinned thread, and its shared channel.

use std::time::Duration;

use futures_lite::future::yield_now;
use glommio::channels::shared_channel::{
    ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender, new_bounded,
};
use glommio::{LocalExecutorBuilder, Placement, Task};

use super::cross::{Link, measure_with};
use super::local::Local;

measure_with!(run, Glommio, SharedChannel);

#[derive(Clone, Copy)]
struct Glommio;

impl Local for Glommio {
    type Join = Task<()>;

    fn spawn_ready(self) -> Self::Join {
        glommio::spawn_local(async {})
    }

    fn spawn_yields(self, times: u64) -> Self::Join {
        glommio::spawn_local(async move {
            for _ in 0..times {
                yield_now().await;
            }
        })
    }

    fn spawn_sleep(self, duration: Duration) -> Self::Join {
        glommio::spawn_local(async move { glommio::timer::sleep(duration).await })
    }

    fn yield_now(self) -> impl Future<Output = ()> {
        yield_now()
    }

    fn sleep(self, duration: Duration) -> impl Future<Output = ()> {
        glommio::timer::sleep(duration)
    }
}

struct SharedChannel;

impl Link for SharedChannel {
    type Sender = SharedSender<u64>;
    type Receiver = SharedReceiver<u64>;
    type Out = ConnectedSender<u64>;
    type In = ConnectedReceiver<u64>;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        new_bounded(capacity)
    }

    async fn connect_out(sender: Self::Sender) -> Self::Out {
        sender.connect().await
    }

    async fn connect_in(receiver: Self::Receiver) -> Self::In {
        receiver.connect().await
    }

    async fn send(out: &mut Self::Out, message: u64) -> bool {
        out.send(message).await.is_ok()
    }

    async fn receive(input: &mut Self::In) -> Option<u64> {
        input.recv().await
    }
}

fn run<F, T>(body: F) -> Result<T::Output, String>
where
    F: FnOnce(Glommio) -> T,
    T: Future + 'static,
{
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make();
    let executor = executor.map_err(|error| error.to_string())?;
    Ok(executor.run(async { glommio::spawn_local(body(Glommio)).await }))
}
