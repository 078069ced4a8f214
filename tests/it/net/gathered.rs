//! Bytes that hyper's adapter has gathered, or that the kernel has refused: nothing written later overtakes them.

use corelane::http::Io;
use corelane::net::TcpStream;
use corelane::{HostedShard, Limits, Mode, Runtime, block_on};
use futures::{AsyncReadExt, AsyncWriteExt};
use hyper::rt::{Read as _, ReadBuf, Write as _};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

fn pair() -> (Io<TcpStream>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer =
        std::net::TcpStream::connect(listener.local_addr().expect("asked")).expect("it listens");
    let (ours, _) = listener.accept().expect("it has come");
    (Io::new(TcpStream::from_std(ours).expect("a socket")), peer)
}

/// Several writes in one poll, each of which is taken; on a shard that knows the socket all but the first are gathered.
fn write_each(io: &mut Io<TcpStream>, pieces: &[&[u8]]) {
    let mut context = Context::from_waker(Waker::noop());
    for piece in pieces {
        let written = Pin::new(&mut *io).poll_write(&mut context, piece);
        let taken = matches!(written, Poll::Ready(Ok(count)) if count == piece.len());
        assert!(taken, "{written:?}");
    }
}

/// Three of them.
async fn write_three(io: &mut Io<TcpStream>) {
    io.inner().writable().await.expect("there is room");
    write_each(io, &[b"1", b"2", b"3"]);
}

fn read_to_end(mut peer: std::net::TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    peer.read_to_end(&mut received).expect("an orderly end");
    received
}

#[test]
fn slices_keep_their_place_among_what_was_gathered() {
    let (mut io, peer) = pair();
    let large = [b'x'; 20_000];
    block_on(async {
        io.inner().writable().await.expect("there is room");
        let mut context = Context::from_waker(Waker::noop());
        write_each(&mut io, &[b"1"]);
        let small = [IoSlice::new(b"2"), IoSlice::new(b""), IoSlice::new(b"3")];
        let written = Pin::new(&mut io).poll_write_vectored(&mut context, &small);
        assert!(matches!(written, Poll::Ready(Ok(2))), "{written:?}");
        write_each(&mut io, &[b"4"]);
        let both = [IoSlice::new(b"5"), IoSlice::new(&large)];
        let written = Pin::new(&mut io).poll_write_vectored(&mut context, &both);
        assert!(matches!(written, Poll::Ready(Ok(20_001))), "{written:?}");
    });
    drop(io);
    assert_eq!(read_to_end(peer), [b"12345", &large[..]].concat());
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

/// What [`fill`] has written.
fn numbers_in(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().expect("four bytes")))
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

/// A connection that this shard knows.
fn pair_at(shard: &HostedShard) -> (Io<TcpStream>, std::net::TcpStream) {
    let (mut io, peer) = pair();
    wait_for_bytes(shard, &mut io);
    wait_for_bytes(shard, &mut io);
    (io, peer)
}

/// Turns these shards until `holds` does.
#[track_caller]
fn turn_until(shards: &[&HostedShard], mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < super::HANGS_AFTER / 2, "it never comes to this");
        for shard in shards {
            shard.turn(Duration::from_millis(1));
        }
    }
}

/// Closes a connection on its shard, and returns what the peer reads to the end.
fn received_at_the_end(
    shards: &[&HostedShard],
    io: Io<TcpStream>,
    peer: std::net::TcpStream,
) -> String {
    shards[0].enter(|| drop(io));
    read_turning(shards, peer)
}

/// What the peer reads to the end while these shards are turned.
fn read_turning(shards: &[&HostedShard], peer: std::net::TcpStream) -> String {
    let reading = thread::spawn(move || read_to_end(peer));
    turn_until(shards, || reading.is_finished());
    String::from_utf8(reading.join().expect("no panic")).expect("what was written")
}

#[test]
fn a_home_that_lets_a_socket_go_does_not_forget_what_its_new_home_holds() {
    let (first, second) = (hosted(), hosted());
    let (mut io, mut peer) = pair_at(&first);
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
    let began = Instant::now();
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
    let numbers = numbers_in(&received);
    assert!(numbers.eq((0..count).chain([u32::MAX])), "in order, the marker last");
}

