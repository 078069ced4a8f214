//! The access log: what its lines say of requests that went well and of those that did not, that no client writes a line of its
//! own, and that whoever does not read it costs lines and nothing else.

use super::client::Client;
use super::http2::{HEADERS, PREFACE};
use super::in_process::{Body, answer};
use super::limits::{Failure, each};
use super::program::Serve;
use super::{NEVER, until};
use corelane::server::{self, AccessLog, AccessLogFormat, AccessLogTarget, Server};
use corelane::{Mode, Runtime, time};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LARGE: usize = 16 << 20;

/// A server with a log in a directory of its own.
struct Logged {
    runtime: Runtime,
    address: SocketAddr,
    log: AccessLog,
    directory: tempfile::TempDir,
}

impl Logged {
    fn start(mode: Mode, format: AccessLogFormat) -> Logged {
        let directory = tempfile::tempdir().expect("a directory");
        let target = AccessLogTarget::File(directory.path().join("log"));
        let log = AccessLog::builder(target).format(format).start().expect("a file");
        Logged::with(mode, log, directory)
    }

    fn with(mode: Mode, log: AccessLog, directory: tempfile::TempDir) -> Logged {
        let cores = "1".parse().expect("a count");
        let runtime = Runtime::builder().mode(mode).cores(cores).start().expect("started");
        let builder = Server::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let builder = builder.access_log(&log);
        let server = builder.start_send(runtime.handle(), service_fn(serve)).expect("a port");
        Logged { address: server.local_addrs()[0], runtime, log, directory }
    }

    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn so_far(&self) -> Vec<String> {
        assert!(self.log.flush(NEVER));
        let text = fs::read(self.path()).expect("a file");
        assert!(text.is_empty() || text.ends_with(b"\n"), "it ends in the middle of a line");
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        let mut lines: Vec<_> = lines.map(|line| String::from_utf8(line).expect("UTF-8")).collect();
        lines.pop();
        lines
    }

    /// Waits until there are so many lines.
    #[track_caller]
    fn lines(&self, count: usize) -> Vec<String> {
        until("there are as many lines as requests", || self.so_far().len() >= count);
        let lines = self.so_far();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }
}

async fn serve(request: Request<server::Body>) -> Result<Response<Body>, Failure> {
    let mut response = match request.uri().path() {
        "/large" => answer(vec![b'x'; LARGE]),
        "/empty" => answer(""),
        "/gone" | "/same" => {
            let mut response = answer("not sent");
            let gone = request.uri().path() == "/gone";
            *response.status_mut() =
                if gone { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED };
            response
        }
        "/pieces" | "/counted" => pieces(3, request.uri().path() == "/counted"),
        "/endless" => pieces(u64::MAX, false),
        "/late" => {
            CAME.store(true, Ordering::SeqCst);
            while CAME.load(Ordering::SeqCst) {
                time::sleep(Duration::from_millis(1)).await;
            }
            answer("Too late")
        }
        "/fails" => return Err("deliberate".into()),
        "/panics" => std::panic::resume_unwind(Box::new("deliberate")),
        _ => answer("Hello, World!"),
    };
    response.headers_mut().insert("x-request-id", "made-here".parse().expect("a value"));
    Ok(response)
}

/// A request for `/late` is there; its service waits until this is taken back.
static CAME: AtomicBool = AtomicBool::new(false);

/// So many pieces of four bytes, each but the first three after a while.
fn pieces(count: u64, counted: bool) -> Response<Body> {
    let pieces = futures::stream::unfold(0, move |number| async move {
        if number >= 3 && number < count {
            time::sleep(Duration::from_millis(5)).await;
        }
        let frame = Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"four")));
        (number < count).then_some((frame, number + 1))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    if counted {
        response.headers_mut().insert("content-length", (4 * count).into());
    }
    response
}

/// The line of a request for this, from the closing bracket of its date on.
#[track_caller]
fn after_date(line: &str) -> &str {
    let (before, after) = line.split_once("] ").expect("a date");
    let date = before.strip_prefix("127.0.0.1 - - [").expect("a peer");
    assert!(date.len() == 26 && date.ends_with(" +0000"), "{line}");
    after
}

