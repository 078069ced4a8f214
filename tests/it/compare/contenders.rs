//! Every contender as a process of its own, seen through a socket: all do the same work and speak correct HTTP/1.1, or a
//! comparison would say nothing.

use crate::serve::client::{Answer, Client, GET};
use crate::serve::program::{Program, Serve};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// A test for each contender.
macro_rules! of_every_contender {
    ($(fn $test:ident;)*) => { of_every_contender! { @ [$($test)*]
        thread_per_core = "thread-per-core",
        work_stealing = "work-stealing",
        tokio = "tokio",
        tokio_per_core = "tokio-per-core",
        blocking = "blocking",
        thread_per_connection = "thread-per-connection",
    } };
    (@ $tests:tt $($module:ident = $name:literal,)*) => { $(of_every_contender! { @@ $tests $module $name })* };
    (@@ [$($test:ident)*] $module:ident $name:literal) => {
        mod $module {
            $(#[test] fn $test() { super::$test($name) })*
        }
    };
}

of_every_contender! {
    fn a_connection_is_kept_alive_unless_it_is_to_close;
    fn pipelined_requests_are_answered_in_order;
    fn every_path_does_its_work;
    fn the_head_alone_has_no_body;
    fn uploads_are_counted_however_they_are_framed;
    fn a_waiting_body_is_asked_for;
    fn garbage_is_refused_and_the_connection_closed;
    fn large_heads_are_refused;
    fn many_connections_are_all_answered;
    fn requests_are_counted_where_that_is_told;
    fn a_signal_ends_it_at_once;
    fn the_end_of_the_parent_ends_it;
}

/// CPUs that the tests make use of.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(2))
}

fn contender(name: &str, more: &[&str]) -> Serve {
    let threads = threads().to_string();
    let first = ["contender", name, "--listen", "127.0.0.1:0", "--threads", &threads];
    Serve::with_arguments(&[&first, more].concat())
}

fn start(name: &str) -> Program {
    contender(name, &[]).start()
}

fn request(method: &str, path: &str, rest: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{rest}\r\n")
}

#[track_caller]
fn ask(client: &mut Client, path: &str) -> Answer {
    client.send(request("GET", path, ""));
    client.answer()
}

#[track_caller]
fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("text")
}

fn a_connection_is_kept_alive_unless_it_is_to_close(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    for _ in 0..2 {
        let answer = client.get();
        answer.is_hello();
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("connection"), None);
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
    }
    client.send(request("GET", "/", "connection: close\r\n"));
    let answer = client.answer();
    answer.is_hello();
    assert_eq!(answer.header("connection"), Some("close"));
    client.is_closed();
    // A client of the old protocol has to ask for more than one.
    let mut client = Client::connect(program.address());
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.is_gone();
}

fn pipelined_requests_are_answered_in_order(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    let lengths = [3, 0, 40_000, 1, 17, 100_000];
    let mut requests: String =
        lengths.iter().map(|length| request("GET", &format!("/bytes/{length}"), "")).collect();
    requests += &request("POST", "/upload", "content-length: 5\r\n");
    requests += "01234";
    requests += GET;
    client.send(requests);
    for length in lengths {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, length));
    }
    assert_eq!(text(&client.answer()), "5");
    client.answer().is_hello();
    client.has_nothing_left();
    // More than fits into the buffers of either side is sent before an answer is read.
    let mut sender = client.stream().try_clone().expect("another handle");
    let many = thread::spawn(move || {
        use std::io::Write;
        sender.write_all(GET.repeat(20_000).as_bytes()).expect("sent");
    });
    (0..20_000).for_each(|_| client.answer().is_hello());
    many.join().expect("no panic");
    client.has_nothing_left();
}

