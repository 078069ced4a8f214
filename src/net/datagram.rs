//! Sending and receiving datagrams: written once for UDP and Unix sockets.
//!
//! One datagram is one system call and goes whole or not at all. A short receive says nothing about what else is in
//! the queue, so readiness stays until the kernel says `WouldBlock`.

/// `datagram_methods! { UdpSocket, std::net::SocketAddr, "example that makes `socket`" }`.
macro_rules! datagram_methods {
    ($Socket:ident, $Address:ty, $make:literal) => {
        impl $Socket {
            /// Sends a datagram to the peer the socket is connected with, and says how many bytes it had.
            ///
            /// # Errors
            ///
            /// The operating system's, also the late answer to an earlier datagram, such as
            /// [`ConnectionRefused`](std::io::ErrorKind::ConnectionRefused).
            ///
            /// # Cancel safety
            ///
            /// The datagram has not been sent if the future is dropped before it is ready.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.send(b"hello").await?;
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub async fn send(&self, buf: &[u8]) -> std::io::Result<usize> {
                self.source
                    .async_io(crate::reactor::slots::Direction::Write, |socket| {
                        crate::sys::socket::send(socket, buf)
                    })
                    .await
            }

            /// Polls for [`send`](Self::send).
            ///
            /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
            ///
            /// # Errors
            ///
            /// Those of [`send`](Self::send).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     std::future::poll_fn(|cx| socket.poll_send(cx, b"hello")).await?;
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn poll_send(
                &self,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.source.poll_io(cx, crate::reactor::slots::Direction::Write, |socket| {
                    crate::sys::socket::send(socket, buf)
                })
            }

            /// Sends a datagram to the peer the socket is connected with, without waiting.
            ///
            /// # Errors
            ///
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) if there is no room or the reactor has not heard of it
            /// yet, and those of [`send`](Self::send).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.writable().await?;
            ///     socket.try_send(b"hello")?;
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_send(&self, buf: &[u8]) -> std::io::Result<usize> {
                self.source.try_io(crate::reactor::slots::Direction::Write, |socket| {
                    crate::sys::socket::send(socket, buf)
                })
            }

            /// Receives a datagram and says how many bytes of `buf` it fills. What does not fit is lost.
            ///
            /// # Errors
            ///
            /// The operating system's, also the late answer to an earlier datagram, such as
            /// [`ConnectionRefused`](std::io::ErrorKind::ConnectionRefused).
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
            ///     let mut buf = [0; 1500];
            ///     let n = socket.recv(&mut buf).await?;
            ///     println!("{:?}", &buf[..n]);
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub async fn recv(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.source
                    .async_io(crate::reactor::slots::Direction::Read, |socket| socket.recv(buf))
                    .await
            }

            /// Receives a datagram that has arrived, without waiting. What does not fit into `buf` is lost.
            ///
            /// # Errors
            ///
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) if nothing has arrived or the reactor has not heard of
            /// it yet, and those of [`recv`](Self::recv).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let mut buf = [0; 1500];
            ///     socket.readable().await?;
            ///     println!("{} bytes", socket.try_recv(&mut buf)?);
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_recv(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.source
                    .try_io(crate::reactor::slots::Direction::Read, |socket| socket.recv(buf))
            }

            /// Receives a datagram and says how many bytes of `buf` it fills and who sent it. What does not fit is
            /// lost.
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
            ///     let mut buf = [0; 1500];
            ///     let (n, sender) = socket.recv_from(&mut buf).await?;
            ///     println!("{n} bytes from {sender:?}");
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub async fn recv_from(&self, buf: &mut [u8]) -> std::io::Result<(usize, $Address)> {
                let (n, sender) = self
                    .source
                    .async_io(crate::reactor::slots::Direction::Read, |socket| {
                        socket.recv_from(buf)
                    })
                    .await?;
                Ok((n, sender.into()))
            }

            /// Receives a datagram that has arrived and says who sent it, without waiting. What does not fit into
            /// `buf` is lost.
            ///
            /// # Errors
            ///
            /// Those of [`try_recv`](Self::try_recv).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let mut buf = [0; 1500];
            ///     socket.readable().await?;
            ///     let (n, sender) = socket.try_recv_from(&mut buf)?;
            ///     println!("{n} bytes from {sender:?}");
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_recv_from(&self, buf: &mut [u8]) -> std::io::Result<(usize, $Address)> {
                let (n, sender) =
                    self.source.try_io(crate::reactor::slots::Direction::Read, |socket| {
                        socket.recv_from(buf)
                    })?;
                Ok((n, sender.into()))
            }
        }
    };
}

pub(super) use datagram_methods;
