//! Connections that the kernel spreads by a program: by CPU, by weight, and none to a shard that is stuck or closes.

use super::harness::*;
use super::process;
use corelane::balance::Policy;
use corelane::server::{Builder, Event, Listen, Server};
use corelane::{CpuId, Mode, Runtime, ShardId};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The policies that leave a connection where the kernel has put it.
const BY_THE_KERNEL: [Policy; 3] = [Policy::Hash, Policy::Cpu, Policy::Weighted];

const ANY: &str = "127.0.0.1:0";

fn listen(policy: Policy) -> Listen {
    Listen::new(ANY.parse().expect("an address")).balance(policy)
}

/// A server that says which shard answers; `/block` blocks the shard for two seconds first.
fn serve(runtime: &Runtime, builder: Builder) -> Server {
    let make = |shard: ShardId| {
        service_fn(move |request: Request<_>| async move {
            if request.uri().path() == "/block" {
                thread::sleep(Duration::from_secs(2));
            }
            let body = Full::new(Bytes::from(shard.index().to_string()));
            Ok::<_, Infallible>(Response::new(body))
        })
    };
    builder.start(runtime.handle(), make).expect("a port")
}

fn served_by(runtime: &Runtime, policy: Policy) -> (Server, SocketAddr) {
    let server = serve(runtime, Server::builder().listen_with(listen(policy)));
    let address = server.local_addrs()[0];
    (server, address)
}

/// A connection that stays open.
struct Kept(TcpStream);

impl Kept {
    fn open(address: SocketAddr) -> io::Result<Kept> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(HANGS_AFTER / 2))?;
        // Hundreds of connections must not leave hundreds of ports in TIME_WAIT.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(Kept(stream))
    }

    /// Which shard answers.
    fn get(&mut self, path: &str) -> io::Result<usize> {
        write!(self.0, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")?;
        let (mut received, mut buf) = (Vec::new(), [0; 1024]);
        loop {
            let length = self.0.read(&mut buf)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received.extend_from_slice(&buf[..length]);
            // The body is one digit.
            if let [.., b'\r', b'\n', b'\r', b'\n', digit] = received[..] {
                return Ok(usize::from(digit - b'0'));
            }
        }
    }
}

/// Connects, asks once, closes.
fn ask(address: SocketAddr) -> io::Result<usize> {
    Kept::open(address)?.get("/")
}

/// Who answers so many connections; shards beyond the third do not count.
fn counts(address: SocketAddr, connections: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..connections {
        counts[ask(address).expect("answered")] += 1;
    }
    counts
}

/// A connection that this shard serves, and that stays open.
fn on_shard(address: SocketAddr, shard: ShardId) -> Kept {
    let mut found = None;
    eventually("a connection reaches the shard", || {
        let mut kept = Kept::open(address).expect("served");
        if kept.get("/").expect("answered") == shard.index() {
            found = Some(kept);
        }
        found.is_some()
    });
    found.expect("found")
}

fn pin(cpu: CpuId) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu.0);
    rustix::thread::sched_setaffinity(None, &set).expect("a CPU of ours");
}

#[test]
fn by_cpu_a_connection_goes_to_the_shard_of_its_cpu() {
    within_reason(|| {
        if thread::available_parallelism().expect("CPUs").get() < 2 {
            return process::skipped("there is only one CPU");
        }
        let runtime = shards(2);
        if !runtime.shards().iter().all(|info| info.pinned) {
            return process::skipped("shards cannot be pinned here");
        }
        let (_server, address) = served_by(&runtime, Policy::Cpu);
        for info in runtime.shards().iter().copied() {
            let client = thread::spawn(move || {
                pin(info.cpu);
                // In force when all shards have begun to accept.
                eventually("connections follow their CPU", || {
                    counts(address, 30)[info.shard.index()] == 30
                });
                counts(address, 200)
            });
            let counts = client.join().expect("no panic");
            assert_eq!(counts[info.shard.index()], 200, "{info:?}: {counts:?}");
        }
    });
}

