//! An HTTP/1.1 connection on a stream that blocks: requests in, answers out, one after the other.
//!
//! One thread owns it. What has been read and not used is in a buffer that is as large as the largest head at most; answers
//! are gathered and leave before the stream is read again, so those to pipelined requests leave together.

use super::super::work::Answer;
use super::head::{Framing, Head, parse};
use hyper::StatusCode;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

/// The room for what is read, at first: as hyper's.
const BUFFER: usize = 8 << 10;
/// The largest head, and what is read at once of a body.
const BUFFER_MAX: usize = 64 << 10;
/// The largest line before a chunk.
const CHUNK_LINE_MAX: usize = 4 << 10;
/// Answers that are gathered before they are sent, and the largest body that is copied for it.
const GATHERED_MAX: usize = 64 << 10;
const COPIED_MAX: usize = 16 << 10;

/// What comes next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A request, whose body is still to be read.
    Request(Head),
    /// Nothing within the stream's timeout: so long since this was asked for first.
    Nothing { waited: Duration },
    /// The peer has closed.
    End,
    /// Something that is answered with this status, and then the connection ends.
    Refused(StatusCode),
}

/// See the module.
pub(super) struct Connection<S> {
    stream: S,
    /// How long the peer may take for what it has begun.
    patience: Duration,
    /// Since when nothing has come, if the last look was in vain.
    idle_since: Option<Instant>,
    buffer: Vec<u8>,
    unused: Range<usize>,
    output: Vec<u8>,
    date: Date,
}

