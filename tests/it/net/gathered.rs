//! Bytes that hyper's adapter has gathered, or that the kernel has refused: nothing written later overtakes them.

use corelane::http::Io;
use corelane::net::TcpStream;
use corelane::{HostedShard, Limits, block_on};
use futures::AsyncWriteExt;
use hyper::rt::{Read as _, ReadBuf, Write as _};
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn pair() -> (Io<TcpStream>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer =
        std::net::TcpStream::connect(listener.local_addr().expect("asked")).expect("it listens");
    let (ours, _) = listener.accept().expect("it has come");
    (Io::new(TcpStream::from_std(ours).expect("a socket")), peer)
}

/// Several writes in one poll, the second and third of which are gathered.
async fn write_three(io: &mut Io<TcpStream>) {
    io.inner().writable().await.expect("there is room");
    poll_fn(|context| {
        for bytes in [b"1", b"2", b"3"] {
            assert!(matches!(Pin::new(&mut *io).poll_write(context, bytes), Poll::Ready(Ok(1))));
        }
        Poll::Ready(())
    })
    .await;
}

fn read_to_end(mut peer: std::net::TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    peer.read_to_end(&mut received).expect("an orderly end");
    received
}

#[test]
fn what_is_written_without_waiting_comes_after_what_was_gathered() {
    let (mut io, peer) = pair();
    block_on(async {
        write_three(&mut io).await;
        assert_eq!(io.into_inner().try_write(b"4").expect("there is room"), 1);
    });
    assert_eq!(read_to_end(peer), b"1234");
}

#[test]
fn the_end_comes_after_what_was_gathered() {
    let (mut io, peer) = pair();
    block_on(async {
        write_three(&mut io).await;
        io.into_inner().close().await.expect("nothing is in the way");
    });
    assert_eq!(read_to_end(peer), b"123");
    let (mut io, peer) = pair();
    block_on(async {
        write_three(&mut io).await;
        let (reader, writer) = io.into_inner().into_split();
        drop(writer);
        assert_eq!(read_to_end(peer), b"123");
        drop(reader);
    });
}

/// Writes numbers, several in a poll, until the kernel and the slot take no more. Returns how many they took.
fn fill(shard: &HostedShard, io: &mut Io<TcpStream>) -> u32 {
    let mut context = Context::from_waker(Waker::noop());
    let mut next = 0;
    loop {
        let full = shard.enter(|| {
            for _ in 0..3 {
                let block: Vec<u8> = (next..next + 256).flat_map(u32::to_be_bytes).collect();
                match Pin::new(&mut *io).poll_write(&mut context, &block) {
                    Poll::Ready(written) => {
                        let written = written.expect("the peer is there");
                        assert!(written.is_multiple_of(4), "half a number");
                        next += written as u32 / 4;
                    }
                    Poll::Pending => return true,
                }
            }
            false
        });
        if full {
            break;
        }
    }
    let flushed = shard.enter(|| Pin::new(&mut *io).poll_flush(&mut context));
    assert!(flushed.is_pending(), "the slot holds bytes");
    next
}

/// Waits, as a task of the shard, for something to read, which registers the socket there.
fn wait_for_bytes(shard: &HostedShard, io: &mut Io<TcpStream>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut bytes = [0; 16];
    let mut buffer = ReadBuf::new(&mut bytes);
    shard.enter(|| {
        assert!(Pin::new(io).poll_read(&mut context, buffer.unfilled()).is_pending());
    });
    shard.turn(Duration::ZERO);
}

fn hosted() -> HostedShard {
    HostedShard::new(Limits::default()).expect("a shard")
}

#[test]
fn a_home_that_lets_a_socket_go_does_not_forget_what_its_new_home_holds() {
    let (first, second) = (hosted(), hosted());
    let (mut io, mut peer) = pair();
    wait_for_bytes(&first, &mut io);
    wait_for_bytes(&first, &mut io);
    // It moves, but who waits at the first home keeps the slot there.
    wait_for_bytes(&second, &mut io);
    first.turn(Duration::ZERO);
    wait_for_bytes(&second, &mut io);
    let count = fill(&second, &mut io);
    // Something to read: nobody waits at the first home any more.
    peer.write_all(b"x").expect("sent");
    for _ in 0..3 {
        first.turn(Duration::from_millis(20));
    }
    // The peer makes room, and the socket comes back.
    let mut received = vec![0; count as usize * 2];
    peer.read_exact(&mut received).expect("so many were taken");
    peer.set_nonblocking(true).expect("a socket");
    let mut context = Context::from_waker(Waker::noop());
    let mut written = false;
    let began = std::time::Instant::now();
    while received.len() < (count as usize + 1) * 4 {
        assert!(began.elapsed() < super::HANGS_AFTER, "{} of {count} numbers", received.len() / 4);
        let marker = u32::MAX.to_be_bytes();
        written = written
            || first.enter(|| Pin::new(&mut io).poll_write(&mut context, &marker).is_ready());
        first.turn(Duration::ZERO);
        second.turn(Duration::ZERO);
        let mut bytes = [0; 1 << 16];
        match peer.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => received.extend(&bytes[..read.expect("it is there")]),
        }
    }
    let numbers = received
        .chunks_exact(4)
        .map(|four| u32::from_be_bytes(four.try_into().expect("four bytes")));
    assert!(numbers.eq((0..count).chain([u32::MAX])), "in order, the marker last");
}

#[test]
fn a_socket_with_bytes_unsent_is_not_taken_out_without_them() {
    let shard = hosted();
    let (mut io, _peer) = pair();
    wait_for_bytes(&shard, &mut io);
    wait_for_bytes(&shard, &mut io);
    fill(&shard, &mut io);
    let error = shard.enter(|| io.into_inner().into_std()).expect_err("bytes would be missing");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("flush"), "{error}");
}
