//! Unix pipes: anonymous ones, and those that have a name in the file system.
//!
//! A pipe goes one way, so there is a type for each end. Reading and writing is one system call; nothing is buffered.
//! Its descriptor registers as a socket's does, and follows whoever polls it, but registers before it is first used:
//! reading a named pipe that nobody has opened for writing yet would look like the end.

use crate::net::{Interest, Ready};
use crate::reactor::slots::{Direction, Readiness};
use crate::reactor::source::Source;
use crate::sys::{bytes as received, fifo, socket};
use bytes::BufMut;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::task::{Context, Poll};

/// Makes a pipe: what is written to the sender comes out of the receiver.
///
/// # Errors
///
/// The operating system's.
///
/// # Examples
///
/// ```
/// use corelane::net::unix::pipe;
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let (mut sender, mut receiver) = pipe::pipe()?;
///     sender.write_all(b"hello").await?;
///     drop(sender);
///     let mut text = String::new();
///     receiver.read_to_string(&mut text).await?;
///     assert_eq!(text, "hello");
///     Ok(())
/// })
/// # }
/// ```
pub fn pipe() -> io::Result<(Sender, Receiver)> {
    let (receiver, sender) = io::pipe()?;
    socket::set_nonblocking(&receiver)?;
    socket::set_nonblocking(&sender)?;
    let sender = Source::assuming(sender, Readiness::WRITABLE);
    Ok((Sender { source: sender }, Receiver { source: Source::new(receiver) }))
}

/// How a pipe that has a name is opened.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::unix::pipe::OpenOptions;
///
/// # fn main() -> std::io::Result<()> {
/// let receiver = OpenOptions::new().open_receiver("/run/example.fifo")?;
/// # drop(receiver);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    read_write: bool,
    unchecked: bool,
}

impl OpenOptions {
    /// Opens one way, and checks that the file is a pipe.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Opens the pipe for reading and writing, whichever end it is to be. A receiver then does not see an end when the
    /// last sender is gone, and a sender can be opened when there is no receiver yet. Linux allows that.
    pub fn read_write(&mut self, value: bool) -> &mut Self {
        self.read_write = value;
        self
    }

    /// Leaves out the check that the file is a pipe. One that cannot be waited for fails at its first wait.
    pub fn unchecked(&mut self, value: bool) -> &mut Self {
        self.unchecked = value;
        self
    }

    /// Opens the reading end. It does not wait for a sender.
    ///
    /// # Errors
    ///
    /// The operating system's; [`InvalidInput`](io::ErrorKind::InvalidInput) if the file is no pipe.
    pub fn open_receiver<P: AsRef<Path>>(&self, path: P) -> io::Result<Receiver> {
        let file = self.open(path.as_ref(), true, self.read_write)?;
        Ok(Receiver { source: Source::new(OwnedFd::from(file).into()) })
    }

    /// Opens the writing end.
    ///
    /// # Errors
    ///
    /// The operating system's, also if nobody has the pipe open for reading (`ENXIO`);
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the file is no pipe.
    pub fn open_sender<P: AsRef<Path>>(&self, path: P) -> io::Result<Sender> {
        let file = self.open(path.as_ref(), self.read_write, true)?;
        Ok(Sender { source: Source::new(OwnedFd::from(file).into()) })
    }

    fn open(&self, path: &Path, read: bool, write: bool) -> io::Result<File> {
        let file = fifo::open(path, read, write)?;
        if !self.unchecked {
            fifo::check_kind(&file)?;
        }
        Ok(file)
    }
}

/// The writing end of a pipe.
///
/// It is written through [`futures_io::AsyncWrite`] (or Tokio's trait, with the feature `tokio`), or with
/// [`writable`](Self::writable) and [`try_write`](Self::try_write). Dropping it, or closing it through the traits and
/// dropping it then, lets the receiver read to the end.
///
/// Writing to a pipe whose receiver is gone raises `SIGPIPE`, which Rust programs ignore unless they say otherwise; then it
/// is an error, [`BrokenPipe`](io::ErrorKind::BrokenPipe). There is an example at [`pipe()`].
pub struct Sender {
    source: Source<PipeWriter>,
}