impl<S: Read + Write> Connection<S> {
    /// On a stream whose timeout for reading, if it has one, is not longer than the patience.
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Connection {
            stream,
            patience,
            idle_since: None,
            buffer: vec![0; BUFFER],
            unused: 0..0,
            output: Vec::new(),
            date: Date::default(),
        }
    }

    /// Whether the next request, or a part of it, has been read already.
    pub(super) fn has_more(&self) -> bool {
        !self.unused.is_empty()
    }

    /// Waits for the next request.
    pub(super) fn next_head(&mut self) -> io::Result<Incoming> {
        let mut until = None;
        loop {
            match parse(&self.buffer[self.unused.clone()]) {
                Ok(Some((head, length))) => {
                    self.unused.start += length;
                    self.idle_since = None;
                    return Ok(Incoming::Request(head));
                }
                Ok(None) if self.unused.len() >= BUFFER_MAX => {
                    return Ok(Incoming::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
                }
                Ok(None) => {}
                Err(status) => return Ok(Incoming::Refused(status)),
            }
            let begun = self.has_more();
            match self.fill() {
                Ok(0) => return Ok(Incoming::End),
                Ok(_) => {}
                Err(error) if is_timeout(&error) && !begun => {
                    let since = *self.idle_since.get_or_insert_with(Instant::now);
                    return Ok(Incoming::Nothing { waited: since.elapsed() });
                }
                Err(error) if is_timeout(&error) => {
                    // Counted from here: the timeout before is the peer's.
                    let until = *until.get_or_insert_with(|| Instant::now() + self.patience);
                    if Instant::now() >= until {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the body of a request to its end and returns its length; or the status with which it is refused.
    pub(super) fn read_body(&mut self, head: &Head) -> io::Result<Result<u64, StatusCode>> {
        if head.expects_continue && head.framing != Framing::Length(0) && !self.has_more() {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        match head.framing {
            Framing::Length(length) => self.skip(length).map(|()| Ok(length)),
            Framing::Chunked => self.read_chunks(),
        }
    }

    fn read_chunks(&mut self) -> io::Result<Result<u64, StatusCode>> {
        let mut length: u64 = 0;
        loop {
            let size = loop {
                let bytes = &self.buffer[self.unused.clone()];
                // The parser takes no digits at all for 0.
                if bytes.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
                    return Ok(Err(StatusCode::BAD_REQUEST));
                }
                match httparse::parse_chunk_size(bytes) {
                    Ok(httparse::Status::Complete((used, size))) => {
                        self.unused.start += used;
                        break size;
                    }
                    Ok(httparse::Status::Partial) if self.unused.len() < CHUNK_LINE_MAX => {
                        self.fill_more()?;
                    }
                    Ok(httparse::Status::Partial) | Err(_) => {
                        return Ok(Err(StatusCode::BAD_REQUEST));
                    }
                }
            };
            if size == 0 {
                return Ok(self.read_trailers()?.map(|()| length));
            }
            let Some(sum) = length.checked_add(size) else {
                return Ok(Err(StatusCode::BAD_REQUEST));
            };
            length = sum;
            self.skip(size)?;
            while self.unused.len() < 2 {
                self.fill_more()?;
            }
            if !self.buffer[self.unused.clone()].starts_with(b"\r\n") {
                return Ok(Err(StatusCode::BAD_REQUEST));
            }
            self.unused.start += 2;
        }
    }

    /// Reads what follows the last chunk, up to an empty line.
    fn read_trailers(&mut self) -> io::Result<Result<(), StatusCode>> {
        let mut read = 0;
        loop {
            let bytes = &self.buffer[self.unused.clone()];
            match bytes.iter().position(|&byte| byte == b'\n') {
                Some(at) => {
                    let is_end = matches!(&bytes[..at], b"" | b"\r");
                    read += at + 1;
                    self.unused.start += at + 1;
                    if is_end {
                        return Ok(Ok(()));
                    }
                }
                None if read + bytes.len() < BUFFER_MAX => self.fill_more()?,
                None => read = BUFFER_MAX,
            }
            if read >= BUFFER_MAX {
                return Ok(Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
        }
    }

    /// Throws so many bytes of a body away.
    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        loop {
            let here = count.min(self.unused.len() as u64);
            self.unused.start += here as usize;
            count -= here;
            if count == 0 {
                return Ok(());
            }
            // Bodies are read in large pieces.
            if count > self.buffer.len() as u64 {
                self.buffer.resize(BUFFER_MAX, 0);
            }
            self.fill_more()?;
        }
    }

    /// Reads more of what the peer has begun.
    fn fill_more(&mut self) -> io::Result<()> {
        let until = Instant::now() + self.patience;
        loop {
            match self.fill() {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if is_timeout(&error) && Instant::now() < until => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what is to be sent, then reads once. 0: the peer has closed. The buffer must not be full of unused bytes.
    fn fill(&mut self) -> io::Result<usize> {
        self.flush()?;
        if self.unused.is_empty() {
            self.unused = 0..0;
        } else if self.unused.end == self.buffer.len() {
            self.buffer.copy_within(self.unused.clone(), 0);
            self.unused = 0..self.unused.len();
            if self.unused.end == self.buffer.len() {
                self.buffer.resize(BUFFER_MAX, 0);
            }
        }
        loop {
            match self.stream.read(&mut self.buffer[self.unused.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.unused.end += count;
                    return Ok(count);
                }
            }
        }
    }

    /// Writes an answer; it leaves with the next flush.
    pub(super) fn answer(
        &mut self,
        answer: &Answer,
        is_head: bool,
        is_old: bool,
        keep_alive: bool,
    ) -> io::Result<()> {
        let Answer { status, content_type, allow, body } = answer;
        let reason = status.canonical_reason().unwrap_or_default();
        let output = &mut self.output;
        write!(
            output,
            "HTTP/1.1 {} {reason}\r\ncontent-type: {content_type}\r\n",
            status.as_str()
        )?;
        if let Some(allow) = allow {
            write!(output, "allow: {allow}\r\n")?;
        }
        match (keep_alive, is_old) {
            (false, _) => output.extend_from_slice(b"connection: close\r\n"),
            (true, true) => output.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, false) => {}
        }
        write!(output, "content-length: {}\r\ndate: {}\r\n\r\n", body.len(), self.date.now())?;
        if is_head {
            return Ok(());
        }
        if body.len() > COPIED_MAX {
            self.flush()?;
            return self.stream.write_all(body);
        }
        self.output.extend_from_slice(body);
        if self.output.len() > GATHERED_MAX { self.flush() } else { Ok(()) }
    }

    /// Answers what is not understood, as the last thing.
    pub(super) fn refuse(&mut self, status: StatusCode) -> io::Result<()> {
        let answer = Answer { status, ..Answer::text("") };
        self.answer(&answer, false, false, false)?;
        self.flush()
    }

    /// Sends every answer.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }
}

/// The read has waited for as long as the stream's timeout lets it.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The time of answers, written anew once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.text.is_empty() || second != self.second {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::work::{Alone, Work};
    use super::*;
    use proptest::prelude::*;

    /// Gives out input in pieces of such sizes, in turn, with a timeout between; keeps what is written.
    struct Pieces<'a> {
        input: &'a [u8],
        sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
        timeout: bool,
        output: Vec<u8>,
    }

    impl<'a> Pieces<'a> {
        fn new(input: &'a [u8], sizes: &'a [usize]) -> Self {
            Pieces { input, sizes: sizes.iter().cycle(), timeout: false, output: Vec::new() }
        }
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!buffer.is_empty());
            self.timeout = !self.timeout;
            if self.timeout {
                return Err(ErrorKind::WouldBlock.into());
            }
            let size = self.sizes.next().copied().unwrap_or(1);
            let count = size.min(buffer.len()).min(self.input.len());
            let (now, later) = self.input.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.input = later;
            Ok(count)
        }
    }

    impl Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Reads requests to the end, and tells their work and the lengths of their bodies, or the status of the refusal.
    fn requests(input: &[u8], sizes: &[usize]) -> Result<Vec<(Work, u64)>, StatusCode> {
        let mut connection = Connection::new(Pieces::new(input, sizes), Duration::from_secs(60));
        let mut all = Vec::new();
        loop {
            match connection.next_head().expect("no error") {
                Incoming::Request(head) => {
                    let length = connection.read_body(&head).expect("whole")?;
                    all.push((head.work, length));
                }
                Incoming::Nothing { .. } => {}
                Incoming::End => return Ok(all),
                Incoming::Refused(status) => return Err(status),
            }
        }
    }

    const UPLOAD: &str = "POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

    fn chunked(body: &str) -> Result<Vec<(Work, u64)>, StatusCode> {
        // The long ones in larger pieces: each is looked through again for every piece.
        let size = body.len().div_ceil(100);
        requests(format!("{UPLOAD}{body}").as_bytes(), &[size])
    }

    #[test]
    fn chunks_are_counted_and_trailers_passed_over() {
        for (body, length) in [
            ("0\r\n\r\n", 0),
            ("3\r\nabc\r\n0\r\n\r\n", 3),
            ("3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\n", 13),
            ("001\r\n\n\r\n000\r\n\r\n", 1),
        ] {
            assert_eq!(chunked(body), Ok(vec![(Work::Upload, length)]), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for body in ["x\r\n", "\r\n", "-1\r\n", "3\r\nabcd\r\n", "fffffffffffffffff\r\n", "3 3\r\n"]
        {
            assert_eq!(chunked(body), Err(StatusCode::BAD_REQUEST), "{body:?}");
        }
        let long = format!("1;{}", "x".repeat(CHUNK_LINE_MAX));
        assert_eq!(chunked(&long), Err(StatusCode::BAD_REQUEST));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(BUFFER_MAX / 6 + 1));
        assert_eq!(chunked(&trailers), Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        let trailer = format!("0\r\na: {}\r\n\r\n", "b".repeat(BUFFER_MAX));
        assert_eq!(chunked(&trailer), Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }

    #[test]
    fn a_head_has_a_largest_size() {
        let of = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n";
            let value = "y".repeat(length - rest.len());
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {value}\r\n\r\n")
        };
        let hello = Ok(vec![(Work::Alone(Alone::Hello), 0)]);
        assert_eq!(requests(of(BUFFER_MAX).as_bytes(), &[1000]), hello);
        assert_eq!(
            requests(of(BUFFER_MAX + 1).as_bytes(), &[1000]),
            Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        );
    }

    #[test]
    fn an_end_within_a_request_is_an_error() {
        for cut in ["", "3\r\nab", "3\r\nabc", "0\r\n", "0\r\na: b\r\n"] {
            let input = format!("{UPLOAD}{cut}");
            let mut connection =
                Connection::new(Pieces::new(input.as_bytes(), &[100]), Duration::from_secs(60));
            assert!(matches!(connection.next_head(), Ok(Incoming::Nothing { .. })));
            let Ok(Incoming::Request(head)) = connection.next_head() else { panic!("no head") };
            assert!(connection.read_body(&head).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn a_body_is_asked_for_if_the_client_waits() {
        let input = "POST /upload HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc";
        let head_only = input.len() - 3;
        let mut connection = Connection::new(
            Pieces::new(input.as_bytes(), std::slice::from_ref(&head_only)),
            Duration::from_secs(60),
        );
        assert!(matches!(connection.next_head(), Ok(Incoming::Nothing { .. })));
        let Ok(Incoming::Request(head)) = connection.next_head() else { panic!("no head") };
        assert_eq!(connection.read_body(&head).expect("whole"), Ok(3));
        assert_eq!(connection.stream.output, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn an_answer_has_all_that_belongs_to_it() {
        let mut connection = Connection::new(Pieces::new(b"", &[1]), Duration::from_secs(60));
        connection.answer(&Answer::text("abc"), false, false, true).expect("written");
        connection.answer(&Answer::text("abc"), true, true, true).expect("written");
        connection.refuse(StatusCode::BAD_REQUEST).expect("written");
        let output = String::from_utf8(connection.stream.output).expect("text");
        let mut lines: Vec<&str> = output.split("\r\n").collect();
        lines.retain(|line| !line.starts_with("date: "));
        let expected = [
            "HTTP/1.1 200 OK",
            "content-type: text/plain",
            "content-length: 3",
            "",
            "abcHTTP/1.1 200 OK",
            "content-type: text/plain",
            "connection: keep-alive",
            "content-length: 3",
            "",
            "HTTP/1.1 400 Bad Request",
            "content-type: text/plain",
            "connection: close",
            "content-length: 0",
            "",
            "",
        ];
        assert_eq!(lines, expected);
        assert_eq!(output.matches(" GMT\r\n").count(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn requests_come_out_the_same_however_they_are_cut(
            bodies in prop::collection::vec((any::<bool>(), 0..10_000_usize, 1..2000_usize), 1..5),
            sizes in prop::collection::vec(1..9000_usize, 1..5),
        ) {
            let (mut input, mut expected) = (Vec::new(), Vec::new());
            for (in_chunks, length, chunk) in bodies {
                let body = vec![b'\n'; length];
                if in_chunks {
                    input.extend_from_slice(UPLOAD.as_bytes());
                    for part in body.chunks(chunk) {
                        input.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                        input.extend_from_slice(part);
                        input.extend_from_slice(b"\r\n");
                    }
                    input.extend_from_slice(b"0\r\n\r\n");
                } else {
                    let head = format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
                    input.extend_from_slice(head.as_bytes());
                    input.extend_from_slice(&body);
                }
                expected.push((Work::Upload, length as u64));
                input.extend_from_slice(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                expected.push((Work::Alone(Alone::Hello), 0));
            }
            prop_assert_eq!(requests(&input, &sizes), Ok(expected));
        }
    }
}
