//! What every socket type is, whatever it carries: an owned non-blocking descriptor with a `Source` around it.
//!
//! The macro writes construction from and return to the standard library's type, the descriptor traits and `Debug`.
//! It never reads or writes.

/// `descriptor! { TcpStream, std::net::TcpStream, "std::net::TcpStream", "example that makes `socket`" }`.
macro_rules! descriptor {
    ($Socket:ident, $Std:ty, $std:literal, $make:literal) => {
        impl $Socket {
            /// Wraps a socket that is non-blocking already.
            pub(crate) fn new(socket: $Std) -> Self {
                $Socket { source: crate::reactor::source::Source::new(socket) }
            }

            /// Wraps a socket that is non-blocking already, and taken to be ready until it says that it would block.
            #[allow(dead_code, reason = "only sockets with a peer are known to be ready at first")]
            pub(crate) fn ready_for(
                socket: $Std,
                ready: crate::reactor::slots::Readiness,
            ) -> Self {
                $Socket { source: crate::reactor::source::Source::assuming(socket, ready) }
            }

            /// The descriptor with its readiness.
            #[allow(dead_code, reason = "adapters of this crate use it for some socket types only")]
            pub(crate) fn source(&self) -> &crate::reactor::source::Source<$Std> {
                &self.source
            }

            #[doc = concat!("Takes over a [`", $std, "`] and makes it non-blocking.")]
            ///
            /// It need not be called inside a runtime.
            ///
            /// # Errors
            ///
            /// The operating system's, if the descriptor cannot be made non-blocking.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            #[doc = $make]
            #[doc = concat!("let socket = corelane::net::", stringify!($Socket), "::from_std(socket)?;")]
            /// # drop(socket);
            /// # Ok(())
            /// # }
            /// ```
            pub fn from_std(socket: $Std) -> std::io::Result<Self> {
                crate::sys::socket::set_nonblocking(&socket)?;
                Ok(Self::new(socket))
            }

            #[doc = concat!("Gives the socket back as a [`", $std, "`].")]
            ///
            /// It stays non-blocking; `set_nonblocking(false)` changes that. Tasks that wait for it cannot exist any
            /// more, as they would borrow it.
            ///
            /// # Errors
            ///
            /// The operating system's, if the descriptor has to be duplicated because another shard has not let go of
            /// it yet. [`WouldBlock`](std::io::ErrorKind::WouldBlock) if bytes that hyper wrote through
            /// [`http::Io`](crate::http::Io) have not all been taken by the kernel: flush first. The socket is closed
            /// on either.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            #[doc = $make]
            #[doc = concat!("let socket = corelane::net::", stringify!($Socket), "::from_std(socket)?;")]
            /// let socket = socket.into_std()?;
            /// socket.set_nonblocking(false)?;
            /// # Ok(())
            /// # }
            /// ```
            pub fn into_std(self) -> std::io::Result<$Std> {
                self.source.into_inner()
            }
        }

        impl TryFrom<$Std> for $Socket {
            type Error = std::io::Error;

            /// The same as [`from_std`](Self::from_std).
            fn try_from(socket: $Std) -> std::io::Result<Self> {
                Self::from_std(socket)
            }
        }

        impl std::fmt::Debug for $Socket {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.source.get_ref().fmt(f)
            }
        }

        impl std::os::fd::AsFd for $Socket {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.source.get_ref().as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $Socket {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.source.get_ref().as_raw_fd()
            }
        }
    };
}

/// `addresses! { TcpStream, SocketAddr: local_addr peer_addr }`.
macro_rules! addresses {
    ($Socket:ident, $Address:ty: $($which:ident)*) => {
        $($crate::net::descriptor::address! { $which $Socket, $Address })*
    };
}

macro_rules! address {
    (local_addr $Socket:ident, $Address:ty) => {
        impl $Socket {
            /// The address of this end.
            ///
            /// # Errors
            ///
            /// The operating system's.
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("# fn example(socket: corelane::net::", stringify!($Socket), ") -> std::io::Result<()> {")]
            /// println!("{:?}", socket.local_addr()?);
            /// # Ok(())
            /// # }
            /// ```
            pub fn local_addr(&self) -> std::io::Result<$Address> {
                self.source.get_ref().local_addr().map(Into::into)
            }
        }
    };
    (peer_addr $Socket:ident, $Address:ty) => {
        impl $Socket {
            /// The address of the peer the socket is connected with.
            ///
            /// # Errors
            ///
            /// The operating system's; [`NotConnected`](std::io::ErrorKind::NotConnected) if there is no peer, or no
            /// longer.
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("# fn example(socket: corelane::net::", stringify!($Socket), ") -> std::io::Result<()> {")]
            /// println!("{:?}", socket.peer_addr()?);
            /// # Ok(())
            /// # }
            /// ```
            pub fn peer_addr(&self) -> std::io::Result<$Address> {
                self.source.get_ref().peer_addr().map(Into::into)
            }
        }
    };
}

pub(super) use {address, addresses, descriptor};
