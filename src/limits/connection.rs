//! What each connection of a listener is held to, in time and memory; and what becomes of one that is too many.

use std::time::Duration;

/// What each connection is held to: how long a client may take over what it owes, and how much it may send. A time of `None`
/// is no bound.
///
/// A server looks at its connections once in a while, twice a second at the most: a time that has run out is noticed half a
/// second late at the worst, or a quarter of the shortest of these times if that is less. What has run out ends the connection:
/// with an answer where the client has asked and none has begun, without one where it has not.
///
/// # Examples
/// ```
/// use corelane::server::{ConnectionLimits, Listen};
/// use std::time::Duration;
/// let mut limits = ConnectionLimits::default();
/// limits.header_timeout = Some(Duration::from_secs(5));
/// limits.body_bytes = 1 << 20;
/// let listen = Listen::new("127.0.0.1:8080".parse()?).limits(limits);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// From the connection to the end of what comes before HTTP: a header of the PROXY protocol, a TLS handshake. Default 10
    /// seconds. Who has not come so far is cut off.
    pub handshake_timeout: Option<Duration>,
    /// From the connection, or from the end of its handshake, to its first byte. Default 30 seconds. What has sent nothing is closed without an answer.
    pub first_byte_timeout: Option<Duration>,
    /// From the first byte of a request to the end of its head. Default 30 seconds. Answered by 408 (RFC 9110, 15.5.9).
    pub header_timeout: Option<Duration>,
    /// The service waits for a body: in this time 4 KiB of it must come, or the rest. Default 30 seconds. The service gets
    /// [`BodyError`](crate::server::BodyError); if it has no answer of its own, the client gets 408.
    pub body_timeout: Option<Duration>,
    /// From the end of a request's head until the service has an answer. Default 5 minutes. The service's future is then
    /// dropped, and the answer is 503 (RFC 9110, 15.6.4).
    pub request_timeout: Option<Duration>,
    /// The client does not take what is sent to it: in this time it must take 4 KiB, or all. Default 30 seconds. The
    /// connection is reset, so that the system forgets what was to be sent as well. A stream of HTTP/2 that alone gets no window
    /// is reset alone; it must take 16 KiB.
    pub write_timeout: Option<Duration>,
    /// From an answer to the first byte of the next request. Default 75 seconds. What is idle is closed without an answer, in
    /// HTTP/2 with GOAWAY.
    pub idle_timeout: Option<Duration>,
    /// Age from which a connection ends after the request at hand. Default one hour.
    pub max_age: Option<Duration>,
    /// Requests after which a connection ends. Default 4,294,967,295.
    pub max_requests: u64,
    /// Bytes of a request's head, and of the trailers of a body. Default 16 KiB. Answered by 431 (RFC 6585, 5).
    pub header_bytes: u32,
    /// Fields of a request's head. Default 100. Answered by 431.
    pub header_count: u32,
    /// Bytes of a request's target. Default 8 KiB. Answered by 414 (RFC 9110, 15.5.15).
    pub uri_bytes: u32,
    /// Bytes of a request's body. Default 32 MiB. Answered by 413 (RFC 9110, 15.5.14), before the service is asked if the
    /// request says how long it is; if not the service gets [`BodyError`](crate::server::BodyError).
    pub body_bytes: u64,
    /// Whether HTTP/2 is spoken too, to clients that begin with it ("prior knowledge", RFC 9113, 3.3). Default true.
    pub http2: bool,
    /// Requests that one HTTP/2 connection may have under way. Default 200.
    pub http2_streams: u32,
    /// Whether files are sent inside the system (`sendfile`) where that can be: the [`Content`] of `services::Files`, as it
    /// is, in HTTP/1 without TLS. It costs about 560 instructions for each answer that is none. Default false. Of a
    /// [`Config`](crate::Config)'s listener: whether it has files. `SIGPIPE` is blocked on threads that have sent one.
    ///
    /// [`Content`]: https://docs.rs/corelane/latest/corelane/services/struct.Content.html
    pub send_files: bool,
    /// Frames that an HTTP/2 client may send in ten seconds that ask for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE,
    /// RST_STREAM and the like. Default 2,000. Each answer allows it four more, each frame of data that it is sent two, and each
    /// KiB of that one. A client that sends more is told to go (GOAWAY with ENHANCE_YOUR_CALM; RFC 9113, 10.5).
    pub http2_control_frames: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        ConnectionLimits {
            handshake_timeout: seconds(10),
            first_byte_timeout: seconds(30),
            header_timeout: seconds(30),
            body_timeout: seconds(30),
            request_timeout: seconds(300),
            write_timeout: seconds(30),
            idle_timeout: seconds(75),
            max_age: seconds(3600),
            max_requests: u32::MAX.into(),
            header_bytes: 16 << 10,
            header_count: 100,
            uri_bytes: 8 << 10,
            body_bytes: 32 << 20,
            http2: true,
            http2_streams: 200,
            send_files: false,
            http2_control_frames: 2000,
        }
    }
}

/// What becomes of a connection when there are as many as there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It is answered with 503 and `retry-after: 1` (RFC 9110, 10.2.3 and 15.6.4), and closed. One that TLS or the header of a proxy was
    /// to come first on is closed.
    #[default]
    Answer,
    /// It is closed.
    Close,
}
