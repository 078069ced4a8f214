//! The example of README.md, word for word: an HTTP server whose service is made anew on every shard.
//!
//! Run it with `cargo run --release --example quickstart` and ask with `curl http://127.0.0.1:8080`: each shard counts
//! its own requests, without a lock or an atomic. Ctrl-C ends it. Another address may be given as the argument.

use corelane::{Runtime, server::Server, signal::ctrl_c};
use http_body_util::Full;
use hyper::{Response, body::Bytes, service::service_fn};
use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into()).parse()?;
    let runtime = Runtime::builder().start()?;
    let server = Server::builder().listen(address).start(runtime.handle(), |shard| {
        let served = Rc::new(Cell::new(0)); // This shard's own: nobody else can reach it.
        service_fn(move |_request| {
            served.set(served.get() + 1);
            let text = format!("request {} of {shard}\n", served.get());
            async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
        })
    })?;
    println!("listening on http://{}", server.local_addrs()[0]);
    runtime.block_on(ctrl_c())?;
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}
