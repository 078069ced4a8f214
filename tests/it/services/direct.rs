//! Files that are sent inside the system, and what must not come of it: other bytes than the file's, a death by `SIGPIPE`.

use super::bodies::{content, rest};
use super::files::ask;
use super::{MODES, Site, get};
use crate::serve::client::Client;
use crate::serve::program::Serve;
use crate::serve::strace::Injection;
use crate::serve::until;
use corelane::Runtime;
use corelane::server::{self, ConnectionLimits, Listen, Server};
use corelane::services::{Content, Files};
use http_body_util::BodyExt;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, Version};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const SIZE: usize = 3 << 20;

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("large.bin"), content(SIZE)).expect("written");
    directory
}

/// The program under strace, on one shard and the files of this directory.
fn traced(directory: &Path, mode: &str, injection: &Injection) -> crate::serve::program::Program {
    let config = directory.join("server.toml");
    let text = format!(
        "[runtime]\nmode = \"{mode}\"\ncores = 1\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/*\"\nfiles = {{ dir = \".\" }}\n"
    );
    fs::write(&config, text).expect("written");
    let arguments = ["serve", "--config", config.to_str().expect("text")];
    Serve::with_arguments(&arguments).under(&injection.wrapper()).start()
}

/// Asks for the large file, which must come as it is.
#[track_caller]
fn comes_whole(address: SocketAddr) {
    let mut client = Client::connect(address);
    for _ in 0..2 {
        client.send(get("/large.bin"));
        let answer = client.answer();
        assert!(answer.status == 200 && answer.body == content(SIZE));
    }
}

#[test]
fn the_system_sends_files_in_http1_and_the_shard_copies_them_in_http2() {
    let directory = directory();
    for mode in MODES {
        let Some(plan) = Injection::delay("sendfile", 1) else { return };
        let program = traced(directory.path(), mode, &plan);
        corelane::block_on(async {
            let address = program.address();
            let answer = ask(address, Version::HTTP_2, "GET", "/large.bin", &[]).await;
            assert!(answer.body == content(SIZE));
        });
        assert_eq!(plan.record().len(), 0, "{:?}", plan.record());
        comes_whole(program.address());
        until("the calls are recorded", || plan.record().len() >= 2);
    }
}

#[test]
fn what_is_not_in_memory_is_read_by_a_thread_that_may_wait() {
    let directory = directory();
    for mode in MODES {
        let Some(plan) = Injection::new("preadv2", "EAGAIN", "1+") else { return };
        let program = traced(directory.path(), mode, &plan);
        comes_whole(program.address());
        assert!(!plan.injected().is_empty());
        // A file system that cannot say what is in memory.
        let Some(plan) = Injection::new("preadv2", "EOPNOTSUPP", "2+2") else { return };
        let program = traced(directory.path(), mode, &plan);
        comes_whole(program.address());
        // Names, too: the first is looked up at the start, on another thread.
        let Some(plan) = Injection::new("openat2", "EAGAIN", "2+2") else { return };
        let program = traced(directory.path(), mode, &plan);
        comes_whole(program.address());
        assert!(!plan.injected().is_empty());
    }
}

#[test]
fn what_the_system_has_forgotten_is_read_again() {
    let directory = directory();
    let file = File::open(directory.path().join("large.bin")).expect("there");
    file.sync_all().expect("written");
    for mode in MODES {
        let site = Site::start(
            directory.path(),
            mode,
            "[[route]]\npath = \"/*\"\nfiles = { dir = \".\" }\n",
        );
        for (offset, length) in [(0, 0), (1 << 20, 1 << 20), (SIZE as u64 - 4096, 4096)] {
            let length = std::num::NonZeroU64::new(length);
            rustix::fs::fadvise(&file, offset, length, rustix::fs::Advice::DontNeed)
                .expect("forgotten");
            comes_whole(site.address);
        }
    }
}

#[test]
fn a_system_that_cannot_keep_names_inside_serves_no_files() {
    let directory = directory();
    let Some(plan) = Injection::new("openat2", "ENOSYS", "1+") else { return };
    let config = directory.path().join("server.toml");
    fs::write(&config, "[[route]]\npath = \"/*\"\nfiles = { dir = \".\" }\n").expect("written");
    let arguments = ["serve", "--config", config.to_str().expect("text")];
    let (status, _, said) =
        Serve::with_arguments(&arguments).under(&plan.wrapper()).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    let says = |what: &str| said.iter().any(|line| line.contains(what));
    assert!(says("server.toml:3:17: dir: ") && says("openat2") && says("5.6"), "{said:?}");
}