#[test]
fn a_socket_with_bytes_unsent_is_not_taken_out_without_them() {
    let shard = hosted();
    let (mut io, _peer) = pair_at(&shard);
    fill(&shard, &mut io);
    let error = shard.enter(|| io.into_inner().into_std()).expect_err("bytes would be missing");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("flush"), "{error}");
}

#[test]
fn a_waker_that_writes_while_gathered_bytes_fail_to_be_sent_mixes_no_two_connections() {
    thread_local! { static THIRD: RefCell<Option<Io<TcpStream>>> = const { RefCell::new(None) } }
    struct WritesToTheThird;
    impl Wake for WritesToTheThird {
        fn wake(self: Arc<Self>) {
            if let Some(mut third) = THIRD.take() {
                write_each(&mut third, &[b"to ", b"the ", b"third"]);
                THIRD.set(Some(third));
            }
        }
    }
    super::within_reason(|| {
        let shard = hosted();
        let (mut first, _peer) = pair_at(&shard);
        let (mut second, second_peer) = pair_at(&shard);
        let (third, third_peer) = pair_at(&shard);
        THIRD.set(Some(third));
        let waker = Waker::from(Arc::new(WritesToTheThird));
        let mut bytes = [0; 4];
        let mut buffer = ReadBuf::new(&mut bytes);
        shard.enter(|| {
            let mut context = Context::from_waker(&waker);
            let read = Pin::new(&mut first).poll_read(&mut context, buffer.unfilled());
            assert!(read.is_pending());
            write_each(&mut first, &[b"1"]);
            // What is gathered from here on fails, which wakes who waits to read.
            SockRef::from(first.inner()).shutdown(Shutdown::Write).expect("it is connected");
            write_each(&mut first, &[b"2"]);
            write_each(&mut second, &[b"to ", b"the ", b"second"]);
        });
        let third = THIRD.take().expect("nobody else takes it");
        assert_eq!(received_at_the_end(&[&shard], second, second_peer), "to the second");
        assert_eq!(received_at_the_end(&[&shard], third, third_peer), "to the third");
    });
}

#[test]
fn what_another_thread_writes_within_the_poll_comes_after_what_was_gathered() {
    super::within_reason(|| {
        let shard = hosted();
        let (mut io, peer) = pair_at(&shard);
        let (tell, told) = mpsc::channel();
        let other = shard.enter(|| {
            write_each(&mut io, &[b"1", b"2", b"3"]);
            let flushed = Pin::new(&mut io).poll_flush(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(flushed, Poll::Ready(Ok(()))));
            // As hyper hands over what has been upgraded: whoever waits for it goes on at once.
            let other = thread::spawn(move || {
                block_on(async {
                    let mut stream = io.into_inner();
                    let mut write = stream.write_all(b"4");
                    let written = futures::poll!(&mut write);
                    tell.send(()).expect("the poll goes on");
                    match written {
                        Poll::Ready(written) => written,
                        Poll::Pending => write.await,
                    }
                    .expect("the peer is there");
                    stream.write_all(b"5").await.expect("the peer is there");
                });
            });
            told.recv().expect("it has tried to write");
            other
        });
        assert_eq!(read_turning(&[&shard], peer), "12345");
        other.join().expect("no panic");
    });
}

#[test]
fn a_socket_with_bytes_gathered_is_not_taken_out_elsewhere_without_them() {
    super::within_reason(|| {
        let shard = hosted();
        let (mut io, peer) = pair_at(&shard);
        let taken_out = shard.enter(|| {
            write_each(&mut io, &[b"1", b"2", b"3"]);
            thread::spawn(|| io.into_inner().into_std()).join().expect("no panic")
        });
        let error = taken_out.expect_err("bytes would be missing");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(read_turning(&[&shard], peer), "123");
    });
}

#[test]
fn gathered_bytes_are_kept_when_the_shard_hears_late_that_their_socket_had_left() {
    super::within_reason(|| {
        let (first, second) = (hosted(), hosted());
        let (mut io, peer) = pair();
        let know = |shard: &HostedShard, io: &Io<TcpStream>| {
            shard.enter(|| {
                let mut context = Context::from_waker(Waker::noop());
                let _ = pin!(io.inner().writable()).poll(&mut context);
            });
            shard.turn(Duration::ZERO);
        };
        know(&first, &io);
        know(&second, &io);
        first.enter(|| {
            write_each(&mut io, &[b"1", b"2", b"3"]);
            first.turn(Duration::ZERO);
        });
        assert_eq!(received_at_the_end(&[&first, &second], io, peer), "123");
    });
}

