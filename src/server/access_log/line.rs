//! What a line says in each format, and how whatever a client has sent is escaped.
//!
//! A line ends with the only byte 0x0a in it, and what stands between quotes has none inside that is not escaped. Every byte
//! that a client chooses passes through one of the two functions here that see to that.

use super::AccessLogFormat;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, REFERER, USER_AGENT};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Version};

/// The part of a line that is known when a request comes.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) text: Vec<u8>,
    /// Where the part of the answer is to stand in it.
    pub(super) split: usize,
    /// The answer may name the request.
    pub(super) lacks_id: bool,
}

pub(super) fn request<B>(format: AccessLogFormat, request: &Request<B>) -> Asked {
    let mut text = Vec::with_capacity(256);
    let headers = request.headers();
    if format == AccessLogFormat::Json {
        let text_of = |text: &mut Vec<u8>, name: &str, value: &[u8]| {
            push_member(text, name);
            push_json(text, value);
        };
        text_of(&mut text, "method", request.method().as_str().as_bytes());
        with_target(request, |target| text_of(&mut text, "target", target));
        text_of(&mut text, "version", version(request.version()).as_bytes());
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        let host = host.or_else(|| request.uri().authority().map(|host| host.as_str().as_bytes()));
        let field = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
        let fields =
            [("host", host), ("referer", field(&REFERER)), ("user_agent", field(&USER_AGENT))];
        for (name, value) in fields {
            value.into_iter().for_each(|value| text_of(&mut text, name, value));
        }
        let lacks_id = !request_id(&mut text, headers);
        return Asked { split: text.len(), text, lacks_id };
    }
    text.push(b'"');
    push_quoted(&mut text, request.method().as_str().as_bytes());
    text.push(b' ');
    with_target(request, |target| push_quoted(&mut text, target));
    text.push(b' ');
    text.extend_from_slice(version(request.version()).as_bytes());
    text.push(b'"');
    let split = text.len();
    if format == AccessLogFormat::Combined {
        for name in [REFERER, USER_AGENT] {
            text.extend_from_slice(b" \"");
            push_quoted(&mut text, headers.get(name).map_or(b"-", HeaderValue::as_bytes));
            text.push(b'"');
        }
    }
    Asked { text, split, lacks_id: false }
}

/// The request's name among others, if these fields have it. True: they do.
pub(super) fn request_id(text: &mut Vec<u8>, headers: &HeaderMap) -> bool {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    let Some(value) = headers.get(REQUEST_ID) else { return false };
    push_member(text, "request_id");
    push_json(text, value.as_bytes());
    true
}

