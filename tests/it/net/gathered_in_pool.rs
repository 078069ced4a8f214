//! The same of sockets that a pool shares: any worker may write next, and nobody need poll for the rest to go.

use super::within_reason;
use corelane::http::Io;
use corelane::net::TcpStream;
use corelane::{Mode, Runtime, block_on, spawn, yield_now};
use futures::channel::oneshot;
use futures::{AsyncReadExt, AsyncWriteExt};
use hyper::rt::Write as _;
use socket2::SockRef;
use std::future::{Future, pending, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{self, Shutdown};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;

fn pool() -> Runtime {
    Runtime::builder().mode(Mode::WorkStealing).start().expect("started")
}

/// Runs a task that any worker may run, to its end.
fn run<F>(pool: &Runtime, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let first = pool.handle().shards().next().expect("a worker");
    let task = pool
        .handle()
        .submit_to(first, move || async move { spawn(future).await.expect("no panic") });
    block_on(task).expect("no panic")
}

/// A connection that the pool shares once it has been polled, and the other end, which does not block.
fn pair() -> (Io<TcpStream>, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = net::TcpStream::connect(listener.local_addr().expect("asked")).expect("it listens");
    peer.set_nonblocking(true).expect("a socket");
    let (ours, _) = listener.accept().expect("it has come");
    (Io::new(TcpStream::from_std(ours).expect("a socket")), peer)
}

fn write(io: &mut Io<TcpStream>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
    Pin::new(io).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
}

/// Several writes in one poll, of which all but the first are gathered.
async fn write_each(io: &mut Io<TcpStream>, pieces: &[&[u8]]) {
    io.inner().writable().await.expect("there is room");
    for piece in pieces {
        let written = write(io, piece);
        let taken = matches!(written, Poll::Ready(Ok(count)) if count == piece.len());
        assert!(taken, "{written:?}");
    }
}

/// What has arrived.
fn arrived(mut peer: &net::TcpStream) -> String {
    let mut bytes = [0; 64];
    match peer.read(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
        read => String::from_utf8_lossy(&bytes[..read.expect("it is there")]).into_owned(),
    }
}

fn read_to_end(mut peer: net::TcpStream) -> Vec<u8> {
    peer.set_nonblocking(false).expect("a socket");
    let mut received = Vec::new();
    peer.read_to_end(&mut received).expect("an orderly end");
    received
}

/// Writes numbers, several in a poll, until nothing is taken any more; says how many were taken.
async fn fill(io: &mut Io<TcpStream>) -> u32 {
    io.inner().writable().await.expect("there is room");
    let mut next = 0;
    loop {
        for _ in 0..3 {
            let block: Vec<u8> = (next..next + 256).flat_map(u32::to_be_bytes).collect();
            match write(io, &block) {
                Poll::Ready(written) => next += written.expect("the peer is there") as u32 / 4,
                Poll::Pending => return next,
            }
        }
        yield_now().await;
    }
}

fn assert_numbers(bytes: &[u8], count: u32) {
    let numbers = bytes.chunks_exact(4).map(|it| u32::from_be_bytes(it.try_into().expect("four")));
    assert!(numbers.eq(0..count), "{} of {count} numbers, or in disorder", bytes.len() / 4);
}

async fn flush(io: &mut Io<TcpStream>) -> std::io::Result<()> {
    poll_fn(|context| Pin::new(&mut *io).poll_flush(context)).await
}

#[test]
fn a_burst_is_sent_when_its_poll_is_over() {
    within_reason(|| {
        let (mut io, peer) = pair();
        run(&pool(), async move {
            write_each(&mut io, &[b"1", b"2", b"3"]).await;
            assert_eq!(arrived(&peer), "1");
            yield_now().await;
            assert_eq!(arrived(&peer), "23");
            // From now on the first is expected to have company.
            write_each(&mut io, &[b"4", b"5"]).await;
            assert_eq!(arrived(&peer), "");
            yield_now().await;
            assert_eq!(arrived(&peer), "45");
        });
    });
}

#[test]
fn two_connections_of_one_poll_do_not_mix() {
    within_reason(|| {
        let ((mut one, one_peer), (mut other, other_peer)) = (pair(), pair());
        run(&pool(), async move {
            other.inner().writable().await.expect("there is room");
            write_each(&mut one, &[b"a", b"b"]).await;
            for byte in [b"1", b"2"] {
                assert!(write(&mut other, byte).is_ready());
                assert!(write(&mut one, b"c").is_ready());
            }
        });
        assert_eq!(read_to_end(one_peer), b"abcc");
        assert_eq!(read_to_end(other_peer), b"12");
    });
}

#[test]
fn nothing_overtakes_what_was_gathered() {
    within_reason(|| {
        let pool = pool();
        let (mut io, peer) = pair();
        run(&pool, async move {
            write_each(&mut io, &[b"1", b"2"]).await;
            assert_eq!(io.inner().try_write(b"3").expect("there is room"), 1);
            assert!(write(&mut io, b"4").is_ready());
            // Too large to be copied.
            assert!(write(&mut io, &[b'5'; 20_000]).is_ready());
            assert!(write(&mut io, b"6").is_ready());
            io.into_inner().close().await.expect("nothing is in the way");
        });
        assert_eq!(read_to_end(peer), [b"1234", &[b'5'; 20_000][..], b"6"].concat());
        let (mut io, peer) = pair();
        run(&pool, async move {
            write_each(&mut io, &[b"1", b"2"]).await;
            // On another thread, before the poll is over.
            let stream = io.into_inner();
            let writes = move || assert_eq!(stream.try_write(b"3").expect("there is room"), 1);
            thread::spawn(writes).join().expect("no panic");
        });
        assert_eq!(read_to_end(peer), b"123");
        let (mut io, peer) = pair();
        run(&pool, async move {
            write_each(&mut io, &[b"1", b"2"]).await;
            let mut stream = io.into_inner().into_std().expect("nothing is in the way");
            stream.write_all(b"3").expect("there is room");
        });
        assert_eq!(read_to_end(peer), b"123");
    });
}

#[test]
fn what_the_kernel_has_refused_goes_when_there_is_room_and_nobody_polls() {
    within_reason(|| {
        let pool = pool();
        let (mut io, mut peer) = pair();
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let first = pool.handle().shards().next().expect("a worker");
        drop(pool.handle().spawn_on(first, move || async move {
            drop(spawn(async move {
                tell.send(fill(&mut io).await).expect("somebody listens");
                // Keeps the connection.
                let _ = stopped.await;
            }));
        }));
        let count = told.recv().expect("filled");
        peer.set_nonblocking(false).expect("a socket");
        let mut received = vec![0; count as usize * 4];
        peer.read_exact(&mut received).expect("all of it comes");
        assert_numbers(&received, count);
        drop(stop);
    });
}

#[test]
fn a_flush_waits_for_what_the_kernel_has_refused() {
    within_reason(|| {
        let (mut io, peer) = pair();
        let (tell, told) = mpsc::channel();
        let reading = thread::spawn(move || {
            let count = told.recv().expect("filled");
            (count, read_to_end(peer))
        });
        run(&pool(), async move {
            let count = fill(&mut io).await;
            assert!(futures::poll!(Box::pin(flush(&mut io))).is_pending());
            assert!(
                io.inner().try_write(b"more").is_err_and(|it| it.kind() == ErrorKind::WouldBlock)
            );
            tell.send(count).expect("somebody listens");
            flush(&mut io).await.expect("all was sent");
        });
        let (count, received) = reading.join().expect("no panic");
        assert_numbers(&received, count);
    });
}

#[test]
fn the_end_comes_after_what_the_kernel_has_refused() {
    within_reason(|| {
        let (mut io, mut peer) = pair();
        let (tell, told) = mpsc::channel();
        let reading = thread::spawn(move || {
            let count = told.recv().expect("filled");
            peer.set_nonblocking(false).expect("a socket");
            let mut received = Vec::new();
            peer.read_to_end(&mut received).expect("an orderly end");
            peer.write_all(b"answer").expect("the reader is there");
            (count, received)
        });
        run(&pool(), async move {
            let count = fill(&mut io).await;
            let (mut reader, writer) = io.into_inner().into_split();
            drop(writer);
            tell.send(count).expect("somebody listens");
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).await.expect("read");
            assert_eq!(answer, b"answer");
        });
        let (count, received) = reading.join().expect("no panic");
        assert_numbers(&received, count);
    });
}

