//! The frames of one HTTP/2 connection (RFC 9113, 4.1), as they pass between the socket and hyper: how many are sent that ask
//! for nothing, whether a header block is open, and how much of what goes out is worth something.
//!
//! Plain data of the connection's own task, without a clock. Heads of frames are followed across any split of the bytes; nothing
//! of a payload is kept or changed. Whether frames are valid is hyper's business: what is malformed ends the connection there.

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;

/// Types of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// What comes before the first frame of a client, and is none.
const PREFACE: u8 = u8::MAX;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Bytes of the client's preface.
const PREFACE_BYTES: u32 = 24;
/// Window of a connection at its beginning (RFC 9113, 6.9.2).
const FIRST_WINDOW: i64 = 65_535;

/// Control frames that a client may send for each answer: some set the priority of every request, and cancel many.
const PER_ANSWER: u32 = 4;
/// And for each frame of data that it is sent: a window for the stream and one for the connection. A shorter one may be what a
/// window of a byte has let through.
const PER_DATA: u32 = 2;
const DATA_LEAST: u32 = 8;
/// Bytes of data for which it may send one more: some open windows, or measure the way, as often as they read.
const BYTES_PER_FRAME: u32 = 1024;
/// In so many seconds the whole allowance comes again by itself.
pub(super) const REFILL_SECONDS: u32 = 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Frames {
    coming: Walk,
    going: Walk,
    /// Control frames that the client may still send, and the most that this can be.
    credit: u32,
    most: u32,
    /// The second as of which credit was given for time.
    second: u32,
    /// It has sent too many.
    flooded: bool,
    /// The largest stream that was opened.
    last_stream: u32,
    /// Header blocks so far; whether one is open; and whether the frame that ends it is being read.
    blocks: u32,
    is_open: bool,
    ends: bool,
    /// Bytes of data that the client takes, on all streams together.
    window: i64,
}

/// Follows the frames of one direction.
#[derive(Clone, Debug)]
struct Walk {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Of the frame that is being read.
    kind: u8,
    stream: u32,
    /// Bytes of its payload that are still to come.
    left: u32,
    /// The last bytes of payload, as a number: the increment of a WINDOW_UPDATE.
    tail: u32,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Walk {
    /// Begins with so many bytes that are no frame.
    fn after(bytes: u32) -> Walk {
        Walk { head: [0; HEAD_BYTES], have: 0, kind: PREFACE, stream: 0, left: bytes, tail: 0 }
    }

    /// Between two frames.
    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Goes on to the end of a payload or of a head, or as far as the bytes go. Returns a head when it is complete, and says how
    /// many bytes of a payload there were.
    #[inline]
    fn step(&mut self, bytes: &mut &[u8]) -> (usize, Option<Head>) {
        if self.left > 0 {
            let (passed, rest) = bytes.split_at(bytes.len().min(self.left as usize));
            if self.kind == WINDOW_UPDATE {
                self.tail =
                    passed.iter().fold(self.tail, |tail, byte| tail << 8 | u32::from(*byte));
            }
            self.left -= passed.len() as u32;
            *bytes = rest;
            return (passed.len(), None);
        }
        // Nearly always a head comes whole.
        let head = match bytes.split_first_chunk::<HEAD_BYTES>() {
            Some((head, rest)) if self.have == 0 => {
                *bytes = rest;
                *head
            }
            _ => {
                let (passed, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.have));
                self.head[self.have..][..passed.len()].copy_from_slice(passed);
                self.have += passed.len();
                *bytes = rest;
                if self.have < HEAD_BYTES {
                    return (0, None);
                }
                self.have = 0;
                self.head
            }
        };
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        (self.kind, self.stream, self.left, self.tail) = (kind, stream, length, 0);
        (0, Some(Head { length, kind, flags, stream }))
    }
}

impl Frames {
    /// Of a connection whose first byte is yet to be read. `most` is its allowance of control frames.
    pub(super) fn new(most: u32) -> Frames {
        Frames {
            coming: Walk::after(PREFACE_BYTES),
            going: Walk::after(0),
            credit: most,
            most,
            second: 0,
            flooded: false,
            last_stream: 0,
            blocks: 0,
            is_open: false,
            ends: false,
            window: FIRST_WINDOW,
        }
    }

