//! Libraries that need Tokio, inside shards: reqwest asks an origin from a handler, with a timeout of Tokio's.
//!
//! ```text
//! cargo run --release --features tokio-context,tokio,tower,signal --example tokio_context -- 127.0.0.1:8080
//! curl http://127.0.0.1:8080/through/reqwest
//! cargo run --release --features tokio-context,tokio,tower,signal --example tokio_context -- --demo
//! ```
//!
//! The shards are in the context of a Tokio runtime with one thread of its own, which drives Tokio's sockets and timers. The
//! demo asks once, and then shows what it costs that each wake comes from that thread: one byte goes back and forth between
//! two tasks of one shard, by Corelane's sockets and by Tokio's. Ctrl-C ends it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing::get};
use corelane::server::Server;
use corelane::{Runtime, ShardId, TokioContext, signal::ctrl_c, spawn_local};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Turns of the byte, each of which is two wakes.
const TURNS: u32 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let runtime = Runtime::builder().tokio_context(TokioContext::threads(1)).start()?;
    let handle = runtime.handle();
    let origin =
        Router::new().route("/{word}", get(async |Path(word): Path<String>| word.to_uppercase()));
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let origin = Server::builder().listen(local).start_tower(handle, move |_shard| origin)?;
    let app = App { origin: origin.local_addrs()[0], client: reqwest::Client::new() };
    let router = Router::new().route("/through/{word}", get(through)).with_state(app);
    let server = Server::builder().listen(address).start_tower(handle, move |_shard| router)?;
    let address = server.local_addrs()[0];
    println!("listening on http://{address}");
    if demo {
        // The thread of a `block_on` is in the context as well.
        let url = format!("http://{address}/through/reqwest");
        let text = runtime.block_on(async { reqwest::get(url).await?.text().await })?;
        println!("the origin says {text}");
        for _ in 0..3 {
            let took = runtime.block_on(handle.spawn_on(ShardId::new(0), by_corelane)?)??;
            println!("by Corelane's sockets: {:?} a turn", took / TURNS);
            let took = runtime.block_on(handle.spawn_on(ShardId::new(0), by_tokio)?)??;
            println!("by Tokio's sockets:    {:?} a turn", took / TURNS);
        }
    } else {
        runtime.block_on(ctrl_c())?;
    }
    // The shards first, then their Tokio runtime.
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}

#[derive(Clone)]
struct App {
    origin: SocketAddr,
    client: reqwest::Client,
}

async fn through(
    State(app): State<App>,
    Path(word): Path<String>,
) -> Result<String, (StatusCode, String)> {
    let asked = async {
        app.client.get(format!("http://{}/{word}", app.origin)).send().await?.text().await
    };
    match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
        Err(late) => Err((StatusCode::GATEWAY_TIMEOUT, late.to_string())),
    }
}

async fn by_corelane() -> io::Result<Duration> {
    let listener = corelane::net::TcpListener::bind("127.0.0.1:0").await?;
    let stream = corelane::net::TcpStream::connect(listener.local_addr()?).await?;
    let (other, _) = listener.accept().await?;
    pass_a_byte(stream, other).await
}

async fn by_tokio() -> io::Result<Duration> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let stream = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
    let (other, _) = listener.accept().await?;
    pass_a_byte(stream, other).await
}

async fn pass_a_byte<S>(mut stream: S, mut other: S) -> io::Result<Duration>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let echo = spawn_local(async move {
        while let Ok(byte) = other.read_u8().await {
            other.write_u8(byte).await?;
        }
        Ok::<_, io::Error>(())
    });
    let began = Instant::now();
    for _ in 0..TURNS {
        stream.write_u8(1).await?;
        stream.read_u8().await?;
    }
    let took = began.elapsed();
    drop(stream);
    echo.await.map_err(io::Error::other)??;
    Ok(took)
}

/// `[ADDRESS:PORT] [--demo]`; the demo chooses a free port unless one is given.
fn arguments() -> Result<(SocketAddr, bool), Box<dyn Error>> {
    let (mut address, mut demo) = (None, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--demo" => demo = true,
            text => address = Some(text.parse().map_err(|error| format!("{text}: {error}"))?),
        }
    }
    let standard = SocketAddr::from(([127, 0, 0, 1], if demo { 0 } else { 8080 }));
    Ok((address.unwrap_or(standard), demo))
}
