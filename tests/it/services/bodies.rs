//! Files on their way: large ones, ones that change meanwhile, and clients that take their time.

use super::{MODES, Site, get};
use crate::serve::client::Client;
use crate::serve::program::Serve;
use corelane::http::{Executor, Io};
use corelane::net::TcpStream;
use corelane::spawn_local;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

const ROUTES: &str = "[[route]]\npath = \"/*\"\nfiles = { dir = \".\" }\n";

/// Bytes that are different wherever one looks.
pub(super) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn write(directory: &Path, name: &str, content: &[u8]) {
    fs::write(directory.join(name), content).expect("written");
}

#[test]
fn large_files_arrive_whole_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    // Around the size of a piece, and far beyond what sockets and buffers take.
    let sizes = [1, 65_535, 65_536, 65_537, 131_072, 1 << 20, (8 << 20) + 3];
    for size in sizes {
        write(directory.path(), &format!("{size}.bin"), &content(size));
    }
    for mode in MODES {
        let site = Site::start(directory.path(), mode, ROUTES);
        let mut client = Client::connect(site.address);
        // One connection, and requests that come together.
        client.send(sizes.map(|size| get(&format!("/{size}.bin"))).concat());
        for size in sizes {
            let answer = client.answer();
            assert_eq!((answer.status, answer.body.len()), (200, size), "{mode}");
            assert!(answer.body == content(size), "{mode}: {size} bytes differ");
        }
        let all = content(8 << 20);
        for (first, last) in [(0, 0), (65_535, 65_536), (100_000, 7_000_000)] {
            let range = format!("range: bytes={first}-{last}\r\n\r\n");
            client.send(get("/8388611.bin").replace("\r\n\r\n", &format!("\r\n{range}")));
            let answer = client.answer();
            assert!(answer.status == 206 && answer.body == all[first..=last], "{first}-{last}");
        }
        client.send(
            get("/8388611.bin").replace("\r\n\r\n", "\r\nrange: bytes=5000000-,1-70000\r\n\r\n"),
        );
        let answer = client.answer();
        let has = |part: &[u8]| answer.body.windows(part.len()).any(|window| window == part);
        assert!(answer.status == 206 && has(&all[5_000_000..]) && has(&all[1..=70_000]));
    }
}

/// A client that asks for a large file and reads the head of the answer only, so that most of it is still to be sent.
fn begun(address: SocketAddr, path: &str) -> Client {
    let mut client = Client::with_receive_buffer(address, 4096);
    client.send(get(path));
    client.read_exactly(100).expect("the beginning");
    client
}

/// Everything that still comes, and whether the connection has ended well.
pub(super) fn rest(client: &Client) -> usize {
    let (mut stream, mut buffer, mut count) = (client.stream(), [0; 65_536], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return count,
            Ok(read) => count += read,
        }
    }
}

const LARGE: usize = 64 << 20;

#[test]
fn a_file_that_becomes_shorter_never_ends_well() {
    let directory = tempfile::tempdir().expect("a directory");
    for mode in MODES {
        write(directory.path(), "large.bin", &content(LARGE));
        let site = Site::start(directory.path(), mode, ROUTES);
        let client = begun(site.address, "/large.bin");
        let file = File::options().write(true).open(directory.path().join("large.bin"));
        file.and_then(|file| file.set_len(1000)).expect("cut");
        let came = rest(&client);
        assert!(came < LARGE, "{mode}: {came} bytes came");
        // The server is well: others are served.
        let mut client = Client::connect(site.address);
        client.send(get("/large.bin"));
        assert_eq!(client.answer().body.len(), 1000);
    }
}

#[test]
fn a_file_that_becomes_shorter_resets_its_stream_only() {
    let directory = tempfile::tempdir().expect("a directory");
    for mode in MODES {
        write(directory.path(), "large.bin", &content(LARGE));
        write(directory.path(), "small.txt", b"small");
        let site = Site::start(directory.path(), mode, ROUTES);
        corelane::block_on(async {
            let stream = TcpStream::connect(site.address).await.expect("connected");
            let (mut client, connection) =
                http2::handshake(Executor, Io::new(stream)).await.expect("settings");
            drop(spawn_local(connection));
            let ask = |path: &str| {
                let request = Request::get(format!("http://test/{path}"));
                request.body(Empty::<Bytes>::new()).expect("a request")
            };
            let mut large = client.send_request(ask("large.bin")).await.expect("a head");
            large.frame().await.expect("a frame").expect("some of it");
            let file = File::options().write(true).open(directory.path().join("large.bin"));
            file.and_then(|file| file.set_len(0)).expect("cut");
            assert!(large.into_body().collect().await.is_err(), "{mode}");
            let small = client.send_request(ask("small.txt")).await.expect("a head");
            assert_eq!(small.into_body().collect().await.expect("all").to_bytes(), "small");
        });
    }
}

#[test]
fn a_file_that_grows_or_is_replaced_is_sent_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    for mode in MODES {
        let size = 16 << 20;
        write(directory.path(), "large.bin", &content(size));
        let site = Site::start(directory.path(), mode, ROUTES);
        let mut client = Client::with_receive_buffer(site.address, 4096);
        client.send(get("/large.bin"));
        let mut came = client.read_exactly(1000).expect("the beginning");
        let file = File::options().append(true).open(directory.path().join("large.bin"));
        file.and_then(|mut file| std::io::Write::write_all(&mut file, b"more")).expect("written");
        write(directory.path(), "new.bin", b"new");
        fs::rename(directory.path().join("new.bin"), directory.path().join("large.bin"))
            .expect("renamed");
        let head = came.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        came.extend(client.read_exactly(head + size - 1000).expect("the rest"));
        assert!(came[head..] == content(size), "{mode}");
        // What follows is the next answer.
        client.send(get("/large.bin"));
        assert_eq!(client.answer().body, b"new");
    }
}

/// Kibibytes that a process has in memory of its own, without files.
fn memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn clients_that_do_not_read_cost_little_memory() {
    const CLIENTS: u64 = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let file = File::create(directory.path().join("large.bin")).expect("made");
    file.set_len(LARGE as u64).expect("made");
    let config = directory.path().join("server.toml");
    fs::write(
        &config,
        format!(
            "[runtime]\ncores = 1\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n{ROUTES}"
        ),
    )
    .expect("written");
    for mode in MODES {
        let arguments = ["serve", "--mode", mode, "--config", config.to_str().expect("text")];
        let program = Serve::with_arguments(&arguments).start();
        drop(begun(program.address(), "/large.bin"));
        let before = memory_kib(program.pid());
        let clients: Vec<Client> =
            (0..CLIENTS).map(|_| begun(program.address(), "/large.bin")).collect();
        // What hyper holds of one it bounds by itself, at half a megabyte. The file has 64 MiB.
        let each = memory_kib(program.pid()).saturating_sub(before) / CLIENTS;
        assert!(each < 1024, "{mode}: {each} KiB for each");
        drop(clients);
    }
}