#[test]
fn the_end_comes_after_bytes_that_the_kernel_has_refused() {
    super::within_reason(|| {
        let shard = hosted();
        let (mut io, mut peer) = pair_at(&shard);
        let count = fill(&shard, &mut io);
        let (mut reader, writer) = io.into_inner().into_split();
        shard.enter(|| drop(writer));
        // The other half lives, and waits for what the peer says when it has read everything.
        let answer = shard.enter(|| {
            corelane::spawn_local(async move {
                let mut answer = Vec::new();
                reader.read_to_end(&mut answer).await.expect("read");
                assert_eq!(answer, b"answer");
            })
        });
        let peer = thread::spawn(move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).expect("an orderly end");
            peer.write_all(b"answer").expect("the reader is there");
            received
        });
        turn_until(&[&shard], || answer.is_finished());
        let received = peer.join().expect("no panic");
        assert!(numbers_in(&received).eq(0..count), "{} of {count} numbers", received.len() / 4);
    });
}

#[test]
fn a_home_that_ends_with_bytes_unsent_leaves_an_error_and_no_gap() {
    super::within_reason(|| {
        let (first, second) = (hosted(), hosted());
        let (mut io, mut peer) = pair_at(&first);
        fill(&first, &mut io);
        drop(first);
        peer.set_nonblocking(true).expect("a socket");
        let mut context = Context::from_waker(Waker::noop());
        // On a thread that is no shard: neither a flush nor an end may look as if all had gone well.
        let aborted = |polled: Poll<std::io::Result<()>>| match polled {
            Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionAborted),
            other => panic!("{other:?}, though bytes are missing"),
        };
        aborted(Pin::new(&mut io).poll_flush(&mut context));
        aborted(Pin::new(&mut io).poll_shutdown(&mut context));
        aborted(Poll::Ready(io.inner().try_write(b"more").map(drop)));
        let mut bytes = vec![0; 1 << 16];
        let mut written = Poll::Pending;
        turn_until(&[&second], || {
            // The kernel has room again.
            while let Ok(1..) = peer.read(&mut bytes) {}
            written = second.enter(|| Pin::new(&mut io).poll_write(&mut context, b"more"));
            written.is_ready()
        });
        let Poll::Ready(Err(error)) = written else {
            panic!("{written:?}, though bytes are missing")
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        // What the peer says can still be read.
        peer.write_all(b"answer").expect("written");
        let mut stream = io.into_inner();
        let mut answer = [0; 6];
        let read = second.enter(|| {
            corelane::spawn_local(async move {
                futures::AsyncReadExt::read_exact(&mut stream, &mut answer).await.expect("read");
                answer
            })
        });
        turn_until(&[&second], || read.is_finished());
    });
}

#[test]
fn bytes_that_a_shard_has_lost_are_missing_in_a_pool_too() {
    super::within_reason(|| {
        let shard = hosted();
        let (mut io, mut peer) = pair_at(&shard);
        fill(&shard, &mut io);
        drop(shard);
        // The kernel has room again.
        peer.set_nonblocking(true).expect("a socket");
        let mut bytes = vec![0; 1 << 16];
        while let Ok(1..) = peer.read(&mut bytes) {}
        let pool = Runtime::builder().mode(Mode::WorkStealing).start().expect("started");
        let first = pool.handle().shards().next().expect("a worker");
        let (tell, told) = mpsc::channel();
        let task = pool.handle().spawn_on(first, move || async move {
            let mut stream = io.into_inner();
            // Whatever registers it there.
            assert!(futures::poll!(stream.read(&mut [0])).is_pending());
            tell.send(()).expect("somebody listens");
            for _ in 0..2 {
                let error = stream.write(b"more").await.expect_err("bytes are missing");
                assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
                let error = stream.try_write(b"more").expect_err("bytes are missing");
                assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            }
            // What the peer says can still be read.
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).await.expect("read");
            assert_eq!(&answer, b"answer");
        });
        told.recv().expect("it is registered");
        peer.write_all(b"answer").expect("written");
        block_on(task.expect("there is room")).expect("no panic");
    });
}

