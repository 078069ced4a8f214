//! What is kept of a request until its answer has been sent.
//!
//! The service's call and the answer carry it along. HTTP/1 sends what hyper has when it flushes, and an answer that hyper is done with
//! may still be in hyper's hands then; so a record that is complete waits, with its connection, until the probe says that all was flushed, or
//! the connection is over. In HTTP/2 a stream is done with when hyper is.

use super::line::{self, Asked, Outcome, push_json, push_member, push_number, push_outcome};
use super::{AccessLog, AccessLogFormat};
use crate::server::event::Peer;
use crate::server::probe::Probe;
use crate::sync::lock;
use crate::time::clock;
use hyper::body::{Body, Buf, Frame};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response, StatusCode};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One connection, as its requests' lines know it.
pub(in crate::server) struct ConnectionLog {
    log: AccessLog,
    /// In the two kinds of formats.
    peer: [Vec<u8>; 2],
    /// Ended, and not known to have been sent.
    unsent: Mutex<Vec<Entry>>,
}

impl ConnectionLog {
    pub(in crate::server) fn new(log: &AccessLog, peer: &Peer) -> Arc<ConnectionLog> {
        let host = match peer {
            Peer::Tcp(address) => address.ip().to_string(),
            Peer::Unix(_) => "unix".to_owned(),
        };
        let mut json = Vec::new();
        push_json(&mut json, peer.to_string().as_bytes());
        let (peer, unsent) = ([host.into_bytes(), json], Mutex::default());
        Arc::new(ConnectionLog { log: log.clone(), peer, unsent })
    }

    /// A request has come.
    pub(in crate::server) fn begin<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        probe: &Arc<Probe>,
    ) -> Box<Record> {
        let format = self.log.format();
        let asked = line::request(format, request);
        let is_head = *request.method() == Method::HEAD;
        let (began, sent_before) = (clock::now(), probe.sent());
        let entry = Entry {
            format,
            asked,
            began: Some(began),
            sent_before,
            is_head,
            status: None,
            expected: None,
            bytes: 0,
            whole: false,
        };
        Box::new(Record { connection: self.clone(), probe: probe.clone(), entry })
    }

    /// Writes the lines of what was sent meanwhile. `is_over`: nothing more is sent.
    #[cold]
    pub(in crate::server) fn settle(&self, probe: &Probe, is_over: bool) {
        let is_flushed = !probe.is_unflushed();
        if !is_flushed && !is_over {
            return;
        }
        probe.has_settled();
        let mut unsent = lock(&self.unsent);
        for mut entry in unsent.drain(..) {
            let sent = probe.sent().wrapping_sub(entry.sent_before);
            // The head is more than nothing. A flush that fails is not seen, but it has nothing to show.
            entry.whole &= is_flushed && sent > entry.bytes;
            entry.bytes = entry.bytes.min(sent);
            self.write(&entry);
        }
    }

    fn write(&self, entry: &Entry) {
        let Entry { format, asked: Asked { text, split, .. }, status, bytes, whole, .. } = entry;
        let outcome = Outcome { status: *status, bytes: *bytes, cut: !whole };
        let [host, peer] = &self.peer;
        let size = text.len() + peer.len() + LINE_MAX;
        self.log.add(size, |line, stamp, shard| {
            if *format == AccessLogFormat::Json {
                line.extend_from_slice(b"{\"time\":\"");
                stamp.push_json(line);
                line.push(b'"');
                push_member(line, "peer");
                line.extend_from_slice(peer);
                line.extend_from_slice(text);
                for (name, number) in [("status", status.map(u64::from)), ("bytes", Some(*bytes))] {
                    if let Some(number) = number {
                        push_member(line, name);
                        push_number(line, number);
                    }
                }
                push_member(line, "duration_us");
                let took = entry
                    .began
                    .map_or(Duration::ZERO, |began| stamp.now.saturating_duration_since(began));
                push_number(line, took.as_micros() as u64);
                if let Some(shard) = shard {
                    push_member(line, "shard");
                    push_number(line, shard.index() as u64);
                }
                push_member(line, "cut");
                line.extend_from_slice(if outcome.cut { b"true}\n" } else { b"false}\n" });
                return;
            }
            line.extend_from_slice(host);
            line.extend_from_slice(b" - - [");
            stamp.push_common(line);
            line.extend_from_slice(b"] ");
            line.extend_from_slice(&text[..*split]);
            push_outcome(line, &outcome);
            line.extend_from_slice(&text[*split..]);
            line.extend_from_slice(if outcome.cut { b" cut\n" } else { b"\n" });
        });
    }
}

