//! Interests beyond reading and writing, and receiving into buffers that grow.

use super::{fill, run, tcp_pair};
use crate::harness::poll_now;
use bytes::{BufMut, BytesMut};
use corelane::net::{Interest, UdpSocket, UnixDatagram, UnixStream};
use corelane::{Mode, Runtime};
use futures::io::AsyncReadExt;
use socket2::SockRef;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::mem::MaybeUninit;

#[test]
fn urgent_data_is_of_interest_for_itself() {
    run(|| async {
        let (client, server) = tcp_pair().await;
        assert!(poll_now(server.ready(Interest::PRIORITY)).await.is_pending());
        client.try_write(b"plain").expect("there is room");
        server.readable().await.expect("it has arrived");
        assert!(poll_now(server.ready(Interest::PRIORITY)).await.is_pending());
        SockRef::from(&client).send_out_of_band(b"!").expect("sent");
        assert!(server.ready(Interest::PRIORITY).await.expect("it comes").is_priority());
        let take = || SockRef::from(&server).recv_out_of_band(&mut [MaybeUninit::uninit(); 4]);
        assert_eq!(server.try_io(Interest::PRIORITY, take).expect("it is there"), 1);
        let nothing = || Err::<(), _>(ErrorKind::WouldBlock.into());
        server.try_io(Interest::PRIORITY, nothing).expect_err("it says so itself");
        assert!(poll_now(server.ready(Interest::PRIORITY)).await.is_pending());
    });
}