    /// These bytes have come, in that second of the connection. Returns how many of them are hyper's: all, unless the client
    /// floods it; then what follows the frame that was one too many is nobody's.
    pub(super) fn read(&mut self, bytes: &[u8], second: u32) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over() {
            let (_, head) = self.coming.step(&mut rest);
            if let Some(head) = head {
                self.begins(head, second);
            }
            if self.coming.left == 0 && self.coming.have == 0 {
                self.has_ended();
            }
        }
        bytes.len() - rest.len()
    }

    fn begins(&mut self, head: Head, second: u32) {
        let is_control = match head.kind {
            HEADERS => {
                self.blocks = self.blocks.wrapping_add(1).max(1);
                self.last_stream = self.last_stream.max(head.stream);
                self.is_open = true;
                self.ends = head.flags & END_HEADERS != 0;
                false
            }
            CONTINUATION => {
                self.ends = head.flags & END_HEADERS != 0;
                true
            }
            // hyper bounds those that are short or empty.
            DATA => false,
            // One that was not asked for ends the connection.
            SETTINGS => head.flags & ACK == 0,
            _ => true,
        };
        if is_control && !self.spend(second) {
            self.flooded = true;
        }
    }

    /// The frame that was being read is complete.
    fn has_ended(&mut self) {
        if std::mem::take(&mut self.ends) {
            self.is_open = false;
        }
        if self.coming.kind == WINDOW_UPDATE && self.coming.stream == 0 {
            self.window += i64::from(std::mem::take(&mut self.coming.tail) & (u32::MAX >> 1));
        }
    }

    /// Takes one from the allowance. False: there is none.
    #[inline]
    fn spend(&mut self, second: u32) -> bool {
        if self.credit == 0 {
            let seconds = second.wrapping_sub(std::mem::replace(&mut self.second, second));
            self.earn(u64::from(self.most) * u64::from(seconds) / u64::from(REFILL_SECONDS));
        }
        let is_left = self.credit > 0;
        self.credit = self.credit.saturating_sub(1);
        is_left
    }

    fn earn(&mut self, frames: u64) {
        self.credit = (u64::from(self.credit) + frames).min(self.most.into()) as u32;
    }

    /// These bytes have been sent. Returns how many of them belong to answers, which is what a client is to take.
    pub(super) fn wrote(&mut self, mut bytes: &[u8]) -> usize {
        let mut of_answers = 0;
        while !bytes.is_empty() {
            let (passed, head) = self.going.step(&mut bytes);
            if matches!(self.going.kind, DATA | HEADERS | CONTINUATION) {
                of_answers += passed;
            }
            match head {
                Some(Head { kind: HEADERS, .. }) => self.earn(PER_ANSWER.into()),
                Some(Head { kind: DATA, length, .. }) => {
                    self.window -= i64::from(length);
                    let few = if length >= DATA_LEAST { PER_DATA } else { 0 };
                    self.earn(u64::from(few + length / BYTES_PER_FRAME));
                }
                _ => {}
            }
        }
        of_answers
    }

    /// Whether hyper is to be told that the client has gone: it floods the connection, and the last frame is complete.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.flooded && self.coming.is_between()
    }

    /// How many of these bytes still belong to a frame that has been sent in part.
    pub(super) fn of_this_frame(&self, bytes: &[u8]) -> usize {
        let (mut going, mut rest) = (self.going.clone(), bytes);
        while !rest.is_empty() && !going.is_between() {
            going.step(&mut rest);
        }
        bytes.len() - rest.len()
    }

    /// What the client is told when it floods the connection (RFC 9113, 6.8 and 7: GOAWAY, ENHANCE_YOUR_CALM).
    pub(super) fn goodbye(&self) -> Vec<u8> {
        const GOAWAY: u8 = 7;
        const ENHANCE_YOUR_CALM: u32 = 11;
        const WHY: &[u8] = b"too many control frames";
        let length = (8 + WHY.len()) as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
        frame.extend(self.last_stream.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(WHY);
        frame
    }

    /// The number of the header block that has begun and not ended; 0 if there is none.
    pub(super) fn open_block(&self) -> u32 {
        if self.is_open { self.blocks } else { 0 }
    }

    /// The client has given no window for anything more, on whatever stream.
    pub(super) fn is_starved(&self) -> bool {
        self.window <= 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PING: u8 = 6;
    const MOST: u32 = 100;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// After the preface.
    fn frames() -> Frames {
        let mut frames = Frames::new(MOST);
        assert_eq!(frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0), 24);
        frames
    }

    fn pings(count: u32) -> Vec<u8> {
        frame(PING, 0, 0, &[0; 8]).repeat(count as usize)
    }

    #[test]
    fn who_sends_one_control_frame_too_many_floods_and_its_last_frame_is_whole() {
        let mut it = frames();
        assert_eq!(it.read(&pings(MOST), 0), 17 * MOST as usize);
        assert!(!it.is_over());
        assert_eq!(it.read(&pings(3), 0), 17, "the one that is too many, and no more");
        assert!(it.is_over());
        assert_eq!(it.read(&pings(1), 0), 0);
    }

    #[test]
    fn time_and_answers_allow_more() {
        let mut it = frames();
        it.read(&pings(MOST), 0);
        it.read(&pings(MOST / 10), 1);
        assert!(!it.is_over(), "a tenth in a second");
        it.wrote(&frame(HEADERS, END_HEADERS, 1, b"1234"));
        it.wrote(&frame(DATA, 0, 1, &[0; 4096]));
        it.wrote(&frame(DATA, 0, 1, &[0; 7]));
        it.read(&pings(PER_ANSWER + PER_DATA + 4), 1);
        assert!(!it.is_over());
        it.read(&pings(1), 1);
        assert!(it.is_over());
    }

    #[test]
    fn requests_and_bodies_and_acknowledgements_are_no_control_frames() {
        let mut it = frames();
        for stream in 0..10 * MOST {
            it.read(&frame(HEADERS, END_HEADERS, 2 * stream + 1, b"x"), 0);
            it.read(&frame(DATA, 0, 2 * stream + 1, b"x"), 0);
            it.read(&frame(SETTINGS, ACK, 0, b""), 0);
        }
        assert!(!it.is_over());
    }

    #[test]
    fn a_header_block_is_open_until_the_last_byte_of_its_last_frame() {
        let mut it = frames();
        let whole = frame(HEADERS, END_HEADERS, 1, b"1234");
        it.read(&whole[..12], 0);
        assert_eq!(it.open_block(), 1);
        it.read(&whole[12..], 0);
        assert_eq!(it.open_block(), 0);
        it.read(&frame(HEADERS, 0, 3, b"1234"), 0);
        assert_eq!(it.open_block(), 2);
        it.read(&frame(CONTINUATION, 0, 3, b""), 0);
        assert_eq!(it.open_block(), 2);
        it.read(&frame(CONTINUATION, END_HEADERS, 3, b""), 0);
        assert_eq!(it.open_block(), 0);
    }

    #[test]
    fn the_connection_s_window_is_what_was_given_less_what_was_sent() {
        let mut it = frames();
        it.wrote(&frame(DATA, 0, 1, &[0; 16_384]).repeat(3));
        assert!(!it.is_starved());
        it.wrote(&frame(DATA, 0, 1, &[0; 16_383]));
        assert!(it.is_starved());
        it.read(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]), 0);
        assert!(it.is_starved(), "that was a stream's");
        it.read(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]), 0);
        assert!(!it.is_starved());
        it.wrote(&frame(DATA, 0, 1, &[0; 256]));
        assert!(it.is_starved());
    }

    #[test]
    fn only_what_is_an_answer_s_counts_as_sent() {
        let mut it = frames();
        assert_eq!(it.wrote(&frame(PING, ACK, 0, &[0; 8])), 0);
        assert_eq!(it.wrote(&frame(SETTINGS, ACK, 0, &[])), 0);
        let answer = [frame(HEADERS, 4, 1, b"123"), frame(DATA, 1, 1, b"12345")].concat();
        assert_eq!(it.wrote(&answer), 8);
    }

    #[test]
    fn the_goodbye_follows_the_frame_that_was_sent_in_part() {
        let mut it = frames();
        let sent = frame(DATA, 0, 1, b"12345");
        assert_eq!(it.of_this_frame(&sent), 0);
        for at in 1..sent.len() {
            let mut it = frames();
            it.wrote(&sent[..at]);
            assert_eq!(it.of_this_frame(&[&sent[at..], &sent].concat()), sent.len() - at);
        }
        it.read(&frame(HEADERS, END_HEADERS, 5, b""), 0);
        let goodbye = it.goodbye();
        assert_eq!(goodbye[..17], *b"\0\0\x1f\x07\0\0\0\0\0\0\0\0\x05\0\0\0\x0b");
        assert_eq!(goodbye.len(), 9 + 0x1f);
    }

    proptest! {
        /// However the bytes are split, the same is seen of them.
        #[test]
        fn splits_make_no_difference(
            kinds in prop::collection::vec((0u8..12, 0u8..8, 0u32..9, 0usize..40), 1..200),
            cuts in prop::collection::vec(1usize..30, 1..50),
        ) {
            let parts = kinds.iter().map(|&(kind, flags, stream, length)| {
                frame(kind, flags, stream, &vec![1; length])
            });
            let bytes = parts.collect::<Vec<_>>().concat();
            let (mut whole, mut split) = (frames(), frames());
            let (read, wrote) = (whole.read(&bytes, 0), whole.wrote(&bytes));
            let (mut pieces, mut rest, mut cuts) = (Vec::new(), bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(rest.len().min(*cuts.next().expect("it cycles")));
                pieces.push(piece);
                rest = next;
            }
            let split_read = pieces.iter().map(|piece| split.read(piece, 0)).sum::<usize>();
            let split_wrote = pieces.iter().map(|piece| split.wrote(piece)).sum::<usize>();
            prop_assert_eq!((read, wrote), (split_read, split_wrote));
            prop_assert_eq!(whole.open_block(), split.open_block());
            prop_assert_eq!(whole.window, split.window);
        }
    }
}