/// The reading end of a pipe.
///
/// It is read through [`futures_io::AsyncRead`] (or Tokio's trait, with the feature `tokio`), or with
/// [`readable`](Self::readable) and [`try_read`](Self::try_read). There is an example at [`pipe()`].
pub struct Receiver {
    source: Source<PipeReader>,
}

impl Sender {
    fn settled(&self) -> io::Result<&Source<PipeWriter>> {
        self.source.settle()?;
        Ok(&self.source)
    }

    /// Takes over the writing end of a pipe, and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the file is no pipe, or not open for writing; and the operating
    /// system's.
    pub fn from_file(file: File) -> io::Result<Sender> {
        fifo::check_kind(&file)?;
        fifo::check_writable(&file)?;
        Sender::from_file_unchecked(file)
    }

    /// [`from_file`](Self::from_file), of a descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`from_file`](Self::from_file).
    pub fn from_owned_fd(owned_fd: OwnedFd) -> io::Result<Sender> {
        Sender::from_file(File::from(owned_fd))
    }

    /// [`from_file`](Self::from_file), without the checks: an operation on a file that does not suit fails.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn from_file_unchecked(file: File) -> io::Result<Sender> {
        Sender::from_owned_fd_unchecked(OwnedFd::from(file))
    }

    /// [`from_file_unchecked`](Self::from_file_unchecked), of a descriptor.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn from_owned_fd_unchecked(owned_fd: OwnedFd) -> io::Result<Sender> {
        socket::set_nonblocking(&owned_fd)?;
        Ok(Sender { source: Source::new(owned_fd.into()) })
    }

    /// Waits until the pipe is ready for one of the operations in `interest`, and says for which. A hint, as a socket's.
    ///
    /// # Errors
    ///
    /// The reactor's, if the pipe cannot be registered.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.source.ready(interest).await
    }

    /// Waits until something can be written, or writing would tell of an error.
    ///
    /// # Errors
    ///
    /// Those of [`ready`](Self::ready).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Polls for [`writable`](Self::writable). Only the last task that polled is woken.
    ///
    /// # Errors
    ///
    /// Those of [`ready`](Self::ready).
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.poll_ready(cx, Direction::Write)
    }

    /// Runs `f`, a system call on this pipe of the caller's own, if the pipe is ready. When `f` returns
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), the readiness is taken back.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the pipe is not ready; otherwise what `f` returns.
    pub fn try_io<R>(&self, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.settled()?.try_io(Direction::Write, |_| f())
    }

    /// Gives the descriptor back, blocking.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn into_blocking_fd(self) -> io::Result<OwnedFd> {
        fifo::set_blocking(self.into_nonblocking_fd()?)
    }

    /// Gives the descriptor back, non-blocking as it is.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has to be duplicated because another shard has not let go of it yet.
    pub fn into_nonblocking_fd(self) -> io::Result<OwnedFd> {
        self.source.into_inner().map(OwnedFd::from)
    }
}

impl Receiver {
    fn settled(&self) -> io::Result<&Source<PipeReader>> {
        self.source.settle()?;
        Ok(&self.source)
    }

    /// Takes over the reading end of a pipe, and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the file is no pipe, or not open for reading; and the operating
    /// system's.
    pub fn from_file(file: File) -> io::Result<Receiver> {
        fifo::check_kind(&file)?;
        fifo::check_readable(&file)?;
        Receiver::from_file_unchecked(file)
    }

    /// [`from_file`](Self::from_file), of a descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`from_file`](Self::from_file).
    pub fn from_owned_fd(owned_fd: OwnedFd) -> io::Result<Receiver> {
        Receiver::from_file(File::from(owned_fd))
    }