#[test]
fn an_error_is_of_interest_for_itself() {
    run(|| async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.connect(nobody.local_addr().expect("an address")).await.expect("connected");
        drop(nobody);
        assert!(poll_now(socket.ready(Interest::ERROR)).await.is_pending());
        socket.send(b"is anybody there?").await.expect("sent");
        assert!(socket.ready(Interest::ERROR).await.expect("it comes").is_error());
        let refused = socket.take_error().expect("asked").expect("there is one");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn streams_are_read_into_buffers_that_grow() {
    run(|| async {
        let (client, server) = tcp_pair().await;
        client.try_write(b"hello").expect("there is room");
        let mut buf = BytesMut::new();
        server.readable().await.expect("it has arrived");
        assert_eq!(server.try_read_buf(&mut buf).expect("read"), 5);
        let again = server.try_read_buf(&mut buf).expect_err("there is no more");
        assert_eq!(again.kind(), ErrorKind::WouldBlock);
        assert_eq!(&buf[..], b"hello");

        let (a, b) = UnixStream::pair().expect("a pair");
        a.try_write(b"one, two").expect("there is room");
        let mut buf = Vec::new();
        let (reader, _writer) = b.into_split();
        for expected in [3, 5] {
            reader.readable().await.expect("it has arrived");
            let read = reader.try_read_buf(&mut (&mut buf).limit(expected)).expect("read");
            assert_eq!(read, expected, "no more than there is room for");
        }
        assert_eq!(buf, b"one, two");
        drop(a);
        reader.readable().await.expect("the end has come");
        assert_eq!(reader.try_read_buf(&mut buf).expect("the end"), 0);
        assert_eq!(reader.try_read_buf(&mut &mut [0; 0][..]).expect("no room, no read"), 0);
    });
}

#[test]
fn datagrams_are_received_into_buffers_that_grow() {
    run(|| async {
        let here = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let there = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let (from, to) = (there.local_addr().expect("bound"), here.local_addr().expect("bound"));
        for text in ["a", "b", "c", "d"] {
            there.send_to(text.as_bytes(), to).await.expect("sent");
        }
        let mut buf = Vec::with_capacity(8);
        assert_eq!(here.recv_buf(&mut buf).await.expect("received"), 1);
        assert_eq!(here.recv_buf_from(&mut buf).await.expect("received"), (1, from));
        assert_eq!(here.try_recv_buf(&mut buf).expect("received"), 1);
        assert_eq!(here.try_recv_buf_from(&mut buf).expect("received"), (1, from));
        assert_eq!(buf, b"abcd");
        let none = here.try_recv_buf(&mut buf).expect_err("there is no more");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);

        let (a, b) = UnixDatagram::pair().expect("a pair");
        for text in ["a", "b"] {
            a.send(text.as_bytes()).await.expect("sent");
        }
        assert_eq!(b.recv_buf(&mut buf).await.expect("received"), 1);
        let (n, sender) = b.recv_buf_from(&mut buf).await.expect("received");
        assert!(n == 1 && sender.is_unnamed());
        assert_eq!(buf, b"abcdab");
    });
}

#[test]
fn what_is_known_of_a_new_socket_needs_no_report_of_the_kernel() {
    run(|| async {
        let (a, b) = UnixStream::pair().expect("a pair");
        assert!(poll_now(a.writable()).await.is_ready());
        assert!(poll_now(poll_fn(|cx| b.poll_write_ready(cx))).await.is_ready());
        assert!(poll_now(a.readable()).await.is_pending(), "nothing is there to be read");
        b.try_write(b"!").expect("there is room");
        a.readable().await.expect("it has arrived");

        let (a, _b) = UnixDatagram::pair().expect("a pair");
        assert!(poll_now(poll_fn(|cx| a.poll_send_ready(cx))).await.is_ready());
        assert!(poll_now(a.readable()).await.is_pending());

        let (client, server) = tcp_pair().await;
        assert!(poll_now(client.writable()).await.is_ready());
        assert!(poll_now(client.readable()).await.is_pending());
        assert!(poll_now(server.writable()).await.is_ready());
        assert!(poll_now(server.readable()).await.is_ready(), "most likely");
    });
}

#[test]
fn what_was_assumed_of_a_socket_is_taken_back() {
    run(|| async {
        // Before it is registered, and after.
        let (client, server) = tcp_pair().await;
        let refused = server.try_read(&mut [0]).expect_err("nothing was sent");
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        assert!(poll_now(server.readable()).await.is_pending());
        assert!(poll_now(server.writable()).await.is_ready());
        client.try_write(b"!").expect("there is room");
        server.readable().await.expect("it has arrived");
        assert_eq!(server.try_read(&mut [0]).expect("read"), 1);

        let (a, _b) = UnixStream::pair().expect("a pair");
        fill(|bytes| a.try_write(bytes)).await;
        assert!(poll_now(a.writable()).await.is_pending());
    });
}

#[test]
fn a_read_that_ends_at_urgent_data_does_not_lose_what_follows() {
    run(read_to_urgent_data_and_beyond);
    // A worker that is alone looks at its sockets only when it waits: all has come by then, and is told of once.
    super::within_reason(|| {
        let builder = Runtime::builder().mode(Mode::WorkStealing);
        let pool = builder.cores("1".parse().expect("one")).start().expect("started");
        let only = pool.handle().shards().next().expect("a worker");
        let task = pool.handle().spawn_on(only, read_to_urgent_data_and_beyond);
        pool.block_on(task.expect("there is room")).expect("no panic");
    });
}

async fn read_to_urgent_data_and_beyond() {
    let (client, mut server) = tcp_pair().await;
    let mut buf = [0; 64];
    assert!(poll_now(server.read(&mut buf)).await.is_pending());
    client.try_write(b"abc").expect("there is room");
    SockRef::from(&client).send_out_of_band(b"!").expect("sent");
    client.try_write(b"defg").expect("there is room");
    // All of it is there, on loopback. The kernel stops a read where the urgent byte is, which it leaves out.
    assert!(server.ready(Interest::PRIORITY).await.expect("it comes").is_priority());
    assert_eq!(server.read(&mut buf).await.expect("read"), 3);
    assert_eq!(server.read(&mut buf).await.expect("read"), 4);
    assert!(poll_now(server.read(&mut buf)).await.is_pending());
}