#[track_caller]
fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn a_line_says_what_was_asked_and_answered() {
    each(|mode| {
        let request =
            "GET /a?b=c HTTP/1.1\r\nhost: test\r\nreferer: http://else/\r\nuser-agent: me\r\n\r\n";
        for (format, expected) in [
            (AccessLogFormat::Common, "\"GET /a?b=c HTTP/1.1\" 200 13"),
            (AccessLogFormat::Combined, "\"GET /a?b=c HTTP/1.1\" 200 13 \"http://else/\" \"me\""),
        ] {
            let logged = Logged::start(mode, format);
            let mut client = logged.connect();
            client.send(request);
            client.answer();
            assert_eq!(after_date(&logged.lines(1)[0]), expected);
        }
        let logged = Logged::start(mode, AccessLogFormat::Json);
        let mut client = logged.connect();
        client.send(request);
        client.answer();
        let line = json(&logged.lines(1)[0]);
        let peer = client.stream().local_addr().expect("an address").to_string();
        for (name, value) in [
            ("peer", peer.as_str()),
            ("method", "GET"),
            ("target", "/a?b=c"),
            ("version", "HTTP/1.1"),
            ("host", "test"),
            ("referer", "http://else/"),
            ("user_agent", "me"),
            ("request_id", "made-here"),
        ] {
            assert_eq!(line[name], *value, "{line}");
        }
        let time = line["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &13.into()));
        assert_eq!((&line["shard"], &line["cut"]), (&0.into(), &false.into()));
        assert!(line["duration_us"].as_u64().expect("a number") < 60_000_000);
    });
}

#[test]
fn what_is_whole_is_not_called_cut() {
    each(|mode| {
        let logged = Logged::start(mode, AccessLogFormat::Common);
        let mut client = logged.connect();
        let get =
            |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        let pairs = [
            ("/empty", "200 0"),
            ("/pieces", "200 12"),
            ("/counted", "200 12"),
            ("/large", "200 16777216"),
            ("/panics", "500 0"),
        ];
        for (count, (path, expected)) in pairs.into_iter().enumerate() {
            client.send(get("GET", path));
            client.answer();
            // While the connection is open.
            let line = &logged.lines(count + 1)[count];
            assert_eq!(after_date(line), format!("\"GET {path} HTTP/1.1\" {expected}"));
        }
        // A panic costs the connection.
        let mut client = logged.connect();
        client.send(get("HEAD", "/large"));
        client.answer_to_head();
        for path in ["/gone", "/same"] {
            client.send(get("GET", path));
            client.answer_to_head();
        }
        // What the server itself refuses, after which it closes.
        client.send("GET / HTTP/1.1\r\n\r\n");
        client.answer();
        let lines = logged.lines(9);
        assert_eq!(after_date(&lines[5]), "\"HEAD /large HTTP/1.1\" 200 0");
        assert_eq!(after_date(&lines[6]), "\"GET /gone HTTP/1.1\" 204 0");
        assert_eq!(after_date(&lines[7]), "\"GET /same HTTP/1.1\" 304 0");
        assert_eq!(after_date(&lines[8]), "\"GET / HTTP/1.1\" 400 0");
        // Several at once.
        let mut client = logged.connect();
        client.send(get("GET", "/pieces").repeat(20));
        (0..20).for_each(|_| drop(client.answer()));
        assert!(logged.lines(29)[9..].iter().all(|line| line.ends_with("200 12")));
    });
}

#[test]
fn what_was_cut_says_how_much_was_sent() {
    each(|mode| {
        let logged = Logged::start(mode, AccessLogFormat::Json);
        let cut = |count: usize| {
            let line = json(&logged.lines(count)[count - 1]);
            assert_eq!(line["cut"], true, "{line}");
            (line["status"].as_u64(), line["bytes"].as_u64().expect("a number"))
        };
        // The client goes while most of a body that hyper has taken at once is still to be sent.
        let mut client = Client::with_receive_buffer(logged.address, 4096);
        client.send("GET /large HTTP/1.1\r\nhost: test\r\n\r\n");
        client.read_exactly(1000).expect("the beginning");
        client.reset();
        let (status, bytes) = cut(1);
        assert_eq!(status, Some(200));
        assert!((1000 - 300..LARGE as u64).contains(&bytes), "{bytes}");
        // The service has more to come.
        let mut client = logged.connect();
        client.send("GET /endless HTTP/1.1\r\nhost: test\r\n\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"four\r\n4\r\nfour\r\n4\r\nfour\r\n") {
            seen.extend(client.read_exactly(1).expect("more"));
        }
        client.reset();
        let (status, bytes) = cut(2);
        assert!(status == Some(200) && bytes >= 12, "{bytes}");
        // There is no answer.
        let mut client = logged.connect();
        client.send("GET /fails HTTP/1.1\r\nhost: test\r\n\r\n");
        client.is_closed();
        assert_eq!(cut(3), (None, 0));
        let mut client = logged.connect();
        client.send("GET /late HTTP/1.1\r\nhost: test\r\n\r\n");
        until("the request is there", || CAME.load(Ordering::SeqCst));
        client.reset();
        CAME.store(false, Ordering::SeqCst);
        assert_eq!(cut(4), (Some(200), 0));
    });
}

#[test]
fn http2_is_logged_by_stream() {
    each(|mode| {
        let logged = Logged::start(mode, AccessLogFormat::Json);
        let mut client = logged.connect();
        client.send([PREFACE, HEADERS].concat());
        let line = json(&logged.lines(1)[0]);
        assert_eq!((&line["version"], &line["target"]), (&"HTTP/2.0".into(), &"/".into()));
        assert_eq!((&line["host"], &line["bytes"]), (&"test".into(), &13.into()));
        assert_eq!(line["cut"], false);
    });
}

/// What may stand in a field, and hyper lets pass: quotes, backslashes, tabs, bytes beyond ASCII, control characters of
/// terminals.
const FORGERY: &[u8] = b"x\" 200 1 \"-\" \"-\"\\\t\\n\\x0a\xc2\x9b2J\xe2\x80\xa8\xff\x80{\"a\":1}";

#[test]
fn no_client_forges_a_line_or_a_field() {
    each(|mode| {
        let forged = [
            b"GET /\"%0a\\\\x22{} HTTP/1.1\r\nhost: test\r\nreferer: ".as_slice(),
            FORGERY,
            b"\r\nuser-agent: ",
            FORGERY,
            b"\r\nx-request-id: ",
            FORGERY,
            b"\r\n\r\n",
        ];
        let forged = forged.concat();
        let logged = Logged::start(mode, AccessLogFormat::Combined);
        let mut client = logged.connect();
        client.send(&forged);
        assert_eq!(client.answer().status, 200);
        let field = r#"x\" 200 1 \"-\" \"-\"\\\x09\\n\\x0a\xc2\x9b2J\xe2\x80\xa8\xff\x80{\"a\":1}"#;
        let expected = format!(r#""GET /\"%0a\\\\x22{{}} HTTP/1.1" 200 13 "{field}" "{field}""#);
        assert_eq!(after_date(&logged.lines(1)[0]), expected);
        let logged = Logged::start(mode, AccessLogFormat::Json);
        let mut client = logged.connect();
        client.send(&forged);
        assert_eq!(client.answer().status, 200);
        let line = &logged.lines(1)[0];
        assert!(!line.contains(char::is_control) && !line.contains('\u{2028}'), "{line}");
        let line = json(line);
        let sent = String::from_utf8_lossy(FORGERY);
        for name in ["referer", "user_agent", "request_id"] {
            assert_eq!(line[name], *sent);
        }
        assert_eq!((&line["target"], &line["status"]), (&"/\"%0a\\\\x22{}".into(), &200.into()));
    });
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_answer() {
    each(|mode| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let target = AccessLogTarget::File(format!("/proc/self/fd/{}", writer.as_raw_fd()).into());
        let told = Arc::new(AtomicU64::new(0));
        let tell = told.clone();
        let log = AccessLog::builder(target).on_dropped(move |lines, error| {
            assert!(error.is_none());
            tell.fetch_add(lines, Ordering::SeqCst);
        });
        let log = log.start().expect("opened");
        drop(writer);
        let logged = Logged::with(mode, log, tempfile::tempdir().expect("a directory"));
        let long = "a".repeat(4000);
        let request = format!("GET / HTTP/1.1\r\nhost: test\r\nuser-agent: {long}\r\n\r\n");
        let mut client = logged.connect();
        // The pipe has room for 16, the lane for 64, and so many are on their way to the pipe.
        let requests = 400;
        for _ in 0..requests {
            client.send(&request);
            client.answer().is_hello();
        }
        let Logged { runtime, log, .. } = logged;
        let reading = std::thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map(|line| line.expect("read"));
            lines.inspect(|line| assert!(line.ends_with("aaaa\""), "{line}")).count() as u64
        });
        assert!(log.flush(NEVER));
        let dropped = log.dropped();
        assert!(dropped > 0);
        drop(client);
        drop((runtime, log));
        // The thread has ended, and told of the rest.
        let read = reading.join().expect("read");
        assert_eq!((read + dropped, told.load(Ordering::SeqCst)), (requests, dropped));
    });
}

