//! The work that every contender does: what is asked for, by method and path, and what is answered.
//!
//! The parser makes a request a `Work` once. Most of it needs nothing but the thread that it runs on and is the same code
//! for all; bodies, other cores and counts are each server's own. Nothing here waits, except the thread that is asked to
//! sleep, and nothing is shared between threads but bytes that never change.

use crate::sys::thread::own_cpu_time;
use hyper::StatusCode;
use hyper::body::Bytes;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Duration;

/// The largest body of `/bytes/N`.
pub(crate) const BYTES_MAX: usize = 64 << 20;
/// The longest that a request may burn or block.
const LONGEST: Duration = Duration::from_secs(60);
/// Steps of the computation of `/fan-out`: about a microsecond.
const FAN_OUT_STEPS: u32 = 1000;
/// Steps between two looks at the clock while a request burns: long enough that the time goes into them, short beside
/// what may be asked for.
const BURN_STEPS: u32 = 10_000;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// What a thread does by itself.
    Alone(Alone),
    /// Read the body and tell its length.
    Upload,
    /// Have something computed on another core.
    FanOut,
    /// Tell what has been counted.
    Stats,
}

/// Work that needs nothing but a thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Alone {
    /// Say hello.
    Hello,
    /// Use the CPU for so long, in one of so many requests; then say hello.
    Burn(Duration, u32),
    /// Put the thread to sleep for so long, in one of so many requests; then say hello.
    Block(Duration, u32),
    /// Send so many bytes.
    Bytes(usize),
    /// Say why not.
    Refuse(Refusal),
}

/// Why a request is not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such path.
    NotFound,
    /// The path has other methods, which are named.
    Method(&'static str),
    /// The part after the question mark is not understood.
    Query,
}

impl Work {
    /// What is asked for by this method, path and query.
    pub(super) fn of(method: &str, path: &str, query: Option<&str>) -> Work {
        let (work, allowed) = match path {
            "/" => (Work::Alone(Alone::Hello), GET),
            "/upload" => (Work::Upload, "POST"),
            "/fan-out" => (Work::FanOut, GET),
            "/stats" => (Work::Stats, GET),
            "/burn" => (Work::timed(query, "micros", Duration::from_micros, Alone::Burn), GET),
            "/block" => (Work::timed(query, "millis", Duration::from_millis, Alone::Block), GET),
            _ => match path.strip_prefix("/bytes/").and_then(bytes) {
                Some(count) => (Work::Alone(Alone::Bytes(count)), GET),
                None => return Work::refuse(Refusal::NotFound),
            },
        };
        if allowed.split(", ").any(|allowed| allowed == method) {
            return work;
        }
        Work::refuse(Refusal::Method(allowed))
    }

    fn refuse(why: Refusal) -> Work {
        Work::Alone(Alone::Refuse(why))
    }

    fn timed(
        query: Option<&str>,
        name: &str,
        unit: fn(u64) -> Duration,
        work: fn(Duration, u32) -> Alone,
    ) -> Work {
        match timing(query.unwrap_or_default(), name) {
            Some((time, one_in)) if unit(time) <= LONGEST => Work::Alone(work(unit(time), one_in)),
            _ => Work::refuse(Refusal::Query),
        }
    }
}

/// The methods of what is only read.
const GET: &str = "GET, HEAD";

/// A number without a sign that is not too large.
fn bytes(text: &str) -> Option<usize> {
    digits(text)?.try_into().ok().filter(|&count| count <= BYTES_MAX)
}

/// The time called `name`, which must be there, and `one-in`, which is 1 otherwise.
fn timing(query: &str, name: &str) -> Option<(u64, u32)> {
    let (mut time, mut one_in) = (None, 1);
    for pair in query.split('&') {
        match pair.split_once('=')? {
            (key, value) if key == name => time = Some(digits(value)?),
            ("one-in", value) => one_in = digits(value)?.try_into().ok()?,
            _ => return None,
        }
    }
    Some((time?, one_in)).filter(|&(_, one_in)| one_in > 0)
}

/// A decimal number of digits only: `parse` takes a sign too.
pub(super) fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A response, for whoever writes it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    /// What the path would allow.
    pub(super) allow: Option<&'static str>,
    pub(super) body: Bytes,
}

