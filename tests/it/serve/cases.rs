//! The table of raw requests in tests/http1, against real servers over real sockets: which are accepted, where they end,
//! with what the others are refused, and what becomes of the connection.
//!
//! Each case is sent in one write, and short ones again in single bytes and cut at places that are drawn by lot, always the
//! same. Where a request ends is tried by what comes next: a good request in that place must be answered as such.

mod service;
mod table;

use super::program::Serve;
use super::{NEVER, skipped};
use crate::process;
use service::{Kind, serve};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use table::{After, Case, Outcome, Pause};

/// A request whose answer is like no other.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: test\r\n\r\n";
const PROBE_SEEN: &str = "GET /probe 0";

/// How a case is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    Bytes,
    /// At places drawn by lot.
    Places,
}

/// Longer cases are not sent in single bytes, nor cut.
const BYTES_MAX: usize = 400;
const PLACES_MAX: usize = 4096;

/// Ends of requests that are tried in a case with more of them.
const ENDS_MAX: usize = 4;

/// What came back.
#[derive(Debug, Default)]
struct Seen {
    answers: Vec<(u16, String)>,
    /// Set if an answer was expected and none came.
    trouble: Option<String>,
}

/// A connection, and what was received and is not yet part of an answer.
struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, NEVER).expect("connected");
        stream.set_read_timeout(Some(NEVER)).expect("set");
        stream.set_write_timeout(Some(NEVER)).expect("set");
        stream.set_nodelay(true).expect("set");
        Wire { stream, received: Vec::new() }
    }

    /// A server that has answered early may have closed: what it has said can still be read.
    fn send(&mut self, bytes: &[u8], sizes: &mut dyn FnMut() -> usize) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(sizes().clamp(1, rest.len()));
            if self.stream.write_all(now).is_err() {
                return;
            }
            rest = later;
        }
    }

    /// None: the connection has ended.
    fn read_more(&mut self) -> Result<Option<()>, String> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(None),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(Some(()))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_more(),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(format!("nothing came: {error}")),
        }
    }

    /// Waits for more of an answer that has begun.
    fn need_more(&mut self) -> Result<(), String> {
        self.read_more()?.ok_or_else(|| {
            let text = String::from_utf8_lossy(&self.received);
            format!("the connection ended within an answer, after {text:?}")
        })
    }

    /// Waits for so many bytes, and takes them.
    fn take(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.received.len() < count {
            self.need_more()?;
        }
        Ok(self.received.drain(..count).collect())
    }

    fn take_past(&mut self, end: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|part| part == end) {
                return self.take(at + end.len());
            }
            self.need_more()?;
        }
    }

    /// The next answer, an interim one too: its status and body. None: the connection has ended.
    fn answer(&mut self, method: &[u8]) -> Result<Option<(u16, String)>, String> {
        if self.received.is_empty() && self.read_more()?.is_none() {
            return Ok(None);
        }
        let head = String::from_utf8_lossy(&self.take_past(b"\r\n\r\n")?).to_ascii_lowercase();
        let status = head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("no status line: {head:?}"))?;
        let header =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let body = match (header("transfer-encoding"), header("content-length")) {
            _ if method == b"HEAD" || status < 200 || matches!(status, 204 | 304) => Vec::new(),
            (Some(_), _) => self.take_chunks()?,
            (None, Some(length)) => self.take(length.parse().map_err(|_| head.clone())?)?,
            (None, None) if method == b"CONNECT" => Vec::new(),
            (None, None) => self.take_rest()?,
        };
        Ok(Some((status, String::from_utf8_lossy(&body).into_owned())))
    }

    /// What comes until the connection ends.
    fn take_rest(&mut self) -> Result<Vec<u8>, String> {
        while self.read_more()?.is_some() {}
        Ok(std::mem::take(&mut self.received))
    }

    fn take_chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let size = String::from_utf8_lossy(&self.take_past(b"\r\n")?).into_owned();
            let size = usize::from_str_radix(size.trim_end(), 16).map_err(|_| size)?;
            let chunk = self.take(size + 2)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Numbers that follow from a name.
fn lots(name: &str) -> impl FnMut() -> usize {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 40).expect("24 bits") % 60 + 1
    }
}