#[test]
fn what_destructors_write_at_the_end_of_a_shard_is_sent() {
    struct Says(Io<TcpStream>);
    impl Drop for Says {
        fn drop(&mut self) {
            let mut context = Context::from_waker(Waker::noop());
            for byte in [b"1", b"2", b"3"] {
                assert!(Pin::new(&mut self.0).poll_write(&mut context, byte).is_ready());
            }
        }
    }
    super::within_reason(|| {
        let shard = hosted();
        let (io, mut peer) = pair_at(&shard);
        let kept = Says(io);
        let task = shard.enter(|| {
            corelane::spawn_local(async move {
                let _kept = kept;
                std::future::pending::<()>().await;
            })
        });
        shard.turn(Duration::ZERO);
        drop((shard, task));
        let mut all = String::new();
        peer.read_to_string(&mut all).expect("read");
        assert_eq!(all, "123");
    });
}

#[test]
fn every_write_behind_lost_bytes_is_an_error_on_a_shard_as_in_a_pool() {
    super::within_reason(|| {
        let (first, second) = (hosted(), hosted());
        let (mut io, mut peer) = pair_at(&first);
        fill(&first, &mut io);
        drop(first);
        peer.set_nonblocking(true).expect("a socket");
        let mut bytes = vec![0; 1 << 16];
        let mut context = Context::from_waker(Waker::noop());
        let mut outcomes = Vec::new();
        let began = Instant::now();
        while outcomes.len() < 3 {
            assert!(began.elapsed() < super::HANGS_AFTER / 2);
            while let Ok(1..) = peer.read(&mut bytes) {}
            let written = second.enter(|| Pin::new(&mut io).poll_write(&mut context, b"more"));
            if let Poll::Ready(written) = written {
                outcomes.push(written.map_err(|error| error.kind()));
            }
            second.turn(Duration::from_millis(1));
        }
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    });
}

#[test]
fn a_flush_says_that_what_was_gathered_could_not_be_sent() {
    let shard = hosted();
    let (mut io, _peer) = pair_at(&shard);
    let mut context = Context::from_waker(Waker::noop());
    shard.enter(|| {
        assert!(Pin::new(&mut io).poll_write(&mut context, b"1").is_ready());
        socket2::SockRef::from(io.inner()).shutdown(Shutdown::Write).expect("connected");
        // Gathered, and told to be written.
        assert!(matches!(Pin::new(&mut io).poll_write(&mut context, b"2"), Poll::Ready(Ok(1))));
    });
    shard.turn(Duration::ZERO);
    let flushed = shard.enter(|| Pin::new(&mut io).poll_flush(&mut context));
    assert!(matches!(flushed, Poll::Ready(Err(_))), "{flushed:?}, though a byte is missing");
}

/// Says goodbye.
struct Says(Io<TcpStream>, Rc<Cell<u32>>);

impl Drop for Says {
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if Pin::new(&mut self.0).poll_write(&mut context, b"bye").is_ready() {
            self.1.set(self.1.get() + 1);
        }
    }
}

#[test]
fn what_many_destructors_write_at_the_end_of_a_shard_is_sent() {
    const CONNECTIONS: u32 = 200;
    let shard = hosted();
    let said = Rc::new(Cell::new(0));
    let mut peers = Vec::new();
    for _ in 0..CONNECTIONS {
        let (io, peer) = pair_at(&shard);
        peers.push(peer);
        let says = Says(io, said.clone());
        drop(shard.enter(|| {
            corelane::spawn_local(async move {
                let _says = says;
                std::future::pending::<()>().await;
            })
        }));
    }
    while shard.turn(Duration::ZERO) {}
    drop(shard);
    assert_eq!(said.get(), CONNECTIONS);
}

#[test]
fn what_the_destructor_of_an_output_writes_at_the_end_of_a_shard_is_sent() {
    let shard = hosted();
    let said = Rc::new(Cell::new(0));
    let (io, _peer) = pair_at(&shard);
    let says = Says(io, said.clone());
    let task = shard.enter(|| corelane::spawn_local(async move { says }));
    while shard.turn(Duration::ZERO) {}
    assert!(task.is_finished());
    // Nobody has taken the output: the shard drops it, after its sockets.
    drop(shard);
    assert_eq!(said.get(), 1);
    drop(task);
}
