//! Reading answers: as much of HTTP/1.1 as tells where one ends and the next begins.

use super::tally::Trouble;
use crate::net::TcpStream;
use futures_io::AsyncRead;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;

/// What has been received and not yet used.
pub(super) struct Reader {
    buffer: Box<[u8]>,
    filled: Range<usize>,
}

/// Holds a head, or so much of a body as is read at a time.
const CAPACITY: usize = 64 * 1024;
/// Fields of a head.
const FIELDS: usize = 64;

/// What an answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server closes the connection after it.
    pub(super) closes: bool,
}

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    /// Until the connection is closed.
    Rest,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader { buffer: vec![0; CAPACITY].into(), filled: 0..0 }
    }

    /// When nothing is owed: that nothing has come.
    ///
    /// # Errors
    /// Something has. That the server has closed the connection is told by the next write or read.
    pub(super) fn nothing_more(&self, stream: &TcpStream) -> Result<(), Trouble> {
        let came = !self.filled.is_empty() || matches!(stream.try_read(&mut [0]), Ok(1..));
        if came { Err(Trouble::Garbage) } else { Ok(()) }
    }

    /// Whether nothing has come of the next answer.
    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// The next answer, to its end. The body is not kept.
    pub(super) async fn answer(&mut self, stream: &mut TcpStream) -> Result<Answer, Trouble> {
        loop {
            if let Some((length, answer, body)) = head(&self.buffer[self.filled.clone()])? {
                self.filled.start += length;
                // An interim answer: the one that counts comes after it.
                if (100..200).contains(&answer.status) && answer.status != 101 {
                    continue;
                }
                match body {
                    Body::Length(length) => self.skip(stream, length).await?,
                    Body::Chunked => self.skip_chunks(stream).await?,
                    Body::Rest => self.skip_rest(stream).await?,
                }
                return Ok(answer);
            }
            if self.filled.len() == CAPACITY {
                return Err(Trouble::Garbage);
            }
            self.receive(stream).await?;
        }
    }

    /// Receives at least one more byte.
    async fn receive(&mut self, stream: &mut TcpStream) -> Result<(), Trouble> {
        match self.try_receive(stream).await? {
            0 => Err(Trouble::Read),
            _ => Ok(()),
        }
    }

    /// Receives what there is; 0 at the end.
    async fn try_receive(&mut self, stream: &mut TcpStream) -> Result<usize, Trouble> {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.filled.end == CAPACITY {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        let room = &mut self.buffer[self.filled.end..];
        let count = poll_fn(|context| Pin::new(&mut *stream).poll_read(context, room)).await;
        let count = count.map_err(|_| Trouble::Read)?;
        self.filled.end += count;
        Ok(count)
    }

    async fn skip(&mut self, stream: &mut TcpStream, mut length: u64) -> Result<(), Trouble> {
        loop {
            let here = length.min(self.filled.len() as u64);
            self.filled.start += here as usize;
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.receive(stream).await?;
        }
    }

    async fn skip_rest(&mut self, stream: &mut TcpStream) -> Result<(), Trouble> {
        loop {
            self.filled = 0..0;
            if self.try_receive(stream).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn skip_chunks(&mut self, stream: &mut TcpStream) -> Result<(), Trouble> {
        loop {
            let length = self.chunk_size(stream).await?;
            if length > 0 {
                // The line's end after it too.
                self.skip(stream, length.checked_add(2).ok_or(Trouble::Garbage)?).await?;
                continue;
            }
            // Trailers, up to an empty line.
            while !self.line(stream).await?.is_empty() {}
            return Ok(());
        }
    }

    async fn chunk_size(&mut self, stream: &mut TcpStream) -> Result<u64, Trouble> {
        let line = self.line(stream).await?;
        let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
        let digits = std::str::from_utf8(digits).map_err(|_| Trouble::Garbage)?.trim();
        u64::from_str_radix(digits, 16).map_err(|_| Trouble::Garbage)
    }

    /// A line without its end.
    async fn line(&mut self, stream: &mut TcpStream) -> Result<Vec<u8>, Trouble> {
        loop {
            let here = &self.buffer[self.filled.clone()];
            if let Some(length) = here.windows(2).position(|pair| pair == b"\r\n") {
                let line = here[..length].to_vec();
                self.filled.start += length + 2;
                return Ok(line);
            }
            if here.len() == CAPACITY {
                return Err(Trouble::Garbage);
            }
            self.receive(stream).await?;
        }
    }
}

/// Reads a head that is whole: its length, and what it says. None: more is to come.
fn head(bytes: &[u8]) -> Result<Option<(usize, Answer, Body)>, Trouble> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Trouble::Garbage),
    };
    let status = response.code.ok_or(Trouble::Garbage)?;
    let mut closes = response.version == Some(0);
    let mut body = Body::Rest;
    for field in response.headers.iter() {
        let value = || std::str::from_utf8(field.value).map_err(|_| Trouble::Garbage);
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = value()?.trim().parse().map_err(|_| Trouble::Garbage)?;
            if body != Body::Chunked {
                body = Body::Length(length);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if value()?.to_ascii_lowercase().contains("chunked") {
                body = Body::Chunked;
            }
        } else if field.name.eq_ignore_ascii_case("connection") {
            closes = match value()?.to_ascii_lowercase() {
                text if text.contains("close") => true,
                text if text.contains("keep-alive") => false,
                _ => closes,
            };
        }
    }
    if matches!(status, 204 | 304) || (100..200).contains(&status) {
        body = Body::Length(0);
    }
    closes |= body == Body::Rest;
    Ok(Some((length, Answer { status, closes }, body)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::io::Write;

    /// What is read of these bytes, answer by answer, when they come in pieces of `size`.
    fn read(bytes: &'static [u8], size: usize) -> Vec<Result<Answer, Trouble>> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a client");
            peer.set_nodelay(true).expect("set");
            for piece in bytes.chunks(size) {
                peer.write_all(piece).expect("written");
            }
        });
        let answers = crate::block_on(async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let mut reader = Reader::new();
            let mut answers = Vec::new();
            loop {
                let answer = reader.answer(&mut stream).await;
                let over = answer.is_err() || answer.is_ok_and(|answer| answer.closes);
                answers.push(answer);
                if over {
                    return answers;
                }
            }
        });
        server.join().expect("no panic");
        answers
    }

    #[test]
    fn answers_are_told_apart_however_they_come() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello\
            HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        for size in [1, 7, 4096] {
            let answers: Vec<_> =
                read(bytes, size).into_iter().map(|answer| answer.expect("an answer")).collect();
            let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [200, 404, 204, 200]);
            let closes: Vec<_> = answers.iter().map(|answer| answer.closes).collect();
            assert_eq!(closes, [false, false, false, true]);
        }
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for (bytes, trouble) in [
            (&b"SSH-2.0-OpenSSH\r\n\r\n"[..], Trouble::Garbage),
            (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Trouble::Garbage),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", Trouble::Garbage),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                Trouble::Garbage,
            ),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", Trouble::Read),
            (b"", Trouble::Read),
        ] {
            assert_eq!(read(bytes, 1 << 20), [Err(trouble)], "{}", String::from_utf8_lossy(bytes));
        }
        let rest = read(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 3);
        assert_eq!(rest, [Ok(Answer { status: 200, closes: true })]);
    }
}
