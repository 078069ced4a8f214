//! Connections that stop being HTTP: what was gathered before comes before what is written after.

use super::client::Client;
use super::in_process::{Body, SHARD, Served, answer, has_two_cpus, whole, within_reason};
use super::{skipped, until};
use corelane::http::Io;
use corelane::net::TcpStream;
use corelane::server;
use corelane::{Cores, Handle, Runtime, ShardId};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{Parts, Upgraded};
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// A large write, which is not gathered.
const LARGE: usize = 300_000;

/// `GET /SIZE` answers that many bytes. A request for an upgrade gets it, and `talk` the connection.
fn serve<F, Fut>(shards: usize, talk: F) -> Served
where
    F: Fn(Upgraded) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    Served::by(shards, move |_shard| {
        service_fn(move |request: Request<server::Body>| {
            let response = respond(request, talk.clone());
            async { Ok::<_, Infallible>(response) }
        })
    })
}

fn respond<F, Fut>(request: Request<server::Body>, talk: F) -> Response<Body>
where
    F: Fn(Upgraded) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    if !request.headers().contains_key(UPGRADE) {
        let size = request.uri().path()[1..].parse().expect("a size");
        return answer(vec![b'x'; size]);
    }
    drop(corelane::spawn_local(async move {
        talk(hyper::upgrade::on(request).await.expect("an upgrade")).await;
    }));
    upgrading()
}

/// The response that says so.
fn upgrading() -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, "upgrade".parse().expect("a value"));
    response.headers_mut().insert(UPGRADE, "echo".parse().expect("a value"));
    response
}

/// The stream itself and what hyper has read too much.
fn stream_of(upgraded: Upgraded) -> (TcpStream, Bytes) {
    server::into_stream(upgraded).expect("our own type")
}

