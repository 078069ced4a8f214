//! `futures_io::{AsyncRead, AsyncWrite}` for streams and their halves.
//!
//! Flushing does nothing, as nothing is buffered here. Closing ends the sending direction and leaves the other open;
//! on a connection that is already gone it succeeds. Each direction remembers the last task that polled it.

use crate::net::{TcpStream, UnixStream, stream_io, tcp, unix, unix::pipe};
use futures_io::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

macro_rules! async_read {
    ($($Stream:ty),*) => {$(
        impl AsyncRead for $Stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                stream_io::poll_read(self.stream().source(), cx, buf)
            }

            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                stream_io::poll_read_vectored(self.stream().source(), cx, bufs)
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

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.stream().source().poll_unsent(cx)
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_read_into(cx, buf)
    }
}

/// Closing does nothing: dropping the sender does.
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

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async_read!(TcpStream, tcp::ReadHalf<'_>, tcp::OwnedReadHalf);
async_read!(UnixStream, unix::ReadHalf<'_>, unix::OwnedReadHalf);
async_write!(TcpStream, tcp::WriteHalf<'_>, tcp::OwnedWriteHalf);
async_write!(UnixStream, unix::WriteHalf<'_>, unix::OwnedWriteHalf);
