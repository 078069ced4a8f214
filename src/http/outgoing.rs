//! Parts of files on their way through hyper, which has no way for them.
//!
//! hyper moves bytes. A body that comes from a file gives it bytes that *stand in* for a part of the file, slices of one static
//! array that nobody else has, and notes in the connection's queue which part that is. hyper counts them, orders them behind the
//! head and hands them to the transport to be written. The transport knows them by their address, and sends that part of the file
//! instead.
//!
//! In HTTP/1 what is written has the order of what was given, so a queue is enough; every slice is compared with what was
//! noted all the same, and one that differs, because somebody has cut or left out a piece, is an error: then the connection ends.
//! The bytes of the array themselves are sent never.

use crate::limits::FILE_PIECE_BYTES;
use crate::sync::{Arc, Mutex, lock};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

/// Its content is like that of no other constant: the compiler may give one address to two that are alike.
static STAND_IN: [u8; FILE_PIECE_BYTES] = {
    let text = b"this stands in for a part of a file, and is never sent by corelane\n";
    let mut bytes = [0; FILE_PIECE_BYTES];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = text[at % text.len()];
        at += 1;
    }
    bytes
};

/// Whether these bytes stand in for a part of a file.
#[inline(always)]
pub(crate) fn stands_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// The queue of a connection: parts of files that hyper has stand-ins of.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(Mutex<VecDeque<Piece>>);

#[derive(Debug)]
struct Piece {
    file: Arc<OwnedFd>,
    offset: u64,
    length: usize,
    /// Bytes of it that have been sent.
    sent: usize,
}

impl Piece {
    /// Whether these bytes stand in for what is left of it.
    fn is_meant_by(&self, bytes: &[u8]) -> bool {
        STAND_IN.get(self.sent..self.length).is_some_and(|left| std::ptr::eq(left, bytes))
    }

    fn end(&self) -> u64 {
        self.offset + self.length as u64
    }
}

/// A part of a file that is to be sent.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

impl Outgoing {
    /// Bytes that stand in for a part of a file, of [`FILE_PIECE_BYTES`] at most. They must be given to hyper.
    #[cfg_attr(not(feature = "files"), allow(dead_code, reason = "nobody else has files"))]
    pub(crate) fn add(&self, file: &Arc<OwnedFd>, offset: u64, length: usize) -> Bytes {
        let length = length.min(STAND_IN.len());
        lock(&self.0).push_back(Piece { file: file.clone(), offset, length, sent: 0 });
        Bytes::from_static(&STAND_IN[..length])
    }

    /// What the first of these slices stands for, and those behind it as far as that goes on in the file.
    ///
    /// # Errors
    /// It is not what was noted.
    pub(crate) fn next(&self, slices: &[IoSlice<'_>]) -> io::Result<Stretch> {
        let pieces = lock(&self.0);
        let mut pairs =
            pieces.iter().zip(slices).take_while(|(piece, slice)| piece.is_meant_by(slice));
        let Some((first, _)) = pairs.next() else {
            return Err(io::Error::other("a piece of a file has lost its place in the answer"));
        };
        let (mut end, mut length) = (first.end(), first.length - first.sent);
        for (piece, _) in pairs {
            if piece.offset != end || !Arc::ptr_eq(&piece.file, &first.file) {
                break;
            }
            end = piece.end();
            length += piece.length;
        }
        let (file, offset) = (first.file.clone(), first.offset + first.sent as u64);
        Ok(Stretch { file, offset, length })
    }

    /// So many bytes of what [`next`](Self::next) has said were sent.
    pub(crate) fn sent(&self, count: usize) {
        let (mut pieces, mut count, mut done) = (lock(&self.0), count, Vec::new());
        while let Some(first) = pieces.front_mut() {
            let now = count.min(first.length - first.sent);
            first.sent += now;
            count -= now;
            if first.sent < first.length {
                break;
            }
            // Closing a file takes a while.
            done.extend(pieces.pop_front());
            if count == 0 {
                break;
            }
        }
        drop(pieces);
        drop(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/proc/self/exe").expect("this program").into())
    }

    fn next(outgoing: &Outgoing, slices: &[&[u8]]) -> io::Result<(u64, usize)> {
        let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        outgoing.next(&slices).map(|stretch| (stretch.offset, stretch.length))
    }

    #[test]
    fn pieces_that_follow_each_other_are_sent_as_one() {
        let (outgoing, one, other) = (Outgoing::default(), file(), file());
        let a = outgoing.add(&one, 0, FILE_PIECE_BYTES);
        let b = outgoing.add(&one, FILE_PIECE_BYTES as u64, 100);
        let c = outgoing.add(&one, 5, 10);
        let d = outgoing.add(&other, 15, 10);
        assert!([&a, &b, &c, &d].into_iter().all(|bytes| stands_in(bytes)));
        assert_eq!(next(&outgoing, &[&a, &b, &c, &d]).expect("noted"), (0, FILE_PIECE_BYTES + 100));
        outgoing.sent(FILE_PIECE_BYTES - 1);
        let last = &a[FILE_PIECE_BYTES - 1..];
        assert!(stands_in(last));
        assert_eq!(next(&outgoing, &[last]).expect("noted"), (FILE_PIECE_BYTES as u64 - 1, 1));
        assert_eq!(next(&outgoing, &[last, &b]).expect("noted").1, 101);
        outgoing.sent(101);
        assert_eq!(next(&outgoing, &[&c, &d]).expect("noted"), (5, 10));
        outgoing.sent(10);
        assert_eq!(next(&outgoing, &[&d, b"\r\n"]).expect("noted"), (15, 10));
        outgoing.sent(10);
        assert!(next(&outgoing, &[&d]).is_err());
    }

    #[test]
    fn a_piece_that_was_cut_is_not_sent() {
        let (outgoing, file) = (Outgoing::default(), file());
        let bytes = outgoing.add(&file, 0, 100);
        for wrong in [&bytes[..50], &bytes[1..], &bytes[..99]] {
            assert!(next(&outgoing, &[wrong]).is_err());
        }
        assert!(next(&outgoing, &[&bytes]).is_ok());
        let copy = bytes.to_vec();
        assert!(!stands_in(b"") && !stands_in(b"something else") && !stands_in(&copy));
    }
}
