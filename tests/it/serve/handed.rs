//! Sockets that a service manager has opened: the program takes them, and leaves what waits in them to its successor.

use super::client::{Client, GET};
use super::program::Serve;
use super::until;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Command;

/// Puts descriptors at 3 and what follows, says so in the environment, and becomes the program. Arguments: names, descriptors, program.
const MANAGER: &str = "
import os, sys
names, given = sys.argv[1], [int(one) for one in sys.argv[2].split(',')]
held = [os.dup(one) for one in given]
held = [os.dup2(one, 100 + place, inheritable=True) for place, one in enumerate(held)]
for place, one in enumerate(held):
    os.dup2(one, 3 + place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)), LISTEN_FDNAMES=names)
os.closerange(3 + len(held), 200)
os.execv(sys.argv[3], sys.argv[3:])
";

/// The program with these sockets, by their names.
fn manage(serve: Serve, sockets: &[(&str, &OwnedFd)]) -> Serve {
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let numbers = sockets.iter().map(|(_, socket)| {
        let socket = socket2::SockRef::from(*socket);
        socket.set_cloexec(false).expect("set");
        socket.as_raw_fd().to_string()
    });
    let numbers: Vec<String> = numbers.collect();
    serve.under(&["python3", "-c", MANAGER, &names.join(":"), &numbers.join(",")])
}

fn has_python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok();
    if !there {
        super::skipped("there is no python3 to stand in for a service manager");
    }
    there
}

fn tcp() -> (SocketAddr, OwnedFd) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    (socket.local_addr().expect("bound"), socket.into())
}

#[test]
fn what_was_handed_over_is_served_by_all_shards_in_both_modes() {
    if !has_python() {
        return;
    }
    for mode in ["thread-per-core", "work-stealing"] {
        let (address, socket) = tcp();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let unix: OwnedFd = UnixListener::bind(&path).expect("a path").into();
        let flags = ["--mode", mode, "--listen", "inherited:http", "--listen", "inherited:1"];
        let serve = manage(Serve::new(&flags), &[("http", &socket), ("app", &unix)]);
        let mut program = serve.start();
        assert_eq!(program.address(), address);
        let said = format!("listening on unix:{}", path.display());
        until("it says where it listens", || program.out.so_far().contains(&said));
        let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(address)).collect();
        clients.iter_mut().for_each(|client| client.get().is_hello());
        Client::connect_unix(&path).get().is_hello();
        program.signal(libc::SIGTERM);
        program.exits_with(0);
        assert!(path.exists(), "the file is the manager's");
    }
}

#[test]
fn no_connection_is_lost_between_two_instances() {
    if !has_python() {
        return;
    }
    let (address, socket) = tcp();
    let start =
        || manage(Serve::new(&["--listen", "inherited:http"]), &[("http", &socket)]).start();
    let mut waiting: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let mut program = start();
        waiting.drain(..).for_each(|mut client| client.answer().is_hello());
        Client::connect(address).get().is_hello();
        program.signal(libc::SIGTERM);
        program.exits_with(0);
        // Nobody accepts now.
        for _ in 0..10 {
            let mut client = Client::connect(address);
            client.send(GET);
            waiting.push(client);
        }
    }
    let _last = start();
    waiting.iter_mut().for_each(|client| client.answer().is_hello());
}

#[test]
fn what_was_not_handed_over_is_said() {
    let (status, _, said) = Serve::new(&["--listen", "inherited:http"]).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    let nobody = "corelane: cannot listen on inherited:http: nobody has handed a socket over to this process (LISTEN_PID, LISTEN_FDS)";
    assert_eq!(said, [nobody]);
    if !has_python() {
        return;
    }
    let (_, socket) = tcp();
    let serve = Serve::new(&["--listen", "inherited:https"]);
    let (status, _, said) = manage(serve, &[("http", &socket)]).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    assert!(
        said[0].ends_with("no socket was handed over as \"https\": there are \"http\""),
        "{said:?}"
    );
    let udp: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").into();
    let serve = Serve::new(&["--listen", "inherited:http"]);
    let (status, _, said) = manage(serve, &[("http", &udp)]).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    assert!(said[0].ends_with("it is no stream socket that listens"), "{said:?}");
}
