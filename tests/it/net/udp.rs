//! UDP sockets.

use super::run;
use corelane::net::{Interest, UdpSocket};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;

async fn bound() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a port")
}

/// Two sockets that are connected with each other.
async fn pair() -> (UdpSocket, UdpSocket) {
    let (a, b) = (bound().await, bound().await);
    a.connect(b.local_addr().expect("an address")).await.expect("connected");
    b.connect(a.local_addr().expect("an address")).await.expect("connected");
    (a, b)
}

#[test]
fn datagrams_come_back_from_an_echo() {
    run(|| async {
        let server = bound().await;
        let addr = server.local_addr().expect("an address");
        let echo = corelane::spawn_local(async move {
            let mut buf = [0; 2000];
            for _ in 0..10 {
                let (n, sender) = server.recv_from(&mut buf).await.expect("received");
                assert_eq!(server.send_to(&buf[..n], sender).await.expect("sent"), n);
            }
        });
        let client = bound().await;
        for i in 0..10 {
            let sent = vec![i as u8; i * 100];
            client.send_to(&sent, addr).await.expect("sent");
            let mut buf = [0; 2000];
            let (n, sender) = client.recv_from(&mut buf).await.expect("received");
            assert_eq!((&buf[..n], sender), (&sent[..], addr));
        }
        echo.await.expect("no panic");
    });
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    run(|| async {
        let (a, b) = pair().await;
        assert_eq!(a.peer_addr().ok(), b.local_addr().ok());
        let stranger = bound().await;
        stranger.send_to(b"stranger", a.local_addr().expect("an address")).await.expect("sent");
        b.send(b"friend").await.expect("sent");
        let mut buf = [0; 16];
        let n = a.recv(&mut buf).await.expect("received");
        assert_eq!(&buf[..n], b"friend");
        assert!(futures::poll!(pin!(a.recv(&mut buf))).is_pending());
    });
}

#[test]
fn what_does_not_fit_is_lost_and_the_next_datagram_is_whole() {
    run(|| async {
        let (a, b) = pair().await;
        a.send(b"too long for it").await.expect("sent");
        a.send(b"next").await.expect("sent");
        a.send(b"").await.expect("sent");
        let mut buf = [0; 4];
        assert_eq!(b.recv(&mut buf).await.expect("received"), 4);
        assert_eq!(&buf, b"too ");
        assert_eq!(b.recv(&mut buf).await.expect("received"), 4);
        assert_eq!(&buf, b"next");
        assert_eq!(b.recv(&mut buf).await.expect("received"), 0);
    });
}

#[test]
fn both_of_two_tasks_that_wait_are_served() {
    run(|| async {
        let (a, b) = pair().await;
        let b = Rc::new(b);
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let b = b.clone();
                corelane::spawn_local(async move {
                    let mut buf = [0; 8];
                    b.recv(&mut buf).await.expect("received");
                    buf[0]
                })
            })
            .collect();
        // One by one, so that a waiter forgotten after the first is never served.
        a.send(b"1").await.expect("sent");
        corelane::yield_now().await;
        a.send(b"2").await.expect("sent");
        let mut received = Vec::new();
        for task in tasks {
            received.push(task.await.expect("no panic"));
        }
        received.sort_unstable();
        assert_eq!(received, b"12");
    });
}

#[test]
fn a_waiting_task_that_gives_up_does_not_take_the_others_turn() {
    run(|| async {
        let (a, b) = pair().await;
        let b = Rc::new(b);
        let mut first_buf = [0; 8];
        let mut second_buf = [0; 8];
        let mut first = Box::pin(b.recv(&mut first_buf));
        let mut second = Box::pin(b.recv(&mut second_buf));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        a.send(b"x").await.expect("sent");
        drop(first);
        assert_eq!(second.await.expect("received"), 1);
    });
}

#[test]
fn peeking_leaves_the_datagram() {
    run(|| async {
        let (a, b) = pair().await;
        a.send(b"hello").await.expect("sent");
        let mut buf = [0; 8];
        assert_eq!(b.peek(&mut buf).await.expect("peeked"), 5);
        let (n, sender) = b.peek_from(&mut buf).await.expect("peeked");
        assert_eq!((n, Some(sender)), (5, a.local_addr().ok()));
        assert_eq!(b.peek_sender().await.expect("peeked"), sender);
        assert_eq!(poll_fn(|cx| b.poll_peek_sender(cx)).await.expect("peeked"), sender);
        assert_eq!(b.try_peek(&mut buf[..2]).expect("peeked"), 2);
        assert_eq!(b.try_peek_from(&mut buf).expect("peeked"), (5, sender));
        assert_eq!(b.try_peek_sender().expect("peeked"), sender);
        assert_eq!(b.recv(&mut buf).await.expect("received"), 5);
        assert!(futures::poll!(pin!(b.peek(&mut buf))).is_pending());
    });
}

