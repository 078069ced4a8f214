//! The head of a request: what is wanted, how long the body is, and whether the connection goes on.
//!
//! Pure functions over bytes. What RFC 9112 has a server refuse is refused, above all what two readers could take for
//! different requests.

use super::super::work::{Work, digits};
use httparse::{EMPTY_HEADER, Error, Header, Request, Status};
use hyper::StatusCode;

/// Headers of a request, at most: as many as hyper takes.
const HEADERS_MAX: usize = 100;

/// A request without its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) work: Work,
    /// It wants the head of the answer only.
    pub(super) is_head: bool,
    /// It is of HTTP/1.0.
    pub(super) is_old: bool,
    /// The connection may go on.
    pub(super) keep_alive: bool,
    /// The client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
    pub(super) framing: Framing,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length.
    Length(u64),
    /// By a chunk of no length.
    Chunked,
}

/// Parses what bytes begin with: a head and its length, or none if it is not whole.
///
/// # Errors
/// With what status it is refused.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, StatusCode> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(Error::TooManyHeaders) => return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let fields = Fields::of(request.headers)?;
    let is_old = version == 0;
    if !is_old && fields.hosts != 1 || is_old && fields.chunked {
        return Err(StatusCode::BAD_REQUEST);
    }
    let (path, query) = path_and_query(target);
    let head = Head {
        work: Work::of(method, path, query),
        is_head: method == "HEAD",
        is_old,
        keep_alive: !fields.close && (!is_old || fields.keep_alive),
        expects_continue: fields.expects_continue && !is_old,
        framing: if fields.chunked {
            Framing::Chunked
        } else {
            Framing::Length(fields.length.unwrap_or(0))
        },
    };
    Ok(Some((head, length)))
}

/// What the headers say that matters here.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn of(headers: &[Header<'_>]) -> Result<Fields, StatusCode> {
        let mut fields = Fields::default();
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("host") {
                fields.hosts += 1;
            } else if name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(value).ok().and_then(digits);
                if length.is_none() || fields.length.is_some_and(|other| Some(other) != length) {
                    return Err(StatusCode::BAD_REQUEST);
                }
                fields.length = length;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                // Said twice, it would be chunked in chunks.
                if fields.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(StatusCode::NOT_IMPLEMENTED);
                }
                fields.chunked = true;
            } else if name.eq_ignore_ascii_case("connection") {
                fields.close |= names(value, b"close");
                fields.keep_alive |= names(value, b"keep-alive");
            } else if name.eq_ignore_ascii_case("expect") {
                fields.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        if fields.chunked && fields.length.is_some() {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(fields)
    }
}

/// Whether a list has this item.
fn names(list: &[u8], item: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(item))
}

/// The parts of a target, which may be a whole address.
fn path_and_query(target: &str) -> (&str, Option<&str>) {
    let authority =
        target.split_once("://").map(|(_, rest)| rest).filter(|_| !target.starts_with('/'));
    let local = match authority {
        None => target,
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
    };
    match local.split_once('?') {
        Some(("", query)) => ("/", Some(query)),
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::work::Alone;
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Head {
        let (head, length) = parse(text.as_bytes()).expect("taken").expect("whole");
        assert_eq!(length, text.len());
        head
    }

    fn refused(text: &str) -> StatusCode {
        parse(text.as_bytes()).expect_err(text)
    }

    fn hello() -> Head {
        Head {
            work: Work::Alone(Alone::Hello),
            is_head: false,
            is_old: false,
            keep_alive: true,
            expects_continue: false,
            framing: Framing::Length(0),
        }
    }

    #[test]
    fn plain_requests_are_understood() {
        assert_eq!(head("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), hello());
        assert_eq!(head("\r\nGET / HTTP/1.1\nHost:a\n\n"), hello());
        let is_head = Head { is_head: true, ..hello() };
        assert_eq!(head("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"), is_head);
        let old = Head { is_old: true, keep_alive: false, ..hello() };
        assert_eq!(head("GET / HTTP/1.0\r\n\r\n"), old);
        let kept = Head { is_old: true, ..hello() };
        assert_eq!(head("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"), kept);
        let closed = Head { keep_alive: false, ..hello() };
        assert_eq!(head("GET / HTTP/1.1\r\nhost: a\r\nConnection: x, CLOSE\r\n\r\n"), closed);
        let upload = Head { work: Work::Upload, ..hello() };
        let length = Head { framing: Framing::Length(12), expects_continue: true, ..upload };
        assert_eq!(
            head(
                "POST /upload HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 12\r\n\r\n"
            ),
            length
        );
        let chunked = Head { framing: Framing::Chunked, expects_continue: false, ..length };
        assert_eq!(
            head("POST /upload HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"),
            chunked
        );
    }

    #[test]
    fn targets_of_every_form_have_a_path() {
        for (target, parts) in [
            ("/", ("/", None)),
            ("/a?b=c?d", ("/a", Some("b=c?d"))),
            ("http://host:80/a/b?c", ("/a/b", Some("c"))),
            ("http://host", ("/", None)),
            ("http://host?a", ("/", Some("a"))),
            ("/a://b", ("/a://b", None)),
            ("*", ("*", None)),
        ] {
            assert_eq!(path_and_query(target), parts, "{target}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "garbage\r\n\r\n",
            "\0\x01\x02",
            "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(refused(text), StatusCode::BAD_REQUEST, "{text:?}");
        }
        for coding in ["gzip, chunked", "gzip", "chunked\r\ntransfer-encoding: chunked"] {
            let text = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n");
            assert_eq!(refused(&text), StatusCode::NOT_IMPLEMENTED, "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(refused(&many), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }

    proptest! {
        #[test]
        fn a_part_of_a_head_is_none_yet(cut in 0..60_usize) {
            let text = b"POST /upload HTTP/1.1\r\nhost: a\r\nx-some: y\r\nz: a\r\n\r\n";
            let cut = cut.min(text.len() - 1);
            prop_assert_eq!(parse(&text[..cut]), Ok(None));
        }

        #[test]
        fn whatever_comes_there_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"GET / HTTP/1.1\r\nhost: a\r\n", &bytes[..]].concat());
        }
    }
}
