//! What is seen of a connection from around hyper.
//!
//! hyper says nothing of what it does, but the pieces around it see it all: the transport sees bytes come and go, the service
//! sees requests, the bodies of responses see when they are done with. They note it here, and others read it: who looks whether
//! the client is late, and who would move the connection between two requests.
//!
//! Only the connection writes, with plain stores: there is no clock in a request's way, and no locked instruction but those of
//! one counted reference. Streams of HTTP/2 are tasks of their own, which in a pool run at the same time: what they write is added.

use crate::http::Outgoing;
use crate::id::ShardId;
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Requests that came, and that are done with.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Reads from the socket; and as many as there were when the last request ended.
    reads: AtomicU64,
    reads_at_end: AtomicU64,
    /// Bytes that were sent.
    sent: AtomicU64,
    /// The socket takes no more.
    blocked: AtomicBool,
    /// Responses of HTTP/2 that have something to send, and are not asked for more.
    offered: AtomicU64,
    /// Something was written since the last flush.
    unflushed: AtomicBool,
    /// It has been told to end after the request at hand.
    told: AtomicBool,
    /// hyper closes the connection: there is no other request, whatever was read.
    closes: AtomicBool,
    /// The last request had a body.
    has_body: AtomicBool,
    /// Bodies that the service has, and streams of HTTP/2 that have become tunnels, which are never done with.
    open: AtomicU64,
    /// The request whose body has come to its end.
    whole: AtomicU64,
    /// It speaks HTTP/2.
    multiplexed: AtomicBool,
    /// The second of its life, as of the last look.
    second: AtomicU32,
    /// The number of the header block that is open; 0 for none.
    block: AtomicU32,
    /// The client gives no stream any window.
    starved: AtomicBool,
    /// Nonzero: the connection must look, at what follows.
    attention: AtomicU32,
    /// The shard it is to go to.
    wanted: AtomicU32,
    /// Parts of files that are to be sent, if it sends them by itself.
    outgoing: Option<Arc<Outgoing>>,
}

/// It has begun as HTTP/2 does.
const PREFACE: u32 = 1;
/// It is to go to another shard.
const MOVE: u32 = 2;
/// Its time is over, in one of the ways of [`End`].
const END: u32 = 4;
/// Answers wait until it is known that they were sent, to be logged.
const SETTLE: u32 = 1 << 16;
/// The gravest first.
const ENDS: [End; 4] = [End::Reset, End::Cut, End::CutIfBegun, End::Gracefully];

/// How a connection ends whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After the request at hand; at once if there is none.
    Gracefully = 0,
    /// At once: the head of a request has not come in time, or nothing has.
    Cut = 1,
    /// At once, and what was to be sent is forgotten: the client does not take it.
    Reset = 2,
    /// At once, if hyper has read some of a request together with the one before: nothing else knows that.
    CutIfBegun = 3,
}