/// As the client has sent it; in HTTP/2 the path and query, or the authority of a CONNECT.
///
/// Nothing is formatted here, or anywhere else that gets the request: the compiler has to see that nobody keeps it, or it
/// copies every request once more, also those that are not logged.
fn with_target<B>(request: &Request<B>, mut push: impl FnMut(&[u8])) {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    match uri.authority() {
        Some(authority) if path.is_empty() => push(authority.as_str().as_bytes()),
        Some(authority) if request.version() != Version::HTTP_2 => {
            let scheme = uri.scheme_str().unwrap_or_default();
            let parts = [scheme, "://", authority.as_str(), path];
            push(parts.concat().as_bytes());
        }
        _ => push(path.as_bytes()),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// What is known at the end of an answer.
pub(super) struct Outcome {
    /// None: there was none.
    pub(super) status: Option<u16>,
    pub(super) bytes: u64,
    pub(super) cut: bool,
}

/// The answer's part of a line in the Common Log Format.
pub(super) fn push_outcome(line: &mut Vec<u8>, outcome: &Outcome) {
    line.push(b' ');
    match outcome.status {
        Some(status) => push_number(line, status.into()),
        None => line.push(b'-'),
    }
    line.push(b' ');
    push_number(line, outcome.bytes);
}

/// A comma and the name of a member.
pub(super) fn push_member(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

/// A number in decimal.
pub(super) fn push_number(line: &mut Vec<u8>, number: u64) {
    push_padded(line, number, 1);
}

/// A number with at least so many digits, which are no more than 20.
pub(super) fn push_padded(line: &mut Vec<u8>, mut number: u64, digits: usize) {
    let (mut text, mut at) = ([b'0'; 20], 20);
    while number > 0 {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    line.extend_from_slice(&text[at.min(20 - digits)..]);
}

/// Text between quotes that others put around it: `"`, `\` and all that is not printable ASCII is escaped.
pub(super) fn push_quoted(line: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| !is_plain(byte)) {
        line.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => line.extend_from_slice(&[b'\\', byte]),
            byte => {
                let hex = |digit: u8| b"0123456789abcdef"[digit as usize];
                line.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

/// A JSON string (RFC 8259, 7), quotes and all. Bytes that are not UTF-8 become U+FFFD; control characters are escaped, also those that
/// JSON allows and terminals obey.
pub(super) fn push_json(line: &mut Vec<u8>, text: &[u8]) {
    line.push(b'"');
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.iter().all(is_plain) {
        line.extend_from_slice(text);
    } else {
        for chunk in text.utf8_chunks() {
            chunk.valid().chars().for_each(|char| push_char(line, char));
            if !chunk.invalid().is_empty() {
                push_char(line, char::REPLACEMENT_CHARACTER);
            }
        }
    }
    line.push(b'"');
}

fn push_char(line: &mut Vec<u8>, char: char) {
    match char {
        '"' | '\\' => line.extend_from_slice(&[b'\\', char as u8]),
        char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
            line.extend_from_slice(format!("\\u{:04x}", char as u32).as_bytes());
        }
        char => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// A second of the calendar, in UTC, as both formats write it.
pub(super) struct Date {
    common: Vec<u8>,
    rfc_3339: Vec<u8>,
}

/// A time of day as RFC 3339 has it, in UTC, to the second.
#[cfg(feature = "cli")]
pub(crate) fn rfc_3339(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}Z", String::from_utf8_lossy(Date::new(since.as_secs()).rfc_3339()))
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

impl Date {
    /// So many seconds after the beginning of 1970.
    pub(super) fn new(seconds: u64) -> Date {
        let (year, month, day) = calendar(seconds / 86_400);
        let of_day = seconds % 86_400;
        let (mut common, mut rfc_3339) = (Vec::with_capacity(26), Vec::with_capacity(19));
        push_padded(&mut common, day, 2);
        common.push(b'/');
        common.extend_from_slice(MONTHS[month as usize - 1]);
        common.push(b'/');
        push_padded(&mut common, year, 4);
        push_padded(&mut rfc_3339, year, 4);
        for part in [month, day] {
            rfc_3339.push(b'-');
            push_padded(&mut rfc_3339, part, 2);
        }
        let time = [of_day / 3600, of_day / 60 % 60, of_day % 60];
        for (separator, part) in [b'T', b':', b':'].into_iter().zip(time) {
            common.push(b':');
            push_padded(&mut common, part, 2);
            rfc_3339.push(separator);
            push_padded(&mut rfc_3339, part, 2);
        }
        common.extend_from_slice(b" +0000");
        Date { common, rfc_3339 }
    }

    pub(super) fn common(&self) -> &[u8] {
        &self.common
    }

    pub(super) fn rfc_3339(&self) -> &[u8] {
        &self.rfc_3339
    }
}

/// Year, month and day of the day that is so many after the first of 1970, in the Gregorian calendar.
fn calendar(day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // Whole cycles of 400 years, which are all of the same length, then years and months one by one: it is done once a second.
    let (mut year, mut day) = (1970 + day / 146_097 * 400, day % 146_097);
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        (year, day) = (year + 1, day - days);
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        (month, day) = (month + 1, day - days);
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(seconds: u64) -> (String, String) {
        let date = Date::new(seconds);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        (text(date.common()), text(date.rfc_3339()))
    }

    #[test]
    fn seconds_are_dates() {
        for (seconds, common, rfc) in [
            (0, "01/Jan/1970:00:00:00 +0000", "1970-01-01T00:00:00"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000", "2000-02-28T23:59:59"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000", "2000-02-29T00:00:00"),
            (1_795_892_409, "28/Nov/2026:19:00:09 +0000", "2026-11-28T19:00:09"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000", "2100-03-01T00:00:00"),
            (13_574_563_199, "28/Feb/2400:23:59:59 +0000", "2400-02-28T23:59:59"),
        ] {
            assert_eq!(date(seconds), (common.to_owned(), rfc.to_owned()));
        }
    }

    proptest! {
        /// Whatever bytes there are, they stay within their quotes and their line.
        #[test]
        fn nothing_leaves_its_quotes(bytes: Vec<u8>) {
            let mut line = Vec::new();
            push_quoted(&mut line, &bytes);
            prop_assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
            // Undone, it is what was given.
            let (mut undone, mut rest) = (Vec::new(), &line[..]);
            while let [first, after @ ..] = rest {
                (*first != b'"').then_some(()).expect("no quote that is not escaped");
                rest = match (first, after) {
                    (b'\\', [b'x', high, low, after @ ..]) => {
                        let digits = [*high, *low];
                        let digits = std::str::from_utf8(&digits).expect("ASCII");
                        undone.push(u8::from_str_radix(digits, 16).expect("hex"));
                        after
                    }
                    (b'\\', [other, after @ ..]) => { undone.push(*other); after }
                    (other, after) => { undone.push(*other); after }
                };
            }
            prop_assert_eq!(&undone, &bytes);
            line.clear();
            push_json(&mut line, &bytes);
            let text: String = serde_json::from_slice(&line).expect("JSON");
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
            let controls = String::from_utf8(line).expect("UTF-8");
            prop_assert!(!controls.contains(char::is_control));
        }
    }
}