#[test]
fn a_file_that_cannot_be_sent_ends_its_connection_only() {
    let directory = directory();
    for mode in MODES {
        let Some(plan) = Injection::new("sendfile", "EIO", "2") else { return };
        let program = traced(directory.path(), mode, &plan);
        let mut client = Client::connect(program.address());
        client.send(get("/large.bin").repeat(2));
        client.is_gone();
        until("the call has failed", || !plan.injected().is_empty());
        comes_whole(program.address());
    }
}

type Boxed = http_body_util::combinators::UnsyncBoxBody<hyper::body::Bytes, std::io::Error>;

/// A server of the library that may send files by itself, with this made of each response.
fn serve<B>(directory: &Path, make: fn(Response<Content>) -> Response<B>) -> (Runtime, SocketAddr)
where
    B: hyper::body::Body<Data = hyper::body::Bytes, Error = std::io::Error> + 'static,
{
    let files = Files::new(directory).expect("a directory");
    let mut limits = ConnectionLimits::default();
    limits.send_files = true;
    let runtime = Runtime::builder().cores("1".parse().expect("a count")).start().expect("started");
    let listen = Listen::new("127.0.0.1:0".parse().expect("an address")).limits(limits);
    let server = Server::builder().listen_with(listen).start(runtime.handle(), move |_shard| {
        service_fn(move |request: Request<server::Body>| {
            let answer = files.call(request);
            async move { answer.await.map(make) }
        })
    });
    let address = server.expect("a port").local_addrs()[0];
    (runtime, address)
}

#[test]
fn a_body_that_something_wraps_gives_the_bytes_of_the_file() {
    let directory = directory();
    let (_runtime, address) = serve(directory.path(), |response| response);
    comes_whole(address);
    let (_runtime, address) =
        serve(directory.path(), |response| response.map(|body| -> Boxed { body.boxed_unsync() }));
    comes_whole(address);
}

#[test]
fn an_answer_that_is_cut_gives_no_other_its_bytes() {
    let directory = directory();
    let (_runtime, address) = serve(directory.path(), |mut response| {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("100000"));
        response
    });
    let mut client = Client::connect(address);
    client.send(get("/large.bin").repeat(3));
    // The connection ends where a piece was cut: nothing comes behind the length that was announced, and no other answer.
    let came = rest(&client);
    assert!(came <= 100_000 + 1000, "{came} bytes");
}

#[test]
fn a_client_on_a_unix_socket_that_goes_is_no_signal() {
    const CHILD: &str = "CORELANE_TEST_SENDFILE_SIGPIPE";
    if std::env::var_os(CHILD).is_some() {
        default_sigpipe();
        return go_while_files_are_sent();
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["a_client_on_a_unix_socket_that_goes_is_no_signal", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

fn go_while_files_are_sent() {
    let directory = directory();
    let path = directory.path().join("app.sock");
    let text = format!(
        "[runtime]\ncores = 1\n[[listener]]\nname = \"a\"\npath = \"{}\"\n[[route]]\npath = \"/*\"\nfiles = {{ dir = \".\" }}\n",
        path.display()
    );
    fs::write(directory.path().join("server.toml"), text).expect("written");
    let config = corelane::Config::from_path(directory.path().join("server.toml")).expect("right");
    let runtime = config.runtime().start().expect("started");
    let server = config.server(&runtime).start_routes(runtime.handle(), &config.routes());
    let _server = server.expect("a socket");
    for _ in 0..20 {
        let mut client = Client::connect_unix(&path);
        client.send(get("/large.bin"));
        client.read_exactly(1000).expect("the beginning");
    }
    let mut client = Client::connect_unix(&path);
    client.send(get("/large.bin"));
    assert!(client.answer().body == content(SIZE));
}

#[allow(unsafe_code)]
fn default_sigpipe() {
    // SAFETY: the default action is no handler, so no code runs in a signal's context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
