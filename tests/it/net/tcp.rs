//! TCP streams and listeners.

use super::{UnixOrTcp, drain, fill, run, tcp_pair};
use crate::harness::poll_now;
use corelane::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use corelane::net::{Interest, TcpListener, TcpSocket, TcpStream, UdpSocket};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// An address nobody listens on.
fn dead_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

#[test]
fn bytes_come_back_from_an_echo() {
    run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let echo = corelane::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let mut buf = [0; 1000];
            loop {
                match stream.read(&mut buf).await.expect("read") {
                    0 => break,
                    n => stream.write_all(&buf[..n]).await.expect("written"),
                }
            }
        });
        let mut stream = TcpStream::connect(addr).await.expect("it listens");
        for size in [1, 999, 1000, 1001, 5000] {
            let sent: Vec<u8> = (0..size).map(|i| i as u8).collect();
            stream.write_all(&sent).await.expect("written");
            let mut received = vec![0; size];
            stream.read_exact(&mut received).await.expect("read");
            assert_eq!(received, sent);
        }
        stream.close().await.expect("closed");
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
        echo.await.expect("no panic");
    });
}

#[test]
fn more_than_the_buffers_hold_goes_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    async fn exchange(stream: TcpStream) {
        let (mut reader, mut writer) = stream.into_split();
        let writing = async {
            writer.write_all(&vec![3; SIZE]).await.expect("written");
            writer.close().await.expect("closed");
        };
        let reading = async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.expect("read");
            assert_eq!(received.len(), SIZE);
            assert!(received.iter().all(|&byte| byte == 3));
        };
        futures::join!(writing, reading);
    }
    run(|| async {
        let (a, b) = tcp_pair().await;
        let other = corelane::spawn_local(exchange(b));
        exchange(a).await;
        other.await.expect("no panic");
    });
}