    /// [`from_file`](Self::from_file), without the checks: an operation on a file that does not suit fails.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn from_file_unchecked(file: File) -> io::Result<Receiver> {
        Receiver::from_owned_fd_unchecked(OwnedFd::from(file))
    }

    /// [`from_file_unchecked`](Self::from_file_unchecked), of a descriptor.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn from_owned_fd_unchecked(owned_fd: OwnedFd) -> io::Result<Receiver> {
        socket::set_nonblocking(&owned_fd)?;
        Ok(Receiver { source: Source::new(owned_fd.into()) })
    }

    /// Waits until the pipe is ready for one of the operations in `interest`, and says for which. A hint, as a socket's.
    ///
    /// # Errors
    ///
    /// The reactor's, if the pipe cannot be registered.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.source.ready(interest).await
    }

    /// Waits until something can be read, or the end has come.
    ///
    /// # Errors
    ///
    /// Those of [`ready`](Self::ready).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Polls for [`readable`](Self::readable). Only the last task that polled is woken.
    ///
    /// # Errors
    ///
    /// Those of [`ready`](Self::ready).
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.poll_ready(cx, Direction::Read)
    }

    /// Runs `f`, a system call on this pipe of the caller's own, if the pipe is ready. When `f` returns
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), the readiness is taken back.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the pipe is not ready; otherwise what `f` returns.
    pub fn try_io<R>(&self, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.settled()?.try_io(Direction::Read, |_| f())
    }

    /// Gives the descriptor back, blocking.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn into_blocking_fd(self) -> io::Result<OwnedFd> {
        fifo::set_blocking(self.into_nonblocking_fd()?)
    }

    /// Gives the descriptor back, non-blocking as it is.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has to be duplicated because another shard has not let go of it yet.
    pub fn into_nonblocking_fd(self) -> io::Result<OwnedFd> {
        self.source.into_inner().map(OwnedFd::from)
    }
}

impl Sender {
    /// Writes as much of `buf` as there is room for, without waiting. Up to 4096 bytes go whole or not at all.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room or the reactor has not heard of it yet, and the
    /// operating system's.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.settled()?.try_io(Direction::Write, |mut pipe| pipe.write(buf))
    }

    /// Writes as much of several buffers in turn as there is room for, without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, buf: &[IoSlice<'_>]) -> io::Result<usize> {
        self.settled()?.try_io(Direction::Write, |mut pipe| pipe.write_vectored(buf))
    }

    pub(crate) fn poll_write_from(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.settled()?.poll_io(cx, Direction::Write, |mut pipe| pipe.write(buf))
    }

    pub(crate) fn poll_write_vectored_from(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.settled()?.poll_io(cx, Direction::Write, |mut pipe| pipe.write_vectored(bufs))
    }
}

impl Receiver {
    /// Reads what has arrived, without waiting. `Ok(0)`: the last sender is gone, or `buf` is empty.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing has arrived or the reactor has not heard of it yet, and the
    /// operating system's.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.settled()?.try_io(Direction::Read, |mut pipe| pipe.read(buf))
    }

    /// Reads what has arrived into several buffers in turn, without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_read`](Self::try_read).
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.settled()?.try_io(Direction::Read, |mut pipe| pipe.read_vectored(bufs))
    }

    /// Appends what has arrived to `buf`, without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_read`](Self::try_read).
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        self.settled()?.try_io(Direction::Read, |pipe| received::read(pipe, buf))
    }

    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.settled()?.poll_io(cx, Direction::Read, |mut pipe| pipe.read(buf))
    }
}

macro_rules! descriptor {
    ($($End:ident),*) => {$(
        impl std::fmt::Debug for $End {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.source.fmt(f)
            }
        }

        impl AsFd for $End {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.source.get_ref().as_fd()
            }
        }

        impl AsRawFd for $End {
            fn as_raw_fd(&self) -> RawFd {
                self.source.get_ref().as_raw_fd()
            }
        }
    )*};
}

descriptor!(Sender, Receiver);