#[test]
fn by_weight_shards_that_have_nothing_to_do_get_about_the_same() {
    within_reason(|| {
        let runtime = shards(2);
        let (_server, address) = served_by(&runtime, Policy::Weighted);
        let counts = counts(address, 400);
        assert!(counts.iter().take(2).all(|&count| count > 80), "{counts:?}");
    });
}

#[test]
fn only_shards_that_listen_are_steered_to() {
    within_reason(|| {
        let runtime = shards(3);
        let named = listen(Policy::Weighted).shards([SECOND, THIRD]);
        let alone = listen(Policy::Weighted).shards([FIRST]);
        let server = serve(&runtime, Server::builder().listen_with(named).listen_with(alone));
        let counts = [0, 1].map(|index| counts(server.local_addrs()[index], 200));
        assert_eq!(counts[0][0], 0);
        assert!(counts[0][1] > 20 && counts[0][2] > 20, "{counts:?}");
        assert_eq!(counts[1], [200, 0, 0]);
    });
}

#[test]
fn few_new_connections_wait_for_a_shard_that_is_stuck() {
    within_reason(|| {
        let runtime = shards(2);
        let (_server, address) = served_by(&runtime, Policy::Weighted);
        let mut blocked = on_shard(address, SECOND);
        let over = Arc::new(AtomicBool::new(false));
        let held = over.clone();
        let holder = thread::spawn(move || {
            let shard = blocked.get("/block").expect("answered");
            held.store(true, Ordering::SeqCst);
            shard
        });
        let began = Instant::now();
        let mut clients = Vec::new();
        while !over.load(Ordering::SeqCst) {
            clients.push(thread::spawn(move || {
                let start = Instant::now();
                ask(address).expect("answered");
                (start - began, start.elapsed())
            }));
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(holder.join().expect("no panic"), 1);
        // Ten times as long as it takes where nobody else wants the CPUs. Who comes late does not wait long.
        let late = |(start, _): &(Duration, Duration)| (500..1500).contains(&start.as_millis());
        let times = clients.into_iter().map(|client| client.join().expect("no panic"));
        let times: Vec<_> = times.filter(late).collect();
        let waited = times.iter().filter(|(_, took)| *took > Duration::from_millis(400)).count();
        println!("{} connections, of which {waited} waited", times.len());
        // By the hash it would be half of them.
        assert!(!times.is_empty() && waited * 4 <= times.len(), "{waited} of {}", times.len());
        // It has come on, and gets connections again: about half.
        eventually("it has its weight again", || counts(address, 40)[1] >= 10);
    });
}

/// Clients that connect, ask and close, one after the other, while something is done. Returns what they got.
fn under_load(address: SocketAddr, act: impl FnOnce()) -> Vec<io::Result<usize>> {
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, asked) = (over.clone(), asked.clone());
            thread::spawn(move || {
                let mut answers = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    answers.push(ask(address));
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                answers
            })
        })
        .collect();
    let more = || {
        let before = asked.load(Ordering::SeqCst);
        eventually("clients are answered", || asked.load(Ordering::SeqCst) > before + 50);
    };
    more();
    act();
    more();
    over.store(true, Ordering::SeqCst);
    clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
}