/// Sends what stands before `until`, with what happens between.
fn send(wire: &mut Wire, case: &Case, until: usize, cut: Cut) -> Result<(), String> {
    let mut lot = lots(&case.name);
    let mut sizes = || match cut {
        Cut::Whole => usize::MAX,
        Cut::Bytes => 1,
        Cut::Places => lot(),
    };
    let mut sent = 0;
    for &(at, pause) in case.pauses.iter().filter(|(at, _)| *at <= until) {
        wire.send(&case.raw[sent..at], &mut sizes);
        sent = at;
        match pause {
            Pause::Interim(status) => match wire.answer(b"GET")? {
                Some((came, _)) if came == status => {}
                other => return Err(format!("instead of an interim {status} came {other:?}")),
            },
            // It may have been closed by the server already.
            Pause::Shut if until == case.raw.len() => {
                let _ = wire.stream.shutdown(Shutdown::Write);
            }
            Pause::Shut => {}
        }
    }
    wire.send(&case.raw[sent..until], &mut sizes);
    Ok(())
}

/// Reads the answers that are expected, until one does not come.
fn read_answers(wire: &mut Wire, case: &Case, count: usize) -> Seen {
    let mut seen = Seen::default();
    while seen.answers.len() < count {
        match wire.answer(case.method(seen.answers.len())) {
            Ok(Some((status, _))) if status < 200 && status != 101 => {}
            Ok(Some(answer)) => seen.answers.push(answer),
            Ok(None) => break,
            Err(error) => {
                seen.trouble = Some(error);
                break;
            }
        }
    }
    seen
}

/// What becomes of the connection.
fn is_as_expected(wire: &mut Wire, after: After, shut: bool) -> Result<(), String> {
    if after == After::Tunnel {
        wire.send(b"through", &mut || usize::MAX);
        let end = wire.take_past(b"through")?;
        return match String::from_utf8_lossy(&end) {
            text if text.contains("HTTP/1.") => Err(format!("in the tunnel came {text:?}")),
            _ => Ok(()),
        };
    }
    if after != After::Close {
        wire.send(PROBE, &mut || usize::MAX);
    }
    match (after, wire.answer(b"GET")?) {
        (After::Close | After::Either, None) => Ok(()),
        (After::Open | After::Either, Some((200, text))) if text == PROBE_SEEN => Ok(()),
        (_, came) => Err(format!("it is not {after:?} (half closed: {shut}), but {came:?} came")),
    }
}

/// Sends a case and compares what comes back.
fn run(address: SocketAddr, case: &Case, outcome: &Outcome, cut: Cut) -> Result<(), String> {
    let mut wire = Wire::connect(address);
    send(&mut wire, case, case.raw.len(), cut)?;
    let seen = read_answers(&mut wire, case, outcome.statuses.len());
    let statuses: Vec<u16> = seen.answers.iter().map(|(status, _)| *status).collect();
    if statuses != outcome.statuses || seen.trouble.is_some() {
        let (asked, trouble) = (summary(&outcome.statuses), seen.trouble);
        return Err(format!("instead of {asked} came {} {trouble:?}", summary(&statuses)));
    }
    for (expected, (_, body)) in case.saw.iter().zip(&seen.answers) {
        if expected != body {
            return Err(format!("the service saw {body:?}, not {expected:?}"));
        }
    }
    let shut = case.pauses.iter().any(|(_, pause)| *pause == Pause::Shut);
    is_as_expected(&mut wire, outcome.after, shut)
}

fn summary(statuses: &[u16]) -> String {
    let beginning = &statuses[..statuses.len().min(8)];
    format!("{} answers {beginning:?}", statuses.len())
}

/// Tries where the accepted requests end: up to there, and then another request, which is answered as such.
fn run_ends(address: SocketAddr, case: &Case, outcome: &Outcome) -> Result<(), String> {
    let last = case.ends.len();
    let tried = (1..=last).filter(|count| *count < ENDS_MAX || *count == last);
    for count in tried {
        let end = case.ends[count - 1];
        let after = match outcome.after {
            _ if count < outcome.statuses.len() => After::Open,
            After::Tunnel => After::Tunnel,
            // What follows, and is no request, may be the reason why it closes.
            _ if end < case.raw.len() => After::Either,
            after => after,
        };
        let mut wire = Wire::connect(address);
        send(&mut wire, case, end, Cut::Whole)?;
        let seen = read_answers(&mut wire, case, count);
        let statuses: Vec<u16> = seen.answers.iter().map(|(status, _)| *status).collect();
        if Some(statuses.as_slice()) != outcome.statuses.get(..count) {
            let trouble = seen.trouble;
            return Err(format!("up to the end {end}: {} {trouble:?}", summary(&statuses)));
        }
        let shut = case.pauses.iter().any(|(at, pause)| *pause == Pause::Shut && *at <= end);
        is_as_expected(&mut wire, after, shut).map_err(|error| format!("end {end}: {error}"))?;
    }
    Ok(())
}