/// Adds to what only one thread at a time writes.
#[inline(always)]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl Probe {
    /// Of a connection that has asked so often already. `has_news`: something of the next request was read, and not used.
    pub(super) fn of(requests: u64, has_news: bool) -> Probe {
        let count = AtomicU64::new;
        let (begun, ended, reads) = (count(requests), count(requests), count(has_news.into()));
        Probe { begun, ended, reads, ..Probe::default() }
    }

    /// It sends files by itself.
    pub(super) fn sending_files(self, sends: bool) -> Probe {
        Probe { outgoing: sends.then(Arc::default), ..self }
    }

    /// The queue of parts of files, if it sends them by itself.
    #[inline(always)]
    pub(super) fn outgoing(&self) -> Option<&Arc<Outgoing>> {
        self.outgoing.as_ref()
    }

    /// A request has come. Returns its number, from 1.
    #[inline(always)]
    pub(super) fn begin(&self, has_body: bool) -> u64 {
        add(&self.begun, 1);
        self.has_body.store(has_body, Ordering::Relaxed);
        self.requests()
    }

    /// A request is done with.
    #[inline(always)]
    pub(super) fn end(&self) {
        if self.is_multiplexed() {
            self.ended.fetch_add(1, Ordering::Relaxed);
        } else {
            add(&self.ended, 1);
        }
        self.reads_at_end.store(self.reads(), Ordering::Relaxed);
    }

    /// A response of HTTP/2 has given something, which has to be sent before it is asked for more.
    pub(super) fn offer(&self) {
        self.offered.fetch_add(1, Ordering::Relaxed);
    }

    /// What such a response had given is sent, or the response is no more.
    pub(super) fn unoffer(&self) {
        self.offered.fetch_sub(1, Ordering::Relaxed);
    }

    /// The service has a body, or a tunnel.
    pub(super) fn open(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// It has that body no more. It may have taken it to another thread.
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// The body of the last request has come to its end.
    pub(super) fn has_whole_body(&self) {
        self.whole.store(self.requests(), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn has_read(&self) {
        add(&self.reads, 1);
    }

    /// So many bytes were written.
    #[inline(always)]
    pub(super) fn has_written(&self, count: usize) {
        add(&self.sent, count as u64);
        self.blocked.store(false, Ordering::Relaxed);
        self.unflushed.store(true, Ordering::Relaxed);
    }

    #[cold]
    pub(super) fn is_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
        self.unflushed.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn has_flushed(&self) {
        self.blocked.store(false, Ordering::Relaxed);
        self.unflushed.store(false, Ordering::Relaxed);
    }

    pub(super) fn closes(&self) {
        self.closes.store(true, Ordering::Relaxed);
    }

    /// It speaks HTTP/2 from now on.
    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    /// Requests so far.
    #[inline(always)]
    pub(super) fn requests(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Requests that are done with.
    pub(super) fn answered(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether something is under way: a request, a body, an answer that has not been sent.
    pub(super) fn is_busy(&self) -> bool {
        self.requests() != self.answered()
            || self.open.load(Ordering::Relaxed) > 0
            || self.unflushed.load(Ordering::Relaxed)
    }

    /// Something has come since the last request ended, or at all.
    pub(super) fn has_news(&self) -> bool {
        self.reads() != self.reads_at_end.load(Ordering::Relaxed)
    }

    /// Whether it speaks HTTP/2.
    #[inline(always)]
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// The socket takes no more.
    pub(super) fn has_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// There is something that the client, as a whole, does not take.
    pub(super) fn is_stuck(&self) -> bool {
        let waits = || self.offered.load(Ordering::Relaxed) > 0;
        self.has_blocked() || self.starved.load(Ordering::Relaxed) && waits()
    }

    /// Whether the client gives any window.
    pub(super) fn is_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Relaxed);
    }

    pub(super) fn has_open_block(&self, number: u32) {
        self.block.store(number, Ordering::Relaxed);
    }

    pub(super) fn open_block(&self) -> u32 {
        self.block.load(Ordering::Relaxed)
    }

    /// The second of its life, as of the last look.
    pub(super) fn second(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    pub(super) fn is_in_second(&self, second: u32) {
        self.second.store(second, Ordering::Relaxed);
    }

    /// It has been told to end after the request at hand.
    pub(super) fn is_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Whether the client may be sending when the connection ends, and has something to hear: a body that nobody has read, a head
    /// that was refused, or frames. Half a head that nobody waits for any more is no reason.
    pub(super) fn may_still_hear(&self) -> bool {
        let has_body = self.has_body.load(Ordering::Relaxed)
            && self.whole.load(Ordering::Relaxed) != self.requests();
        let is_refused = self.has_news() && self.sent() > 0 && !self.told.load(Ordering::Relaxed);
        self.is_multiplexed() || has_body || is_refused
    }

    /// Whether it is between two requests. To be asked when hyper has nothing to do.
    pub(super) fn is_between_requests(&self) -> bool {
        self.requests() == self.answered()
            && !self.is_multiplexed()
            && !self.has_body.load(Ordering::Relaxed)
            && !self.unflushed.load(Ordering::Relaxed)
            && !self.closes.load(Ordering::Relaxed)
    }

    /// Something was written since the last flush.
    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// Has the connection look whether what was written has been sent.
    pub(super) fn must_settle(&self) {
        self.attention.fetch_or(SETTLE, Ordering::Relaxed);
    }

    /// It has been, and the connection has looked.
    pub(super) fn has_settled(&self) {
        self.attention.fetch_and(!SETTLE, Ordering::Relaxed);
    }

    /// Whether there is something that the connection must look at.
    #[inline(always)]
    pub(super) fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed) != 0
    }

    /// It begins as HTTP/2 does.
    pub(super) fn has_preface(&self) {
        self.attention.fetch_or(PREFACE, Ordering::Relaxed);
    }

    pub(super) fn take_preface(&self) -> bool {
        self.attention.fetch_and(!PREFACE, Ordering::Relaxed) & PREFACE != 0
    }

    /// Has it go to another shard as soon as it is between two requests.
    pub(super) fn send_to(&self, shard: ShardId) {
        self.wanted.store(shard.index() as u32, Ordering::Relaxed);
        self.attention.fetch_or(MOVE, Ordering::Relaxed);
    }

    pub(super) fn wanted_at(&self) -> Option<ShardId> {
        let moves = self.attention.load(Ordering::Relaxed) & MOVE != 0;
        moves.then(|| ShardId::new(self.wanted.load(Ordering::Relaxed) as u16))
    }

    /// Has it end. False: it was told so before.
    pub(super) fn must_end(&self, how: End) -> bool {
        let bit = END << how as u32;
        self.attention.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// It need not end in this way.
    pub(super) fn need_not_end(&self, how: End) {
        self.attention.fetch_and(!(END << how as u32), Ordering::Relaxed);
    }

    /// How it must end.
    pub(super) fn end_wanted(&self) -> Option<End> {
        let bits = self.attention.load(Ordering::Relaxed);
        ENDS.into_iter().find(|end| bits & (END << *end as u32) != 0)
    }
}