impl Answer {
    /// 200, with a text.
    pub(super) fn text(body: impl Into<Bytes>) -> Answer {
        Answer {
            status: StatusCode::OK,
            content_type: "text/plain",
            allow: None,
            body: body.into(),
        }
    }

    /// 200, with counts.
    pub(super) fn json(body: String) -> Answer {
        Answer { content_type: "application/json", ..Answer::text(body) }
    }

    /// 404.
    pub(super) fn not_found() -> Answer {
        Answer { status: StatusCode::NOT_FOUND, ..Answer::text("Nothing here.\n") }
    }

    /// What another core has computed, or 503 if it is gone.
    pub(super) fn computed(result: Option<u64>) -> Answer {
        match result {
            Some(number) => Answer::text(format!("{number:016x}")),
            None => Answer {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..Answer::text("The other core does not answer.\n")
            },
        }
    }

    fn hello() -> Answer {
        Answer::text(Bytes::from_static(b"Hello, World!"))
    }
}

impl Alone {
    /// Does it.
    pub(super) fn answer(self) -> Answer {
        match self {
            Alone::Hello => Answer::hello(),
            Alone::Burn(time, one_in) => {
                if one_of(one_in) {
                    burn(time);
                }
                Answer::hello()
            }
            Alone::Block(time, one_in) => {
                if one_of(one_in) {
                    std::thread::sleep(time);
                }
                Answer::hello()
            }
            Alone::Bytes(count) => Answer {
                content_type: "application/octet-stream",
                ..Answer::text(Bytes::from_static(filler(count)))
            },
            Alone::Refuse(Refusal::NotFound) => Answer::not_found(),
            Alone::Refuse(Refusal::Method(allowed)) => Answer {
                status: StatusCode::METHOD_NOT_ALLOWED,
                allow: Some(allowed),
                ..Answer::text("Not with this method.\n")
            },
            Alone::Refuse(Refusal::Query) => Answer {
                status: StatusCode::BAD_REQUEST,
                ..Answer::text(
                    "Wanted is a time, as in /burn?micros=500&one-in=100 or /block?millis=5.\n",
                )
            },
        }
    }
}

/// So many bytes that are there already. They are made when a size is first asked for, each power of two by itself, so
/// that a server that is never asked for much stays small; and written to, so that they are as much memory as they seem.
fn filler(count: usize) -> &'static [u8] {
    const POWERS: usize = BYTES_MAX.ilog2() as usize + 1;
    static FILLERS: [OnceLock<Vec<u8>>; POWERS] = [const { OnceLock::new() }; POWERS];
    let power = count.next_power_of_two();
    let filler = FILLERS[power.ilog2() as usize]
        .get_or_init(|| (0..power).map(|index| (index % 251) as u8).collect());
    &filler[..count]
}

/// Uses the CPU for so long. Time in which the thread has no CPU does not count: the work is the same however many threads
/// compete.
fn burn(time: Duration) {
    let end = own_cpu_time() + time;
    let mut value = random();
    while own_cpu_time() < end {
        value = black_box(steps(value, BURN_STEPS));
    }
}

/// The computation of `/fan-out`.
pub(super) fn compute(seed: u64) -> u64 {
    black_box(steps(black_box(seed), FAN_OUT_STEPS))
}

fn steps(mut value: u64, count: u32) -> u64 {
    for _ in 0..count {
        value = step(value);
    }
    value
}

/// One step of Marsaglia's xorshift, which never comes to 0 from another number.
fn step(mut value: u64) -> u64 {
    value ^= value << 13;
    value ^= value >> 7;
    value ^ (value << 17)
}

/// True once in so many times, by chance.
fn one_of(count: u32) -> bool {
    count == 1 || random().is_multiple_of(u64::from(count))
}

