//! A machine that changes under the server: a clock that jumps, a CPU that goes.

use super::client::Client;
use super::in_process::{SHARD, Served, answer, within_reason};
use super::program::Serve;
use super::{skipped, system, until};
use crate::process;
use corelane::time::{interval, sleep};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The calendar repeats itself after 400 years.
const YEARS_400: i64 = 146_097 * 86_400;

/// The year in the Date of an answer.
fn year(address: SocketAddr) -> u32 {
    let answer = Client::connect(address).get();
    // Sun, 06 Nov 1994 08:49:37 GMT
    answer.header("date").expect("a date")[12..16].parse().expect("a year")
}

#[test]
fn a_jump_of_the_wall_clock_moves_the_date_and_no_timer() {
    const NAME: &str = "serve::machine::a_jump_of_the_wall_clock_moves_the_date_and_no_timer";
    const PERIOD: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_millis(500);
    let outcome = process::alone(NAME, &[], || {
        within_reason(|| {
            let served = Served::by_fn(|_request| async { answer("") });
            let handle = served.runtime.handle();
            let ticks = Arc::new(AtomicU64::new(0));
            let counted = ticks.clone();
            let began = Instant::now();
            let ticking = handle.spawn_on(SHARD, || async move {
                let mut interval = interval(PERIOD);
                loop {
                    interval.tick().await;
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
            let far_away = handle.spawn_on(SHARD, || sleep(Duration::from_secs(3600)));
            let timer = handle.spawn_on(SHARD, || async {
                let began = Instant::now();
                sleep(LONG).await;
                began.elapsed()
            });
            let year = year(served.address);
            // Ahead, back, further back: timers are armed throughout, and theirs is another clock.
            for ahead in [YEARS_400, 3_600, 0, -3_600, -1_000_000_000, YEARS_400] {
                system::set_wall_clock_ahead(0);
                let real = SystemTime::now();
                system::set_wall_clock_ahead(ahead);
                let jumped = SystemTime::now();
                assert_eq!(jumped > real + Duration::from_secs(60), ahead > 0, "it jumps");
                let before = ticks.load(Ordering::SeqCst);
                until("the interval ticks on", || ticks.load(Ordering::SeqCst) > before + 5);
                let ticked = ticks.load(Ordering::SeqCst);
                let due = began.elapsed().div_duration_f64(PERIOD) + 1.0;
                assert!(ticked as f64 <= due, "{ticked} ticks where {due} are due");
            }
            let took = futures::executor::block_on(timer.expect("a shard with room"));
            assert!(took.expect("no panic") >= LONG);
            assert!(!far_away.expect("a shard with room").is_finished(), "it is an hour away");
            let later = self::year(served.address);
            assert!((400..=401).contains(&(later - year)), "{year}, then {later}");
            drop(ticking);
        });
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

/// A CPU that is taken offline, and put back whatever happens.
struct Offline(String);

impl Offline {
    fn new(cpu: usize) -> std::io::Result<Offline> {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::write(&file, "0").map(|()| Offline(file))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        fs::write(&self.0, "1").expect("it was online");
    }
}

#[test]
fn a_server_whose_cpu_goes_offline_serves_on_and_says_so_once() {
    const WANTED: &str = "CORELANE_TEST_CPU_OFFLINE";
    const TOLD: &str = "CPU 1 has gone offline";
    if std::env::var_os(WANTED).is_none() {
        return skipped(&format!("taking CPU 1 offline disturbs the machine; {WANTED}=1 does it"));
    }
    let program = Serve::new(&["--cores", "0,1"]).start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(program.address())).collect();
    clients.iter_mut().for_each(|client| client.get().is_hello());
    let offline = match Offline::new(1) {
        Ok(offline) => offline,
        Err(error) => return skipped(&format!("CPU 1 cannot be taken offline: {error}")),
    };
    // Connections of both shards, old and new.
    clients.extend((0..20).map(|_| Client::connect(program.address())));
    let began = Instant::now();
    until("it is told, and a while has passed", || {
        clients.iter_mut().for_each(|client| client.get().is_hello());
        !program.err.times_of(TOLD).is_empty() && began.elapsed() > Duration::from_secs(3)
    });
    assert_eq!(program.err.times_of(TOLD).len(), 1, "{:?}", program.err.so_far());
    drop(offline);
    clients.iter_mut().for_each(|client| client.get().is_hello());
    let mut program = program;
    program.signal(libc::SIGTERM);
    program.exits_with(0);
}
