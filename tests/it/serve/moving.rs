//! Connections that move to another shard between two requests: nothing is lost, doubled or answered out of order.

use super::client::Client;
use super::in_process::{Body, answer};
use super::{eventually, until};
use crate::harness::stats_at_rest;
use corelane::server::{self, Builder, Listen, Server};
use corelane::{ShardId, SubmitErrorKind};
use http_body_util::BodyExt;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Requests for `/gate` are not answered before it is open.
static GATE: AtomicBool = AtomicBool::new(false);

/// Answers with the shard, the path, and the body that came.
async fn echo(
    shard: ShardId,
    request: Request<server::Body>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    while path == "/gate" && !GATE.load(Ordering::Relaxed) {
        // Its connection is polled each time.
        corelane::time::sleep(Duration::from_millis(1)).await;
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = match path.as_str() {
        "/large" => format!("{} {path} {}", shard.index(), "x".repeat(3000)),
        _ => format!("{} {path} {}", shard.index(), String::from_utf8_lossy(&body)),
    };
    Ok(answer(text))
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server of two shards, and itself.
struct Moving {
    served: corelane::Runtime,
    server: Server,
}

impl Moving {
    fn start() -> Option<Moving> {
        Moving::echoes(Server::builder().listen(any()).rebalance(true))
    }

    /// With these listeners, and when both shards serve.
    fn echoes(server: Builder) -> Option<Moving> {
        let moving = Moving::with(server, |shard| service_fn(move |request| echo(shard, request)))?;
        // A shard that does not serve yet is sent nothing; when it does, it has a second task that accepts.
        let serves = || moving.served.handle().stats().iter().all(|stats| stats.tasks > 1);
        until("both shards serve", serves);
        Some(moving)
    }

    /// With the services that `factory` makes.
    fn with<S>(
        server: Builder,
        factory: impl FnOnce(ShardId) -> S + Clone + Send + 'static,
    ) -> Option<Moving>
    where
        S: Service<Request<server::Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + 'static,
    {
        let two = "2".parse().expect("a count");
        let Ok(served) = corelane::Runtime::builder().cores(two).start() else {
            eprintln!("SKIPPED: this needs two CPUs");
            return None;
        };
        let server = server.start(served.handle(), factory).expect("a port");
        Some(Moving { server, served })
    }

    fn address(&self) -> SocketAddr {
        self.server.local_addrs()[0]
    }

    /// Has connections go back and forth until the flag is set.
    fn shuffle(&self, done: &AtomicBool) {
        let mut here = 0;
        while !done.load(Ordering::Relaxed) {
            let (from, to) = (ShardId::new(here), ShardId::new(1 - here));
            // An inbox may be full.
            let _ = self.server.move_connections(from, to, 3);
            here = 1 - here;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has every connection of a shard go to the other; returns when all of them know.
    fn send_away(&self, from: ShardId) {
        let other = ShardId::new(1 - from.index() as u16);
        self.server.move_connections(from, other, 100).expect("there is room");
        // Messages are taken in the order in which they were sent.
        self.served.block_on(self.served.handle().submit_to(from, || async {})).expect("it runs");
    }

    fn moved(&self) -> (u64, u64) {
        let stats = self.served.handle().stats();
        (
            stats.iter().map(|s| s.connections_moved).sum(),
            stats.iter().map(|s| s.connections_arrived).sum(),
        )
    }
}

/// Sets the flag when dropped, whatever the reason.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The shard, the path and the body of an answer.
fn parts(client: &mut Client) -> (String, String, String) {
    let body = String::from_utf8(client.answer().body).expect("text");
    let mut words = body.splitn(3, ' ').map(str::to_owned);
    let mut next = || words.next().expect("three words");
    (next(), next(), next())
}

#[test]
fn numbered_requests_are_each_answered_once_and_in_order() {
    let Some(moving) = Moving::start() else { return };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| moving.shuffle(&done));
        let done = Done(&done);
        let client = |client_number: usize| {
            let mut client = Client::connect(moving.address());
            let (mut shards, mut sent) = (Vec::new(), 0);
            let began = Instant::now();
            // Until it has been on both, and for a while.
            while sent < 500 || (shards.len() < 2 && began.elapsed() < super::NEVER) {
                // Alone, in bursts, cut in the middle of a head, and with a body.
                let burst = [1, 1, 7, 40][sent % 4];
                let request = |number: usize| {
                    let body = if number.is_multiple_of(5) {
                        format!("body {number}")
                    } else {
                        String::new()
                    };
                    let length = body.len();
                    format!(
                        "POST /{client_number}/{number} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}"
                    )
                };
                let text: String = (sent..sent + burst).map(request).collect();
                let (first, second) = text.as_bytes().split_at(text.len() / 3);
                client.send(first);
                client.send(second);
                for number in sent..sent + burst {
                    let (shard, path, body) = parts(&mut client);
                    assert_eq!(path, format!("/{client_number}/{number}"));
                    assert_eq!(body.is_empty(), !number.is_multiple_of(5), "{body}");
                    if !shards.contains(&shard) {
                        shards.push(shard);
                    }
                }
                sent += burst;
            }
            assert_eq!(shards.len(), 2, "it has been on both shards");
        };
        let clients: Vec<_> = (0..4).map(|number| scope.spawn(move || client(number))).collect();
        for client in clients {
            client.join().expect("every answer was right");
        }
        drop(done);
    });
    until("as many have arrived as have gone", || {
        let (moved, arrived) = moving.moved();
        moved > 4 && moved == arrived
    });
    until("all are closed", || {
        moving.served.handle().stats().iter().all(|stats| stats.connections == 0)
    });
}

#[test]
fn a_connection_goes_with_what_it_has_read_and_only_between_two_requests() {
    let Some(moving) = Moving::start() else { return };
    let mut client = Client::connect(moving.address());
    let ask = |client: &mut Client, text: &str| {
        client.send(text);
        parts(client)
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    let shard = |text: &str| ShardId::new(text.parse().expect("a number"));
    let mut here = shard(&ask(&mut client, &get("/first")).0);
    let mut moves = 0;
    for round in 0..20 {
        // Half of a head has come: it goes, and takes that along.
        moving.send_away(here);
        let path = format!("/{round}");
        let head = get(&path);
        let (first, second) = head.split_at(1 + round % 20);
        client.send(first);
        moves += 1;
        until("it has moved", || moving.moved() == (moves, moves));
        client.send(second);
        let (now, answered, _) = parts(&mut client);
        assert_ne!(shard(&now), here);
        assert_eq!(answered, path);
        here = shard(&now);

        // Half of a body has come: it stays, and so it does for what follows in the same bytes.
        client.send(format!(
            "POST /body{round} HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\nhalf"
        ));
        moving.send_away(here);
        client.send("full");
        let answered = parts(&mut client);
        assert_eq!(
            answered,
            (here.index().to_string(), format!("/body{round}"), "halffull".to_owned())
        );
        assert_eq!(moving.moved().0, moves);

        // The next without a body is answered here; then it goes.
        let (now, answered, _) = ask(&mut client, &get("/next"));
        assert_eq!((shard(&now), answered.as_str()), (here, "/next"));
        moves += 1;
        until("it has moved", || moving.moved() == (moves, moves));
        here = ShardId::new(1 - here.index() as u16);
    }
    // A request is in the service, which is polled again and again: it stays until that is answered.
    client.send(get("/gate"));
    moving.send_away(here);
    client.send(get("/behind"));
    moving.send_away(here);
    GATE.store(true, Ordering::Relaxed);
    let (now, answered, _) = parts(&mut client);
    assert_eq!((shard(&now), answered.as_str()), (here, "/gate"));
    assert_eq!(parts(&mut client).1, "/behind");
}

/// Responses that the kernel has no room for, the last of which ends the connection: it must end where it is.
#[test]
fn a_connection_that_is_to_end_does_not_begin_anew() {
    let listen = Listen::new(any()).send_buffer(4096);
    let server = Server::builder().listen_with(listen).rebalance(true);
    let Some(moving) = Moving::echoes(server) else { return };
    let get = |path: &str, field: &str| format!("GET {path} HTTP/1.1\r\nhost: test\r\n{field}\r\n");
    let ends = [
        get("/last", "connection: close\r\n"),
        get("/last", "connection: close\r\n") + &get("/too-late", ""),
        "GET /last HTTP/1.0\r\n\r\n".to_owned(),
        "what is this\r\n\r\n".to_owned(),
    ];
    for end in ends {
        let mut client = Client::with_receive_buffer(moving.address(), 4096);
        client.send(get("/first", ""));
        let shard: u16 = parts(&mut client).0.parse().expect("a number");
        moving.send_away(ShardId::new(shard));
        client.send(get("/large", "").repeat(6) + &end);
        // Everything that can be done without the client's reading has been done.
        for shard in moving.served.handle().shards() {
            stats_at_rest(moving.served.handle(), shard);
        }
        (0..6).for_each(|_| assert_eq!(parts(&mut client).1, "/large"));
        match end.as_str() {
            "what is this\r\n\r\n" => assert_eq!(client.answer().status, 400),
            _ => assert_eq!(parts(&mut client).1, "/last"),
        }
        client.is_closed();
    }
}

#[test]
fn a_connection_goes_only_where_its_listener_is_served() {
    let here_only = Listen::new(any()).shards([ShardId::new(0)]);
    let server = Server::builder().listen_with(here_only).listen(any()).rebalance(true);
    let Some(moving) = Moving::echoes(server) else { return };
    let mut stays = Client::connect(moving.address());
    let mut goes = eventually("one on the first shard", || {
        let mut client = Client::connect(moving.server.local_addrs()[1]);
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        (parts(&mut client).0 == "0").then_some(client)
    });
    let ask = |client: &mut Client| {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        parts(client).0
    };
    assert_eq!(ask(&mut stays), "0");
    moving.send_away(ShardId::new(0));
    assert_eq!([ask(&mut stays), ask(&mut goes)], ["0", "0"]);
    assert_eq!([ask(&mut stays), ask(&mut goes)], ["0", "1"]);
}

#[test]
fn a_shutdown_while_connections_move_answers_what_was_asked() {
    let Some(moving) = Moving::start() else { return };
    let done = AtomicBool::new(false);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(moving.address())).collect();
    for client in &mut clients {
        client.send("GET /first HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(parts(client).1, "/first");
    }
    thread::scope(|scope| {
        let shuffler = scope.spawn(|| moving.shuffle(&done));
        let done = Done(&done);
        for round in 0..50 {
            for client in &mut clients {
                client.send(format!("GET /{round} HTTP/1.1\r\nhost: test\r\n\r\n"));
            }
            if round == 49 {
                moving.served.handle().request_shutdown(Duration::from_secs(20));
            }
            for client in &mut clients {
                assert_eq!(parts(client).1, format!("/{round}"));
            }
        }
        drop(done);
        shuffler.join().expect("no panic");
    });
    for client in &mut clients {
        client.is_closed();
    }
    assert_eq!(moving.served.shutdown(Duration::from_secs(20)).tasks_dropped, 0);
}

#[test]
fn a_server_that_was_not_told_to_moves_nothing() {
    let echoes = |shard| service_fn(move |request| echo(shard, request));
    let Some(moving) = Moving::with(Server::builder().listen(any()), echoes) else { return };
    let mut client = Client::connect(moving.address());
    let mut ask = || {
        client.send("GET /x HTTP/1.1\r\nhost: test\r\n\r\n");
        parts(&mut client).0
    };
    let here = ask();
    for shard in moving.served.handle().shards() {
        moving.send_away(shard);
    }
    assert_eq!((ask(), ask()), (here.clone(), here));
    assert_eq!(moving.moved(), (0, 0));
}

#[test]
fn a_connection_stays_rather_than_go_where_nobody_serves() {
    let echoes = |shard: ShardId| {
        assert_eq!(shard.index(), 0, "deliberate: the other shard's service cannot be made");
        service_fn(move |request| echo(shard, request))
    };
    let server = Server::builder().listen(any()).rebalance(true);
    let Some(moving) = Moving::with(server, echoes) else { return };
    // Some connections go to the listening socket of the shard that does not serve, until that is closed.
    let mut client = eventually("the shard that serves accepts", || {
        let mut client = Client::connect(moving.address());
        client.try_get().is_ok().then_some(client)
    });
    for _ in 0..3 {
        moving.send_away(ShardId::new(0));
        client.send("GET /x HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(parts(&mut client).0, "0");
    }
    let nowhere = moving.server.move_connections(ShardId::new(0), ShardId::new(7), 1);
    assert_eq!(nowhere, Err(SubmitErrorKind::NoSuchShard));
}

/// Connections of clients that each always wait for an answer that costs a millisecond, all of them on one shard at first.
#[test]
fn busy_connections_leave_a_shard_that_has_all_of_them() {
    let two = "2".parse().expect("a count");
    let Ok(runtime) = corelane::Runtime::builder().cores(two).start() else {
        return eprintln!("SKIPPED: this needs two CPUs");
    };
    let server = Server::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0))).rebalance(true);
    let server = server.start(runtime.handle(), |shard| {
        service_fn(move |request: Request<server::Body>| async move {
            let began = Instant::now();
            while request.uri().path() == "/work" && began.elapsed() < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
            Ok::<_, Infallible>(answer(format!("{} / ", shard.index())))
        })
    });
    let server = server.expect("a port");
    let address = server.local_addrs()[0];
    let mut on_first = Vec::new();
    while on_first.len() < 4 {
        let mut client = Client::connect(address);
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        if parts(&mut client).0 == "0" {
            on_first.push(client);
        }
    }
    let (done, both) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = on_first
        .into_iter()
        .map(|mut client| {
            let (done, both) = (done.clone(), both.clone());
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    client.send("GET /work HTTP/1.1\r\nhost: test\r\n\r\n");
                    if parts(&mut client).0 == "1" {
                        both.store(true, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    until("some are served by the other shard", || both.load(Ordering::Relaxed));
    done.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("every answer was right"));
}