/// A number by chance, from a row that is the calling thread's own.
pub(super) fn random() -> u64 {
    thread_local! { static LAST: Cell<u64> = const { Cell::new(0) } }
    LAST.with(|last| {
        let before = match last.get() {
            // The standard library's hashers have keys by chance, other ones each time.
            0 => RandomState::new().hash_one(0_u64) | 1,
            before => before,
        };
        last.set(step(before));
        last.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Work {
        let (path, query) = path.split_once('?').map_or((path, None), |(a, b)| (a, Some(b)));
        Work::of("GET", path, query)
    }

    #[test]
    fn every_path_is_known() {
        let micros = Duration::from_micros;
        for (path, work) in [
            ("/", Alone::Hello),
            ("/?anything", Alone::Hello),
            ("/burn?micros=5000&one-in=100", Alone::Burn(micros(5000), 100)),
            ("/burn?one-in=7&micros=0", Alone::Burn(micros(0), 7)),
            ("/burn?micros=60000000", Alone::Burn(micros(60_000_000), 1)),
            ("/block?millis=50&one-in=1000", Alone::Block(micros(50_000), 1000)),
            ("/bytes/0", Alone::Bytes(0)),
            ("/bytes/67108864", Alone::Bytes(64 << 20)),
        ] {
            assert_eq!(get(path), Work::Alone(work), "{path}");
        }
        assert_eq!(get("/fan-out"), Work::FanOut);
        assert_eq!(get("/stats"), Work::Stats);
        assert_eq!(Work::of("POST", "/upload", None), Work::Upload);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let refused = |work| match work {
            Work::Alone(Alone::Refuse(why)) => why,
            other => panic!("done: {other:?}"),
        };
        for path in ["", "*", "/x", "//", "/burn/", "/bytes", "/bytes/", "/bytes/x", "/bytes/+1"] {
            assert_eq!(refused(get(path)), Refusal::NotFound, "{path}");
        }
        for path in ["/bytes/67108865", "/bytes/99999999999999999999999", "/bytes/1/2"] {
            assert_eq!(refused(get(path)), Refusal::NotFound, "{path}");
        }
        for path in [
            "/burn",
            "/burn?",
            "/burn?micros",
            "/burn?micros=",
            "/burn?micros=-1",
            "/burn?micros=1&one-in=0",
            "/burn?millis=1",
            "/burn?micros=1&x=2",
            "/burn?micros=60000001",
            "/block?millis=18446744073709551616",
            "/block?millis=18446744073709551615",
            "/block?millis=1&one-in=4294967296",
        ] {
            assert_eq!(refused(get(path)), Refusal::Query, "{path}");
        }
        assert_eq!(refused(Work::of("POST", "/", None)), Refusal::Method("GET, HEAD"));
        assert_eq!(refused(Work::of("get", "/", None)), Refusal::Method("GET, HEAD"));
        assert_eq!(refused(Work::of("GET", "/upload", None)), Refusal::Method("POST"));
        assert_eq!(refused(Work::of("PUT", "/upload", None)), Refusal::Method("POST"));
        assert_eq!(refused(Work::of("POST", "/x", None)), Refusal::NotFound);
    }

    #[test]
    fn bytes_are_as_many_as_asked_for_and_not_made_twice() {
        for count in [0, 1, 2, 3, 1000, 1024, 1025, 1 << 20] {
            assert_eq!(filler(count).len(), count);
        }
        assert_eq!(filler(600).as_ptr(), filler(1024).as_ptr());
        assert_eq!(filler(253)[250..], [250, 0, 1]);
    }

    #[test]
    fn one_in_so_many_requests_is_chosen() {
        assert!((0..100).all(|_| one_of(1)));
        let chosen = (0..100_000).filter(|_| one_of(100)).count();
        assert!((700..1300).contains(&chosen), "{chosen} of 100000");
        let other = std::thread::spawn(random).join().expect("no panic");
        assert_ne!(other, random());
    }

    #[test]
    fn burning_uses_the_cpu_for_as_long_as_asked() {
        let before = own_cpu_time();
        burn(Duration::from_millis(20));
        let used = own_cpu_time() - before;
        assert!(used >= Duration::from_millis(20) && used < Duration::from_millis(60), "{used:?}");
    }

    #[test]
    fn what_is_computed_depends_on_the_seed_alone() {
        assert_eq!(compute(1), compute(1));
        assert_ne!(compute(1), compute(2));
        assert_eq!(&Answer::computed(Some(0x1f)).body[..], b"000000000000001f");
        assert_eq!(Answer::computed(None).status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
