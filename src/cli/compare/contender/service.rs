//! The service of the contenders that hyper serves: one function for all of them, and what differs as a trait.
//!
//! A `Host` lives as long as the process and is reached by a plain reference: a counted one would be written to by every
//! core for every request, and that would be measured. Each serving thread counts on a cache line of its own.

use super::work::{Answer, Work, random};
use crate::sync::{AtomicU64, AtomicUsize, CachePadded, Ordering};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Buf, Bytes};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use std::cell::Cell;
use std::future::Future;

/// What a runtime does in its own way.
pub(super) trait Host: Sync + 'static {
    /// Has `compute` done on another core or worker, and waits for it. None if that one is gone.
    fn elsewhere(&'static self, seed: u64) -> impl Future<Output = Option<u64>> + Send;

    /// Its requests.
    fn counts(&self) -> &Counts;

    /// The place of the calling thread among them. Asked once by each thread.
    fn place(&self) -> usize;

    /// What `/stats` answers.
    fn stats(&self) -> String;
}

/// Answers one request.
///
/// # Errors
/// The body of the request has failed; hyper ends the connection then.
pub(super) async fn answer<H: Host, B: Body + Unpin>(
    host: &'static H,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, B::Error> {
    host.counts().add(|| host.place());
    let uri = request.uri();
    let answer = match Work::of(request.method().as_str(), uri.path(), uri.query()) {
        Work::Alone(work) => work.answer(),
        Work::Upload => Answer::text(length(request.into_body()).await?.to_string()),
        Work::FanOut => Answer::computed(host.elsewhere(random()).await),
        Work::Stats => Answer::json(host.stats()),
    };
    Ok(response(answer))
}

/// Reads a body to its end.
async fn length<B: Body + Unpin>(mut body: B) -> Result<u64, B::Error> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.remaining() as u64);
    }
    Ok(length)
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Some(allow) = answer.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// Requests by the thread that served them.
pub(super) struct Counts {
    threads: Box<[CachePadded<AtomicU64>]>,
    places_given: AtomicUsize,
}

thread_local! {
    /// Where this thread counts, once it knows. A process has one `Counts`.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Counts {
    /// Of so many threads, at least one.
    pub(super) fn new(threads: usize) -> Counts {
        let threads = (0..threads.max(1)).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
        Counts { threads, places_given: AtomicUsize::new(0) }
    }

    /// A place that no other thread was given, while there is one.
    pub(super) fn next_place(&self) -> usize {
        self.places_given.fetch_add(1, Ordering::Relaxed)
    }

    fn add(&self, place: impl FnOnce() -> usize) {
        let place = PLACE.get().unwrap_or_else(|| {
            let place = place() % self.threads.len();
            PLACE.set(Some(place));
            place
        });
        self.threads[place].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub(super) fn read(&self) -> impl Iterator<Item = u64> {
        self.threads.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_counts_at_its_own_place() {
        let counts = Counts::new(2);
        std::thread::scope(|scope| {
            for requests in [3, 4] {
                let counts = &counts;
                scope.spawn(move || {
                    for _ in 0..requests {
                        counts.add(|| counts.next_place());
                    }
                });
            }
        });
        let mut read: Vec<u64> = counts.read().collect();
        read.sort_unstable();
        assert_eq!(read, [3, 4]);
        // One more than was planned for shares a place.
        std::thread::scope(|scope| scope.spawn(|| counts.add(|| counts.next_place())).join())
            .expect("no panic");
        assert_eq!(counts.read().sum::<u64>(), 8);
    }
}