#[test]
fn a_refused_connect_says_refused() {
    run(|| async {
        let error = TcpStream::connect(dead_address()).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let socket = TcpSocket::new_v4().expect("a socket");
        let error = socket.connect(dead_address()).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connecting_tries_one_address_after_the_other() {
    run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addrs = [dead_address(), listener.local_addr().expect("an address")];
        let (connected, accepted) =
            futures::join!(TcpStream::connect(&addrs[..]), listener.accept());
        assert_eq!(connected.expect("the second").peer_addr().expect("a peer"), addrs[1]);
        accepted.expect("somebody comes");

        let dead = [dead_address(), dead_address()];
        let error = TcpStream::connect(&dead[..]).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn binding_tries_one_address_after_the_other() {
    run(|| async {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let taken = (taken.local_addr().expect("an address"), taken);
        let addrs = [taken.0, "127.0.0.1:0".parse().expect("an address")];
        let listener = TcpListener::bind(&addrs[..]).await.expect("the second");
        assert_ne!(listener.local_addr().expect("an address"), taken.0);
        let error = TcpListener::bind(taken.0).await.expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn a_connect_that_is_given_up_closes_the_socket() {
    run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        {
            let mut connecting =
                pin!(TcpStream::connect(listener.local_addr().expect("an address")));
            // Begun, then dropped before it is done or just after.
            let _ = futures::poll!(&mut connecting);
        }
        let (mut stream, _) = listener.accept().await.expect("the attempt arrived");
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
    });
}

#[test]
fn peeking_leaves_the_bytes() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        a.write_all(b"hello").await.expect("written");
        let mut buf = [0; 8];
        assert_eq!(b.peek(&mut buf[..2]).await.expect("peeked"), 2);
        assert_eq!(b.peek(&mut buf).await.expect("peeked"), 5);
        assert_eq!(&buf[..5], b"hello");
        b.read_exact(&mut buf[..5]).await.expect("read");
        a.close().await.expect("closed");
        assert_eq!(b.peek(&mut buf).await.expect("the end"), 0);

        b.write_all(b"x").await.expect("written");
        let (mut reader, _writer) = a.into_split();
        assert_eq!(reader.peek(&mut buf).await.expect("peeked"), 1);
        assert_eq!(reader.read(&mut buf).await.expect("read"), 1);
    });
}

#[test]
fn a_half_closed_connection_still_answers() {
    run(|| async {
        let (mut client, mut server) = tcp_pair().await;
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
        client.close().await.expect("closing again, after the peer has gone, is no error");
    });
}

#[test]
fn writing_after_closing_is_a_broken_pipe() {
    run(|| async {
        let (mut a, _b) = tcp_pair().await;
        a.close().await.expect("closed");
        let error = a.write(b"x").await.expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_reset_is_an_error_of_the_read() {
    run(|| async {
        let (a, mut b) = tcp_pair().await;
        a.set_zero_linger().expect("set");
        drop(a);
        let error = b.read(&mut [0]).await.expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn the_end_is_found_when_it_came_together_with_the_last_bytes() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        a.write_all(b"hello").await.expect("written");
        drop(a);
        // Bytes and end have arrived, as one event. The first read is short; the second must not wait for another.
        let mut buf = [0; 64];
        assert_eq!(b.read(&mut buf).await.expect("read"), 5);
        assert_eq!(b.read(&mut buf).await.expect("the end"), 0);
        assert_eq!(b.read(&mut buf).await.expect("still the end"), 0);
    });
}

#[test]
fn the_end_is_found_when_it_comes_after_a_short_read() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        let mut buf = [0; 64];
        for _ in 0..100 {
            a.write_all(b"hello").await.expect("written");
            assert_eq!(b.read(&mut buf).await.expect("read"), 5);
        }
        drop(a);
        assert_eq!(b.read(&mut buf).await.expect("the end"), 0);
    });
}

#[test]
fn a_read_that_fills_its_buffer_does_not_lose_the_rest() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        a.write_all(&[1; 100]).await.expect("written");
        let mut buf = [0; 10];
        for _ in 0..10 {
            assert_eq!(b.read(&mut buf).await.expect("read"), 10);
        }
        let mut next = pin!(b.read(&mut buf));
        assert!(futures::poll!(&mut next).is_pending());
        a.write_all(b"x").await.expect("written");
        assert_eq!(next.await.expect("read"), 1);
    });
}

#[test]
fn borrowed_halves_work_at_the_same_time() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        let echo = corelane::spawn_local(async move {
            let (mut reader, mut writer) = TcpStream::split(&mut b);
            futures::io::copy(&mut reader, &mut writer).await.expect("copied");
            writer.close().await.expect("closed");
            assert_eq!(reader.peer_addr().ok(), writer.as_ref().peer_addr().ok());
        });
        let sent = vec![9; 4 << 20];
        let mut received = Vec::new();
        let (mut reader, mut writer) = TcpStream::split(&mut a);
        let writing = async {
            writer.write_all(&sent).await.expect("written");
            writer.close().await.expect("closed");
        };
        futures::join!(writing, async { reader.read_to_end(&mut received).await.expect("read") });
        assert!(received == sent);
        echo.await.expect("no panic");
    });
}

#[test]
fn halves_of_one_stream_reunite_and_others_do_not() {
    run(|| async {
        let (a, b) = tcp_pair().await;
        let ((a_reader, a_writer), (b_reader, b_writer)) = (a.into_split(), b.into_split());
        let error = a_reader.reunite(b_writer).expect_err("of two streams");
        assert!(!error.to_string().is_empty());
        let (a_reader, b_writer) = (error.0, error.1);
        let error = a_writer.reunite(b_reader).expect_err("of two streams");
        let mut a = a_reader.reunite(error.1).expect("of one stream");
        let mut b = b_writer.reunite(error.0).expect("of one stream");
        a.write_all(b"still open").await.expect("written");
        b.read_exact(&mut [0; 10]).await.expect("read");
        b.write_all(b"both ways").await.expect("written");
        a.read_exact(&mut [0; 9]).await.expect("read");
    });
}