/// Every way in which a case is tried.
fn run_all(address: SocketAddr, case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    for cut in [Cut::Whole, Cut::Bytes, Cut::Places] {
        let fits = match cut {
            Cut::Whole => true,
            Cut::Bytes => !case.only_whole && case.raw.len() <= BYTES_MAX,
            Cut::Places => !case.only_whole && case.raw.len() <= PLACES_MAX,
        };
        if fits && let Err(error) = run(address, case, outcome, cut) {
            wrong.push(format!("{cut:?}: {error}"));
        }
    }
    if let Err(error) = run_ends(address, case, outcome) {
        wrong.push(error);
    }
    wrong
}

/// Runs the table, says everything that is wrong, and names what is known.
fn run_table(kind: Kind) {
    let (_runtime, address) = serve(kind);
    let (mut wrong, mut known) = (String::new(), String::new());
    for case in &table::read() {
        let outcome = match &case.known {
            Some((reason, outcome)) => {
                let _ = writeln!(known, "KNOWN {}/{}: {reason}", case.theme, case.name);
                outcome
            }
            None => &case.expected,
        };
        for error in run_all(address, case, outcome) {
            let Case { theme, name, section, known, .. } = case;
            let known = if known.is_some() { ", known, but no longer so; mended?" } else { "" };
            let _ = writeln!(wrong, "{theme}/{name} (RFC {section}{known}): {error}");
        }
    }
    // They are the same everywhere.
    if kind == Kind::Stay {
        let _ = io::stderr().write_all(known.as_bytes());
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{wrong}", wrong.lines().count());
}

#[test]
fn raw_requests_are_answered_as_the_table_says_where_connections_stay() {
    run_table(Kind::Stay);
}

#[test]
fn raw_requests_are_answered_as_the_table_says_where_connections_move() {
    run_table(Kind::Move);
}

#[test]
fn raw_requests_are_answered_as_the_table_says_in_a_pool() {
    run_table(Kind::Pool);
}

#[test]
fn the_program_refuses_what_the_table_refuses_whatever_is_served() {
    // What a head is refused for does not depend on the service.
    let themes = ["fields", "hosts", "limits", "methods", "targets", "versions"];
    let refused = |outcome: &Outcome| {
        matches!(outcome.statuses[..], [400 | 414 | 431]) && outcome.after == After::Close
    };
    let program = Serve::new(&[]).start();
    let (mut wrong, mut tried) = (String::new(), 0);
    for case in &table::read() {
        if case.known.is_none() && themes.contains(&&*case.theme) && refused(&case.expected) {
            tried += 1;
            if let Err(error) = run(program.address(), case, &case.expected, Cut::Whole) {
                let _ = writeln!(wrong, "{}/{}: {error}", case.theme, case.name);
            }
        }
    }
    assert!(tried > 100, "only {tried} cases are refused");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_head_that_does_not_end_takes_no_more_memory_than_its_limit() {
    const CONNECTIONS: usize = 16;
    if process::is_sanitized() {
        return skipped("how much memory a head takes: AddressSanitizer keeps what was freed");
    }
    let program = Serve::new(&["--cores", "1"]).start();
    let peak_kib = || {
        let path = format!("/proc/{}/status", program.pid());
        let status = std::fs::read_to_string(path).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
    };
    let before = peak_kib();
    for beginning in ["", "GET /", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\nX"] {
        let connect = |_| Wire::connect(program.address());
        let mut wires: Vec<_> = (0..CONNECTIONS).map(connect).collect();
        flood(&mut wires, beginning);
        for wire in &mut wires {
            let (status, _) = wire.answer(b"GET").expect("no trouble").expect("an answer");
            assert!(matches!(status, 400 | 414 | 431), "{beginning:?}: {status}");
        }
        let grown = peak_kib() - before;
        assert!(grown < CONNECTIONS * 1024, "{beginning:?}: {grown} KiB");
    }
}

/// Sends the same byte, eight megabytes of it on each connection, a piece to each in turn.
fn flood(wires: &mut [Wire], beginning: &str) {
    wires.iter_mut().for_each(|wire| wire.send(beginning.as_bytes(), &mut || usize::MAX));
    let piece = [b'a'; 64 << 10];
    for _ in 0..(8 << 20) / piece.len() {
        wires.iter_mut().for_each(|wire| wire.send(&piece, &mut || usize::MAX));
    }
}

#[test]
fn the_table_is_as_large_as_it_should_be() {
    let cases = table::read();
    assert!(cases.len() >= 250, "there are {} cases", cases.len());
}
