//! What a request may not be, beyond what hyper's parser refuses by itself.
//!
//! Pure: it sees the head as hyper has parsed it, looks at each header once, and allocates nothing. Whoever calls a service
//! asks here first (`server/guard`), so no service meets a request whose host or framing two programs may take for different
//! things. What hyper has normalised away (how a line ended, a fragment) cannot be seen here.

use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode, Uri, Version};
use std::net::Ipv6Addr;

/// Why a request is not given to the service, and what is answered instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    /// The connection ends with the answer: what follows on it may not be what it seems.
    pub(super) closes: bool,
}

impl Refusal {
    /// One after which the connection ends.
    pub(super) const fn new(status: StatusCode, reason: &'static str) -> Refusal {
        Refusal { status, reason, closes: true }
    }

    const fn bad(reason: &'static str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    }
}

/// Methods with longer names are refused: the longest that is registered has 17 characters.
const METHOD_MAX: usize = 32;

const NO_HOST: Refusal = Refusal::bad("no Host");
const TWO_HOSTS: Refusal = Refusal::bad("more than one Host");
const INVALID_HOST: Refusal = Refusal::bad("invalid Host");
const OTHER_HOST: Refusal = Refusal::bad("Host is not that of the target");
const INVALID_TARGET: Refusal = Refusal::bad("invalid target");
const WRONG_FORM: Refusal = Refusal::bad("target in the wrong form for the method");
const BAD_CODINGS: Refusal = Refusal::bad("invalid Transfer-Encoding");
const CONNECT_WITH_BODY: Refusal = Refusal::bad("CONNECT with a body");
const UNKNOWN_CODING: Refusal = Refusal {
    status: StatusCode::NOT_IMPLEMENTED,
    reason: "unknown transfer coding",
    closes: true,
};
const LONG_METHOD: Refusal =
    Refusal { status: StatusCode::NOT_IMPLEMENTED, reason: "unknown method", closes: false };
const UNKNOWN_EXPECTATION: Refusal = Refusal {
    status: StatusCode::EXPECTATION_FAILED,
    reason: "unknown expectation",
    // Whether the client sends the body all the same is its choice; hyper reads it away or closes.
    closes: false,
};

/// Whether a request may be given to a service.
///
/// # Errors
/// The first rule that it breaks: RFC 9112, 3.2 (Host and forms of the target), 6.1 and 7 (codings), 3 (long methods);
/// RFC 9110, 4.2 (authorities), 9.3.6 (CONNECT), 10.1.1 (expectations).
#[inline]
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let (method, uri) = (request.method(), request.uri());
    let fields = Fields::of(request.headers())?;
    if request.version() > Version::HTTP_11 {
        return check_http2(uri, &fields);
    }
    let authority = target(method, uri)?;
    match fields.host {
        // RFC 9112, 3.2: a request of HTTP/1.1 without Host must be refused.
        None if request.version() == Version::HTTP_11 => return Err(NO_HOST),
        None => {}
        Some(host) => {
            let host = Authority::parse(host).ok_or(INVALID_HOST)?;
            if authority.is_some_and(|authority| !authority.is_named_by(host, uri.scheme_str())) {
                return Err(OTHER_HOST);
            }
        }
    }
    if *method == Method::CONNECT && (fields.coded || fields.sized) {
        return Err(CONNECT_WITH_BODY);
    }
    if method.as_str().len() > METHOD_MAX {
        return Err(LONG_METHOD);
    }
    // RFC 9110, 10.1.1: HTTP/1.0 has no expectations.
    if fields.expects_other && request.version() == Version::HTTP_11 {
        return Err(UNKNOWN_EXPECTATION);
    }
    Ok(())
}

/// HTTP/2 has its own framing and pseudo-headers, which hyper checks; only a Host that says otherwise is left (RFC 9113,
/// 8.3.1).
fn check_http2(uri: &Uri, fields: &Fields<'_>) -> Result<(), Refusal> {
    if let (Some(host), Some(authority)) = (fields.host, uri.authority()) {
        let host = Authority::parse(host).ok_or(INVALID_HOST)?;
        let authority = Authority::parse(authority.as_str().as_bytes()).ok_or(INVALID_TARGET)?;
        if !authority.is_named_by(host, uri.scheme_str()) {
            return Err(OTHER_HOST);
        }
    }
    if fields.expects_other { Err(UNKNOWN_EXPECTATION) } else { Ok(()) }
}

