//! Unix sockets.

use super::{UnixOrTcp, drain, fill, run};
use corelane::net::unix::SocketAddr;
use corelane::net::{Interest, UnixDatagram, UnixListener, UnixSocket, UnixStream};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};

/// A name in the abstract namespace that nobody else has, as a path.
fn abstract_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("\0corelane-{}-{number}", std::process::id()).into()
}

async fn exchange(
    listener: UnixListener,
    connecting: impl Future<Output = std::io::Result<UnixStream>>,
) {
    let (connected, accepted) = futures::join!(connecting, listener.accept());
    let (mut client, (mut server, peer)) =
        (connected.expect("it listens"), accepted.expect("a peer"));
    assert!(peer.is_unnamed());
    client.write_all(b"question").await.expect("written");
    client.close().await.expect("closed");
    let mut question = Vec::new();
    server.read_to_end(&mut question).await.expect("read");
    assert_eq!(question, b"question");
    server.write_all(b"answer").await.expect("written");
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("read");
    assert_eq!(answer, b"answer");
}

#[test]
fn streams_meet_at_a_path() {
    run(|| async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bound");
        assert_eq!(listener.local_addr().expect("an address").as_pathname(), Some(&*path));
        let error = UnixListener::bind(&path).expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        exchange(listener, UnixStream::connect(&path)).await;
        let error = UnixStream::connect(&path).await.expect_err("nobody listens any more");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = UnixStream::connect(directory.path().join("other")).await.expect_err("no file");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn streams_meet_at_an_abstract_name() {
    run(|| async {
        let path = abstract_path();
        let listener = UnixListener::bind(&path).expect("bound");
        exchange(listener, UnixStream::connect(&path)).await;

        let name = format!("corelane-named-{}", std::process::id());
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let addr = SocketAddr::from(addr);
        let listener = UnixListener::bind_addr(&addr).expect("bound");
        let bound = listener.local_addr().expect("an address");
        assert_eq!(bound.as_abstract_name(), Some(name.as_bytes()));
        exchange(listener, UnixStream::connect_addr(&addr)).await;
    });
}

#[test]
fn a_peer_that_has_an_address_is_named() {
    run(|| async {
        let (here, there) = (abstract_path(), abstract_path());
        let socket = UnixSocket::new_stream().expect("a socket");
        socket.bind(&here).expect("bound");
        let listener = socket.listen(4).expect("listening");
        let socket = UnixSocket::new_stream().expect("a socket");
        socket.bind(&there).expect("bound");
        let (connected, accepted) =
            futures::join!(socket.connect(&here), poll_fn(|cx| listener.poll_accept(cx)));
        let (connected, (accepted, peer)) =
            (connected.expect("connected"), accepted.expect("a peer"));
        let local = connected.local_addr().expect("an address");
        assert!(local.as_abstract_name().is_some());
        assert_eq!(peer.as_abstract_name(), local.as_abstract_name());
        let seen = accepted.peer_addr().expect("an address");
        assert_eq!(seen.as_abstract_name(), local.as_abstract_name());
    });
}

#[test]
fn a_socket_refuses_what_its_kind_cannot_do() {
    run(|| async {
        let datagram = || UnixSocket::new_datagram().expect("a socket");
        assert_eq!(datagram().listen(1).expect_err("a datagram").kind(), ErrorKind::Other);
        let error = datagram().connect(abstract_path()).await.expect_err("a datagram");
        assert_eq!(error.kind(), ErrorKind::Other);
        let stream = UnixSocket::new_stream().expect("a socket");
        assert_eq!(stream.datagram().expect_err("a stream").kind(), ErrorKind::Other);
        datagram().datagram().expect("a datagram");
    });
}

#[test]
fn a_pair_knows_its_peer() {
    run(|| async {
        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        a.write_all(b"x").await.expect("written");
        assert_eq!(b.read(&mut [0; 8]).await.expect("read"), 1);
        let peer = a.peer_cred().expect("credentials");
        assert_eq!(peer.pid(), i32::try_from(std::process::id()).ok());
        let me = std::fs::metadata("/proc/self").expect("procfs");
        assert_eq!((peer.uid(), peer.gid()), (me.uid(), me.gid()));
        assert!(a.local_addr().expect("an address").is_unnamed());
        assert!(a.peer_addr().expect("an address").is_unnamed());
        assert!(a.take_error().expect("asked").is_none());
        drop(a);
        assert_eq!(b.read(&mut [0; 8]).await.expect("the end"), 0);
        let error = b.write(b"x").await.expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn halves_split_and_reunite() {
    run(|| async {
        let (a, mut b) = UnixStream::pair().expect("a pair");
        let (mut reader, mut writer) = a.into_split();
        let reading = corelane::spawn_local(async move {
            reader.read_exact(&mut [0; 3]).await.expect("read");
            reader
        });
        writer.write_all(b"abc").await.expect("written");
        b.read_exact(&mut [0; 3]).await.expect("read");
        b.write_all(b"def").await.expect("written");
        let reader = reading.await.expect("no panic");
        let mut a = writer.reunite(reader).expect("of one stream");

        let (mut reader, mut writer) = UnixStream::split(&mut a);
        b.write_all(b"x").await.expect("written");
        let mut buf = [0; 8];
        let (read, written) = futures::join!(reader.read(&mut buf), writer.write(b"y"));
        assert_eq!((read.expect("read"), written.expect("written")), (1, 1));

        let (reader, writer) = a.into_split();
        let (other_reader, other_writer) = UnixStream::pair().expect("a pair").0.into_split();
        let error = reader.reunite(other_writer).expect_err("of two streams");
        assert!(other_reader.reunite(error.1).is_ok());
        drop((error.0, writer));
        let mut rest = Vec::new();
        b.read_to_end(&mut rest).await.expect("the end");
        assert_eq!(rest, b"y");
    });
}

#[test]
fn vectored_writes_and_reads_move_every_byte() {
    run(|| async {
        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        assert_eq!(a.write_vectored(&slices).await.expect("written"), 5);
        let (mut x, mut y) = ([0; 1], [0; 8]);
        let mut slices = [IoSliceMut::new(&mut x), IoSliceMut::new(&mut y)];
        assert_eq!(b.read_vectored(&mut slices).await.expect("read"), 5);
        assert_eq!((&x, &y[..4]), (b"a", &b"bcde"[..]));
    });
}

/// A control message that carries one descriptor, as the kernel lays it out on 64-bit Linux.
fn descriptor_message(fd: i32) -> Vec<u8> {
    let mut message = 20u64.to_ne_bytes().to_vec();
    for word in [libc::SOL_SOCKET, libc::SCM_RIGHTS, fd, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message
}

/// Sends "head" with a descriptor beside it, behind which the kernel stops a read, and then more.
#[cfg(target_pointer_width = "64")]
async fn send_past_a_descriptor(a: &mut UnixStream) {
    let control = descriptor_message(a.as_raw_fd());
    let head = [IoSlice::new(b"head")];
    let message = socket2::MsgHdr::new().with_buffers(&head).with_control(&control);
    socket2::SockRef::from(&*a).sendmsg(&message, 0).expect("sent");
    a.write_all(b"and the rest").await.expect("written");
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_read_that_ends_at_a_passed_descriptor_does_not_lose_what_follows() {
    run(|| async {
        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        let mut buf = [0; 64];
        // Registered with the reactor, whose memory of readiness is what this is about.
        a.write_all(b"x").await.expect("written");
        assert_eq!(b.read(&mut buf).await.expect("read"), 1);
        assert!(futures::poll!(pin!(b.read(&mut buf))).is_pending());
        send_past_a_descriptor(&mut a).await;
        assert_eq!(b.read(&mut buf).await.expect("read"), 4);
        assert_eq!(b.read(&mut buf).await.expect("read"), 12);

        // The same where hyper reads.
        let mut b = corelane::http::Io::new(b);
        let mut read = async || {
            let mut buf = hyper::rt::ReadBuf::new(&mut buf);
            poll_fn(|cx| hyper::rt::Read::poll_read(pin!(&mut b), cx, buf.unfilled()))
                .await
                .expect("read");
            buf.filled().len()
        };
        assert!(futures::poll!(pin!(read())).is_pending());
        send_past_a_descriptor(&mut a).await;
        assert_eq!(read().await, 4);
        assert_eq!(read().await, 12);
    });
}

#[test]
fn trying_without_waiting_says_would_block() {
    run(|| async {
        let (a, b) = UnixStream::pair().expect("a pair");
        a.writable().await.expect("writable");
        let filled = fill(|buf| a.try_write(buf)).await;
        let writable = corelane::spawn_local(async move {
            a.ready(Interest::WRITABLE).await.expect("writable");
            a
        });
        drain(&UnixOrTcp::Unix(&b), filled).await;
        let a = writable.await.expect("no panic");
        let error = b.try_read(&mut [0]).expect_err("drained");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(a);
        b.readable().await.expect("readable");
        assert_eq!(b.try_read_vectored(&mut []).expect("the end"), 0);
    });
}

#[test]
fn stream_sockets_go_to_the_standard_library_and_back() {
    run(|| async {
        let (a, b) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let (mut a, b) =
            (UnixStream::from_std(a).expect("taken"), UnixStream::from_std(b).expect("taken"));
        a.write_all(b"x").await.expect("written");
        b.readable().await.expect("readable");
        let mut b = b.into_std().expect("the socket");
        b.set_nonblocking(false).expect("blocking");
        std::io::Read::read_exact(&mut b, &mut [0]).expect("read");

        let path = abstract_path();
        let listener = UnixListener::bind(&path).expect("bound").into_std().expect("the socket");
        let listener = UnixListener::try_from(listener).expect("taken over");
        exchange(listener, UnixStream::connect(&path)).await;
    });
}

#[test]
fn datagrams_go_to_a_path_and_to_an_abstract_name() {
    run(|| async {
        let directory = tempfile::tempdir().expect("a directory");
        for path in [directory.path().join("socket"), abstract_path()] {
            let server = UnixDatagram::bind(&path).expect("bound");
            let client = UnixDatagram::unbound().expect("a socket");
            assert_eq!(client.send_to(b"hello", &path).await.expect("sent"), 5);
            let mut buf = [0; 8];
            let (n, sender) = server.recv_from(&mut buf).await.expect("received");
            assert!(n == 5 && sender.is_unnamed());

            client.connect(&path).expect("connected");
            client.send(b"x").await.expect("sent");
            poll_fn(|cx| client.poll_send(cx, b"yz")).await.expect("sent");
            poll_fn(|cx| client.poll_send_to(cx, b"four", &path)).await.expect("sent");
            client.try_send(b"fives").expect("sent");
            client.try_send_to(b"sixsix", &path).expect("sent");
            for size in [1, 2, 4, 5] {
                assert_eq!(server.recv(&mut buf).await.expect("received"), size);
            }
            assert_eq!(server.try_recv_from(&mut buf).expect("received").0, 6);
            let error = server.try_recv(&mut buf).expect_err("empty");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn a_sender_of_datagrams_with_an_address_gets_an_answer() {
    run(|| async {
        let (here, there) = (abstract_path(), abstract_path());
        let server = UnixDatagram::bind(&here).expect("bound");
        let socket = UnixSocket::new_datagram().expect("a socket");
        socket.bind(&there).expect("bound");
        let client = socket.datagram().expect("a datagram socket");
        client.send_to(b"question", &here).await.expect("sent");
        let mut buf = [0; 16];
        let (_, sender) = server.recv_from(&mut buf).await.expect("received");
        assert_eq!(
            sender.as_abstract_name(),
            client.local_addr().expect("an address").as_abstract_name()
        );
        server.connect(&there).expect("connected");
        server.send(b"answer").await.expect("sent");
        assert_eq!(client.recv(&mut buf).await.expect("received"), 6);
        assert!(server.peer_addr().expect("a peer").as_abstract_name().is_some());
    });
}

#[test]
fn a_pair_of_datagram_sockets_cuts_what_does_not_fit_and_can_be_shut_down() {
    run(|| async {
        let (a, b) = UnixDatagram::pair().expect("a pair");
        a.send(b"too long").await.expect("sent");
        let mut buf = [0; 3];
        assert_eq!(b.recv(&mut buf).await.expect("received"), 3);
        assert_eq!(&buf, b"too");
        a.shutdown(Shutdown::Write).expect("shut down");
        let error = a.send(b"x").await.expect_err("shut down");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_connected_sender_waits_until_the_receiver_has_room() {
    run(|| async {
        let (a, b) = UnixDatagram::pair().expect("a pair");
        a.writable().await.expect("writable");
        let mut sent = 0;
        while a.try_send(b"x").is_ok() {
            sent += 1;
        }
        let mut sending = pin!(a.send(b"last"));
        assert!(futures::poll!(&mut sending).is_pending());
        let mut buf = [0; 8];
        for _ in 0..sent {
            assert_eq!(b.recv(&mut buf).await.expect("received"), 1);
        }
        sending.await.expect("sent");
        assert_eq!(b.recv(&mut buf).await.expect("received"), 4);
    });
}

#[test]
fn datagram_sockets_go_to_the_standard_library_and_back() {
    run(|| async {
        let (a, b) = UnixDatagram::pair().expect("a pair");
        b.writable().await.expect("writable");
        let b = UnixDatagram::from_std(b.into_std().expect("the socket")).expect("taken over");
        poll_fn(|cx| a.poll_send_ready(cx)).await.expect("ready");
        a.send(b"x").await.expect("sent");
        poll_fn(|cx| b.poll_recv_ready(cx)).await.expect("ready");
        assert_eq!(b.recv(&mut [0; 8]).await.expect("received"), 1);
        assert!(b.take_error().expect("asked").is_none());
    });
}