#[test]
fn dropping_the_owned_write_half_ends_the_direction() {
    run(|| async {
        let (a, mut b) = tcp_pair().await;
        let (mut reader, writer) = a.into_split();
        drop(writer);
        assert_eq!(b.read(&mut [0]).await.expect("the end"), 0);
        b.write_all(b"x").await.expect("written");
        assert_eq!(reader.read(&mut [0]).await.expect("read"), 1);
    });
}

#[test]
fn forgetting_the_owned_write_half_leaves_the_direction_open() {
    run(|| async {
        let (a, mut b) = tcp_pair().await;
        let (mut reader, writer) = a.into_split();
        writer.forget();
        b.write_all(b"x").await.expect("written");
        assert_eq!(reader.read(&mut [0]).await.expect("read"), 1);
        // An end would have arrived by now: loopback delivers before the sender's call returns.
        let b = b.into_std().expect("the socket");
        assert_eq!(b.peek(&mut [0]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
        drop(reader);
        assert_eq!(b.peek(&mut [0]).expect("the end"), 0);
    });
}

#[test]
fn vectored_writes_and_reads_move_every_byte() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        // More slices than the kernel takes in one call, and a buffer's worth of bytes.
        let sent: Vec<u8> = (0..3000u32).flat_map(|i| i.to_le_bytes()).collect();
        let mut slices: Vec<_> = sent.chunks(4).map(IoSlice::new).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let n = a.write_vectored(rest).await.expect("written");
            assert!(n > 0);
            IoSlice::advance_slices(&mut rest, n);
        }
        a.close().await.expect("closed");
        let mut received = Vec::new();
        loop {
            let mut parts = [[0; 3]; 2000];
            let mut slices: Vec<_> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
            let n = b.read_vectored(&mut slices).await.expect("read");
            if n == 0 {
                break;
            }
            received.extend_from_slice(&parts.concat()[..n]);
        }
        assert_eq!(received, sent);
    });
}

#[test]
fn trying_without_waiting_says_would_block() {
    run(|| async {
        let (a, b) = tcp_pair().await;
        a.writable().await.expect("writable");
        let filled = fill(|buf| a.try_write(buf)).await;
        let error = a.try_write_vectored(&[IoSlice::new(b"x")]).expect_err("full");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);

        let writable = corelane::spawn_local(async move {
            a.writable().await.expect("writable");
            a
        });
        drain(&UnixOrTcp::Tcp(&b), filled).await;
        let a = writable.await.expect("no panic");
        let error = b.try_read(&mut [0]).expect_err("drained");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);

        assert_eq!(
            a.try_write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).expect("room"),
            3
        );
        let (mut x, mut y) = ([0; 2], [0; 2]);
        b.readable().await.expect("readable");
        let n = b.try_read_vectored(&mut [IoSliceMut::new(&mut x), IoSliceMut::new(&mut y)]);
        assert_eq!(n.expect("read"), 3);
        assert_eq!((x, y), (*b"ab", *b"c\0"));
    });
}

#[test]
fn readiness_tells_the_direction_and_the_end() {
    run(|| async {
        let (a, b) = tcp_pair().await;
        let ready = a.ready(Interest::READABLE | Interest::WRITABLE).await.expect("ready");
        assert!(ready.is_writable() && !ready.is_readable());
        drop(b);
        let ready = a.ready(Interest::READABLE).await.expect("ready");
        assert!(ready.is_readable() && ready.is_read_closed());
        assert_eq!(a.try_read(&mut [0]).expect("the end"), 0);
        poll_fn(|cx| a.poll_read_ready(cx)).await.expect("ready");
        poll_fn(|cx| a.poll_write_ready(cx)).await.expect("ready");
    });
}

