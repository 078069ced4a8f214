//! Socket options, each written once for all the types of socket that have it.
//!
//! Every method is one `getsockopt` or `setsockopt`. It takes effect at once, for whoever shares the socket, and may
//! be called from any thread.

/// `options! { TcpStream: nodelay ttl }` gives the type these options.
macro_rules! options {
    ($Socket:ident: $($option:ident)*) => {
        $($crate::net::options::option! { $option $Socket })*
    };
}

/// One option, or several that belong together.
macro_rules! option {
    (nodelay $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// Whether small writes are sent at once (`TCP_NODELAY`).
            nodelay,
            /// Sends small writes at once, or lets them wait for an acknowledgement or for more (`TCP_NODELAY`).
            ///
            /// Off at first, as the system has it.
            set_nodelay(true): bool;
        }
    };
    (ttl $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// How many routers a packet of this socket may pass (`IP_TTL`).
            ttl,
            /// Sets how many routers a packet of this socket may pass (`IP_TTL`), from 1 to 255.
            set_ttl(64): u32;
        }
    };
    (keepalive $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// Whether a silent connection is probed (`SO_KEEPALIVE`).
            keepalive,
            /// Probes a silent connection, or does not (`SO_KEEPALIVE`). The times are the system's.
            set_keepalive(true): bool;
        }
    };
    (reuse $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// Whether an address whose old connections are in `TIME_WAIT` can be bound (`SO_REUSEADDR`).
            reuseaddr,
            /// Lets an address be bound whose old connections are in `TIME_WAIT` (`SO_REUSEADDR`).
            ///
            /// It must be set before [`bind`](Self::bind).
            set_reuseaddr(true): bool;
            /// Whether several sockets can be bound to one address (`SO_REUSEPORT`).
            reuseport,
            /// Lets several sockets be bound to one address (`SO_REUSEPORT`): the kernel spreads new connections
            /// over those that listen, so each shard can have a listener of its own.
            ///
            /// All of them must set it before [`bind`](Self::bind). A second instance of the program can bind
            /// the address too, without an error, and will get its share of the connections.
            set_reuseport(true): bool;
        }
    };
    (buffer_sizes $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// How many bytes the kernel buffers for sending (`SO_SNDBUF`): twice what was set, as Linux counts its
            /// own bookkeeping.
            send_buffer_size,
            /// Sets how many bytes the kernel buffers for sending (`SO_SNDBUF`).
            ///
            /// This turns the kernel's own adaptation off. The system limits the size silently.
            set_send_buffer_size(65536): u32;
            /// How many bytes the kernel buffers for receiving (`SO_RCVBUF`): twice what was set, as Linux counts
            /// its own bookkeeping.
            recv_buffer_size,
            /// Sets how many bytes the kernel buffers for receiving (`SO_RCVBUF`).
            ///
            /// This turns the kernel's own adaptation off. The system limits the size silently. A window of more
            /// than 64 KiB is negotiated only if this is set before connecting or listening.
            set_recv_buffer_size(65536): u32;
        }
    };
    (type_of_service $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// The type-of-service byte of IPv4 packets (`IP_TOS`).
            tos_v4,
            /// Sets the type-of-service byte of IPv4 packets (`IP_TOS`).
            set_tos_v4(0x10): u32;
            /// The traffic class of IPv6 packets (`IPV6_TCLASS`). An IPv4 socket has none and fails.
            tclass_v6,
            /// Sets the traffic class of IPv6 packets (`IPV6_TCLASS`). An IPv4 socket has none and fails.
            set_tclass_v6(0x10): u32;
        }
    };
    (device $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// The network interface the socket is bound to (`SO_BINDTODEVICE`).
            device -> Option<Vec<u8>>,
            /// Binds the socket to a network interface by name, or with `None` to none (`SO_BINDTODEVICE`).
            ///
            /// Older kernels ask for a privilege.
            bind_device(Some(b"lo")): Option<&[u8]>;
        }
    };
    (linger $Socket:ident) => {
        $crate::net::options::accessors! { $Socket:
            /// How long closing waits for data that is not sent yet (`SO_LINGER`); `None` if it does not.
            linger,
            /// Sets how long closing waits for data that is not sent yet (`SO_LINGER`), in whole seconds.
            ///
            /// With a time other than zero, dropping the socket **blocks the thread** until the data is acknowledged
            /// or the time is over, and with it every task of the shard. Zero does not block:
            /// [`set_zero_linger`](Self::set_zero_linger). `None`, the default, sends what is left in the background.
            set_linger(None): Option<std::time::Duration>;
        }

        impl $Socket {
            /// Makes closing abort the connection: the peer gets a reset, what is not sent yet is lost, and no
            /// `TIME_WAIT` is left behind.
            ///
            /// # Errors
            ///
            /// The operating system's.
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("# fn example(socket: corelane::net::", stringify!($Socket), ") -> std::io::Result<()> {")]
            /// socket.set_zero_linger()?;
            /// # Ok(())
            /// # }
            /// ```
            pub fn set_zero_linger(&self) -> std::io::Result<()> {
                self.set_linger(Some(std::time::Duration::ZERO))
            }
        }
    };
    (take_error $Socket:ident) => {
        impl $Socket {
            /// Takes the error that waits on the socket (`SO_ERROR`), if there is one.
            ///
            /// An operation that fails takes the error as well; this is for whoever waits without operating.
            ///
            /// # Errors
            ///
            /// The operating system's, if it cannot be asked.
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("# fn example(socket: corelane::net::", stringify!($Socket), ") -> std::io::Result<()> {")]
            /// if let Some(error) = socket.take_error()? {
            ///     println!("the socket has failed: {error}");
            /// }
            /// # Ok(())
            /// # }
            /// ```
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                crate::sys::socket::take_error(self)
            }
        }
    };
}

/// Pairs of a getter and a setter, each named as in `sys::socket`, with an example value for the setter. The getter's
/// type stands at the setter, unless it has its own.
macro_rules! accessors {
    ($Socket:ident: $(
        $(#[$get_doc:meta])* $get:ident $(-> $Got:ty)?,
        $(#[$set_doc:meta])* $set:ident($example:expr): $Value:ty;
    )*) => {$(
        impl $Socket {
            $(#[$get_doc])*
            ///
            /// # Errors
            ///
            /// The operating system's.
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("# fn example(socket: corelane::net::", stringify!($Socket), ") -> std::io::Result<()> {")]
            #[doc = concat!("println!(\"{:?}\", socket.", stringify!($get), "()?);")]
            /// # Ok(())
            /// # }
            /// ```
            pub fn $get(&self) -> std::io::Result<$crate::net::options::getter_type!($Value $(, $Got)?)> {
                crate::sys::socket::$get(self)
            }

            $(#[$set_doc])*
            ///
            /// # Errors
            ///
            /// The operating system's.
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("# fn example(socket: corelane::net::", stringify!($Socket), ") -> std::io::Result<()> {")]
            #[doc = concat!("socket.", stringify!($set), "(", stringify!($example), ")?;")]
            /// # Ok(())
            /// # }
            /// ```
            pub fn $set(&self, value: $Value) -> std::io::Result<()> {
                crate::sys::socket::$set(self, value)
            }
        }
    )*};
}

macro_rules! getter_type {
    ($Value:ty) => {
        $Value
    };
    ($Value:ty, $Got:ty) => {
        $Got
    };
}

pub(super) use {accessors, getter_type, option, options};
