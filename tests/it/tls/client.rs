//! rustls as a client, on a thread that blocks.

use super::certificates::{Authority, Issued};
use crate::harness::HANGS_AFTER;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion, version,
};

pub(super) type Versions = &'static [&'static SupportedProtocolVersion];
pub(super) const BOTH: Versions = &[&version::TLS13, &version::TLS12];
pub(super) const TLS12: Versions = &[&version::TLS12];
pub(super) const TLS13: Versions = &[&version::TLS13];

/// A client that trusts an authority. It remembers sessions.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
}

impl Client {
    pub(super) fn new(trusted: &Authority) -> Client {
        Client::with(trusted, BOTH, None)
    }

    /// With a certificate of its own, maybe.
    pub(super) fn with(trusted: &Authority, versions: Versions, own: Option<&Issued>) -> Client {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(trusted.roots());
        let config = match own {
            Some(own) => config.with_client_auth_cert(own.chain(), own.key()).expect("a key"),
            None => config.with_no_client_auth(),
        };
        Client { config: Arc::new(config) }
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut ClientConfig)) -> Client {
        change(Arc::make_mut(&mut self.config));
        self
    }

    pub(super) fn alpn(self, protocols: &[&str]) -> Client {
        self.change(|config| {
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        })
    }

    pub(super) fn session(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        ClientConnection::new(self.config.clone(), name).expect("a client")
    }

    /// Connects, with the handshake as far as the client sees it.
    pub(super) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Connection> {
        let mut stream = StreamOwned::new(self.session(name), socket(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection(stream))
    }

    /// A connection with one request, to its end. The certificate that the server has shown, if it has.
    pub(super) fn ask(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<CertificateDer<'static>> {
        let mut connection = self.connect(address, name)?;
        connection.get("close")?;
        let mut text = String::new();
        connection.0.read_to_string(&mut text)?;
        assert!(text.ends_with("Hello"), "{text}");
        Ok(connection.certificate())
    }
}

/// A socket on which no read waits for ever.
pub(super) fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_nodelay(true).expect("a socket");
    socket.set_read_timeout(Some(HANGS_AFTER / 2)).expect("a socket");
    socket.set_write_timeout(Some(HANGS_AFTER / 2)).expect("a socket");
    socket
}

/// A client's end of a connection.
pub(super) struct Connection(pub(super) StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    /// Sends a request. `connection` is what its header of this name says.
    pub(super) fn get(&mut self, connection: &str) -> io::Result<()> {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\n\r\n");
        self.0.write_all(request.as_bytes())
    }

    /// A request on a connection that stays, and its answer.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        self.get("keep-alive")?;
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\nHello") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        Ok(())
    }

    /// The server's own.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().expect("a server has one")[0].clone()
    }
}
