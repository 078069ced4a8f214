//! HTTPS: certificates, handshakes and encrypted streams, by [rustls](https://docs.rs/rustls) with ring.
//!
//! A [`Tls`] holds what a listener needs. Each connection that is accepted goes through [`Tls::accept`], which is a future of the
//! handshake and becomes a [`Stream`] that hyper can use.
//!
//! ```no_run
//! use corelane::{http::Timer, net::TcpListener, time::timeout, tls::Tls};
//! use hyper::{Response, server::conn::http1, service::service_fn};
//! use std::{convert::Infallible, time::Duration};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tls = Tls::builder().certificate("chain.pem", "key.pem").alpn(["http/1.1"]).build()?;
//! corelane::block_on(async {
//!     let listener = TcpListener::bind("0.0.0.0:8443").await?;
//!     loop {
//!         let (stream, _) = listener.accept().await?;
//!         let handshake = timeout(Duration::from_secs(10), tls.accept(stream));
//!         corelane::spawn_local(async move {
//!             let Ok(Ok(stream)) = handshake.await else { return };
//!             let service = service_fn(async |_| Ok::<_, Infallible>(Response::new("Hello".to_owned())));
//!             let _ = http1::Builder::new().timer(Timer).serve_connection(stream, service).await;
//!         });
//!     }
//! })
//! # }
//! ```
//!
//! # What is spoken
//!
//! TLS 1.3 and 1.2 with forward secrecy (ECDHE over X25519, P-256 and P-384) and authenticated encryption (AES-GCM and
//! ChaCha20-Poly1305); the client's order of preference counts. Neither renegotiation nor compression exists, and no
//! early data (0-RTT) is accepted, for it can be replayed.
//!
//! # Sessions
//!
//! A client may resume a session on any shard: what is needed for that is in its ticket, and the key of the tickets
//! is one for all clones of a [`Tls`]. It changes every six hours; a ticket is good for six to twelve. Nothing is kept in
//! the server. Two `Tls` that were built separately do not take each other's tickets, so a session that began where no
//! client certificate was asked for is not resumed where one is. Whoever shares a port shares a clone.
//!
//! A session that is resumed does not verify the client's certificate again: one that expires stays good for as long as its
//! ticket. When a reload finds other authorities than before, the key of the tickets is made anew.
//!
//! # Memory
//!
//! One connection holds at most 64 KiB that are encrypted and not sent yet, and 36 KiB that have arrived: one record
//! of 18 KiB that is incomplete and one that is decrypted and was not read. During the handshake up to 64 KiB have arrived
//! instead. No more is read from the socket, or taken from the writer, until that is gone. What the allocator adds to many small
//! records is not counted.

// What each file does stands at its head.
mod accept;
mod certificate;
mod dates;
mod files;
mod names;
mod settings;
mod stream;
mod version;

use crate::error::Error;
use crate::sync::live::{Known, Live};
use crate::sync::{Arc, Mutex, lock};
pub use accept::{Accept, Acceptor};
pub use certificate::Certificate;
use settings::{Clients, Loaded, Paths, Settings, Tickets};
use std::path::Path;
pub use stream::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
pub use version::Version;

/// What a listener needs to serve HTTPS: certificates with their keys, whom it trusts, and the key of its session tickets.
///
/// Clones share everything, and are cheap: a listener has one for all its shards.
///
/// # Which certificate a client gets
///
/// Clients name the server that they want (SNI), and names are those in the certificates themselves: the DNS names of
/// `subjectAltName`, among them wildcards, which stand for one label. A name itself comes before a wildcard, and the certificate
/// that was given first before others with the same name; of these the first that the client can verify counts, so that one
/// name can have an ECDSA and an RSA certificate. Who asks for a name that none has, or for none, gets the first
/// certificate, or one with the same names. IP addresses in certificates are not looked at, because no client asks for
/// one by SNI: they are good in the first certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    live: Arc<Live<Loaded>>,
    /// Held while files are read, so that of two reloads the later one wins.
    tickets: Mutex<Tickets>,
}

impl Tls {
    /// Settings for a new one.
    pub fn builder() -> Builder {
        Builder { settings: Settings::new() }
    }

