//! What requests for files get: a table, files.cases, that is asked in both modes and both versions of HTTP.

use super::{MODES, Site};
use corelane::http::{Executor, Io};
use corelane::net::TcpStream;
use corelane::{Config, RouteConfig, services, spawn_local};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Version};
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Mon, 01 Jan 2024 12:00:00 GMT
const CHANGED: u64 = 1_704_110_400;

pub(super) const ROUTES: &str = r#"
[[route]]
path = "/*"
files = { dir = "site", precompressed = true, cache_control = "max-age=60" }
[[route]]
path = "/plain/*"
files = { dir = "site", symlinks = "none" }
[[route]]
path = "/all/*"
files = { dir = "site", symlinks = "all", dotfiles = true }
[[route]]
path = "/noindex/*"
files = { dir = "site", index = "" }
"#;

/// A directory, `site`, and what is beside it.
pub(super) fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let site = root.join("site");
    for path in ["sub", "bare", ".well-known", "dir.css.gz"] {
        fs::create_dir_all(site.join(path)).expect("made");
    }
    for (name, content) in [
        ("ten.txt", "0123456789"),
        ("empty.txt", ""),
        ("index.html", "<p>index</p>"),
        ("sub/index.html", "<p>sub</p>"),
        ("a b.txt", "space"),
        ("app.js", "plain"),
        ("app.js.br", "brotli"),
        ("app.js.zst", "zstandard"),
        ("app.js.gz", "gzip"),
        ("stale.css", "new"),
        ("stale.css.gz", "old"),
        ("dir.css", "new"),
        ("ghost.css.gz", "ghost"),
        (".hidden", "hidden"),
        (".well-known/x", "known"),
        ("../secret.txt", "secret"),
    ] {
        fs::write(site.join(name), content).expect("written");
    }
    fs::write(site.join(std::ffi::OsStr::from_bytes(b"\xff.bin")), "latin").expect("written");
    let set = |name: &str, seconds| {
        let file = fs::File::options().write(true).open(site.join(name)).expect("opened");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).expect("set");
    };
    set("ten.txt", CHANGED);
    set("stale.css.gz", CHANGED);
    // As a copy that keeps times may leave it: the same time is no older.
    for name in ["app.js", "app.js.br"] {
        set(name, CHANGED);
    }
    for (link, target) in [
        ("inside", "ten.txt"),
        ("insidedir", "sub"),
        ("outside", "../secret.txt"),
        ("outdir", ".."),
        ("absolute", site.join("ten.txt").to_str().expect("text")),
        ("null", "/dev/null"),
        ("loop", "loop"),
    ] {
        symlink(target, site.join(link)).expect("made");
    }
    let fifo = std::process::Command::new("mkfifo").arg(site.join("fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()));
    directory
}

/// A request and what must come of it.
struct Case {
    name: String,
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    status: u16,
    expected: Vec<(String, String)>,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/services/files.cases");
    let text = fs::read_to_string(path).expect("the cases");
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let text = lines.join("\n");
    let fields = |text: &str| -> Vec<(String, String)> {
        let field = |line: &str| {
            let (name, value) = line.split_once(':').expect("a field");
            (name.to_owned(), value.trim().to_owned())
        };
        text.lines().map(field).collect()
    };
    let case = |text: &str| {
        let (name, rest) = text.split_once('\n').expect("a name");
        let (request, answer) = rest.split_once("---\n").expect("a request and an answer");
        let (line, request) = request.split_once('\n').expect("a line");
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let (status, expected) = answer.split_once('\n').unwrap_or((answer, ""));
        Case {
            name: name.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            fields: fields(request),
            status: status.trim().parse().expect("a status"),
            expected: fields(expected),
        }
    };
    text.split("=== ").skip(1).map(case).collect()
}

pub(super) struct Answer {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.as_str())
    }
}

/// Asks by hyper's own client.
pub(super) async fn ask(
    address: SocketAddr,
    version: Version,
    method: &str,
    path: &str,
    fields: &[(String, String)],
) -> Answer {
    let stream = TcpStream::connect(address).await.expect("connected");
    let is_two = version == Version::HTTP_2;
    let uri = if is_two { format!("http://test{path}") } else { path.to_owned() };
    let mut request = Request::builder().method(method).uri(uri).version(version);
    if !is_two {
        request = request.header("host", "test");
    }
    for (name, value) in fields {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = if is_two {
        let (mut client, connection) =
            http2::handshake(Executor, Io::new(stream)).await.expect("settings");
        drop(spawn_local(connection));
        client.send_request(request).await
    } else {
        let (mut client, connection) = http1::handshake(Io::new(stream)).await.expect("ready");
        drop(spawn_local(connection));
        client.send_request(request).await
    };
    let (head, body) = response.expect("an answer").into_parts();
    let field = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.to_string(), value.to_str().expect("text").to_owned())
    };
    let fields = head.headers.iter().map(field).collect();
    let body = body.collect().await.expect("all of it").to_bytes().to_vec();
    Answer { status: head.status.as_u16(), fields, body }
}

