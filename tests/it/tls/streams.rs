//! What goes through a stream, and how it ends.

use super::certificates::{Authority, Files};
use super::client::{BOTH, Client, TLS12, TLS13};
use super::site::Site;
use crate::harness::{HANGS_AFTER, poll_now, within_reason};
use corelane::net::TcpStream;
use corelane::tls::{Accept, Acceptor, Stream, Tls};
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

fn built() -> (Authority, Files, Tls) {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (chain, key) = files.put_issued("a", &authority.issue(&["a.example"]));
    let tls = Tls::builder().certificate(chain, key).build().expect("good files");
    (authority, files, tls)
}

/// Reads everything, and how it ends, through hyper's trait or Tokio's.
async fn all(mut stream: Stream<TcpStream>, by_hyper: bool) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut all = Vec::new();
    if !by_hyper {
        let end = stream.read_to_end(&mut all).await;
        return (all, end.map(drop).map_err(|error| error.kind()));
    }
    loop {
        let mut bytes = [0; 7];
        let mut buffer = hyper::rt::ReadBuf::new(&mut bytes);
        let read = poll_fn(|context| {
            hyper::rt::Read::poll_read(Pin::new(&mut stream), context, buffer.unfilled())
        });
        match read.await {
            Ok(()) if buffer.filled().is_empty() => return (all, Ok(())),
            Ok(()) => all.extend_from_slice(buffer.filled()),
            Err(error) => return (all, Err(error.kind())),
        }
    }
}

#[test]
fn a_stream_that_is_cut_off_is_an_error_to_who_reads_and_one_that_is_closed_is_not() {
    for by_hyper in [false, true] {
        let (authority, _files, tls) = built();
        let (tell, read) = mpsc::channel();
        let serve = move |stream: Stream<TcpStream>| {
            let tell = tell.clone();
            async move { drop(tell.send(all(stream, by_hyper).await)) }
        };
        let site = Site::with(&tls, HANGS_AFTER, serve);
        for (versions, closes) in [(TLS12, false), (TLS12, true), (TLS13, false), (TLS13, true)] {
            let client = Client::with(&authority, versions, None);
            let mut connection = client.connect(site.first(), "a.example").expect("a handshake");
            connection.0.write_all(b"all of it?").expect("it is read");
            if closes {
                connection.0.conn.send_close_notify();
            }
            connection.0.flush().expect("it is read");
            connection.0.sock.shutdown(Shutdown::Write).expect("a socket");
            let (all, end) = read.recv_timeout(HANGS_AFTER / 2).expect("an end");
            assert_eq!(all, b"all of it?");
            assert_eq!(end, if closes { Ok(()) } else { Err(ErrorKind::UnexpectedEof) });
        }
    }
}

#[test]
fn a_stream_that_is_shut_down_says_so_and_one_that_is_dropped_does_not() {
    let (authority, _files, tls) = built();
    for says in [false, true] {
        let serve = move |mut stream: Stream<TcpStream>| async move {
            stream.write_all(b"bye").await.expect("it is read");
            stream.flush().await.expect("it is read");
            if says {
                stream.shutdown().await.expect("it is read");
            }
        };
        let site = Site::with(&tls, HANGS_AFTER, serve);
        for versions in [TLS12, TLS13] {
            let client = Client::with(&authority, versions, None);
            let mut connection = client.connect(site.first(), "a.example").expect("a handshake");
            let mut text = Vec::new();
            let end = connection.0.read_to_end(&mut text).map_err(|error| error.kind());
            assert_eq!(text, b"bye");
            assert_eq!(end, if says { Ok(3) } else { Err(ErrorKind::UnexpectedEof) });
        }
    }
}

/// The byte at a place of what is transferred: a prime's period, so that no block looks like another.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