/// The headers that say where a request goes and where it ends.
struct Fields<'a> {
    host: Option<&'a [u8]>,
    coded: bool,
    sized: bool,
    /// It expects something else than `100-continue`.
    expects_other: bool,
}

impl Fields<'_> {
    #[inline]
    fn of(headers: &HeaderMap) -> Result<Fields<'_>, Refusal> {
        let mut fields = Fields { host: None, coded: false, sized: false, expects_other: false };
        for (name, value) in headers {
            match *name {
                HOST => once(fields.host.replace(value.as_bytes()))?,
                TRANSFER_ENCODING => {
                    // Two lines are one list (RFC 9110, 5.2), and chunked must not be twice in it.
                    if std::mem::replace(&mut fields.coded, true) {
                        return Err(BAD_CODINGS);
                    }
                    codings(value.as_bytes())?;
                }
                CONTENT_LENGTH => fields.sized = true,
                EXPECT => {
                    fields.expects_other |= !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// There was none before.
#[inline]
fn once(before: Option<&[u8]>) -> Result<(), Refusal> {
    if before.is_some() { Err(TWO_HOSTS) } else { Ok(()) }
}

/// RFC 9112, 6.1: chunked is the last coding, and there once. It is also the only one that hyper undoes, so whatever was
/// applied before it would be left for the service to find out.
#[inline]
fn codings(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let mut before = value.split(|&byte| byte == b',').rev();
    let last_is_chunked = before.next().is_some_and(chunked);
    if !last_is_chunked || before.any(|coding| coding.trim_ascii().is_empty() || chunked(coding)) {
        return Err(BAD_CODINGS);
    }
    Err(UNKNOWN_CODING)
}

/// Checks that the target has a form that the method allows (RFC 9112, 3.2), and returns the authority in it.
#[inline]
fn target<'a>(method: &Method, uri: &'a Uri) -> Result<Option<Authority<'a>>, Refusal> {
    let parse = |text: &'a str| Authority::parse(text.as_bytes()).ok_or(INVALID_TARGET);
    match (uri.scheme_str(), uri.authority()) {
        (None, None) if *method != Method::CONNECT && uri.path().starts_with('/') => {
            path(uri)?;
            Ok(None)
        }
        (None, None) if *uri == *"*" && *method == Method::OPTIONS => Ok(None),
        (None, Some(authority)) if *method == Method::CONNECT => {
            let authority = parse(authority.as_str())?;
            // RFC 9110, 9.3.6: an empty or invalid port must be refused, and there is no default.
            if authority.port.is_none_or(|port| port == 0) {
                return Err(INVALID_TARGET);
            }
            Ok(Some(authority))
        }
        (Some("http" | "https"), Some(authority)) if *method != Method::CONNECT => {
            path(uri)?;
            parse(authority.as_str()).map(Some)
        }
        _ => Err(WRONG_FORM),
    }
}

/// A path and query have no bytes beyond ASCII, and in the path a percent sign begins an encoded byte (RFC 3986, 2.1). Not
/// so in the query, where browsers leave it as it was typed.
#[inline]
fn path(uri: &Uri) -> Result<(), Refusal> {
    let text = uri.path_and_query().map_or("", |text| text.as_str()).as_bytes();
    // Most are plain.
    match text.iter().position(|&byte| byte == b'%' || byte == b'?' || !byte.is_ascii()) {
        None => Ok(()),
        Some(at) => path_from(&text[at..]),
    }
}

fn path_from(text: &[u8]) -> Result<(), Refusal> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'?' if text[at..].is_ascii() => return Ok(()),
            b'%' if is_encoded(&text[at..]) => at += 3,
            b'?' | b'%' | 0x80.. => return Err(INVALID_TARGET),
            _ => at += 1,
        }
    }
    Ok(())
}