async fn run(address: SocketAddr, version: Version, case: &Case, wrong: &mut String) {
    let tag = async |fields: &[(String, String)]| {
        let first = ask(address, version, "HEAD", &case.path, fields).await;
        first.field("etag").unwrap_or_default().to_owned()
    };
    let is_coding = |(name, _): &&(String, String)| name == "accept-encoding";
    let coding: Vec<_> = case.fields.iter().filter(is_coding).cloned().collect();
    let (etag, plain) = (tag(&coding).await, tag(&[]).await);
    let fill = |text: &str| text.replace("{etag}", &etag).replace("{plain}", &plain);
    let fields: Vec<_> =
        case.fields.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
    let answer = ask(address, version, &case.method, &case.path, &fields).await;
    let content_type = answer.field("content-type").unwrap_or_default();
    let boundary = content_type.split_once("boundary=").map(|(_, boundary)| boundary.to_owned());
    let plain = |text: &str| match &boundary {
        Some(boundary) => text.replace(boundary, "BOUNDARY"),
        None => text.to_owned(),
    };
    let mut differs = |what: &str, found: &str, expected: &str| {
        let _ = writeln!(wrong, "{} ({version:?}): {what}: {found:?}, not {expected:?}", case.name);
    };
    if answer.status != case.status {
        differs("status", &answer.status.to_string(), &case.status.to_string());
    }
    for (name, expected) in &case.expected {
        let found = if name == "body" {
            let body = String::from_utf8_lossy(&answer.body);
            plain(&body).replace('\r', "\\r").replace('\n', "\\n")
        } else {
            plain(answer.field(name).unwrap_or("-"))
        };
        let expected = fill(expected);
        if found != expected {
            differs(name, &found, &expected);
        }
    }
}

#[test]
fn every_request_for_a_file_gets_what_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 90, "{} cases", cases.len());
    let tree = tree();
    let mut wrong = String::new();
    for mode in MODES {
        let site = Site::start(tree.path(), mode, ROUTES);
        corelane::block_on(async {
            for version in [Version::HTTP_11, Version::HTTP_2] {
                for case in &cases {
                    run(site.address, version, case, &mut wrong).await;
                }
            }
        });
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_program_configures_files_as_a_file_does() {
    let tree = tree();
    let dir = tree.path().join("site");
    let dir = dir.to_str().expect("text");
    let file = format!(
        "[[route]]\npath = \"/x/*\"\nfiles = {{ dir = \"{dir}\", index = \"a\", precompressed = true, \
         symlinks = \"all\", dotfiles = true, cache_control = \"no-cache\" }}\n"
    );
    let route = RouteConfig::new("/x/*").files(dir).index("a").precompressed(true);
    let route = route.symlinks(services::Symlinks::All).dotfiles(true).cache_control("no-cache");
    let program = Config::builder().route(route).build().expect("right");
    assert_eq!(Config::from_toml_str(&file).expect("right"), program);
    let nothing = RouteConfig::new("/x/*").files("there/is/none");
    let error = Config::builder().route(nothing).build().expect_err("wrong");
    assert!(error.to_string().contains("there/is/none cannot be opened"), "{error}");
}

#[test]
fn another_directory_is_served_after_a_reload() {
    let tree = tree();
    let routes = |dir: &str| format!("[[route]]\npath = \"/*\"\nfiles = {{ dir = \"{dir}\" }}\n");
    let config = |dir: &str| {
        let file = tree.path().join("reloaded.toml");
        fs::write(
            &file,
            format!("[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n{}", routes(dir)),
        )
        .expect("written");
        Config::from_path(file).expect("right")
    };
    let first = config("site");
    let runtime = first.runtime().start().expect("started");
    let live = first.routes();
    let server = first.server(&runtime).start_routes(runtime.handle(), &live).expect("a port");
    let address = server.local_addrs()[0];
    let get =
        |path: &str| corelane::block_on(ask(address, Version::HTTP_11, "GET", path, &[])).body;
    assert_eq!(get("/"), b"<p>index</p>");
    live.replace(&config("site/sub"));
    assert_eq!(get("/"), b"<p>sub</p>");
    // The directory is the one that was opened, whatever its name leads to later.
    let renamed = Path::new("site/elsewhere");
    fs::rename(tree.path().join("site/sub"), tree.path().join(renamed)).expect("renamed");
    assert_eq!(get("/"), b"<p>sub</p>");
}
