//! Receiving into a [`bytes::BufMut`], such as a `Vec<u8>` or a `BytesMut`: what arrives is appended.
//!
//! Nothing is zeroed first. One call fills at most the first contiguous free part of the buffer, which a growing buffer
//! makes at least 64 bytes long.

/// `growing_stream! { TcpStream, "example that makes `socket`" }`.
macro_rules! growing_stream {
    ($Stream:ident, $make:literal) => {
        impl $Stream {
            /// Appends what has arrived to `buf`, without waiting, and says how many bytes that were.
            ///
            /// Otherwise like [`try_read`](Self::try_read).
            ///
            /// # Errors
            ///
            /// Those of [`try_read`](Self::try_read).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let mut buf = Vec::with_capacity(4096);
            ///     socket.readable().await?;
            ///     println!("{} bytes", socket.try_read_buf(&mut buf)?);
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_read_buf<B: bytes::BufMut>(&self, buf: &mut B) -> std::io::Result<usize> {
                self.source.try_io(crate::reactor::slots::Direction::Read, |socket| {
                    crate::sys::bytes::recv(socket, buf)
                })
            }
        }
    };
}

/// `growing_halves! { TcpStream, ReadHalf<'_>, OwnedReadHalf }`.
macro_rules! growing_halves {
    ($Stream:ident, $($Half:ty),*) => {$(
        impl $Half {
            /// Appends what has arrived to `buf`, without waiting: see
            #[doc = concat!("[`", stringify!($Stream), "::try_read_buf`](crate::net::", stringify!($Stream), "::try_read_buf).")]
            ///
            /// # Errors
            ///
            /// Those of [`try_read`](Self::try_read).
            pub fn try_read_buf<B: bytes::BufMut>(&self, buf: &mut B) -> std::io::Result<usize> {
                self.stream().try_read_buf(buf)
            }
        }
    )*};
}

/// `growing_datagrams! { UdpSocket, std::net::SocketAddr, recv_from, "example that makes `socket`" }`; `recv_from` is the
/// function of `sys::bytes`.
macro_rules! growing_datagrams {
    ($Socket:ident, $Address:ty, $recv_from:ident, $make:literal) => {
        impl $Socket {
            /// Appends a datagram to `buf` and says how many bytes it had. What does not fit is lost.
            ///
            /// # Errors
            ///
            /// Those of [`recv`](Self::recv).
            ///
            /// # Cancel safety
            ///
            /// No datagram is lost when the future is dropped.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let mut buf = Vec::with_capacity(1500);
            ///     socket.recv_buf(&mut buf).await?;
            ///     println!("{buf:?}");
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub async fn recv_buf<B: bytes::BufMut>(&self, buf: &mut B) -> std::io::Result<usize> {
                self.source
                    .async_io(crate::reactor::slots::Direction::Read, |socket| {
                        crate::sys::bytes::recv(socket, buf)
                    })
                    .await
            }

            /// Appends a datagram that has arrived to `buf`, without waiting. What does not fit is lost.
            ///
            /// # Errors
            ///
            /// Those of [`try_recv`](Self::try_recv).
            pub fn try_recv_buf<B: bytes::BufMut>(&self, buf: &mut B) -> std::io::Result<usize> {
                self.source.try_io(crate::reactor::slots::Direction::Read, |socket| {
                    crate::sys::bytes::recv(socket, buf)
                })
            }

            /// Appends a datagram to `buf` and says how many bytes it had and who sent it. What does not fit is lost.
            ///
            /// # Errors
            ///
            /// Those of [`recv`](Self::recv).
            ///
            /// # Cancel safety
            ///
            /// No datagram is lost when the future is dropped.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let mut buf = Vec::with_capacity(1500);
            ///     let (n, sender) = socket.recv_buf_from(&mut buf).await?;
            ///     println!("{n} bytes from {sender:?}");
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub async fn recv_buf_from<B: bytes::BufMut>(
                &self,
                buf: &mut B,
            ) -> std::io::Result<(usize, $Address)> {
                let (n, sender) = self
                    .source
                    .async_io(crate::reactor::slots::Direction::Read, |socket| {
                        crate::sys::bytes::$recv_from(socket, buf)
                    })
                    .await?;
                Ok((n, sender.into()))
            }

            /// Appends a datagram that has arrived to `buf` and says who sent it, without waiting. What does not fit is
            /// lost.
            ///
            /// # Errors
            ///
            /// Those of [`try_recv`](Self::try_recv).
            pub fn try_recv_buf_from<B: bytes::BufMut>(
                &self,
                buf: &mut B,
            ) -> std::io::Result<(usize, $Address)> {
                let (n, sender) =
                    self.source.try_io(crate::reactor::slots::Direction::Read, |socket| {
                        crate::sys::bytes::$recv_from(socket, buf)
                    })?;
                Ok((n, sender.into()))
            }
        }
    };
}

pub(super) use {growing_datagrams, growing_halves, growing_stream};