/// A host and perhaps a port, as in a URI and in Host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Authority<'a> {
    host: &'a [u8],
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// RFC 3986, 3.2, without what RFC 9110 forbids: the host may not be empty (4.2.1), and there is no user (4.2.4). Nor is
    /// there a comma, by which two Host lines may have been joined on the way.
    #[inline]
    fn parse(text: &'a [u8]) -> Option<Authority<'a>> {
        let end = match text.first()? {
            b'[' => {
                let end = text.iter().position(|&byte| byte == b']')?;
                std::str::from_utf8(&text[1..end]).ok()?.parse::<Ipv6Addr>().ok()?;
                end + 1
            }
            _ => name_length(text)?,
        };
        let (host, rest) = text.split_at(end);
        let port = match rest {
            // An empty port is that of the scheme.
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        Some(Authority { host, port })
    }

    /// A Host names the same place. RFC 9112, 3.2.2 would have it ignored if it does not; but who has read only the one and who has
    /// read only the other would take the request for two different ones.
    fn is_named_by(self, host: Authority<'_>, scheme: Option<&str>) -> bool {
        let default = match scheme {
            Some("http") => Some(80),
            Some("https") => Some(443),
            // Of CONNECT: Host may leave the port out.
            _ => self.port,
        };
        self.host.eq_ignore_ascii_case(host.host) && self.port.or(default) == host.port.or(default)
    }
}

/// The length of the name at the beginning, which is not empty, and ends before a colon or at the end.
#[inline]
fn name_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        while at < text.len() && IN_NAME[usize::from(text[at])] {
            at += 1;
        }
        match text.get(at) {
            None | Some(b':') => return (at > 0).then_some(at),
            Some(b'%') if is_encoded(&text[at..]) => at += 3,
            Some(_) => return None,
        }
    }
}

/// What a name may be made of, besides encoded bytes (RFC 3986, 3.2.2), without the comma. A table, because this is looked
/// up for every byte of every Host.
static IN_NAME: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    while byte < 128 {
        let other =
            matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b'+' | b';' | b'=');
        table[byte as usize] = byte.is_ascii_alphanumeric() || other;
        byte += 1;
    }
    table
};

