//! From a file that was found to a response: whether it is wanted, which bytes of it, and the fields that say so.

use super::Inner;
use super::body::{FileBody, Part};
use super::codings::Coding;
use super::conditions::{Validators, Verdict};
use super::ranges::{self, Asked};
use crate::services::{Content, Head, types};
use crate::sys::directory::Opened;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED, RANGE, VARY,
};
use hyper::{Method, Response, StatusCode};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::SystemTime;

pub(super) fn reply(
    files: &Inner,
    opened: Opened,
    coding: Option<Coding>,
    head: Head<'_>,
    name: &[u8],
) -> Response<Content> {
    let now = SystemTime::now();
    let Opened { file, size, modified, inode, .. } = opened;
    let validators = Validators::new(size, modified, inode, now);
    let mut response = Response::new(Content::empty());
    let fields = response.headers_mut();
    set(fields, ETAG, &validators.etag);
    if let Some(modified) = validators.modified {
        set(fields, LAST_MODIFIED, httpdate::fmt_http_date(modified));
    }
    if let Some(cache_control) = &files.cache_control {
        set(fields, CACHE_CONTROL, cache_control.as_bytes());
    }
    if files.precompressed {
        fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    match validators.judge(head.headers) {
        Verdict::TheFile => {}
        Verdict::NotModified => return with_status(response, StatusCode::NOT_MODIFIED),
        Verdict::Failed => return with_status(response, StatusCode::PRECONDITION_FAILED),
    }
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(coding) = coding {
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    let content_type = types::of(name);
    let parts = match asked(&validators, head, size, now) {
        Asked::Everything => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            VecDeque::from([Part::File(0..size)])
        }
        Asked::Nothing => {
            fields.remove(CONTENT_ENCODING);
            set(fields, CONTENT_RANGE, format!("bytes */{size}"));
            return with_status(response, StatusCode::RANGE_NOT_SATISFIABLE);
        }
        Asked::Parts(parts) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            partial(response.headers_mut(), parts, size, content_type)
        }
    };
    if size > 0 {
        *response.body_mut() = Content::file(FileBody::new(file, parts));
    }
    response
}

fn with_status(mut response: Response<Content>, status: StatusCode) -> Response<Content> {
    *response.status_mut() = status;
    response
}

/// RFC 9110, 14.2: only of GET, and only if the client's condition for it holds.
fn asked(validators: &Validators, head: Head<'_>, size: u64, now: SystemTime) -> Asked {
    let field = head.headers.get(RANGE).filter(|_| *head.method == Method::GET);
    match field.and_then(|field| field.to_str().ok()) {
        Some(field) if validators.may_send_parts(head.headers, now) => ranges::parse(field, size),
        _ => Asked::Everything,
    }
}

/// The parts of a body that has a part of the file, or several.
fn partial(
    fields: &mut HeaderMap,
    ranges: Vec<Range<u64>>,
    size: u64,
    content_type: &'static str,
) -> VecDeque<Part> {
    let content_range =
        |range: &Range<u64>| format!("bytes {}-{}/{size}", range.start, range.end - 1);
    if let [range] = &ranges[..] {
        set(fields, CONTENT_RANGE, content_range(range));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        return VecDeque::from([Part::File(range.clone())]);
    }
    let boundary = boundary();
    set(fields, CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    let mut parts = VecDeque::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let before = if parts.is_empty() { "" } else { "\r\n" };
        let head = format!(
            "{before}--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: {}\r\n\r\n",
            content_range(&range)
        );
        parts.push_back(Part::Bytes(head.into()));
        parts.push_back(Part::File(range));
    }
    parts.push_back(Part::Bytes(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

/// A line that does not stand in the file (RFC 2046, 5.1.1): nobody who wrote it could know it.
fn boundary() -> String {
    let random = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}", random(), random())
}

/// What we have made, or was checked, is a value.
fn set(fields: &mut HeaderMap, name: HeaderName, value: impl AsRef<[u8]>) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_ref()) {
        fields.insert(name, value);
    }
}
