//! The two halves of a stream, borrowed or owned: written once, made for TCP and for Unix streams.
//!
//! A half is a reference to the whole stream: borrowed halves hold `&Stream`, owned ones share it in an `Arc`. There
//! are exactly two owners until one half is dropped or the two are reunited. A half may be moved to another thread;
//! readiness follows whoever polls. Only the owned write half changes the connection when it is dropped.

/// `halves! { TcpStream, std::net::SocketAddr, "example that makes `stream`" }`.
macro_rules! halves {
    ($Stream:ident, $Address:ty, $make:literal) => {
        use crate::net::{$Stream, Interest, Ready};
        use std::sync::Arc;

        pub(crate) fn split(stream: &mut $Stream) -> (ReadHalf<'_>, WriteHalf<'_>) {
            (ReadHalf(stream), WriteHalf(stream))
        }

        pub(crate) fn into_split(stream: $Stream) -> (OwnedReadHalf, OwnedWriteHalf) {
            let stream = Arc::new(stream);
            let read_half = OwnedReadHalf { stream: Arc::clone(&stream) };
            (read_half, OwnedWriteHalf { stream, ends_writing: true })
        }

        #[doc = concat!("The borrowed read half of a [`", stringify!($Stream), "`].")]
        ///
        #[doc = concat!("Made by [`", stringify!($Stream), "::split`].")]
        ///
        /// # Examples
        ///
        /// ```no_run
        /// # fn main() -> std::io::Result<()> {
        /// corelane::block_on(async {
        #[doc = concat!("    let mut stream = { ", $make, " stream };")]
        ///     let (reader, writer) = stream.split();
        ///     writer.try_write(b"ping")?;
        ///     reader.readable().await
        /// })
        /// # }
        /// ```
        #[derive(Debug)]
        pub struct ReadHalf<'a>(&'a $Stream);

        #[doc = concat!("The borrowed write half of a [`", stringify!($Stream), "`].")]
        ///
        #[doc = concat!("Made by [`", stringify!($Stream), "::split`], where there is an example.")]
        /// Dropping it does nothing to the stream.
        #[derive(Debug)]
        pub struct WriteHalf<'a>(&'a $Stream);

        #[doc = concat!("The owned read half of a [`", stringify!($Stream), "`].")]
        ///
        #[doc = concat!("Made by [`", stringify!($Stream), "::into_split`].")]
        /// Dropping it lets the peer go on sending; what it sends is lost when the other half is gone too.
        ///
        /// # Examples
        ///
        /// ```no_run
        /// # fn main() -> std::io::Result<()> {
        /// corelane::block_on(async {
        #[doc = concat!("    ", $make)]
        ///     let (reader, writer) = stream.into_split();
        ///     corelane::spawn_local(async move { reader.readable().await });
        ///     writer.writable().await
        /// })
        /// # }
        /// ```
        #[derive(Debug)]
        pub struct OwnedReadHalf {
            stream: Arc<$Stream>,
        }

        #[doc = concat!("The owned write half of a [`", stringify!($Stream), "`].")]
        ///
        #[doc = concat!("Made by [`", stringify!($Stream), "::into_split`], where there is an example.")]
        /// Dropping it ends the sending direction, so the peer reads to the end; [`forget`](Self::forget) leaves the
        /// direction open.
        #[derive(Debug)]
        pub struct OwnedWriteHalf {
            stream: Arc<$Stream>,
            /// Whether dropping the half still has to end the sending direction.
            ends_writing: bool,
        }

        /// The error of `reunite`: the two halves, which are not of one stream.
        ///
        /// # Examples
        ///
        /// ```no_run
        #[doc = concat!("use corelane::net::", stringify!($Stream), ";")]
        ///
        #[doc = concat!("fn reunite_wrongly(a: ", stringify!($Stream), ", b: ", stringify!($Stream), ") {")]
        ///     let ((reader, _), (_, writer)) = (a.into_split(), b.into_split());
        ///     let error = reader.reunite(writer).expect_err("they are of two streams");
        ///     let (_reader, _writer) = (error.0, error.1);
        /// }
        /// ```
        #[derive(Debug)]
        pub struct ReuniteError(
            /// The read half given.
            pub OwnedReadHalf,
            /// The write half given.
            pub OwnedWriteHalf,
        );

        impl std::fmt::Display for ReuniteError {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the two halves are not of one stream")
            }
        }

        impl std::error::Error for ReuniteError {}

        impl ReadHalf<'_> {
            pub(crate) fn stream(&self) -> &$Stream {
                self.0
            }
        }

        impl WriteHalf<'_> {
            pub(crate) fn stream(&self) -> &$Stream {
                self.0
            }

            pub(crate) fn end_writing(&mut self) -> std::io::Result<()> {
                crate::sys::socket::shutdown_write(self.0)
            }
        }

        impl OwnedReadHalf {
            pub(crate) fn stream(&self) -> &$Stream {
                &self.stream
            }

            /// Makes one stream of its two halves again.
            ///
            /// # Errors
            ///
            /// [`ReuniteError`], which holds both halves, if they are not of one stream.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let (reader, writer) = stream.into_split();
            ///     let stream = reader.reunite(writer).expect("they are of one stream");
            ///     stream.readable().await
            /// })
            /// # }
            /// ```
            pub fn reunite(self, other: OwnedWriteHalf) -> Result<$Stream, ReuniteError> {
                if !Arc::ptr_eq(&self.stream, &other.stream) {
                    return Err(ReuniteError(self, other));
                }
                other.forget();
                // The halves are the only two owners: they are not `Clone` and give the `Arc` to nobody.
                Ok(Arc::into_inner(self.stream).expect("the read half is the last owner"))
            }
        }

        impl OwnedWriteHalf {
            pub(crate) fn stream(&self) -> &$Stream {
                &self.stream
            }

            pub(crate) fn end_writing(&mut self) -> std::io::Result<()> {
                crate::sys::socket::shutdown_write(&*self.stream)?;
                self.ends_writing = false;
                Ok(())
            }

            /// Makes one stream of its two halves again.
            ///
            /// # Errors
            ///
            /// [`ReuniteError`], which holds both halves, if they are not of one stream.
            pub fn reunite(self, other: OwnedReadHalf) -> Result<$Stream, ReuniteError> {
                other.reunite(self)
            }

            /// Drops the half without ending the sending direction.
            ///
            /// The direction then ends when the read half is dropped, with the socket.
            pub fn forget(mut self) {
                self.ends_writing = false;
            }
        }

        impl Drop for OwnedWriteHalf {
            fn drop(&mut self) {
                // What hyper wrote and the kernel has not taken goes out while the other half lives: an end before it
                // would cut it off. An end behind bytes that are missing would be a lie: the peer gets a reset.
                if self.ends_writing {
                    match self.stream.source().send_first() {
                        Ok(false) => self.stream.source().end_when_sent(),
                        Ok(true) => drop(self.end_writing()),
                        Err(_) => crate::sys::socket::reset_at_close(self.stream.source().get_ref()),
                    }
                }
            }
        }

        $crate::net::halves::half_methods! { read, $Stream, $Address, ReadHalf<'_>, OwnedReadHalf }
        $crate::net::halves::half_methods! { write, $Stream, $Address, WriteHalf<'_>, OwnedWriteHalf }
    };
}

