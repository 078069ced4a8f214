//! Tokio's I/O traits and `ReadBuf`, without Tokio's runtime.

use super::{run, tcp_pair};
use corelane::net::{UdpSocket, UnixDatagram, UnixStream};
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};

#[test]
fn streams_and_halves_read_and_write() {
    run(|| async {
        let (mut a, b) = tcp_pair().await;
        assert!(a.is_write_vectored());
        let echo = corelane::spawn_local(async move {
            let (mut reader, mut writer) = b.into_split();
            tokio::io::copy(&mut reader, &mut writer).await.expect("copied");
            writer.shutdown().await.expect("shut down");
        });
        let sent = vec![5; 1 << 20];
        let mut received = Vec::new();
        let (mut reader, mut writer) = a.split();
        futures::join!(
            async {
                writer.write_all(&sent).await.expect("written");
                writer.flush().await.expect("flushed");
                writer.shutdown().await.expect("shut down");
            },
            async { reader.read_to_end(&mut received).await.expect("read") }
        );
        assert!(received == sent);
        echo.await.expect("no panic");

        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        let n = a.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).await;
        assert_eq!(n.expect("written"), 3);
        a.shutdown().await.expect("shut down");
        let mut text = String::new();
        b.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "abc");
        let error = a.write(b"x").await.expect_err("shut down");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_proxy_copies_both_ways() {
    run(|| async {
        let (mut client, mut front) = tcp_pair().await;
        let (mut back, mut server) = UnixStream::pair().expect("a pair");
        let proxy = corelane::spawn_local(async move {
            copy_bidirectional(&mut front, &mut back).await.expect("copied")
        });
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("shut down");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("read");
        server.write_all(b"reply").await.expect("written");
        drop(server);
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).await.expect("read");
        assert_eq!((&question[..], &reply[..]), (&b"question"[..], &b"reply"[..]));
        assert_eq!(proxy.await.expect("no panic"), (8, 5));
    });
}

#[test]
fn read_bufs_are_filled_behind_what_they_hold() {
    run(|| async {
        let (mut a, b) = tcp_pair().await;
        a.write_all(b"hello").await.expect("written");
        let mut storage = [0; 8];
        let mut buf = ReadBuf::new(&mut storage);
        buf.put_slice(b"> ");
        assert_eq!(poll_fn(|cx| b.poll_peek(cx, &mut buf)).await.expect("peeked"), 5);
        assert_eq!(buf.filled(), b"> hello");
        let (mut reader, _writer) = b.into_split();
        buf.clear();
        assert_eq!(poll_fn(|cx| reader.poll_peek(cx, &mut buf)).await.expect("peeked"), 5);

        let a = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let b = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let (here, there) = (a.local_addr().expect("addr"), b.local_addr().expect("addr"));
        for _ in 0..2 {
            a.send_to(b"12", there).await.expect("sent");
        }
        buf.clear();
        poll_fn(|cx| b.poll_peek(cx, &mut buf)).await.expect("peeked");
        assert_eq!(poll_fn(|cx| b.poll_peek_from(cx, &mut buf)).await.expect("peeked"), here);
        assert_eq!(poll_fn(|cx| b.poll_recv_from(cx, &mut buf)).await.expect("received"), here);
        poll_fn(|cx| b.poll_recv(cx, &mut buf)).await.expect("received");
        assert_eq!(buf.filled(), b"12121212");

        let (a, b) = UnixDatagram::pair().expect("a pair");
        a.send(b"x").await.expect("sent");
        a.send(b"y").await.expect("sent");
        buf.clear();
        poll_fn(|cx| b.poll_recv(cx, &mut buf)).await.expect("received");
        let sender = poll_fn(|cx| b.poll_recv_from(cx, &mut buf)).await.expect("received");
        assert!(sender.is_unnamed());
        assert_eq!(buf.filled(), b"xy");
    });
}