#[test]
fn a_call_of_ones_own_waits_for_readiness() {
    run(|| async {
        let (mut a, b) = tcp_pair().await;
        let b = Rc::new(b);
        let calls = Rc::new(Cell::new(0));
        let reading = corelane::spawn_local({
            let (b, calls) = (b.clone(), calls.clone());
            async move {
                b.async_io(Interest::READABLE | Interest::WRITABLE, || {
                    calls.set(calls.get() + 1);
                    b.try_read(&mut [0; 8])
                })
                .await
            }
        });
        a.write_all(b"x").await.expect("written");
        assert_eq!(reading.await.expect("no panic").expect("read"), 1);
        assert!(calls.get() >= 1);

        let run_without_readiness = b
            .try_io(Interest::READABLE, || -> io::Result<()> { Err(ErrorKind::WouldBlock.into()) });
        assert_eq!(run_without_readiness.expect_err("nothing").kind(), ErrorKind::WouldBlock);
        b.writable().await.expect("writable");
        assert_eq!(b.try_io(Interest::READABLE | Interest::WRITABLE, || Ok(5)).expect("run"), 5);
    });
}

#[test]
fn each_of_two_acceptors_gets_a_connection() {
    run(|| async {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        let addr = listener.local_addr().expect("an address");
        let acceptors: Vec<_> = (0..2)
            .map(|_| {
                let listener = listener.clone();
                corelane::spawn_local(async move { listener.accept().await.expect("a peer").1 })
            })
            .collect();
        let mut connected = Vec::new();
        for _ in 0..2 {
            connected.push(TcpStream::connect(addr).await.expect("it listens"));
        }
        let mut accepted = Vec::new();
        for acceptor in acceptors {
            accepted.push(acceptor.await.expect("no panic"));
        }
        let mut expected: Vec<_> =
            connected.iter().map(|stream| stream.local_addr().expect("an address")).collect();
        accepted.sort();
        expected.sort();
        assert_eq!(accepted, expected);
    });
}

#[test]
fn connections_that_came_together_are_all_accepted() {
    run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let clients: Vec<_> =
            (0..100).map(|_| std::net::TcpStream::connect(addr).expect("it listens")).collect();
        for _ in 0..50 {
            listener.accept().await.expect("a connection waits");
        }
        for _ in 50..100 {
            poll_fn(|cx| listener.poll_accept(cx)).await.expect("a connection waits");
        }
        let mut none = pin!(listener.accept());
        assert!(futures::poll!(&mut none).is_pending());
        drop(clients);
    });
}

#[test]
fn an_accept_that_is_given_up_loses_no_connection() {
    run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        {
            let mut accepting = pin!(listener.accept());
            assert!(futures::poll!(&mut accepting).is_pending());
        }
        let addr = listener.local_addr().expect("an address");
        let client = TcpStream::connect(addr).await.expect("it listens");
        let (_stream, peer) = listener.accept().await.expect("it was not lost");
        assert_eq!(peer, client.local_addr().expect("an address"));
    });
}

#[test]
fn a_read_that_is_given_up_loses_no_bytes() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        for _ in 0..10 {
            let mut buf = [0; 8];
            assert!(futures::poll!(pin!(b.read(&mut buf))).is_pending());
            assert!(futures::poll!(pin!(b.readable())).is_pending());
        }
        a.write_all(b"x").await.expect("written");
        assert_eq!(b.read(&mut [0; 8]).await.expect("read"), 1);
    });
}