/// More than a line has besides the request's part and the peer.
const LINE_MAX: usize = 256;

/// A request, until its answer has been sent.
pub(in crate::server) struct Record {
    connection: Arc<ConnectionLog>,
    probe: Arc<Probe>,
    entry: Entry,
}

#[derive(Default)]
struct Entry {
    format: AccessLogFormat,
    asked: Asked,
    began: Option<Instant>,
    /// Bytes that the connection had sent when the request came.
    sent_before: u64,
    is_head: bool,
    /// None: there is no answer.
    status: Option<u16>,
    /// Bytes of the body, if that was said.
    expected: Option<u64>,
    /// Of the body, that hyper has taken.
    bytes: u64,
    /// Hyper has taken all of it.
    whole: bool,
}

impl Record {
    /// There is an answer.
    pub(in crate::server) fn answer<B: Body>(&mut self, response: &Response<B>) {
        let entry = &mut self.entry;
        entry.status = Some(response.status().as_u16());
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse().ok());
        entry.expected = length.or_else(|| response.body().size_hint().exact());
        // What has no body has none that could be taken (RFC 9110, 6.4.1).
        let has_none = entry.is_head || has_no_body(response.status());
        entry.whole = has_none || entry.expected == Some(0);
        if entry.asked.lacks_id {
            line::request_id(&mut entry.asked.text, response.headers());
        }
    }

    /// It is answered without asking the service.
    pub(in crate::server) fn refuse(&mut self, status: StatusCode) {
        (self.entry.status, self.entry.whole) = (Some(status.as_u16()), true);
    }

    /// The body has given this.
    pub(in crate::server) fn take<B: Body>(&mut self, frame: Option<&Frame<B::Data>>, body: &B) {
        let data = frame.and_then(Frame::data_ref);
        let entry = &mut self.entry;
        entry.bytes += data.map_or(0, |data| data.remaining() as u64);
        // Who has said how long it is may not be asked for more then.
        entry.whole |=
            frame.is_none() || body.is_end_stream() || entry.expected == Some(entry.bytes);
    }

    pub(in crate::server) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Hyper is done with it.
    pub(in crate::server) fn end(&mut self) {
        let Record { connection, probe, entry } = self;
        probe.end();
        let entry = std::mem::take(entry);
        if probe.is_multiplexed() || entry.status.is_none() {
            connection.write(&entry);
        } else {
            lock(&connection.unsent).push(entry);
            probe.must_settle();
        }
    }
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What a connection has of its log. When it is dropped, after hyper, nothing more is sent.
pub(in crate::server) struct Logging(Option<(Arc<ConnectionLog>, Arc<Probe>)>);

impl Logging {
    pub(in crate::server) fn new(log: Option<&Arc<ConnectionLog>>, probe: &Arc<Probe>) -> Logging {
        Logging(log.map(|log| (log.clone(), probe.clone())))
    }

    #[inline]
    pub(in crate::server) fn settle(&self) {
        if let Some((log, probe)) = &self.0 {
            log.settle(probe, false);
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some((log, probe)) = &self.0 {
            log.settle(probe, true);
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("status", &self.entry.status).finish_non_exhaustive()
    }
}