#[test]
fn a_shard_stops_accepting_under_load_and_no_connection_is_lost() {
    within_reason(|| {
        for policy in BY_THE_KERNEL {
            let runtime = shards(3);
            let (server, address) = served_by(&runtime, policy);
            let mut kept = on_shard(address, FIRST);
            let answers = under_load(address, || {
                wait(server.stop_accepting(FIRST)).expect("others are left");
            });
            let count = answers.len();
            let lost: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
            assert!(lost.is_empty(), "{policy}: {} of {count}: {:?}", lost.len(), lost[0]);
            // The last has taken its place, and gets what it got before.
            let after = counts(address, 200);
            assert_eq!(after[0], 0, "{policy}: {after:?}");
            // Half for each. With the program of three sockets the last would have a quarter.
            if policy == Policy::Hash {
                assert!(after[1] > 70 && after[2] > 70, "{policy}: {after:?}");
            }
            assert_eq!(kept.get("/").expect("it goes on"), 0, "{policy}");
            // Again is nothing.
            wait(server.stop_accepting(FIRST)).expect("it has stopped");
            wait(server.stop_accepting(THIRD)).expect("one is left");
            assert_eq!(counts(address, 50), [0, 50, 0], "{policy}");
            let error = wait(server.stop_accepting(SECOND)).expect_err("it is the last");
            assert_eq!(
                error.to_string(),
                format!(
                    "shard 1 is the last that accepts on {address}: to stop that too, shut the runtime down"
                )
            );
            assert_eq!(counts(address, 50), [0, 50, 0], "{policy}");
        }
    });
}

#[test]
fn what_one_address_refuses_is_done_to_none() {
    within_reason(|| {
        let runtime = shards(2);
        let alone = listen(Policy::Hash).shards([FIRST]);
        let server =
            serve(&runtime, Server::builder().listen_with(listen(Policy::Hash)).listen_with(alone));
        assert!(wait(server.stop_accepting(FIRST)).is_err());
        let counts = counts(server.local_addrs()[0], 200);
        assert!(counts[0] > 20 && counts[1] > 20, "{counts:?}");
        // A shard that does not listen on the other can stop.
        wait(server.stop_accepting(SECOND)).expect("the first is left");
    });
}

#[test]
fn a_pool_has_one_socket_that_no_worker_can_leave() {
    within_reason(|| {
        let runtime = start(2, Runtime::builder().mode(Mode::WorkStealing)).expect("started");
        let service = service_fn(|_request| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("0")))
        });
        let builder = Server::builder().listen_with(listen(Policy::Weighted));
        let server = builder.start_send(runtime.handle(), service).expect("a port");
        assert!(wait(server.stop_accepting(FIRST)).expect_err("all accept").is_config());
        assert_eq!(counts(server.local_addrs()[0], 10), [10, 0, 0]);
    });
}

#[test]
fn a_shard_that_is_stuck_stops_accepting_when_it_comes_on() {
    within_reason(|| {
        for policy in BY_THE_KERNEL {
            let runtime = shards(3);
            let (server, address) = served_by(&runtime, policy);
            let mut kept = on_shard(address, THIRD);
            // The third socket takes the first one's place.
            wait(server.stop_accepting(FIRST)).expect("others are left");
            let gate = Gate::close(runtime.handle(), THIRD);
            let mut stopping = Box::pin(server.stop_accepting(THIRD));
            assert!(poll_once(&mut stopping).is_pending());
            // It gets nothing new from that moment.
            assert_eq!(counts(address, 100), [0, 100, 0], "{policy}");
            gate.open();
            wait(stopping).expect("the second is left");
            assert_eq!(kept.get("/").expect("it goes on"), 2, "{policy}");
        }
    });
}

/// Has the kernel take the end of a handshake with this address for lost until data comes, so that a connection stays
/// half open for as long as the client says nothing.
#[allow(unsafe_code)]
fn defer(address: SocketAddr) {
    use std::os::fd::BorrowedFd;
    let entries = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let numbers: Vec<i32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let mut found = 0;
    for number in numbers {
        // SAFETY: this process runs one test, which opens and closes nothing meanwhile, but the directory above.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = socket2::SockRef::from(&fd);
        let is_ours = socket.is_listener().unwrap_or(false)
            && socket.local_addr().is_ok_and(|own| own.as_socket() == Some(address));
        if is_ours {
            let seconds: libc::c_int = 30;
            // SAFETY: the value is an integer that lives until the call returns.
            let set = unsafe {
                let value = (&raw const seconds).cast();
                libc::setsockopt(number, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, 4)
            };
            assert_eq!(set, 0);
            found += 1;
        }
    }
    assert!(found >= 2, "both shards listen");
}