/// Sends so many bytes to an echo and reads them back in small pieces, through a small window, with much less haste.
async fn echo(client: Client, address: SocketAddr, length: usize) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a socket");
    let socket = socket.connect(address).await.expect("a connection");
    let name = ServerName::try_from("a.example").expect("a name");
    let connector = TlsConnector::from(client.config.clone());
    let stream = connector.connect(name, socket).await.expect("a handshake");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        writer.write_all(head.as_bytes()).await.expect("it is read");
        let bytes: Vec<u8> = (0..length).map(byte_at).collect();
        for piece in bytes.chunks(100_000) {
            writer.write_all(piece).await.expect("it is read");
        }
        writer.flush().await.expect("it is read");
        writer
    });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(reader.read_u8().await.expect("an answer"));
    }
    let (mut place, mut piece) = (0, [0; 3000]);
    loop {
        let count = reader.read(&mut piece).await.expect("an end in order");
        if count == 0 {
            break;
        }
        for byte in &piece[..count] {
            assert_eq!(*byte, byte_at(place), "at {place}");
            place += 1;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(place, length);
    drop(writing.await.expect("no panic"));
}

#[test]
fn twenty_megabytes_go_both_ways_past_a_slow_reader() {
    within_reason(|| {
        const LENGTH: usize = 20 * 1024 * 1024;
        let (authority, _files, tls) = built();
        let site = Site::start(&tls);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for versions in [TLS12, BOTH] {
            let client = Client::with(&authority, versions, None);
            runtime.block_on(echo(client, site.first(), LENGTH));
        }
    });
}

/// hyper writes head and body as slices, and what arrives is the same.
#[test]
fn slices_are_written_in_their_order() {
    let (authority, _files, tls) = built();
    let serve = |mut stream: Stream<TcpStream>| async move {
        assert!(tokio::io::AsyncWrite::is_write_vectored(&stream));
        let pieces: Vec<Vec<u8>> = (0..200).map(|number| vec![number as u8; number * 20]).collect();
        let mut slices: Vec<_> = pieces.iter().map(|piece| std::io::IoSlice::new(piece)).collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            let count = stream.write_vectored(slices).await.expect("it is read");
            std::io::IoSlice::advance_slices(&mut slices, count);
        }
        stream.shutdown().await.expect("it is read");
    };
    let site = Site::with(&tls, HANGS_AFTER, serve);
    let mut connection =
        Client::new(&authority).connect(site.first(), "a.example").expect("a handshake");
    let mut text = Vec::new();
    connection.0.read_to_end(&mut text).expect("an end in order");
    let expected: Vec<u8> = (0..200).flat_map(|number| vec![number as u8; number * 20]).collect();
    assert!(text == expected, "{} bytes of {}", text.len(), expected.len());
}

/// So that they can be used in work-stealing mode.
#[test]
fn all_of_it_may_be_sent_between_threads() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    shared::<Tls>();
    sent::<Acceptor>();
    sent::<Accept<TcpStream>>();
    sent::<Stream<TcpStream>>();
}

/// Does not depend on sockets: any stream of bytes will do, and any runtime.
#[test]
fn a_writer_waits_when_the_client_takes_nothing() {
    const PIPE: usize = 4096;
    /// The bound of what is encrypted and waits, and what records add.
    const BOUND: usize = 64 * 1024 + PIPE;
    let (authority, _files, tls) = built();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(PIPE);
        let connector = TlsConnector::from(Client::new(&authority).config);
        let name = ServerName::try_from("a.example").expect("a name");
        let (client, stream) = tokio::join!(connector.connect(name, far), tls.accept(near));
        let (mut client, mut stream) = (client.expect("a handshake"), stream.expect("a handshake"));
        let bytes: Vec<u8> = (0..1 << 20).map(byte_at).collect();
        let mut written = 0;
        while let Poll::Ready(count) = poll_now(stream.write(&bytes[written..])).await {
            written += count.expect("room");
            assert!(written <= BOUND, "{written}");
        }
        assert!(written >= BOUND / 2, "{written}");
        // It goes on where it stopped, once there is room.
        let writing = async {
            stream.write_all(&bytes[written..]).await.expect("it is read");
            stream.shutdown().await.expect("it is read");
        };
        let mut all = Vec::new();
        let (end, ()) = tokio::join!(client.read_to_end(&mut all), writing);
        end.expect("an end in order");
        assert!(all == bytes, "{} bytes of {}", all.len(), bytes.len());
    });
}
