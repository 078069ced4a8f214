//! HTTP/2 by raw frames, from clients that send what asks for nothing, take nothing, or leave a head half sent; in both modes.

use super::client::Client;
use super::in_process::{Body, answer, whole};
use super::limits::{Failure, Limited, each};
use super::until;
use crate::harness::{DropSpy, HANGS_AFTER};
use corelane::server;
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Request, Response};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// RFC 7541, appendix A: `GET http://test/`.
const GET: &[u8] = b"\x82\x86\x84\x01\x04test";

const SHORT: Duration = Duration::from_millis(150);
const ENOUGH: Duration = Duration::from_secs(1);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// A frame that has come.
#[derive(Debug)]
struct Came {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A client of HTTP/2 that does what it is told, and no more.
struct Peer(Client);

impl Peer {
    /// Says hello, with these settings.
    fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Peer {
        let mut client = Client::connect(address);
        let settings = settings
            .iter()
            .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()));
        client.send([PREFACE, &frame(SETTINGS, 0, 0, &settings.collect::<Vec<u8>>())].concat());
        client.send(frame(SETTINGS, 1, 0, b""));
        Peer(client)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes);
    }

    /// The next frame; none at the end.
    fn next(&mut self) -> Option<Came> {
        let head = self.0.read_exactly(9).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.0.read_exactly(length as usize).ok()?;
        Some(Came { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next of this kind.
    #[track_caller]
    fn next_of(&mut self, kind: u8) -> Came {
        let began = Instant::now();
        loop {
            let came = self.next().expect("it goes on");
            if came.kind == kind {
                return came;
            }
            assert!(began.elapsed() < HANGS_AFTER / 2, "no frame of kind {kind}");
        }
    }
}

/// A server whose service never answers, and what tells of the end of its futures.
fn never(mode: corelane::Mode) -> (Limited, mpsc::Receiver<crate::harness::Dropped>) {
    let (asked, asks) = mpsc::channel();
    let asked = Arc::new(Mutex::new(asked));
    let served = Limited::start(
        mode,
        |_| {},
        move |_| {
            let (spy, dropped) = DropSpy::new();
            asked.lock().expect("no panic").send(dropped).expect("the test waits");
            async move {
                let _spy = spy;
                pending().await
            }
        },
    );
    (served, asks)
}

#[test]
fn a_flood_of_frames_that_ask_for_nothing_ends_with_a_goodbye_and_the_service_is_cancelled() {
    each(|mode| {
        let floods = [
            frame(PING, 0, 0, &[0; 8]),
            frame(SETTINGS, 0, 0, b""),
            frame(PRIORITY, 0, 5, b"\0\0\0\x01\x01"),
            frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01"),
            frame(77, 0, 0, b"whatever"),
        ];
        let (served, asks) = never(mode);
        for flood in &floods {
            let mut peer = Peer::connect(served.address, &[]);
            peer.send(get(1));
            let dropped = asks.recv().expect("it is asked");
            let mut sends = peer.0.stream().try_clone().expect("a descriptor");
            let flood = flood.repeat(100);
            let sends = thread::spawn(move || {
                // A hundred times what is allowed, and less than is thrown away.
                let _ = (0..2000).all(|_| std::io::Write::write_all(&mut sends, &flood).is_ok());
            });
            let goodbye = peer.next_of(GOAWAY);
            assert_eq!(goodbye.payload[..4], [0, 0, 0, 1], "the last stream");
            assert_eq!(goodbye.payload[4..8], ENHANCE_YOUR_CALM);
            assert!(peer.next().is_none(), "and that is all");
            dropped.on();
            sends.join().expect("no panic");
        }
        until("they are gone", || {
            served.runtime.handle().stats().iter().all(|stats| stats.connections == 0)
        });
    });
}

#[test]
fn who_is_sent_much_may_open_windows_for_it_often_and_ping() {
    const LARGE: usize = 4 << 20;
    each(|mode| {
        let limit = |limits: &mut server::ConnectionLimits| limits.http2_control_frames = 100;
        let served = Limited::start(mode, limit, |_| async { Ok(answer(vec![b'x'; LARGE])) });
        let mut peer = Peer::connect(served.address, &[]);
        peer.send(get(1));
        let mut received = 0;
        while received < LARGE {
            let data = peer.next_of(DATA);
            received += data.payload.len();
            let increment = (data.payload.len() as u32).to_be_bytes();
            // For some it takes two of each to say so.
            let updates = [0, 1].map(|stream| {
                let half = u32::from_be_bytes(increment) / 2;
                let rest = u32::from_be_bytes(increment) - half;
                let part = |part: u32| match part {
                    0 => Vec::new(),
                    part => frame(WINDOW_UPDATE, 0, stream, &part.to_be_bytes()),
                };
                [part(half), part(rest)].concat()
            });
            if data.flags & END_STREAM == 0 {
                peer.send([updates.concat(), frame(PING, 0, 0, &[0; 8])].concat());
            }
        }
        assert_eq!(received, LARGE);
    });
}

#[test]
fn a_stream_that_gets_no_window_is_reset_alone() {
    each(|mode| {
        let limit = |limits: &mut server::ConnectionLimits| limits.write_timeout = Some(ENOUGH);
        let large = |_| async { Ok(answer(vec![b'x'; 1 << 20])) };
        let served = Limited::start(mode, limit, large);
        let mut peer = Peer::connect(served.address, &[]);
        // All the window that the connection can have.
        peer.send(frame(WINDOW_UPDATE, 0, 0, &((1_u32 << 31) - 1 - 65_535).to_be_bytes()));
        peer.send(get(1));
        let mut taken = 0;
        while taken < 65_535 {
            taken += peer.next_of(DATA).payload.len();
        }
        let began = Instant::now();
        // Others ask and get what they ask for, all the time.
        let mut stream = 3;
        let reset = 'asks: loop {
            peer.send(
                [get(stream), frame(WINDOW_UPDATE, 0, stream, &(1_u32 << 20).to_be_bytes())]
                    .concat(),
            );
            loop {
                let came = peer.next().expect("the connection goes on");
                match (came.kind, came.stream) {
                    (RST_STREAM, 1) => break 'asks came,
                    (GOAWAY | RST_STREAM, _) => panic!("{came:?}"),
                    (DATA, other) if other == stream && came.flags & END_STREAM != 0 => break,
                    _ => {}
                }
            }
            stream += 2;
        };
        assert_eq!(reset.payload, CANCEL);
        assert!(began.elapsed() >= ENOUGH / 2);
        // What was under way goes on, and so does the connection.
        peer.send(
            [get(stream + 2), frame(WINDOW_UPDATE, 0, stream + 2, &(1_u32 << 20).to_be_bytes())]
                .concat(),
        );
        loop {
            let came = peer.next_of(DATA);
            if came.stream == stream + 2 && came.flags & END_STREAM != 0 {
                break;
            }
        }
    });
}

#[test]
fn a_large_piece_is_let_go_of_when_its_stream_gets_no_window() {
    /// Bytes that say when they are dropped.
    struct Watched(Vec<u8>, #[allow(dead_code, reason = "it is dropped")] DropSpy);
    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    each(|mode| {
        let (gave, given) = mpsc::channel();
        let gave = Arc::new(Mutex::new(gave));
        let large = move |_: Request<server::Body>| {
            let (spy, dropped) = DropSpy::new();
            gave.lock().expect("no panic").send(dropped).expect("the test waits");
            let bytes = Bytes::from_owner(Watched(vec![b'x'; 1 << 20], spy));
            async { Ok(Response::new(whole(bytes))) }
        };
        let limit = |limits: &mut server::ConnectionLimits| {
            limits.write_timeout = Some(SHORT);
            limits.idle_timeout = Some(LONG);
        };
        let served = Limited::start(mode, limit, large);
        // A window of a byte: hyper takes what it is given then, all of it.
        let mut peer = Peer::connect(served.address, &[(4, 1)]);
        peer.send([get(1), get(3)].concat());
        for _ in 0..2 {
            given.recv().expect("it is asked").on();
        }
        for _ in 0..2 {
            assert_eq!(peer.next_of(RST_STREAM).payload, CANCEL);
        }
    });
}

#[test]
fn pings_are_no_sign_that_a_client_takes_what_it_is_sent() {
    each(|mode| {
        let limit = |limits: &mut server::ConnectionLimits| limits.write_timeout = Some(ENOUGH);
        let large = |_| async { Ok(answer(vec![b'x'; 1 << 20])) };
        let served = Limited::start(mode, limit, large);
        // Streams have all the window they want, and the connection gets none after its first.
        let mut peer = Peer::connect(served.address, &[(4, (1 << 31) - 1)]);
        peer.send(get(1));
        let began = Instant::now();
        let mut stream = peer.0.stream().try_clone().expect("a descriptor");
        let pings = thread::spawn(move || {
            let pings = frame(PING, 0, 0, &[0; 8]).repeat(5);
            // More than counts as progress, and less than a flood.
            while std::io::Write::write_all(&mut stream, &pings).is_ok() {
                thread::sleep(Duration::from_millis(15));
                assert!(began.elapsed() < HANGS_AFTER / 2, "it is kept");
            }
        });
        while let Some(came) = peer.next() {
            assert_ne!(came.kind, GOAWAY, "that would be a flood");
        }
        pings.join().expect("no panic");
    });
}

#[test]
fn half_a_head_beside_an_open_stream_has_the_time_of_a_head() {
    each(|mode| {
        let limit = |limits: &mut server::ConnectionLimits| limits.header_timeout = Some(SHORT);
        let served = Limited::start(mode, limit, |_| async { pending().await });
        for half in [frame(HEADERS, END_STREAM, 3, GET), get(3)[..12].to_vec()] {
            let mut peer = Peer::connect(served.address, &[]);
            peer.send([get(1), half].concat());
            while peer.next().is_some() {}
        }
    });
}

/// Asks on a stream with a body that is sent bit by bit, so that nothing may take it for a flood.
#[test]
fn a_body_of_small_frames_is_no_flood() {
    async fn length(request: Request<server::Body>) -> Result<Response<Body>, Failure> {
        let body = request.into_body().collect().await?.to_bytes();
        Ok(answer(body.len().to_string()))
    }
    each(|mode| {
        let served = Limited::start(mode, |_| {}, length);
        let mut peer = Peer::connect(served.address, &[]);
        peer.send(frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x84\x01\x04test"));
        for _ in 0..200 {
            peer.send(frame(DATA, 0, 1, b"0123456789").repeat(20));
        }
        peer.send(frame(DATA, END_STREAM, 1, b""));
        assert_eq!(peer.next_of(DATA).payload, b"40000");
    });
}
