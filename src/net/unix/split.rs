//! The halves of a `UnixStream`: all of it is in `net/halves.rs`, with its rules.

use crate::net::{growing::growing_halves, halves::halves, unix};

halves! {
    UnixStream, unix::SocketAddr,
    "let stream = corelane::net::UnixStream::connect(\"/run/example\").await?;"
}

growing_halves! { UnixStream, ReadHalf<'_>, OwnedReadHalf }