fn every_path_does_its_work(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    ask(&mut client, "/burn?micros=1000000&one-in=4000000000").is_hello();
    ask(&mut client, "/block?millis=1000&one-in=4000000000").is_hello();
    for path in ["/burn?micros=20000", "/block?millis=20&one-in=1"] {
        let began = Instant::now();
        ask(&mut client, path).is_hello();
        assert!(began.elapsed() >= Duration::from_millis(20), "{path}");
    }
    for length in [0, 1, 1 << 20, (1 << 20) + 1] {
        let answer = ask(&mut client, &format!("/bytes/{length}"));
        assert_eq!((answer.status, answer.body.len()), (200, length));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    }
    for _ in 0..10 {
        let answer = ask(&mut client, "/fan-out");
        assert_eq!((answer.status, answer.body.len()), (200, 16), "{answer:?}");
    }
    for path in ["/nothing", "/bytes/67108865", "/bytes/x"] {
        assert_eq!(ask(&mut client, path).status, 404, "{path}");
    }
    assert_eq!(ask(&mut client, "/burn?micros=x").status, 400);
    for (method, path, allow) in
        [("DELETE", "/", "GET, HEAD"), ("GET", "/upload", "POST"), ("POST", "/stats", "GET, HEAD")]
    {
        client.send(request(method, path, "content-length: 0\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{path}");
    }
    client.get().is_hello();
}

fn the_head_alone_has_no_body(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    for (path, length) in [("/", "13"), ("/bytes/1000000", "1000000"), ("/fan-out", "16")] {
        client.send(request("HEAD", path, ""));
        let answer = client.answer_to_head();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some(length)), "{path}");
    }
    client.get().is_hello();
    client.has_nothing_left();
}

fn uploads_are_counted_however_they_are_framed(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    for length in [0, 1, 100_000, 3_000_000] {
        client.send(request("POST", "/upload", &format!("content-length: {length}\r\n")));
        client.send(vec![b'x'; length]);
        let answer = client.answer();
        assert_eq!((answer.status, text(&answer)), (200, &*length.to_string()));
    }
    client.send(request("POST", "/upload", "transfer-encoding: chunked\r\n"));
    for length in [1, 16, 70_000] {
        client.send(format!("{length:X};a=b\r\n{}\r\n", "\n".repeat(length)));
    }
    client.send("0\r\ntrailer: x\r\n\r\n");
    assert_eq!(text(&client.answer()), "70017");
    client.get().is_hello();
    client.has_nothing_left();
}

