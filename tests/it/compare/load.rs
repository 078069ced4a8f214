//! The load generator.

use super::{answers, cpus, made_up, read_head, run, text};
use crate::process;
use crate::serve::program::Serve;
use crate::serve::until;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The measured figures, after the line that says when the measurement began.
fn measured(url: &str, flags: &[&str]) -> serde_json::Value {
    let flags = [&["load", url, "--json", "--duration", "0.5", "--warmup", "0.1"], flags].concat();
    let output = run(&flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    let [begin, end, figures] = lines[..] else { panic!("three lines: {out}") };
    assert_eq!((begin, end), ("measuring", "measured"));
    serde_json::from_str(figures).expect("JSON")
}

fn number(figures: &serde_json::Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("no {name} in {figures}"))
}

fn counted(figures: &serde_json::Value) -> u64 {
    let bins = figures["latencies"].as_array().expect("bins");
    bins.iter().map(|bin| bin[1].as_u64().expect("a count")).sum()
}

#[test]
fn every_kind_of_load_is_answered_without_errors() {
    let server = Serve::new(&[]).start();
    let url = format!("http://{}/", server.address());
    for flags in [
        &["-c", "8"][..],
        &["-c", "8", "--threads", "2"],
        &["-c", "4", "--pipeline", "16"],
        &["-c", "4", "--close"],
        &["-c", "20", "--skewed"],
        &["-c", "4", "--idle", "20"],
        &["-c", "4", "--rate", "1000"],
    ] {
        let figures = measured(&url, flags);
        assert!(number(&figures, "requests") > 0.0, "{flags:?}: {figures}");
        assert_eq!(figures["errors"], serde_json::json!({}), "{flags:?}");
        assert!(counted(&figures) as f64 >= number(&figures, "requests"), "{flags:?}");
    }
}

/// Whoever watches hears twice a second how many there are per second.
#[test]
fn the_rate_is_told_while_it_goes_on() {
    let server = Serve::new(&[]).start();
    let url = format!("http://{}/", server.address());
    let limits = ["--json", "--duration", "1.7", "--warmup", "0.1", "-c", "4", "--rate", "1000"];
    let output = run(&[&["load", &url], &limits[..]].concat());
    let out = text(&output.stdout);
    let told = out.lines().filter_map(|line| line.strip_prefix("now "));
    let told: Vec<f64> = told.map(|rate| rate.parse().expect("a number")).collect();
    assert!(told.len() >= 2, "{out}");
    assert!(told.iter().all(|rate| (500.0..=1100.0).contains(rate)), "1,000 were due: {out}");
}

#[test]
fn an_open_loop_sends_what_is_due_and_no_more() {
    let server = Serve::new(&[]).start();
    let figures =
        measured(&format!("http://{}/", server.address()), &["-c", "10", "--rate", "400"]);
    let requests = number(&figures, "requests");
    assert!((100.0..=220.0).contains(&requests), "200 were due: {figures}");
}