fn is_encoded(text: &[u8]) -> bool {
    matches!(text, [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

#[inline]
fn port(digits: &[u8]) -> Option<u16> {
    let mut port = 0_u32;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        port = port * 10 + u32::from(digit);
        if digit > 9 || port > u32::from(u16::MAX) {
            return None;
        }
    }
    u16::try_from(port).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    /// What becomes of a request of HTTP/1.1 with these headers.
    fn of(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        check(&request(Version::HTTP_11, method, target, headers))
    }

    fn request(
        version: Version,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Request<()> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = target.parse().expect("a target");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            // By bytes: not all of them are text.
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            request.headers_mut().append(name, value);
        }
        request
    }

    fn get(headers: &[(&str, &str)]) -> Result<(), Refusal> {
        of("GET", "/", headers)
    }

    #[test]
    fn what_browsers_and_proxies_send_passes() {
        for host in ["test", "test:80", "test:", "TEST.example.", "127.0.0.1", "[::1]:8080", "a_b"]
        {
            assert_eq!(get(&[("host", host)]), Ok(()), "{host}");
        }
        let host = [("host", "test")];
        for target in ["/", "/a?b=100%&c=|{}", "//x/../y", "/%41", "http://test/a"] {
            assert_eq!(of("GET", target, &host), Ok(()), "{target}");
        }
        assert_eq!(of("OPTIONS", "*", &host), Ok(()));
        assert_eq!(of("CONNECT", "test:443", &[("host", "test:443")]), Ok(()));
        assert_eq!(get(&[host[0], ("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(get(&[host[0], ("expect", "100-Continue")]), Ok(()));
    }

    #[test]
    fn there_is_one_host_and_it_is_valid() {
        assert_eq!(get(&[]), Err(NO_HOST));
        assert_eq!(get(&[("host", "a"), ("host", "a")]), Err(TWO_HOSTS));
        for host in [
            "", ":80", "a b", "a,b", "a@b", "a/b", "a?b", "a#b", "a\\b", "a:b", "a:65536",
            "a:80:80", "a:+80", "[::1", "[::g]", "[]", "[::1]a", "::1", "a%", "a%4", "a%4g",
            "\u{e4}", "\"a\"",
        ] {
            assert_eq!(get(&[("host", host)]), Err(INVALID_HOST), "{host}");
        }
    }

    #[test]
    fn http_1_0_needs_no_host_but_one_that_is_there_is_valid() {
        let of = |target, headers| check(&request(Version::HTTP_10, "GET", target, headers));
        assert_eq!(of("/", &[]), Ok(()));
        assert_eq!(of("/", &[("expect", "miracles")]), Ok(()));
        assert_eq!(of("/", &[("host", "a"), ("host", "b")]), Err(TWO_HOSTS));
        assert_eq!(of("/", &[("host", "")]), Err(INVALID_HOST));
        assert_eq!(of("http://a/", &[("host", "b")]), Err(OTHER_HOST));
    }

    #[test]
    fn the_host_of_an_absolute_target_is_that_of_the_field() {
        for (target, host, same) in [
            ("http://a/", "A:80", true),
            ("http://a:80/", "a", true),
            ("https://a/", "a:443", true),
            ("http://a/", "a:443", false),
            ("http://a:81/", "a", false),
            ("http://a/", "a.b", false),
            ("http://[::1]/", "[::1]", true),
        ] {
            let expected = if same { Ok(()) } else { Err(OTHER_HOST) };
            assert_eq!(of("GET", target, &[("host", host)]), expected, "{target} {host}");
        }
        assert_eq!(of("GET", "http://a@b/", &[("host", "b")]), Err(INVALID_TARGET));
    }

    #[test]
    fn the_form_of_a_target_is_that_of_the_method() {
        for (method, target, refusal) in [
            ("GET", "*", WRONG_FORM),
            ("GET", "a:80", WRONG_FORM),
            ("GET", "a", WRONG_FORM),
            ("GET", "ftp://a/", WRONG_FORM),
            ("CONNECT", "/", WRONG_FORM),
            ("CONNECT", "http://a:80/", WRONG_FORM),
            ("CONNECT", "a", INVALID_TARGET),
            ("CONNECT", "a:0", INVALID_TARGET),
            ("GET", "/%4", INVALID_TARGET),
            ("GET", "/%g4", INVALID_TARGET),
            ("GET", "/\u{e4}", INVALID_TARGET),
            ("GET", "/?\u{e4}", INVALID_TARGET),
        ] {
            assert_eq!(of(method, target, &[("host", "a")]), Err(refusal), "{method} {target}");
        }
    }

    #[test]
    fn codings_are_chunked_alone() {
        for (value, refusal) in [
            ("gzip, chunked", UNKNOWN_CODING),
            ("chunked, chunked", BAD_CODINGS),
            (", chunked", BAD_CODINGS),
            ("chunked,", BAD_CODINGS),
            ("chunked, identity", BAD_CODINGS),
            ("xchunked", BAD_CODINGS),
            ("", BAD_CODINGS),
        ] {
            let refused = get(&[("host", "a"), ("transfer-encoding", value)]);
            assert_eq!(refused, Err(refusal), "{value}");
        }
        let twice = ("transfer-encoding", "chunked");
        assert_eq!(get(&[("host", "a"), twice, twice]), Err(BAD_CODINGS));
    }

    #[test]
    fn connect_has_no_body() {
        let host = ("host", "a:1");
        for body in [("content-length", "0"), ("transfer-encoding", "chunked")] {
            assert_eq!(of("CONNECT", "a:1", &[host, body]), Err(CONNECT_WITH_BODY), "{body:?}");
        }
        assert_eq!(of("CONNECT", "a:1", &[("host", "a:2")]), Err(OTHER_HOST));
    }

    #[test]
    fn what_is_not_known_is_refused_and_the_connection_goes_on() {
        let host = ("host", "a");
        for value in ["miracles", "", "100-continue, x"] {
            assert_eq!(get(&[host, ("expect", value)]), Err(UNKNOWN_EXPECTATION), "{value}");
        }
        assert_eq!(of(&"M".repeat(METHOD_MAX), "/", &[host]), Ok(()));
        assert_eq!(of(&"M".repeat(METHOD_MAX + 1), "/", &[host]), Err(LONG_METHOD));
        let closes = [UNKNOWN_EXPECTATION, LONG_METHOD].map(|refusal| refusal.closes);
        assert_eq!(closes, [false, false]);
    }

    #[test]
    fn http_2_needs_no_host_and_may_not_have_another() {
        let of =
            |method, target, headers| check(&request(Version::HTTP_2, method, target, headers));
        assert_eq!(of("GET", "http://a/", &[]), Ok(()));
        assert_eq!(of("GET", "http://a/", &[("host", "a")]), Ok(()));
        assert_eq!(of("GET", "http://a/", &[("host", "b")]), Err(OTHER_HOST));
        assert_eq!(of("CONNECT", "a:443", &[]), Ok(()));
    }
}