#[test]
fn a_file_that_was_renamed_makes_room_for_another() {
    each(|mode| {
        let logged = Logged::start(mode, AccessLogFormat::Common);
        let mut client = logged.connect();
        client.get().is_hello();
        logged.lines(1);
        let old = logged.directory.path().join("old");
        fs::rename(logged.path(), &old).expect("renamed");
        client.get().is_hello();
        until("it goes on in the old one", || {
            assert!(logged.log.flush(NEVER));
            fs::read_to_string(&old).expect("a file").lines().count() == 2
        });
        logged.log.reopen(&AccessLogTarget::File(logged.path())).expect("opened");
        client.get().is_hello();
        logged.lines(1);
        let nowhere = AccessLogTarget::File(logged.path().join("below/a/file"));
        logged.log.reopen(&nowhere).expect_err("there is no such directory");
        client.get().is_hello();
        logged.lines(2);
        assert_eq!(fs::read_to_string(&old).expect("a file").lines().count(), 2);
    });
}

fn config(directory: &tempfile::TempDir, access_log: &str) -> String {
    let path = directory.path().join("server.toml");
    let listener = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n";
    fs::write(&path, format!("{listener}{access_log}")).expect("written");
    path.to_str().expect("text").to_owned()
}

#[test]
fn the_program_opens_its_log_anew_when_it_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let section = |format: &str| format!("[access_log]\npath = {path:?}\nformat = \"{format}\"\n");
    let file = config(&directory, &section("common"));
    let mut program = Serve::with_arguments(&["serve", "--config", &file]).start();
    let mut client = Client::connect(program.address());
    client.get().is_hello();
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    until("there is a line", || lines(&path).ends_with("\"GET / HTTP/1.1\" 200 13\n"));
    let old = directory.path().join("access.log.1");
    fs::rename(&path, &old).expect("renamed");
    config(&directory, &section("json"));
    program.signal(libc::SIGHUP);
    until("there is another file", || path.exists());
    until("lines are of the new format", || {
        client.get().is_hello();
        lines(&path).starts_with('{')
    });
    // Whatever is wrong with the file, the log is opened.
    let last = directory.path().join("access.log.2");
    fs::rename(&path, &last).expect("renamed");
    config(&directory, "nonsense");
    program.signal(libc::SIGHUP);
    until("there is another file", || path.exists());
    config(&directory, "");
    program.signal(libc::SIGHUP);
    until("it says what waits", || {
        let said = program.err.so_far();
        said.iter().any(|line| line.contains("only a start anew will change [access_log]"))
    });
    client.get().is_hello();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert!(lines(&path).ends_with("\"cut\":false}\n"), "the last line is written at the end");
    let all: usize = [&path, &old, &last].iter().map(|path| lines(path).lines().count()).sum();
    assert!(all >= 4, "{all}");
}

