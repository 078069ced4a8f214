//! Whether a request still wants what it asks for (RFC 9110, 13).
//!
//! Plain data; the time is passed in.

use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a file is known by.
pub(super) struct Validators {
    /// With its quotes. It is a strong one.
    pub(super) etag: String,
    /// To the second, as far as a date of HTTP can say it.
    pub(super) modified: Option<SystemTime>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    TheFile,
    /// The client has it: 304.
    NotModified,
    /// The client wanted another: 412.
    Failed,
}

impl Validators {
    /// Of a file of this size and inode that was changed so many nanoseconds after 1970.
    pub(super) fn new(size: u64, modified: i128, inode: u64, now: SystemTime) -> Validators {
        let etag = format!("\"{size:x}-{modified:x}-{inode:x}\"");
        let seconds = u64::try_from(modified.div_euclid(1_000_000_000)).ok();
        let modified =
            seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        // RFC 9110, 8.8.2.1: never later than the answer, which a clock that was put back would have it. And a date of HTTP
        // has four digits for the year.
        Validators { etag, modified: modified.filter(|modified| *modified <= now) }
    }

    /// In the order of RFC 9110, 13.2.2.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Verdict {
        if headers.contains_key(IF_MATCH) {
            if !self.is_listed(headers, IF_MATCH, Comparison::Strong) {
                return Verdict::Failed;
            }
        } else if let (Some(since), Some(modified)) =
            (date(headers, IF_UNMODIFIED_SINCE), self.modified)
            && modified > since
        {
            return Verdict::Failed;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            if self.is_listed(headers, IF_NONE_MATCH, Comparison::Weak) {
                return Verdict::NotModified;
            }
        } else if let (Some(since), Some(modified)) =
            (date(headers, IF_MODIFIED_SINCE), self.modified)
            && modified <= since
        {
            return Verdict::NotModified;
        }
        Verdict::TheFile
    }

    /// Whether parts may be sent: they are of the file of which the client has others.
    pub(super) fn may_send_parts(&self, headers: &HeaderMap, now: SystemTime) -> bool {
        let Some(field) = headers.get(IF_RANGE) else { return true };
        if headers.get_all(IF_RANGE).iter().count() > 1 {
            return false;
        }
        if field.as_bytes().starts_with(b"\"") {
            return field.as_bytes() == self.etag.as_bytes();
        }
        let Some((date, modified)) = date(headers, IF_RANGE).zip(self.modified) else {
            return false;
        };
        // RFC 9110, 8.8.2.2: in the second of a change there may be another.
        let is_over = now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1));
        date == modified && is_over
    }

    fn is_listed(&self, headers: &HeaderMap, name: HeaderName, comparison: Comparison) -> bool {
        headers.get_all(name).iter().any(|field| lists(field.as_bytes(), &self.etag, comparison))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// A date, if there is one and it is one.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut fields = headers.get_all(name).iter();
    let (first, second) = (fields.next()?, fields.next());
    if second.is_some() {
        return None;
    }
    httpdate::parse_http_date(first.to_str().ok()?).ok()
}

/// Whether a list of entity tags has this one, or is `*`.
fn lists(field: &[u8], etag: &str, comparison: Comparison) -> bool {
    let mut rest = field.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        let (is_weak, tag) = match rest.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let Some(inner) = tag.strip_prefix(b"\"") else { return false };
        let Some(end) = inner.iter().position(|byte| *byte == b'"') else { return false };
        // With both quotes.
        let tag = &tag[..end + 2];
        if tag == etag.as_bytes() && !(is_weak && comparison == Comparison::Strong) {
            return true;
        }
        rest = &inner[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_tag_by_tag() {
        let has = |field: &str| lists(field.as_bytes(), "\"a\"", Comparison::Strong);
        for field in
            ["\"a\"", "*", " * ", "\"b\", \"a\"", ",,\"a\"", "W/\"a\",\"a\"", "\"x,y\" , \"a\""]
        {
            assert!(has(field), "{field}");
        }
        for field in
            ["", "a", "\"b\"", "W/\"a\"", "w/\"a\"", "\"a", "\"b\" x \"a\"", "\"*\"", "*, \"b\""]
        {
            assert!(!has(field), "{field}");
        }
        assert!(lists(b"W/\"a\"", "\"a\"", Comparison::Weak));
    }
}
