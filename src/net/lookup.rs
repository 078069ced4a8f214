//! From what a caller calls an address to the addresses it means.
//!
//! Owns `ToSocketAddrs` and `lookup_host`. Literal addresses are answered on the spot; names go to the system's
//! resolver on the blocking pool, never on a shard. Nothing is cached.

use crate::blocking::spawn_blocking;
use crate::task::join::JoinHandle;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::option;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

/// What can be turned into one or more [`SocketAddr`]s, waiting for a name server if need be.
///
/// It is sealed: the types it is implemented for are
///
/// - [`SocketAddr`], [`SocketAddrV4`], [`SocketAddrV6`], `(IpAddr, u16)`, `(Ipv4Addr, u16)`, `(Ipv6Addr, u16)` and
///   `&[SocketAddr]`, which are addresses already;
/// - `str`, [`String`] as `"host:port"`, and `(&str, u16)`, `(String, u16)` as host and port, where the host is an
///   address or a name;
/// - references to all of these.
///
/// A host that is an address costs nothing. A name is looked up with the system's resolver on the blocking pool.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::{TcpStream, ToSocketAddrs};
///
/// async fn dial(target: impl ToSocketAddrs) -> std::io::Result<TcpStream> {
///     TcpStream::connect(target).await
/// }
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     dial("127.0.0.1:8080").await?;
///     dial(("localhost", 8080)).await?;
///     Ok(())
/// })
/// # }
/// ```
pub trait ToSocketAddrs: sealed::Resolve {}

/// Looks up a host.
///
/// The addresses come in the order the system's resolver prefers, each with the port given.
///
/// # Errors
///
/// The resolver's error, or [`InvalidInput`](io::ErrorKind::InvalidInput) if `host` has no port.
///
/// # Cancel safety
///
/// Dropping the future gives the answer up; a query that has begun still ends on the blocking pool.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     for addr in corelane::net::lookup_host("localhost:80").await? {
///         println!("{addr}");
///     }
///     Ok(())
/// })
/// # }
/// ```
pub async fn lookup_host<T>(host: T) -> io::Result<impl Iterator<Item = SocketAddr>>
where
    T: ToSocketAddrs,
{
    resolve(host).await
}

/// The addresses `addr` means.
pub(crate) fn resolve<A: ToSocketAddrs>(addr: A) -> Lookup {
    addr.resolve()
}

/// Resolves `addr` and returns the first success of `attempt`, else its last error.
pub(crate) async fn first_success<A: ToSocketAddrs, R>(
    addr: A,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<R>,
) -> io::Result<R> {
    let mut outcome = Err(no_address());
    for addr in resolve(addr).await? {
        outcome = attempt(addr);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// The error for a name or a slice that holds no address at all.
pub(crate) fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "there is no address behind the name")
}

/// The addresses of one `ToSocketAddrs`.
#[derive(Debug)]
pub enum Addresses {
    /// Known without asking.
    Known(option::IntoIter<SocketAddr>),
    /// A slice's, or a resolver's answer.
    Many(vec::IntoIter<SocketAddr>),
}

impl Iterator for Addresses {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        match self {
            Addresses::Known(addresses) => addresses.next(),
            Addresses::Many(addresses) => addresses.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Addresses::Known(addresses) => addresses.size_hint(),
            Addresses::Many(addresses) => addresses.size_hint(),
        }
    }
}

/// Resolves to `Addresses`.
pub enum Lookup {
    /// There is nothing to wait for. `None` once it has been taken.
    Done(Option<Addresses>),
    /// The blocking pool is asking.
    Asking(JoinHandle<io::Result<vec::IntoIter<SocketAddr>>>),
}

impl Lookup {
    fn known(addr: SocketAddr) -> Lookup {
        Lookup::Done(Some(Addresses::Known(Some(addr).into_iter())))
    }

    fn ask(
        target: impl std::net::ToSocketAddrs<Iter = vec::IntoIter<SocketAddr>> + Send + 'static,
    ) -> Lookup {
        Lookup::Asking(spawn_blocking(move || target.to_socket_addrs()))
    }
}

impl Future for Lookup {
    type Output = io::Result<Addresses>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Lookup::Done(addresses) => {
                Poll::Ready(Ok(addresses.take().expect("polled again after it was ready")))
            }
            Lookup::Asking(answer) => match ready!(Pin::new(answer).poll(cx)) {
                Ok(addresses) => Poll::Ready(addresses.map(Addresses::Many)),
                Err(lost) => Poll::Ready(Err(io::Error::other(lost))),
            },
        }
    }
}

mod sealed {
    /// The working half of `ToSocketAddrs`, out of reach for other crates.
    pub trait Resolve {
        /// Begins the lookup.
        fn resolve(&self) -> super::Lookup;
    }
}

/// Types that are addresses already, each with how to say so.
macro_rules! known {
    ($($Type:ty: |$this:ident| $addr:expr;)*) => {$(
        impl ToSocketAddrs for $Type {}

        impl sealed::Resolve for $Type {
            fn resolve(&self) -> Lookup {
                let $this = *self;
                Lookup::known($addr)
            }
        }
    )*};
}

known! {
    SocketAddr: |addr| addr;
    SocketAddrV4: |addr| addr.into();
    SocketAddrV6: |addr| addr.into();
    (IpAddr, u16): |addr| addr.into();
    (Ipv4Addr, u16): |addr| addr.into();
    (Ipv6Addr, u16): |addr| addr.into();
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}

impl<T: ToSocketAddrs + ?Sized> sealed::Resolve for &T {
    fn resolve(&self) -> Lookup {
        (**self).resolve()
    }
}

impl ToSocketAddrs for &[SocketAddr] {}

impl sealed::Resolve for &[SocketAddr] {
    fn resolve(&self) -> Lookup {
        Lookup::Done(Some(Addresses::Many(Vec::from(*self).into_iter())))
    }
}

impl ToSocketAddrs for str {}

impl sealed::Resolve for str {
    fn resolve(&self) -> Lookup {
        match self.parse() {
            Ok(addr) => Lookup::known(addr),
            Err(_) => Lookup::ask(self.to_owned()),
        }
    }
}

impl ToSocketAddrs for String {}

impl sealed::Resolve for String {
    fn resolve(&self) -> Lookup {
        self.as_str().resolve()
    }
}

impl ToSocketAddrs for (&str, u16) {}

impl sealed::Resolve for (&str, u16) {
    fn resolve(&self) -> Lookup {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Lookup::known((ip, port).into()),
            Err(_) => Lookup::ask((host.to_owned(), port)),
        }
    }
}

impl ToSocketAddrs for (String, u16) {}

impl sealed::Resolve for (String, u16) {
    fn resolve(&self) -> Lookup {
        (self.0.as_str(), self.1).resolve()
    }
}