/// Greets, says something large, and echoes.
async fn greet_and_echo(mut stream: TcpStream, early: Bytes) {
    stream.write_all(b"welcome ").await.expect("written");
    stream.write_all(&vec![b'L'; LARGE]).await.expect("written");
    stream.write_all(&early).await.expect("written");
    let mut buffer = vec![0; 1000];
    loop {
        match stream.read(&mut buffer).await.expect("read") {
            0 => return,
            count => stream.write_all(&buffer[..count]).await.expect("written"),
        }
    }
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

fn get(size: usize) -> String {
    format!("GET /{size} HTTP/1.1\r\nhost: t\r\n\r\n")
}

/// The answers to requests of these sizes, then the upgrade and what [`greet_and_echo`] says, "early" being what was
/// sent along with the request.
#[track_caller]
fn is_upgraded(client: &mut Client, sizes: &[usize]) {
    for &size in sizes {
        let answer = client.answer();
        assert!(answer.body == vec![b'x'; size], "{} bytes instead of {size}", answer.body.len());
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    assert_eq!(client.read_exactly(8).expect("a greeting"), b"welcome ");
    assert!(client.read_exactly(LARGE).expect("much").iter().all(|&byte| byte == b'L'));
    assert_eq!(client.read_exactly(5).expect("an echo"), b"early");
    client.send("late");
    assert_eq!(client.read_exactly(4).expect("an echo"), b"late");
    client.stream().shutdown(std::net::Shutdown::Write).expect("open");
    client.is_closed();
}

/// Requests of these sizes and the upgrade in one segment.
fn ask(client: &mut Client, sizes: &[usize]) {
    let requests: String = sizes.iter().map(|&size| get(size)).collect();
    client.send(format!("{requests}{ASK}early"));
}

async fn as_stream(upgraded: Upgraded) {
    let (stream, early) = stream_of(upgraded);
    greet_and_echo(stream, early).await;
}

#[test]
fn gathered_answers_come_before_what_is_said_after_an_upgrade() {
    within_reason(|| {
        let served = serve(1, as_stream);
        for sizes in [&[][..], &[1], &[10, 1000, 5], &[15_000; 4], &[40_000, 3], &[3, 40_000]] {
            let mut client = Client::connect(served.address);
            ask(&mut client, sizes);
            is_upgraded(&mut client, sizes);
        }
    });
}

#[test]
fn answers_that_the_kernel_has_refused_come_before_what_is_said_after_an_upgrade() {
    within_reason(|| {
        let served = serve(1, as_stream);
        // So many that the buffers of the kernel are full for some of them when the upgrade comes, whatever their size.
        for count in (100..1200).step_by(100) {
            let sizes = vec![8000; count];
            let mut client = Client::with_receive_buffer(served.address, 64 * 1024);
            ask(&mut client, &sizes);
            is_upgraded(&mut client, &sizes);
        }
    });
}

#[test]
fn an_upgraded_connection_works_without_being_taken_apart() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    within_reason(|| {
        let served = serve(1, |upgraded| async {
            let mut stream = hyper_util::rt::TokioIo::new(upgraded);
            stream.write_all(b"welcome ").await.expect("written");
            stream.write_all(&[b'L'; LARGE]).await.expect("written");
            let mut buffer = [0; 1000];
            loop {
                match stream.read(&mut buffer).await.expect("read") {
                    0 => break stream.shutdown().await.expect("ended"),
                    count => stream.write_all(&buffer[..count]).await.expect("written"),
                }
                stream.flush().await.expect("flushed");
            }
        });
        for sizes in [&[][..], &[10, 1000], &[8000; 1000]] {
            let mut client = Client::with_receive_buffer(served.address, 64 * 1024);
            ask(&mut client, sizes);
            is_upgraded(&mut client, sizes);
        }
    });
}

#[test]
fn an_upgraded_connection_may_go_to_another_shard_with_bytes_unsent() {
    if !has_two_cpus() {
        return skipped("a second shard: there is one CPU");
    }
    within_reason(|| {
        let served = serve(2, |upgraded| async {
            let (stream, early) = stream_of(upgraded);
            let here = ShardId::current().expect("a shard");
            let other = ShardId::new(1 - here.index() as u16);
            let talk = move || greet_and_echo(stream, early);
            Handle::current().submit_to(other, talk).await.expect("no panic");
        });
        for sizes in [&[][..], &[10, 1000], &[8000; 300], &[8000; 1000]] {
            let mut client = Client::with_receive_buffer(served.address, 64 * 1024);
            ask(&mut client, sizes);
            is_upgraded(&mut client, sizes);
        }
    });
}

#[test]
fn what_another_thread_says_after_an_upgrade_comes_after_the_answers_gathered_before_it() {
    /// Lets the poll that drops it go on when the other thread has tried to write.
    struct Waits(mpsc::Receiver<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.recv().expect("it tries");
        }
    }
    /// Greets, on a thread of its own, as soon as there is an upgrade.
    fn greet(request: Request<Incoming>, tell: mpsc::Sender<()>) {
        thread::spawn(|| {
            corelane::block_on(async move {
                let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
                let parts = upgraded.downcast::<Io<TcpStream>>().expect("our own type");
                let Parts { io, .. } = parts;
                let mut stream = io.into_inner();
                let mut write = stream.write_all(b"welcome");
                let written = futures::poll!(&mut write);
                tell.send(()).expect("the poll goes on");
                match written {
                    Poll::Ready(written) => written,
                    Poll::Pending => write.await,
                }
                .expect("the client is there");
            });
        });
    }
    within_reason(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1)).start().expect("started");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = Client::connect(listener.local_addr().expect("an address"));
        client.send(format!("{}{ASK}", get(3)));
        let (accepted, _) = listener.accept().expect("it has come");
        let (tell, told) = mpsc::channel();
        let service = move |request: Request<Incoming>| {
            let upgrades = request.headers().contains_key(UPGRADE);
            if upgrades {
                greet(request, tell.clone());
            }
            let response = if upgrades { upgrading() } else { answer("xxx") };
            async { Ok::<_, Infallible>(response) }
        };
        let connection = move || async move {
            let stream = TcpStream::from_std(accepted).expect("a socket");
            // Registered, as a connection is that has waited for its first request.
            stream.writable().await.expect("there is room");
            let _end = Waits(told);
            let service = service_fn(service);
            let http = http1::Builder::new().serve_connection(Io::new(stream), service);
            http.with_upgrades().await.expect("well-formed requests");
        };
        drop(runtime.handle().spawn_on(SHARD, connection).expect("a shard"));
        assert_eq!(client.answer().body, b"xxx");
        assert_eq!(client.answer().status, 101);
        assert_eq!(client.read_exactly(7).expect("a greeting"), b"welcome");
        client.is_closed();
    });
}

#[test]
fn upgraded_connections_may_end_in_time_and_are_cut_off_when_the_drain_is_over() {
    const COUNT: usize = 10;
    within_reason(|| {
        let served = serve(1, as_stream);
        let mut upgraded: Vec<Client> = (0..2 * COUNT)
            .map(|_| {
                let mut client = Client::connect(served.address);
                ask(&mut client, &[]);
                assert_eq!(client.answer().status, 101);
                client.read_exactly("welcome ".len() + LARGE + "early".len()).expect("a greeting");
                client
            })
            .collect();
        let mut staying = upgraded.split_off(COUNT);
        served.runtime.handle().request_shutdown(Duration::from_secs(1));
        until("it listens no more", || std::net::TcpStream::connect(served.address).is_err());
        // They are still there, though it is no HTTP that they speak; some come to an end, and some do not.
        for client in upgraded.iter_mut().chain(&mut staying) {
            client.send("more");
            assert_eq!(client.read_exactly(4).expect("an echo"), b"more");
        }
        for client in &mut upgraded {
            client.stream().shutdown(std::net::Shutdown::Write).expect("open");
            client.is_closed();
        }
        let report = served.runtime.shutdown(Duration::from_secs(60));
        assert_eq!(report.tasks_dropped, COUNT);
        staying.iter_mut().for_each(Client::is_gone);
    });
}