#[test]
fn a_log_that_cannot_be_opened_is_said_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = config(&directory, "[access_log]\npath = \"/nowhere/at/all\"\n");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_corelane"))
        .args(["serve", "--config", &file])
        .output()
        .expect("started");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("the access log /nowhere/at/all cannot be written: No such file"),
        "{said}"
    );
}

#[test]
fn a_fifo_that_nobody_reads_any_more_holds_up_neither_a_reload_nor_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let (fifo, config) = (directory.path().join("log"), directory.path().join("server.toml"));
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo is there").success());
    let text = format!(
        "[access_log]\npath = {:?}\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n",
        fifo.to_str().expect("text")
    );
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("text");
    let (status, _, said) = Serve::with_arguments(&["serve", "--config", config]).run_to_its_end();
    assert_eq!(status.code(), Some(2), "without a reader it does not start: {said:?}");
    // For writing too, so that opening it waits for nobody.
    let reader = std::fs::File::options().read(true).write(true).open(&fifo).expect("opened");
    let mut program = Serve::with_arguments(&["serve", "--config", config]).start();
    Client::connect(program.address()).get().is_hello();
    drop(reader);
    program.signal(libc::SIGHUP);
    let is_said = || program.err.so_far().iter().any(|line| line.contains("nobody reads from it"));
    until("it is said", is_said);
    Client::connect(program.address()).get().is_hello();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
}
