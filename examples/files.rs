//! The files of a directory on every shard, with a service of one's own beside them.
//!
//! Run it with `cargo run --release --features files,signal --example files -- configs/site` and look at
//! <http://127.0.0.1:8080>; `/hits` says how many requests this shard has had for files. Ctrl-C ends it. Another address may be given
//! behind the directory.

use corelane::{Runtime, server::Server, services::Content, services::Files, signal::ctrl_c};
use hyper::service::{Service, service_fn};
use hyper::{Response, body::Bytes};
use std::{cell::Cell, rc::Rc, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or(".".into());
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into()).parse()?;
    let files = Files::new(&directory)?.precompressed(true);
    let runtime = Runtime::builder().start()?;
    let server = Server::builder().listen(address).start(runtime.handle(), move |shard| {
        let hits = Rc::new(Cell::new(0)); // This shard's own.
        service_fn(move |request| {
            let counts = request.uri().path() == "/hits";
            let answer = if counts { Err(hits.get()) } else { Ok(files.call(request)) };
            hits.set(hits.get() + u64::from(!counts));
            async move {
                match answer {
                    Ok(file) => file.await,
                    Err(hits) => {
                        let text = format!("{hits} requests of {shard} were for files\n");
                        Ok(Response::new(Content::from(Bytes::from(text))))
                    }
                }
            }
        })
    })?;
    println!("listening on http://{}", server.local_addrs()[0]);
    runtime.block_on(ctrl_c())?;
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}