    /// The handshake with the client at the other end of `io`, from its first byte.
    ///
    /// The certificates are those of the time at which this is called. There is no limit in time inside: a client may stay silent for
    /// ever, so whoever calls bounds it ([`timeout`](crate::time::timeout)). A signature takes its time on the shard, longest with an RSA key; ECDSA on
    /// P-256 is the best choice.
    ///
    /// # Errors
    /// What came is not TLS ([`InvalidData`](std::io::ErrorKind::InvalidData)), or the two have no version, cipher suite or ALPN protocol in common, or a
    /// client's certificate is missing or wrong: then the client is told by an alert, and the error's text says it. Or the
    /// client ended the connection ([`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof)), or the system did. `io` is closed in any case.
    ///
    /// # Cancel safety
    /// A handshake that is dropped cannot be taken up again: `io` is closed. Between two polls it may wait as long as one likes, so
    /// it can be polled by reference in a `select`.
    ///
    /// # Examples
    /// See the [module](self).
    pub fn accept<IO>(&self, io: IO) -> Accept<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor().accept(io)
    }

    /// The same for a task that accepts many: without a lock for each. A shard has one of its own.
    ///
    /// # Examples
    /// ```no_run
    /// # use corelane::{net::TcpListener, tls::Tls};
    /// # async fn serve(tls: Tls, listener: TcpListener) -> std::io::Result<()> {
    /// let acceptor = tls.acceptor();
    /// loop {
    ///     let (stream, _) = listener.accept().await?;
    ///     let handshake = acceptor.accept(stream);
    ///     corelane::spawn_local(async move { drop(handshake.await) });
    /// }
    /// # }
    /// ```
    pub fn acceptor(&self) -> Acceptor {
        Acceptor::new(Known::new(self.shared.live.clone()))
    }

    /// Reads all files again, which may have been replaced, and uses them for handshakes that begin from now on, in all clones.
    ///
    /// It is all or nothing. Connections that are open, and handshakes that have begun, go on with what they have. Sessions can be resumed
    /// across it, unless the authorities of client certificates have changed.
    ///
    /// It waits for the disk: a few milliseconds at most where files are local. Elsewhere call it in a
    /// [`spawn_blocking`](crate::spawn_blocking).
    ///
    /// # Errors
    /// As [`Builder::build`]. What was there before stays in use.
    ///
    /// # Examples
    /// ```no_run
    /// # fn main() -> Result<(), corelane::Error> {
    /// # let tls = corelane::tls::Tls::builder().certificate("chain.pem", "key.pem").build()?;
    /// if let Err(error) = tls.reload() {
    ///     eprintln!("the old certificates stay: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn reload(&self) -> Result<(), Error> {
        let Shared { settings, live, tickets } = &*self.shared;
        let mut tickets = lock(tickets);
        let (loaded, new) = settings.load(Some(&tickets))?;
        *tickets = new;
        live.replace(loaded);
        Ok(())
    }

    /// The certificates in use, in the order in which they were given, with the times at which they expire.
    ///
    /// # Examples
    /// ```no_run
    /// # fn main() -> Result<(), corelane::Error> {
    /// # let tls = corelane::tls::Tls::builder().certificate("chain.pem", "key.pem").build()?;
    /// let now = std::time::SystemTime::now();
    /// for certificate in tls.certificates() {
    ///     if let Some(problem) = certificate.problem(now) {
    ///         eprintln!("{problem}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn certificates(&self) -> Vec<Certificate> {
        Known::new(self.shared.live.clone()).get().certificates.clone()
    }
}

/// Settings of a [`Tls`] that is to be built.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before build()"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// Adds a certificate: the file of its chain, and that of its private key. The first that is added is the default.
    ///
    /// Both files are PEM, and may be the same one. The chain begins with the server's own certificate, then come those who
    /// issued it, in order, without the root. Keys are RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519, in any of
    /// the usual forms (PKCS#8, PKCS#1, SEC1), not encrypted.
    pub fn certificate(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let (chain, key) = (chain.as_ref().to_owned(), key.as_ref().to_owned());
        self.settings.certificates.push(Paths { chain, key });
        self
    }

    /// Asks clients for a certificate. Default: they are not asked.
    ///
    /// `authorities` is a PEM file with the certificates of those who issue them. If `required`, a client without one
    /// is turned away; otherwise [`Stream::client_certificates`] says who has one. One that was not issued by them, or is
    /// not valid at the time, or not for clients, is turned away in either case. Lists of revoked certificates are not looked at.
    pub fn client_certificates(mut self, authorities: impl AsRef<Path>, required: bool) -> Self {
        let authorities = authorities.as_ref().to_owned();
        self.settings.clients = Some(Clients { authorities, required });
        self
    }

    /// The oldest version that is spoken. Default [`Version::Tls12`].
    pub fn min_version(mut self, version: Version) -> Self {
        self.settings.min_version = version;
        self
    }

    /// The protocols that may be agreed on by ALPN (RFC 7301), best first. Default `h2`, `http/1.1`.
    ///
    /// Of those that a client names the first of these is taken. A client that names others only is turned away with the
    /// alert `no_application_protocol`; one that names none is not. Without protocols ALPN is not spoken, and nobody is turned
    /// away.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.settings.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the files.
    ///
    /// A certificate that has expired, or is not valid yet, is no error: a server that has several must come up with those that
    /// are good, and its clock may be what is wrong. [`Certificate::problem`] says it, for a log.
    ///
    /// # Errors
    /// No certificate was given; or a file cannot be read, or holds something else than it should, or a key is encrypted or of
    /// a kind that cannot be used, or belongs to another certificate: the text names the file and says what may help. All of
    /// these are [`is_config`](Error::is_config).
    ///
    /// # Examples
    /// ```no_run
    /// use corelane::tls::{Tls, Version};
    /// let tls = Tls::builder()
    ///     .certificate("default.pem", "default.key")
    ///     .certificate("other.pem", "other.key")
    ///     .client_certificates("clients.pem", true)
    ///     .min_version(Version::Tls13)
    ///     .build()?;
    /// # Ok::<(), corelane::Error>(())
    /// ```
    pub fn build(self) -> Result<Tls, Error> {
        let Builder { settings } = self;
        settings.check()?;
        let (loaded, tickets) = settings.load(None)?;
        let (live, tickets) = (Arc::new(Live::new(loaded)), Mutex::new(tickets));
        Ok(Tls { shared: Arc::new(Shared { settings, live, tickets }) })
    }
}
