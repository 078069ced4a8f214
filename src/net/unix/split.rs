//! The halves of a `UnixStream`: all of it is in `net/halves.rs`, with its rules.

use crate::net::{halves::halves, unix};

halves! {
    UnixStream, unix::SocketAddr,
    "let stream = corelane::net::UnixStream::connect(\"/run/example\").await?;"
}
