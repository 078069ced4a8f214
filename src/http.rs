//! hyper on Corelane: its I/O traits, its timer, its executor.
//!
//! Enough to run hyper's own connection types on a shard. Connections and services need not be `Send`: they live and
//! die on the shard that accepted them.
//!
//! ```no_run
//! use corelane::http::{Executor, Io, Timer};
//! use hyper::{server::conn::http1, service::service_fn, Response};
//! # fn body() -> http_body_util::Full<hyper::body::Bytes> { http_body_util::Full::from("Hello") }
//! corelane::block_on(async {
//!     let listener = corelane::net::TcpListener::bind("127.0.0.1:8080").await.unwrap();
//!     loop {
//!         let (stream, _) = listener.accept().await.unwrap();
//!         let service = service_fn(|_request| async { Ok::<_, std::convert::Infallible>(Response::new(body())) });
//!         let connection = http1::Builder::new().timer(Timer).serve_connection(Io::new(stream), service);
//!         corelane::spawn_local(connection);
//!     }
//! })
//! ```

mod executor;
mod io;
#[cfg(feature = "server")]
mod outgoing;
mod timer;

pub use executor::Executor;
pub use io::{Io, Transport};
#[cfg(feature = "server")]
pub(crate) use io::{poll_read_some, reset_at_close};
#[cfg(feature = "server")]
pub(crate) use outgoing::{Outgoing, Stretch, stands_in};
pub use timer::Timer;