fn a_waiting_body_is_asked_for(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    client.send(request("POST", "/upload", "content-length: 4\r\nexpect: 100-continue\r\n"));
    let word = client.read_exactly(25).expect("a word");
    assert_eq!(word, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    assert_eq!(text(&client.answer()), "4");
    client.get().is_hello();
}

fn garbage_is_refused_and_the_connection_closed(name: &str) {
    let program = start(name);
    for garbage in [
        "garbage\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
    ] {
        let mut client = Client::connect(program.address());
        client.get().is_hello();
        client.send(garbage);
        assert_eq!(client.answer().status, 400, "{garbage:?}");
        client.is_gone();
    }
    Client::connect(program.address()).get().is_hello();
}

fn large_heads_are_refused(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    let header = format!("x: {}\r\n", "y".repeat(60_000));
    client.send(request("GET", "/", &header));
    client.answer().is_hello();
    let mut sender = client.stream().try_clone().expect("another handle");
    let sent = thread::spawn(move || {
        use std::io::Write;
        // It is cut off at some place.
        let _ = sender.write_all(request("GET", "/", &header.repeat(70)).as_bytes());
    });
    match client.try_answer(true) {
        Ok(answer) => assert_eq!(answer.status, 431),
        // hyper does not wait until its answer has been taken.
        Err(error) => assert!(!matches!(name, "blocking" | "thread-per-connection"), "{error}"),
    }
    client.is_gone();
    sent.join().expect("no panic");
    Client::connect(program.address()).get().is_hello();
}

/// Asks so many times, on one connection for as long as that is kept.
fn ask_often(address: SocketAddr, mut times: u32) {
    let began = Instant::now();
    let mut client = Client::connect(address);
    while times > 0 {
        let closes = match client.try_get() {
            Ok(answer) => {
                answer.is_hello();
                times -= 1;
                answer.header("connection") == Some("close")
            }
            // Closed while it was idle.
            Err(_) => true,
        };
        assert!(began.elapsed() < Duration::from_secs(60), "{times} are left");
        if closes {
            client = Client::connect(address);
        }
    }
}

fn many_connections_are_all_answered(name: &str) {
    let program = start(name);
    let address = program.address();
    let clients: Vec<_> = (0..20).map(|_| thread::spawn(move || ask_often(address, 50))).collect();
    for client in clients {
        client.join().expect("all are answered");
    }
    assert_eq!(program.complaints(), Vec::<String>::new());
}

fn requests_are_counted_where_that_is_told(name: &str) {
    let program = start(name);
    let mut client = Client::connect(program.address());
    client.get().is_hello();
    ask(&mut client, "/fan-out");
    let answer = ask(&mut client, "/stats");
    let list = match name {
        "thread-per-core" | "work-stealing" => "shards",
        "tokio" | "tokio-per-core" => "threads",
        _ => return assert_eq!(answer.status, 404),
    };
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let stats: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let counted = stats[list].as_array().expect("a list");
    assert_eq!(counted.len(), threads());
    let sum = |name: &str| counted.iter().map(|each| each[name].as_u64().expect(name)).sum::<u64>();
    assert_eq!(sum("requests"), 3);
    if list == "shards" {
        let others = ["polls", "foreign_wakes", "steals", "inbox_messages"].map(sum);
        assert!(others[0] > 0, "{stats}");
    }
}

fn a_signal_ends_it_at_once(name: &str) {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut program = start(name);
        let mut client = Client::connect(program.address());
        client.get().is_hello();
        program.signal(signal);
        let took = program.exits_with(0);
        assert!(took < Duration::from_secs(5), "{took:?}");
        client.is_gone();
    }
}

fn the_end_of_the_parent_ends_it(name: &str) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut program = contender(name, &["--parent-pipe"]).stdin(reader).start();
    let mut client = Client::connect(program.address());
    client.get().is_hello();
    assert_eq!(program.status(), None);
    drop(writer);
    program.exits_with(0);
    client.is_gone();
}

#[test]
fn the_one_thread_leaves_a_silent_connection_for_one_that_waits() {
    let program = start("blocking");
    let mut silent = Client::connect(program.address());
    let mut first = Client::connect(program.address());
    let began = Instant::now();
    first.get().is_hello();
    silent.is_closed();
    // Far less than the patience with which it waits if nobody else does.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // A connection that has had its answer is kept while nobody waits.
    first.get().is_hello();
}

#[test]
fn the_one_thread_ends_a_connection_with_its_answer_if_another_waits() {
    let program = start("blocking");
    let mut first = Client::connect(program.address());
    first.get().is_hello();
    // Within a request it does not leave.
    first.send(request("POST", "/upload", "content-length: 4\r\n"));
    let mut second = Client::connect(program.address());
    first.send("body");
    let answer = first.answer();
    assert_eq!((text(&answer), answer.header("connection")), ("4", Some("close")));
    first.is_closed();
    for _ in 0..2 {
        let answer = second.get();
        answer.is_hello();
        assert_eq!(answer.header("connection"), None);
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for name in ["thread-per-core", "tokio", "tokio-per-core", "blocking"] {
        let serve = Serve::with_arguments(&["contender", name, "--listen", &address]);
        let (status, _, said) = serve.run_to_its_end();
        assert_eq!(status.code(), Some(2), "{name}");
        let expected = format!("corelane: cannot listen on {address}");
        assert!(said.iter().any(|line| line.starts_with(&expected)), "{name}: {said:?}");
    }
    let serve = Serve::with_arguments(&["contender", "tokio-per-core", "--threads", "5000"]);
    let (status, _, said) = serve.run_to_its_end();
    assert_eq!(status.code(), Some(2));
    assert!(said[0].starts_with("corelane: 5000 threads want a CPU each, and"), "{said:?}");
}
