//! The header of the PROXY protocol: who has connected to the proxy in front of us.
//!
//! Whoever can connect is believed, which is for the operator to see to; what comes first must be such a header, since guessing
//! would let clients say who they are.

use super::arrival::Arrival;
use super::event::Peer;
use crate::http::{Io, Transport};
use crate::limits::PROXY_HEADER_BYTES;
use hyper::body::Bytes;
use hyper::rt::ReadBuf;
use proxy_header::{Error, ParseConfig, ProxyHeader};
use std::io;
use std::task::{Context, Poll, ready};

/// What a header says, and how long it is.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// None: the proxy speaks for itself, or does not know.
    client: Option<std::net::SocketAddr>,
    length: usize,
}

/// Reads the header of a connection, and takes from it who the peer is. What came behind it is kept.
///
/// # Errors
/// There is none.
pub(super) async fn read<T: Transport>(arrival: Arrival<T>) -> io::Result<Arrival<T>> {
    let Arrival { stream, mut info, limits, counted, past, speaks, moved, .. } = arrival;
    let (mut io, mut read) = (Io::new(stream), Vec::with_capacity(PROXY_HEADER_BYTES));
    let header = loop {
        std::future::poll_fn(|context| poll_more(&mut io, &mut read, context)).await?;
        if let Some(header) = parse(&read)? {
            break header;
        }
        if read.len() >= PROXY_HEADER_BYTES {
            return Err(wrong("it is too long"));
        }
    };
    if let Some(client) = header.client {
        info.proxy = Some(info.peer);
        info.peer = Peer::Tcp(client);
    }
    let (stream, read) = (io.into_inner(), Bytes::copy_from_slice(&read[header.length..]));
    Ok(Arrival { stream, read, info, limits, counted, past, speaks, moved })
}

/// Reads some bytes more.
fn poll_more<T: Transport>(
    io: &mut Io<T>,
    read: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut piece = [0; PROXY_HEADER_BYTES];
    let wanted = PROXY_HEADER_BYTES - read.len();
    let mut buffer = ReadBuf::new(&mut piece[..wanted]);
    ready!(io.poll_read_some(context, &mut buffer.unfilled(), <[u8]>::len))?;
    if buffer.filled().is_empty() {
        let text = "the connection was closed before the header of the PROXY protocol had come";
        return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
    }
    read.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(()))
}

/// None: there is more to come.
fn parse(read: &[u8]) -> io::Result<Option<Header>> {
    if read.starts_with(b"PROXY") {
        // Both of this the crate lets pass, the first if it comes in one piece.
        let line = read.iter().position(|byte| *byte == b'\n').map_or(read, |end| &read[..=end]);
        if line.len() > V1_MAX || line.contains(&b'+') {
            return Err(wrong("what came is none"));
        }
    }
    // What follows them in version 2 is not looked at, and may be wrong.
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(read, config) {
        Ok((header, length)) => {
            let client = header.proxied_address().map(|address| address.source);
            Ok(Some(Header { client, length }))
        }
        Err(Error::BufferTooShort) if !is_whole(read) => Ok(None),
        Err(_) => Err(wrong("what came is none")),
    }
}

/// Whether all of a header has come, as far as it says how long it is: then it lacks something that nobody will send.
fn is_whole(read: &[u8]) -> bool {
    match read {
        [b'P', ..] => read.contains(&b'\n'),
        _ => read.get(..V2_HEAD).is_some_and(|head| {
            let length = u16::from_be_bytes([head[V2_HEAD - 2], head[V2_HEAD - 1]]);
            read.len() - V2_HEAD >= usize::from(length)
        }),
    }
}

/// The longest line of version 1.
const V1_MAX: usize = 107;

/// What version 2 begins with: a signature, what it is about, and how long the rest is.
const V2_HEAD: usize = 16;

fn wrong(why: &str) -> io::Error {
    let text = format!("a header of the PROXY protocol was to come first, and {why}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn v2(rest: &[u8]) -> Vec<u8> {
        [V2, rest].concat()
    }

    /// The client and the length of what is a header; an error's text; or "more".
    fn told(read: &[u8]) -> String {
        match parse(read) {
            Ok(Some(Header { client: Some(client), length })) => format!("{client} {length}"),
            Ok(Some(Header { client: None, length })) => format!("itself {length}"),
            Ok(None) => "more".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn headers_of_both_versions_tell_the_client() {
        let v4 = v2(b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\x01\xbbGET");
        let v6 = v2(&[
            b"\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01".as_slice(),
            &[0; 16],
            b"\x12\x34\x01\xbb",
        ]
        .concat());
        let with_more =
            v2(b"\x21\x11\0\x0f\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\x01\xbb\xff\xff\xff");
        for (read, expected) in [
            (&b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\nGET"[..], "192.0.2.1:4660 41"),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4660 443\r\n", "[2001:db8::1]:4660 45"),
            (b"PROXY UNKNOWN\r\nGET", "itself 15"),
            (&v4, "192.0.2.1:4660 28"),
            (&v6, "[2001:db8::1]:4660 52"),
            (&with_more, "192.0.2.1:4660 31"),
            (&v2(b"\x20\0\0\0GET"), "itself 16"),
        ] {
            assert_eq!(told(read), expected, "{}", read.escape_ascii());
        }
    }

    #[test]
    fn what_has_begun_may_come_in_pieces_of_any_size() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\n".to_vec();
        let v2 = v2(b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\x01\xbb");
        for header in [v1, v2] {
            for length in 1..header.len() {
                assert_eq!(
                    told(&header[..length]),
                    "more",
                    "{length} of {}",
                    header.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let none = "a header of the PROXY protocol was to come first, and what came is none";
        for read in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4660\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 99999\r\n",
            b"PROXY TCP4 a b 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
            &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0\0\0\0",
            &v2(b"\x31\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\x01\xbb"),
            &v2(b"\x21\x11\0\x04\xc0\0\x02\x01"),
        ] {
            assert_eq!(told(read), none, "{}", read.escape_ascii());
        }
    }
}