/// The methods a half passes on to its stream.
macro_rules! half_methods {
    (read, $Stream:ident, $Address:ty, $($Half:ty),*) => {$(
        impl $Half {
            #[doc = concat!("Waits until the stream can be read: see [`", stringify!($Stream), "::readable`].")]
            ///
            /// # Errors
            ///
            /// The reactor's, if the socket cannot be registered.
            ///
            /// # Cancel safety
            ///
            /// Nothing is lost when the future is dropped.
            pub async fn readable(&self) -> std::io::Result<()> {
                self.stream().readable().await
            }

            #[doc = concat!("Reads what has arrived, without waiting: see [`", stringify!($Stream), "::try_read`].")]
            ///
            /// # Errors
            ///
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) if nothing is known to have arrived, and what the
            /// operating system says.
            pub fn try_read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.stream().try_read(buf)
            }

            /// Reads what has arrived into several buffers in turn, without waiting: see
            #[doc = concat!("[`", stringify!($Stream), "::try_read_vectored`].")]
            ///
            /// # Errors
            ///
            /// Those of [`try_read`](Self::try_read).
            pub fn try_read_vectored(
                &self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                self.stream().try_read_vectored(bufs)
            }
        }
    )*
        $crate::net::halves::half_methods! { both, $Stream, $Address, $($Half),* }
    };
    (write, $Stream:ident, $Address:ty, $($Half:ty),*) => {$(
        impl $Half {
            #[doc = concat!("Waits until the stream can be written: see [`", stringify!($Stream), "::writable`].")]
            ///
            /// # Errors
            ///
            /// The reactor's, if the socket cannot be registered.
            ///
            /// # Cancel safety
            ///
            /// Nothing is lost when the future is dropped.
            pub async fn writable(&self) -> std::io::Result<()> {
                self.stream().writable().await
            }

            /// Writes as much of `buf` as there is room for, without waiting: see
            #[doc = concat!("[`", stringify!($Stream), "::try_write`].")]
            ///
            /// # Errors
            ///
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) if there is not known to be room, and what the
            /// operating system says.
            pub fn try_write(&self, buf: &[u8]) -> std::io::Result<usize> {
                self.stream().try_write(buf)
            }

            /// Writes as much of several buffers in turn as there is room for, without waiting: see
            #[doc = concat!("[`", stringify!($Stream), "::try_write_vectored`].")]
            ///
            /// # Errors
            ///
            /// Those of [`try_write`](Self::try_write).
            pub fn try_write_vectored(
                &self,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::io::Result<usize> {
                self.stream().try_write_vectored(bufs)
            }
        }
    )*
        $crate::net::halves::half_methods! { both, $Stream, $Address, $($Half),* }
    };
    (both, $Stream:ident, $Address:ty, $($Half:ty),*) => {$(
        impl $Half {
            #[doc = concat!("Waits for readiness: see [`", stringify!($Stream), "::ready`].")]
            ///
            /// A half can wait for the other half's direction as well.
            ///
            /// # Errors
            ///
            /// The reactor's, if the socket cannot be registered.
            ///
            /// # Cancel safety
            ///
            /// Nothing is lost when the future is dropped.
            pub async fn ready(&self, interest: Interest) -> std::io::Result<Ready> {
                self.stream().ready(interest).await
            }

            /// The address of the peer.
            ///
            /// # Errors
            ///
            /// The operating system's, for example when the connection is gone.
            pub fn peer_addr(&self) -> std::io::Result<$Address> {
                self.stream().peer_addr()
            }

            /// The address of this end.
            ///
            /// # Errors
            ///
            /// The operating system's.
            pub fn local_addr(&self) -> std::io::Result<$Address> {
                self.stream().local_addr()
            }
        }

        impl AsRef<$Stream> for $Half {
            fn as_ref(&self) -> &$Stream {
                self.stream()
            }
        }
    )*};
}

pub(super) use {half_methods, halves};
