//! What was agreed on in a handshake, for who has no stream to ask: a service, a log.

use super::stream::Stream;
use super::version::Version;

/// What client and server have agreed on in a handshake, and what the client has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    version: Version,
    cipher_suite: &'static str,
    alpn: Option<Vec<u8>>,
    server_name: Option<String>,
    is_resumed: bool,
    client_certificates: Vec<Vec<u8>>,
}

impl Session {
    /// That of a stream.
    pub fn of<IO>(stream: &Stream<IO>) -> Session {
        Session {
            version: stream.version(),
            cipher_suite: stream.cipher_suite(),
            alpn: stream.alpn().map(<[u8]>::to_vec),
            server_name: stream.server_name().map(str::to_owned),
            is_resumed: stream.is_resumed(),
            client_certificates: stream.client_certificates().map(<[u8]>::to_vec).collect(),
        }
    }

    /// As [`Stream::version`].
    pub fn version(&self) -> Version {
        self.version
    }

    /// As [`Stream::cipher_suite`].
    pub fn cipher_suite(&self) -> &'static str {
        self.cipher_suite
    }

    /// As [`Stream::alpn`].
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// As [`Stream::server_name`].
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// As [`Stream::is_resumed`].
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// As [`Stream::client_certificates`].
    pub fn client_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.client_certificates.iter().map(Vec::as_slice)
    }
}
