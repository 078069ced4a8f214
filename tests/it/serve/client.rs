//! An HTTP/1.1 client of a few lines, on a blocking socket: it sends what a test gives it, byte for byte, and trusts
//! nothing it reads.

use super::NEVER;
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The request of most tests.
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// One connection.
pub(crate) struct Client<S = TcpStream> {
    stream: S,
    /// Received, but not yet part of an answer.
    received: Vec<u8>,
}

/// A response, as far as tests look at it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// It is what the built-in service says to `GET /`.
    #[track_caller]
    pub(crate) fn is_hello(&self) {
        assert_eq!((self.status, self.body.as_slice()), (200, b"Hello, World!".as_slice()));
    }
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, NEVER).expect("connected");
        Client::of(stream)
    }

    pub(crate) fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(NEVER)).expect("set");
        stream.set_write_timeout(Some(NEVER)).expect("set");
        stream.set_nodelay(true).expect("set");
        Client { stream, received: Vec::new() }
    }

    /// Connected, with a receive buffer of this size, so that little is on its way.
    pub(crate) fn with_receive_buffer(address: SocketAddr, bytes: usize) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        // Before connecting, or the window is already larger.
        socket.set_recv_buffer_size(bytes).expect("set");
        socket.connect(&address.into()).expect("connected");
        Client::of(socket.into())
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("set");
    }
}

impl Client<UnixStream> {
    #[track_caller]
    pub(crate) fn connect_unix(path: impl AsRef<Path>) -> Self {
        let stream = UnixStream::connect(path).expect("connected");
        stream.set_read_timeout(Some(NEVER)).expect("set");
        stream.set_write_timeout(Some(NEVER)).expect("set");
        Client { stream, received: Vec::new() }
    }
}

impl<S: Read + Write> Client<S> {
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Sends `GET /` and reads the answer.
    #[track_caller]
    pub(crate) fn get(&mut self) -> Answer {
        self.send(GET);
        self.answer()
    }

    /// Reads one response.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer(true).expect("an answer")
    }

    /// Reads the response to a HEAD, which has no body.
    #[track_caller]
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        self.try_answer(false).expect("an answer")
    }

    /// Sends `GET /` and reads the answer, unless the connection fails or ends.
    pub(crate) fn try_get(&mut self) -> io::Result<Answer> {
        self.stream.write_all(GET.as_bytes())?;
        self.try_answer(true)
    }

    pub(crate) fn try_answer(&mut self, has_body: bool) -> io::Result<Answer> {
        let head = self.read_past(b"\r\n\r\n")?;
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
        let status = status.and_then(|line| line.strip_prefix(['0', '1'])).expect("a status line");
        let status = status.trim_start();
        let status = status[..3].parse().expect("a status");
        let header = |line: &str| {
            line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let headers = lines.filter_map(header).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let has_body = has_body && status >= 200 && status != 204;
        if has_body && answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.read_chunks()?;
        } else if has_body {
            let length =
                answer.header("content-length").expect("a length").parse().expect("a number");
            answer.body = self.read_exactly(length)?;
        }
        Ok(answer)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.read_past(b"\r\n")?;
            let size = String::from_utf8(size).expect("a size in ASCII");
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
            let chunk = self.read_exactly(size + 2)?;
            assert!(chunk.ends_with(b"\r\n"), "a chunk of {size} has another end");
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_past(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut looked = 0_usize;
        loop {
            let from = looked.saturating_sub(end.len());
            if let Some(found) =
                self.received[from..].windows(end.len()).position(|part| part == end)
            {
                return Ok(self.received.drain(..from + found + end.len()).collect());
            }
            looked = self.received.len();
            self.read_more()?;
        }
    }

    /// Exactly so many of the bytes that come next.
    pub(crate) fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < count {
            self.read_more()?;
        }
        Ok(self.received.drain(..count).collect())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            // Other tests of this process are stopped, continued and sent signals.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_more(),
            Err(error) => Err(error),
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    /// Waits for the server to close in an orderly way, with nothing more to say.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) {
        match self.read_more() {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("no orderly end: {error}"),
            Ok(()) => panic!("no end, but {:?}", String::from_utf8_lossy(&self.received)),
        }
        self.has_nothing_left();
    }

    /// Nothing has been received but whole answers.
    #[track_caller]
    pub(crate) fn has_nothing_left(&self) {
        let text = String::from_utf8_lossy(&self.received);
        assert!(self.received.is_empty(), "read and not expected: {text:?}");
    }

    /// Waits for the connection to end, in whatever way, and throws away what comes before.
    #[track_caller]
    pub(crate) fn is_gone(&mut self) {
        let began = Instant::now();
        while let Ok(()) = self.read_more() {
            self.received.clear();
            assert!(began.elapsed() < NEVER, "the connection does not end");
        }
    }
}