#[test]
fn a_socket_with_bytes_unsent_is_closed_with_its_last_owner() {
    within_reason(|| {
        let pool = pool();
        let (mut io, peer) = pair();
        let count = run(&pool, async move { fill(&mut io).await });
        // Whatever was left of them, the end comes: an orderly one, or a reset.
        peer.set_nonblocking(false).expect("a socket");
        let mut received = Vec::new();
        let _ = (&peer).read_to_end(&mut received);
        assert!(received.len() <= count as usize * 4);
        let (mut io, _peer) = pair();
        let taken_out = run(&pool, async move {
            fill(&mut io).await;
            io.into_inner().into_std().map(drop)
        });
        let error = taken_out.expect_err("bytes would be missing");
        assert!(error.to_string().contains("flush"), "{error}");
    });
}

#[test]
fn bytes_that_could_not_be_sent_are_missed_by_whoever_comes_next() {
    within_reason(|| {
        let (mut io, _peer) = pair();
        run(&pool(), async move {
            write_each(&mut io, &[b"1"]).await;
            SockRef::from(io.inner()).shutdown(Shutdown::Write).expect("it is connected");
            // Gathered, and told to be written.
            assert!(matches!(write(&mut io, b"2"), Poll::Ready(Ok(1))));
            yield_now().await;
            flush(&mut io).await.expect_err("a byte is missing");
            let error = io.inner().try_write(b"3").expect_err("a byte is missing");
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            assert!(matches!(write(&mut io, b"3"), Poll::Ready(Err(_))));
        });
    });
}

#[test]
fn a_pool_that_ends_with_bytes_unsent_leaves_an_error_and_no_gap() {
    within_reason(|| {
        let (mut io, peer) = pair();
        let pool = pool();
        let mut io = run(&pool, async move {
            fill(&mut io).await;
            io
        });
        drop(pool);
        // The kernel has room again.
        while arrived(&peer).len() == 64 {}
        block_on(async {
            flush(&mut io).await.expect_err("bytes are missing");
            let mut stream = io.into_inner();
            stream.write(b"more").await.expect_err("bytes are missing");
        });
    });
}

#[test]
fn what_destructors_write_at_the_end_of_a_pool_is_sent() {
    struct Says(Io<TcpStream>);
    impl Drop for Says {
        fn drop(&mut self) {
            for byte in [b"1", b"2", b"3"] {
                assert!(write(&mut self.0, byte).is_ready());
            }
        }
    }
    within_reason(|| {
        let pool = pool();
        let (io, peer) = pair();
        run(&pool, async move {
            io.inner().writable().await.expect("there is room");
            let says = Says(io);
            drop(spawn(async move {
                let _says = says;
                pending::<()>().await;
            }));
            yield_now().await;
        });
        drop(pool);
        assert_eq!(read_to_end(peer), b"123");
    });
}