#[test]
fn a_close_waits_for_handshakes_that_have_begun_but_not_for_ever() {
    const NAME: &str = "steering::a_close_waits_for_handshakes_that_have_begun_but_not_for_ever";
    let outcome = process::alone(NAME, &[], || {
        within_reason(|| {
            let runtime = shards(2);
            let (server, address) = served_by(&runtime, Policy::Hash);
            // Both accept.
            drop([FIRST, SECOND].map(|shard| on_shard(address, shard)));
            let half_open = |address| -> Vec<Kept> {
                (0..30).map(|_| Kept::open(address).expect("connected")).collect()
            };
            defer(address);
            let mut clients = half_open(address);
            let mut stopping = Box::pin(server.stop_accepting(SECOND));
            assert!(poll_once(&mut stopping).is_pending());
            // Twice as long as it takes with nobody to wait for.
            thread::sleep(Duration::from_millis(150));
            assert!(poll_once(&mut stopping).is_pending());
            let mut by = [0; 2];
            for client in &mut clients {
                by[client.get("/").expect("answered")] += 1;
            }
            assert!(by[1] > 0, "some were those of the shard that closes: {by:?}");
            wait(stopping).expect("closed");
            assert_eq!(counts(address, 50), [50, 0, 0]);

            // Clients that do not go on are not waited for.
            let runtime = shards(2);
            let (server, address) = served_by(&runtime, Policy::Weighted);
            drop([FIRST, SECOND].map(|shard| on_shard(address, shard)));
            defer(address);
            let mut clients = half_open(address);
            let began = Instant::now();
            wait(server.stop_accepting(SECOND)).expect("closed");
            let took = began.elapsed();
            assert!(took > Duration::from_secs(3), "{took:?}");
            let answered = clients.iter_mut().filter_map(|client| client.get("/").ok()).count();
            assert!(answered > 0 && answered < 30, "those of the other are answered: {answered}");
        });
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[test]
fn a_shutdown_ends_a_close_that_has_begun() {
    within_reason(|| {
        let runtime = shards(2);
        let (server, _) = served_by(&runtime, Policy::Weighted);
        let mut stopping = Box::pin(server.stop_accepting(SECOND));
        assert!(poll_once(&mut stopping).is_pending());
        drop(runtime);
        wait(stopping).expect("it has closed");
    });
}

#[test]
fn a_shard_whose_service_cannot_be_made_gets_no_connections() {
    within_reason(|| {
        for policy in BY_THE_KERNEL {
            let runtime = shards(3);
            let make = |shard: ShardId| {
                if shard == FIRST {
                    deliberate();
                }
                service_fn(move |_request| async move {
                    let body = Full::<Bytes>::from(shard.index().to_string());
                    Ok::<_, Infallible>(Response::new(body))
                })
            };
            let builder = Server::builder().listen_with(listen(policy));
            let server = builder.start(runtime.handle(), make).expect("a port");
            let address = server.local_addrs()[0];
            assert!(wait(server.stopped()).is_err());
            assert_eq!(counts(address, 100)[0], 0, "{policy}");
        }
    });
}

/// The threads of this process that have this name, with the CPUs they may run on.
fn threads_called(name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let cpus = tasks.filter_map(|task| {
        let path = task.ok()?.path();
        let own = std::fs::read_to_string(path.join("comm")).ok()?;
        let status = path.join("status");
        (own.trim() == name)
            .then(|| process::status_field(status.to_str()?, "Cpus_allowed_list"))
            .flatten()
    });
    cpus.collect()
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

#[test]
fn the_steering_thread_is_not_pinned_and_ends_with_its_runtime() {
    const NAME: &str = "steering::the_steering_thread_is_not_pinned_and_ends_with_its_runtime";
    let outcome = process::alone(NAME, &[], || {
        within_reason(|| {
            let everywhere = process::status_field("/proc/thread-self/status", "Cpus_allowed_list")
                .expect("Linux");
            let fds = open_fds();
            let hash = shards(2);
            let server = served_by(&hash, Policy::Hash);
            assert!(threads_called("corelane-steer").is_empty(), "nobody wants one");
            drop((hash, server));
            for round in 0..20 {
                let runtime = shards(2);
                let handle = runtime.handle().clone();
                // On a shard, whose threads would be pinned as it is.
                let address = on(runtime.handle(), FIRST, move || {
                    let service = service_fn(|_request| async {
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("0")))
                    });
                    let builder = Server::builder().listen_with(listen(Policy::Weighted));
                    builder.start(&handle, move |_| service).expect("a port").local_addrs()[0]
                });
                assert_eq!(counts(address, 20), [20, 0, 0]);
                eventually("it has its mask", || {
                    threads_called("corelane-steer") == [everywhere.as_str()]
                });
                if round % 2 == 0 {
                    runtime.shutdown(Duration::from_secs(1));
                } else {
                    drop(runtime);
                }
                eventually("it has ended", || threads_called("corelane-steer").is_empty());
                eventually("nothing is left open", || open_fds() == fds);
            }
        });
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

/// A filter of system calls for this thread and those that it starts, as container runtimes install them: programs for
/// listening sockets are forbidden.
#[allow(unsafe_code)]
fn forbid_programs() -> io::Result<()> {
    const ATTACH: u32 = 51;
    let load = |k| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k };
    let unless = |k, jf| libc::sock_filter { code: 0x15, jt: 0, jf, k };
    let ret = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    // `seccomp_data`: the call's number is at 0, the third argument, the option, at 32.
    let mut filter = [
        load(0),
        unless(libc::SYS_setsockopt as u32, 3),
        load(32),
        unless(ATTACH, 1),
        ret(refuse),
        ret(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the arguments are what the calls want; the program lives until they return.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn where_programs_are_forbidden_that_is_told_once_and_the_hash_goes_on() {
    const NAME: &str =
        "steering::where_programs_are_forbidden_that_is_told_once_and_the_hash_goes_on";
    let outcome = process::alone(NAME, &[], || {
        if let Err(error) = forbid_programs() {
            return process::skipped(&format!("no system call can be forbidden: {error}"));
        }
        for policy in [Policy::Weighted, Policy::Cpu] {
            let runtime = shards(2);
            if policy == Policy::Cpu && !runtime.shards().iter().all(|info| info.pinned) {
                process::skipped("shards cannot be pinned here");
                continue;
            }
            let told = Arc::new(Mutex::new(Vec::new()));
            let telling = told.clone();
            let builder = Server::builder()
                .listen_with(listen(policy))
                .on_event(move |event| telling.lock().expect("whole").push(event));
            let server = serve(&runtime, builder);
            let address = server.local_addrs()[0];
            eventually("it is told", || !told.lock().expect("whole").is_empty());
            let both = counts(address, 200);
            assert!(both[0] > 20 && both[1] > 20, "{policy}: {both:?}");
            let error = wait(server.stop_accepting(FIRST)).expect_err("it would lose connections");
            assert!(error.to_string().contains("without losing connections"), "{error}");
            assert!(counts(address, 200)[0] > 20, "{policy}");
            drop(runtime);
            match &told.lock().expect("whole")[..] {
                [Event::NotSteered { address: of, error }] => {
                    assert_eq!(*of, address);
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{policy}");
                }
                other => panic!("{policy}: {other:?}"),
            }
        }
        // What is asked for only then is refused as well, and tells nobody but the one who asks.
        let runtime = shards(2);
        let (server, address) = served_by(&runtime, Policy::Hash);
        assert!(wait(server.stop_accepting(FIRST)).is_err());
        assert!(counts(address, 200)[0] > 20);
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}
