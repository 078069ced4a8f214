//! The end of a server, moment by moment: which requests are answered.

use super::client::{Client, GET};
use super::in_process::{Served, answer, hold, within_reason};
use super::until;
use futures::channel::oneshot;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// As long as a test needs.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn handlers_at_work_when_the_server_ends_may_finish() {
    within_reason(|| {
        let (waiting, waits) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let served = Served::by_fn(move |_request| {
            let (go, may_go) = oneshot::channel::<()>();
            waiting.lock().expect("no panic").send(go).expect("the test listens");
            async {
                may_go.await.expect("the test says so");
                answer("worth the wait")
            }
        });
        let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(served.address)).collect();
        clients.iter_mut().for_each(|client| client.send(GET));
        let handlers: Vec<_> = (0..30).map(|_| waits.recv().expect("a handler")).collect();
        served.runtime.handle().request_shutdown(LONG);
        until("it listens no more", || TcpStream::connect(served.address).is_err());
        handlers.into_iter().for_each(|go| go.send(()).expect("the handler waits"));
        for client in &mut clients {
            // It may or may not say that it is the last one.
            assert_eq!(client.answer().body, b"worth the wait");
            client.is_closed();
        }
        assert_eq!(served.runtime.shutdown(LONG).tasks_dropped, 0);
    });
}

#[test]
fn requests_that_have_arrived_before_the_end_are_answered() {
    within_reason(|| {
        for _ in 0..20 {
            let served = Served::by_fn(|_request| async { answer("in time") });
            let mut known: Vec<Client> = (0..20).map(|_| Client::connect(served.address)).collect();
            known.iter_mut().for_each(|client| assert_eq!(client.get().status, 200));
            let mut idle: Vec<Client> = (0..20).map(|_| Client::connect(served.address)).collect();
            idle.iter_mut().for_each(|client| assert_eq!(client.get().status, 200));
            // Nothing of this is seen before the order to end.
            let held = hold(&served.runtime);
            let mut new: Vec<Client> = (0..20).map(|_| Client::connect(served.address)).collect();
            let mut silent: Vec<Client> =
                (0..20).map(|_| Client::connect(served.address)).collect();
            known.iter_mut().chain(&mut new).for_each(|client| client.send(GET));
            served.runtime.handle().request_shutdown(LONG);
            drop(held);
            for client in known.iter_mut().chain(&mut new) {
                assert_eq!(client.answer().body, b"in time");
                client.is_closed();
            }
            idle.iter_mut().chain(&mut silent).for_each(Client::is_closed);
            assert_eq!(served.runtime.shutdown(LONG).tasks_dropped, 0);
        }
    });
}

#[test]
fn requests_behind_silent_connections_are_answered_at_the_end() {
    within_reason(|| {
        let served = Served::by_fn(|_request| async { answer("in time") });
        assert_eq!(Client::connect(served.address).get().status, 200);
        // Nothing of this is seen before the order to end, and most connections are new ones that say nothing.
        let held = hold(&served.runtime);
        let mut silent: Vec<Client> = (0..40).map(|_| Client::connect(served.address)).collect();
        let mut asking: Vec<Client> = (0..40).map(|_| Client::connect(served.address)).collect();
        asking.iter_mut().for_each(|client| client.send(GET));
        served.runtime.handle().request_shutdown(LONG);
        drop(held);
        for client in &mut asking {
            assert_eq!(client.answer().body, b"in time");
            client.is_closed();
        }
        silent.iter_mut().for_each(Client::is_closed);
        assert_eq!(served.runtime.shutdown(LONG).tasks_dropped, 0);
    });
}
