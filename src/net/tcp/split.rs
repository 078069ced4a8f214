//! The halves of a `TcpStream`. Only `peek` is particular to TCP; the rest is in `net/halves.rs`, with its rules.

use crate::net::{growing::growing_halves, halves::halves};

halves! {
    TcpStream, std::net::SocketAddr,
    "let stream = corelane::net::TcpStream::connect(\"127.0.0.1:8080\").await?;"
}

growing_halves! { TcpStream, ReadHalf<'_>, OwnedReadHalf }

macro_rules! peeking_half {
    ($($Half:ty),*) => {$(
        impl $Half {
            /// Reads what has arrived and leaves it there: see [`TcpStream::peek`].
            ///
            /// # Errors
            ///
            /// The operating system's.
            ///
            /// # Cancel safety
            ///
            /// Nothing is taken from the socket, whether the future is dropped or not.
            pub async fn peek(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.stream().peek(buf).await
            }
        }
    )*};
}

peeking_half!(ReadHalf<'_>, OwnedReadHalf);
