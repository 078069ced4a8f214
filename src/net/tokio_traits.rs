//! `tokio::io::{AsyncRead, AsyncWrite}` for streams and their halves, and the methods that take a `ReadBuf`. Built
//! with the feature `tokio` only; it uses Tokio's traits, none of its runtime.
//!
//! `ReadBuf` hands out uninitialized memory to unsafe code only, so a buffer is zeroed before its first read here and
//! not again after that. Flushing does nothing; shutting down ends the sending direction and leaves the other open.

use crate::net::{
    TcpStream, UdpSocket, UnixDatagram, UnixStream, stream_io, tcp, unix, unix::pipe,
};
use crate::reactor::slots::Direction;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Lets `poll` fill the free part of `buf`; it returns how many bytes it wrote there, and what else it found.
fn fill<R>(
    buf: &mut ReadBuf<'_>,
    poll: impl FnOnce(&mut [u8]) -> Poll<io::Result<(usize, R)>>,
) -> Poll<io::Result<R>> {
    poll(buf.initialize_unfilled()).map_ok(|(filled, rest)| {
        buf.advance(filled);
        rest
    })
}

macro_rules! async_read {
    ($($Stream:ty),*) => {$(
        impl AsyncRead for $Stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let source = self.stream().source();
                fill(buf, |buf| stream_io::poll_read(source, cx, buf).map_ok(|n| (n, ())))
            }
        }
    )*};
}

macro_rules! async_write {
    ($($Stream:ty),*) => {$(
        impl AsyncWrite for $Stream {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                stream_io::poll_write(self.stream().source(), cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                stream_io::poll_write_vectored(self.stream().source(), cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.stream().source().poll_unsent(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                std::task::ready!(self.stream().source().poll_all_sent(cx))?;
                Poll::Ready(self.get_mut().end_writing())
            }
        }
    )*};
}

impl AsyncRead for pipe::Receiver {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        fill(buf, |buf| self.poll_read_into(cx, buf).map_ok(|n| (n, ())))
    }
}

/// Shutting down does nothing: dropping the sender does.
impl AsyncWrite for pipe::Sender {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_from(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored_from(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async_read!(TcpStream, tcp::ReadHalf<'_>, tcp::OwnedReadHalf);
async_read!(UnixStream, unix::ReadHalf<'_>, unix::OwnedReadHalf);
async_write!(TcpStream, tcp::WriteHalf<'_>, tcp::OwnedWriteHalf);
async_write!(UnixStream, unix::WriteHalf<'_>, unix::OwnedWriteHalf);

impl TcpStream {
    /// Polls for [`peek`](Self::peek): what has arrived goes to `buf` and stays in the socket.
    ///
    /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpStream;
    /// use tokio::io::ReadBuf;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let stream = TcpStream::connect("127.0.0.1:8080").await?;
    ///     let mut storage = [0; 8];
    ///     let mut buf = ReadBuf::new(&mut storage);
    ///     std::future::poll_fn(|cx| stream.poll_peek(cx, &mut buf)).await?;
    ///     println!("starts with {:?}", buf.filled());
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        fill(buf, |buf| {
            self.source().poll_io(cx, Direction::Read, |socket| socket.peek(buf).map(|n| (n, n)))
        })
    }
}

macro_rules! peeking_half {
    ($($Half:ty),*) => {$(
        impl $Half {
            /// Polls for [`peek`](Self::peek): see [`TcpStream::poll_peek`].
            ///
            /// # Errors
            ///
            /// The operating system's.
            pub fn poll_peek(
                &mut self,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<usize>> {
                self.stream().poll_peek(cx, buf)
            }
        }
    )*};
}

peeking_half!(tcp::ReadHalf<'_>, tcp::OwnedReadHalf);

/// `$poll_from` of a datagram socket: one datagram and its sender through `$from`, one datagram through `$plain`.
macro_rules! datagram_polls {
    ($Socket:ident, $Address:ty, $poll:ident = $plain:ident, $poll_from:ident = $from:ident) => {
        impl $Socket {
            #[doc = concat!("Polls for [`", stringify!($plain), "`](Self::", stringify!($plain), ").")]
            ///
            /// Only the last task that polled this direction, with this or another `poll_` method, is woken. What
            /// does not fit into `buf` is lost.
            ///
            /// # Errors
            ///
            /// The operating system's.
            pub fn $poll(
                &self,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                fill(buf, |buf| {
                    self.source().poll_io(cx, Direction::Read, |socket| {
                        socket.$plain(buf).map(|n| (n, ()))
                    })
                })
            }

            #[doc = concat!("Polls for [`", stringify!($from), "`](Self::", stringify!($from), ").")]
            ///
            /// Only the last task that polled this direction, with this or another `poll_` method, is woken. What
            /// does not fit into `buf` is lost.
            ///
            /// # Errors
            ///
            /// The operating system's.
            pub fn $poll_from(
                &self,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<$Address>> {
                fill(buf, |buf| {
                    self.source().poll_io(cx, Direction::Read, |socket| {
                        socket.$from(buf).map(|(n, sender)| (n, sender.into()))
                    })
                })
            }
        }
    };
}

datagram_polls!(UdpSocket, SocketAddr, poll_recv = recv, poll_recv_from = recv_from);
datagram_polls!(UdpSocket, SocketAddr, poll_peek = peek, poll_peek_from = peek_from);
datagram_polls!(UnixDatagram, unix::SocketAddr, poll_recv = recv, poll_recv_from = recv_from);