/// A server that stands still holds up what is due meanwhile, and all of that counts.
#[test]
fn what_waits_for_a_server_that_stands_still_is_counted() {
    let began = Instant::now();
    let address = made_up(move |mut stream| {
        while read_head(&mut stream) {
            if began.elapsed() > Duration::from_millis(300) {
                std::thread::sleep(Duration::from_secs(3600));
            }
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let url = format!("http://{address}/");
    let flags = ["-c", "1", "--rate", "200"];
    let figures = measured(&url, &flags);
    // 100 were due in half a second. What was never answered has a latency too.
    let all = counted(&figures);
    assert!((80..=130).contains(&all), "{figures}");
    assert!(number(&figures, "requests") < 80.0, "{figures}");
}

#[test]
fn a_tenth_of_the_connections_sends_nine_tenths() {
    // Each connection counts its requests; the tenth that is hot is known by them.
    let counts = Arc::new(std::sync::Mutex::new(Vec::<Arc<AtomicUsize>>::new()));
    let known = counts.clone();
    let address = made_up(move |mut stream| {
        let own = Arc::new(AtomicUsize::new(0));
        known.lock().expect("unpoisoned").push(own.clone());
        while read_head(&mut stream) && stream.write_all(OK).is_ok() {
            own.fetch_add(1, Ordering::Relaxed);
        }
    });
    measured(&format!("http://{address}/"), &["-c", "40", "--skewed", "--threads", "2"]);
    let mut counts: Vec<usize> =
        counts.lock().expect("unpoisoned").iter().map(|it| it.load(Ordering::Relaxed)).collect();
    counts.sort_unstable_by(|one, other| other.cmp(one));
    let all: usize = counts.iter().sum();
    assert_eq!(counts.len(), 40, "each connects");
    let hot: usize = counts.iter().take(4).sum();
    let share = hot as f64 / all as f64;
    assert!((0.85..=0.95).contains(&share), "{share}: {counts:?}");
}

/// Whoever answers more than was asked is not faster than others.
#[test]
fn answers_to_nothing_are_no_answers() {
    let twice = [OK, OK].concat();
    let at_once = made_up(
        move |mut stream| {
            while read_head(&mut stream) && stream.write_all(&twice).is_ok() {}
        },
    );
    let late = made_up(|mut stream| {
        while read_head(&mut stream) && stream.write_all(OK).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    for (address, flags) in [(at_once, &["-c", "2"][..]), (late, &["-c", "2", "--rate", "20"])] {
        let figures = measured(&format!("http://{address}/"), flags);
        let garbage = figures["errors"]["garbage"].as_f64().unwrap_or(0.0);
        assert!(garbage >= number(&figures, "requests") / 4.0 && garbage > 0.0, "{figures}");
    }
}

/// From then until the end of the round. Whatever was due meanwhile counts.
#[test]
fn what_is_due_while_nobody_listens_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            let Ok((mut stream, _)) = listener.accept() else { return };
            read_head(&mut stream);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let figures = measured(&format!("http://{address}/"), &["-c", "2", "--rate", "1000"]);
    // 500 were due. One that was refused at once has no latency.
    let refused = figures["errors"]["connect"].as_u64().unwrap_or(0);
    assert!(refused > 0, "{figures}");
    assert!(counted(&figures) + refused >= 450, "{} and {refused}: {figures}", counted(&figures));
}

#[test]
fn errors_are_told_apart() {
    let silent = made_up(|stream| {
        let _held = stream;
        std::thread::sleep(Duration::from_secs(3600));
    });
    let closing = made_up(|mut stream| {
        read_head(&mut stream);
    });
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    for (address, kind) in [
        (made_up(answers(b"SSH-2.0-nothing of the kind\r\n\r\n")), "garbage"),
        (made_up(answers(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")), "status"),
        (closing, "read"),
        (silent, "timeout"),
        (nobody, "connect"),
    ] {
        let figures = measured(&format!("http://{address}/"), &["-c", "2", "--timeout", "0.2"]);
        let errors = figures["errors"].as_object().expect("errors");
        assert!(errors.contains_key(kind), "{kind}: {figures}");
        assert_eq!(number(&figures, "requests"), 0.0, "{kind}");
    }
}

/// A server may close a connection on which nothing has been asked for a while.
#[test]
fn a_connection_that_was_closed_between_two_requests_is_no_error() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let address = made_up(move |mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        if read_head(&mut stream) {
            let _ = stream.write_all(OK);
        }
    });
    // A quarter of a second between two requests of a connection.
    let figures = measured(&format!("http://{address}/"), &["-c", "2", "--rate", "8"]);
    assert!(number(&figures, "requests") >= 2.0, "{figures}");
    assert_eq!(figures["errors"], serde_json::json!({}));
    assert!(connections.load(Ordering::Relaxed) > 2, "each is closed after an answer");
}

/// The request has been read, and the connection ends without an answer.
#[test]
fn a_server_that_drops_requests_has_errors() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    let address = made_up(move |mut stream| {
        if read_head(&mut stream) && stream.write_all(OK).is_ok() && read_head(&mut stream) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let figures = measured(&format!("http://{address}/"), &["-c", "2"]);
    let (requests, errors) = (number(&figures, "requests"), number(&figures["errors"], "read"));
    assert!(dropped.load(Ordering::Relaxed) > 10);
    assert!(errors >= requests / 2.0, "every second one is dropped: {figures}");
    // What came in time, what failed, and of each connection perhaps what came late.
    let late = counted(&figures) as f64 - requests - errors;
    assert!((0.0..=2.0).contains(&late), "{figures}");
}

#[test]
fn pipelined_requests_behind_a_close_are_not_forgotten() {
    const TAKES: Duration = Duration::from_millis(20);
    // How many requests each connection was sent. It answers the first one.
    let counts = Arc::new(std::sync::Mutex::new(Vec::<Arc<AtomicUsize>>::new()));
    let known = counts.clone();
    let address = made_up(move |mut stream| {
        let own = Arc::new(AtomicUsize::new(0));
        known.lock().expect("unpoisoned").push(own.clone());
        if read_head(&mut stream) {
            std::thread::sleep(TAKES);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
            own.fetch_add(1, Ordering::Relaxed);
            while read_head(&mut stream) {
                own.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let figures = measured(&format!("http://{address}/"), &["-c", "1", "--pipeline", "4"]);
    assert_eq!(figures["errors"].get("read"), None, "{figures}");
    let counts: Vec<usize> =
        counts.lock().expect("unpoisoned").iter().map(|it| it.load(Ordering::Relaxed)).collect();
    assert!(counts.starts_with(&[4, 3, 2, 1, 4, 3, 2, 1]), "{counts:?}");
    // The last of four is behind three others, and they count from when they were sent together.
    assert!(longest(&figures) >= 4.0 * TAKES.as_millis() as f64, "{figures}");
}

/// The longest latency, in milliseconds.
fn longest(figures: &serde_json::Value) -> f64 {
    let bins = figures["latencies"].as_array().expect("bins");
    bins.last().map_or(0.0, |bin| bin[0].as_f64().expect("a value") / 1000.0)
}

/// A closed loop sends nothing more while it waits: only what it waits for can tell that the server stands still.
#[test]
fn what_is_never_answered_is_an_error_with_its_age() {
    let answered = Arc::new(AtomicUsize::new(0));
    let address = made_up(move |mut stream| {
        while read_head(&mut stream) {
            if answered.fetch_add(1, Ordering::Relaxed) >= 10 {
                std::thread::sleep(Duration::from_secs(3600));
            }
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let figures = measured(&format!("http://{address}/"), &["-c", "4", "--pipeline", "2"]);
    assert_eq!(figures["errors"]["unanswered"].as_u64().map(|it| it >= 4), Some(true), "{figures}");
    assert!(longest(&figures) > 500.0, "{figures}");
}

#[test]
fn what_is_answered_after_the_time_has_a_latency_and_is_no_throughput() {
    let address = made_up(|mut stream| {
        while read_head(&mut stream) {
            std::thread::sleep(Duration::from_millis(450));
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let figures = measured(&format!("http://{address}/"), &["-c", "3"]);
    assert_eq!(figures["errors"], serde_json::json!({}), "{figures}");
    assert_eq!(counted(&figures) as f64, number(&figures, "requests") + 3.0, "{figures}");
}

#[test]
fn a_server_that_does_not_read_is_given_up() {
    let address = made_up(|stream| {
        let _held = stream;
        std::thread::sleep(Duration::from_secs(3600));
    });
    let flags = ["-c", "1", "--upload", "50000000", "--timeout", "0.2"];
    let figures = measured(&format!("http://{address}/"), &flags);
    assert!(figures["errors"]["timeout"].as_u64() >= Some(1), "{figures}");
    // What is given up has waited for so long.
    assert!(longest(&figures) >= 200.0, "{figures}");
}

#[test]
fn silent_connections_that_are_not_kept_are_told() {
    let address =
        made_up(answers(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
    let figures = measured(&format!("http://{address}/"), &["-c", "1", "--idle", "3"]);
    assert_eq!(figures["errors"], serde_json::json!({ "idle": 3 }), "{figures}");
    assert!(number(&figures, "requests") > 0.0, "{figures}");
}

/// The crowd is not answered until all of it has connected; whoever comes besides comes when all of it has been answered.
#[test]
fn nothing_is_asked_before_the_silent_connections_stand() {
    const CROWD: usize = 40;
    let connected = Arc::new(AtomicUsize::new(0));
    let too_early = Arc::new(AtomicUsize::new(0));
    let (count, early, done) =
        (connected.clone(), too_early.clone(), Arc::new(AtomicUsize::new(0)));
    let address = made_up(move |mut stream| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number >= CROWD && done.load(Ordering::Relaxed) < CROWD {
            early.fetch_add(1, Ordering::Relaxed);
        }
        while read_head(&mut stream) {
            until("the crowd has connected", || count.load(Ordering::Relaxed) >= CROWD);
            done.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let flags = ["-c", "2", "--idle", "40", "--threads", "2"];
    let figures = measured(&format!("http://{address}/"), &flags);
    assert_eq!(figures["errors"], serde_json::json!({}), "{figures}");
    assert!(number(&figures, "requests") > 0.0, "{figures}");
    assert_eq!(connected.load(Ordering::Relaxed), CROWD + 2);
    assert_eq!(too_early.load(Ordering::Relaxed), 0);
}

/// A thread that would run and is given no CPU is as busy as one that runs.
#[test]
fn a_generator_that_waits_for_a_cpu_says_so() {
    if !process::has("taskset", &["--version"]) {
        return eprintln!("SKIPPED: there is no taskset");
    }
    let cpu = cpus()[0].to_string();
    let (reader, _leash) = std::io::pipe().expect("a pipe");
    let burning = ["burn", "--percent", "100", "--cpu", &cpu];
    let neighbour = Serve::with_arguments(&burning).stdin(reader).spawn();
    until("the neighbour burns", || neighbour.out.so_far().contains(&"burning".to_owned()));
    let server = Serve::new(&[]).start();
    let url = format!("http://{}/", server.address());
    let flags = ["load", &url, "--json", "--duration", "0.5", "--warmup", "0.1", "--threads", "1"];
    let load = Serve::with_arguments(&flags).under(&["taskset", "-c", &cpu]);
    let (status, out, err) = load.run_to_its_end();
    assert!(status.success(), "{err:?}");
    let figures: serde_json::Value =
        serde_json::from_str(out.last().expect("figures")).expect("JSON");
    let generator = &figures["generator"];
    let (busy, waited) = (number(generator, "busy"), number(generator, "waited"));
    assert!(waited > 0.1 && busy > waited, "{figures}");
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let output = run(&["load", "http://127.0.0.1:1/", "--duration", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--duration"), "{}", text(&output.stderr));
    for (url, says) in [
        ("https://127.0.0.1:1/", "only scheme"),
        ("http://localhost/", "no address with a port"),
        ("127.0.0.1:80", "only scheme"),
    ] {
        let output = run(&["load", url]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}