#[test]
fn trying_without_waiting_says_would_block() {
    run(|| async {
        let (a, b) = pair().await;
        let mut buf = [0; 8];
        a.writable().await.expect("writable");
        assert_eq!(a.try_send(b"one").expect("sent"), 3);
        assert_eq!(a.try_send_to(b"four", b.local_addr().expect("an address")).expect("sent"), 4);
        b.readable().await.expect("readable");
        assert_eq!(b.try_recv(&mut buf).expect("received"), 3);
        let (n, sender) = b.try_recv_from(&mut buf).expect("received");
        assert_eq!((n, Some(sender)), (4, a.local_addr().ok()));
        assert_eq!(b.try_recv(&mut buf).expect_err("empty").kind(), ErrorKind::WouldBlock);
        assert_eq!(b.try_peek(&mut buf).expect_err("empty").kind(), ErrorKind::WouldBlock);
        let ready = b.ready(Interest::READABLE | Interest::WRITABLE).await.expect("ready");
        assert!(ready.is_writable());
    });
}

#[test]
fn poll_methods_send_and_tell_readiness() {
    run(|| async {
        let (a, b) = pair().await;
        let addr = b.local_addr().expect("an address");
        poll_fn(|cx| a.poll_send_ready(cx)).await.expect("ready");
        assert_eq!(poll_fn(|cx| a.poll_send(cx, b"x")).await.expect("sent"), 1);
        assert_eq!(poll_fn(|cx| a.poll_send_to(cx, b"yz", addr)).await.expect("sent"), 2);
        poll_fn(|cx| b.poll_recv_ready(cx)).await.expect("ready");
        let mut buf = [0; 8];
        let n = b.async_io(Interest::READABLE, || b.try_recv(&mut buf)).await.expect("received");
        assert_eq!(n, 1);
        assert_eq!(b.recv(&mut buf).await.expect("received"), 2);
    });
}

#[test]
fn that_nobody_listens_is_told_later() {
    run(|| async {
        let (a, b) = pair().await;
        drop(b);
        a.send(b"x").await.expect("sent into the void");
        let error = a.recv(&mut [0; 8]).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(a.take_error().expect("asked").is_none(), "the error was taken");
    });
}

#[test]
fn options_are_read_as_they_were_set() {
    run(|| async {
        let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a port");
        for on in [true, false] {
            socket.set_broadcast(on).expect("set");
            assert_eq!(socket.broadcast().expect("read"), on);
            socket.set_multicast_loop_v4(on).expect("set");
            assert_eq!(socket.multicast_loop_v4().expect("read"), on);
        }
        socket.set_multicast_ttl_v4(3).expect("set");
        assert_eq!(socket.multicast_ttl_v4().expect("read"), 3);
        socket.set_ttl(44).expect("set");
        assert_eq!(socket.ttl().expect("read"), 44);
        socket.set_tos_v4(0x10).expect("set");
        assert_eq!(socket.tos_v4().expect("read"), 0x10);
        assert_eq!(socket.device().expect("read"), None);

        let group = [224, 0, 0, 123].into();
        // A machine without a multicast route has nothing to join.
        if socket.join_multicast_v4(group, [127, 0, 0, 1].into()).is_ok() {
            socket.leave_multicast_v4(group, [127, 0, 0, 1].into()).expect("left");
        }
    });
}

#[test]
fn sockets_go_to_the_standard_library_and_back() {
    run(|| async {
        let (a, b) = pair().await;
        b.writable().await.expect("writable");
        let b = b.into_std().expect("the socket");
        b.set_nonblocking(false).expect("blocking");
        a.send(b"x").await.expect("sent");
        assert_eq!(b.recv(&mut [0; 8]).expect("received"), 1);
        let b = UdpSocket::try_from(b).expect("taken over");
        // A blocking socket must not stop the thread.
        let mut buf = [0; 8];
        let mut receiving = pin!(b.recv(&mut buf));
        assert!(futures::poll!(&mut receiving).is_pending());
        a.send(b"y").await.expect("sent");
        assert_eq!(receiving.await.expect("received"), 1);
    });
}