#[test]
fn sockets_go_to_the_standard_library_and_back() {
    run(|| async {
        let (mut a, b) = tcp_pair().await;
        a.writable().await.expect("writable");
        a.write_all(b"x").await.expect("written");

        let mut b = b.into_std().expect("the socket");
        b.set_nonblocking(false).expect("blocking");
        b.read_exact(&mut [0]).expect("read");
        b.write_all(b"y").expect("written");
        // A blocking socket must not stop the thread.
        let mut b = TcpStream::try_from(b).expect("taken over");
        let mut buf = [0];
        let mut nothing = pin!(b.read(&mut buf));
        assert!(futures::poll!(&mut nothing).is_pending());
        a.read_exact(&mut [0]).await.expect("read");
        a.into_std().expect("the socket").shutdown(Shutdown::Both).expect("shut down");
        assert_eq!(nothing.await.expect("the end"), 0);

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let listener = TcpListener::from_std(listener).expect("taken over");
        assert!(futures::poll!(pin!(listener.accept())).is_pending());
        let listener = listener.into_std().expect("the socket");
        assert_eq!(listener.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_stream_knows_both_addresses() {
    run(|| async {
        let (a, b) = tcp_pair().await;
        assert_eq!(a.local_addr().ok(), b.peer_addr().ok());
        assert_eq!(b.local_addr().ok(), a.peer_addr().ok());
        let (reader, writer) = a.into_split();
        assert_eq!(reader.local_addr().ok(), b.peer_addr().ok());
        assert_eq!(writer.peer_addr().ok(), b.local_addr().ok());
    });
}

#[test]
fn sockets_and_their_futures_can_be_sent() {
    fn send<T: Send>(_: &T) {}
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<TcpListener>();
    send_and_sync::<TcpStream>();
    send_and_sync::<OwnedReadHalf>();
    send_and_sync::<OwnedWriteHalf>();
    send_and_sync::<UdpSocket>();
    send_and_sync::<corelane::net::UnixStream>();
    send_and_sync::<corelane::net::UnixDatagram>();
    async fn all_of_them() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut stream = TcpStream::connect(("localhost", 80)).await?;
        listener.accept().await?;
        stream.ready(Interest::READABLE).await?;
        stream.peek(&mut [0]).await?;
        stream.async_io(Interest::READABLE, || Ok(())).await?;
        assert_eq!(stream.read(&mut [0]).await?, 1);
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.send_to(b"x", "localhost:80").await?;
        socket.recv_from(&mut [0]).await?;
        assert_ne!(corelane::net::lookup_host("localhost:80").await?.count(), 0);
        Ok(())
    }
    send(&all_of_them());
}

#[test]
fn polling_twice_serves_the_last_task() {
    run(|| async {
        let (mut a, mut b) = tcp_pair().await;
        let mut buf = [0; 8];
        let mut reading = pin!(b.read(&mut buf));
        // Polled with a waker nobody hears, then with this task's.
        let mut deaf = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(reading.as_mut().poll(&mut deaf).is_pending());
        let mut written = false;
        poll_fn(|cx| {
            if !written {
                written = true;
                assert!(reading.as_mut().poll(cx).is_pending());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        a.write_all(b"x").await.expect("written");
        assert_eq!(reading.await.expect("read"), 1);
    });
}

#[test]
fn a_socket_can_be_used_whose_number_was_that_of_one_with_a_duplicate() {
    run(|| async {
        for _ in 0..20 {
            let (peer, ours) = tcp_pair().await;
            // Registered, and dropped while a duplicate of its fd keeps the connection.
            let _ = ours.try_read(&mut [0]);
            assert!(poll_now(ours.readable()).await.is_pending());
            let duplicate = ours.as_fd().try_clone_to_owned().expect("a duplicate");
            drop(ours);
            // Most likely with the number that has just become free.
            let again = duplicate.try_clone().expect("another");
            let ours = TcpStream::from_std(again.into()).expect("a stream");
            let _ = ours.try_read(&mut [0]);
            assert!(poll_now(ours.readable()).await.is_pending(), "nothing is there");
            peer.try_write(b"x").expect("there is room");
            ours.readable().await.expect("it has arrived");
            assert_eq!(ours.try_read(&mut [0; 8]).expect("read"), 1);
        }
    });
}
