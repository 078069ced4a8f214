//! Redirects, bodies from files, health and readiness.

use super::{MODES, Site, get};
use crate::serve::client::Client;
use crate::serve::program::Serve;
use crate::serve::until;
use corelane::server::Server;
use corelane::services::{Health, Ready, Redirect};
use corelane::{Config, ListenerConfig, RouteConfig, Runtime};
use std::net::TcpStream;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_body_of_a_file_is_read_at_the_start_and_at_each_reload() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &str| {
        std::fs::write(directory.path().join(name), content).expect("written");
    };
    write("page.html", "<p>one</p>");
    write(
        "server.toml",
        "[runtime]\ncores = 1\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/\"\nrespond = { file = \"page.html\", headers = { x-a = \"b\" } }\n",
    );
    // It is not started where the file is: a relative name begins there all the same.
    let path = directory.path().join("server.toml");
    let program =
        Serve::with_arguments(&["serve", "--config", path.to_str().expect("text")]).start();
    let mut client = Client::connect(program.address());
    let answer = client.get();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"<p>one</p>".as_slice()));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("x-a"), Some("b"));
    write("page.html", "<p>two</p>");
    assert_eq!(client.get().body, b"<p>one</p>");
    program.signal(libc::SIGHUP);
    until("it is read again", || client.get().body == b"<p>two</p>");
    std::fs::remove_file(directory.path().join("page.html")).expect("removed");
    program.signal(libc::SIGHUP);
    until("the reload is refused", || {
        let said = program.err.so_far();
        said.iter()
            .any(|line| line.contains("server.toml:8:20: file: ") && line.contains("page.html"))
    });
    assert_eq!(client.get().body, b"<p>two</p>");
}

#[test]
fn a_redirect_leads_where_the_route_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let routes = "[[route]]\npath = \"/*\"\nredirect = { to = \"https://{host}{path}{query}\" }\n\
                  [[route]]\npath = \"/old/*\"\nredirect = { to = \"/{rest}\", status = 302 }\n";
    for mode in MODES {
        let site = Site::start(directory.path(), mode, routes);
        let mut client = Client::connect(site.address);
        let mut ask = |request: &str| {
            client.send(request);
            let answer = client.answer();
            (answer.status, answer.header("location").map(str::to_owned), answer.body)
        };
        let to = |status, target: &str| (status, Some(target.to_owned()), Vec::new());
        assert_eq!(
            ask("GET /a%0d%0ab?x=y%20z HTTP/1.1\r\nhost: Example.org:8080\r\n\r\n"),
            to(308, "https://example.org/a%0d%0ab?x=y%20z")
        );
        assert_eq!(
            ask("POST /a HTTP/1.1\r\nhost: [::1]:80\r\ncontent-length: 3\r\n\r\nabc"),
            to(308, "https://[::1]/a")
        );
        assert_eq!(ask(&get("/old/a/b?c")), to(302, "/a/b"));
        // It would lead to another host.
        for away in ["/old//evil.test/", "/old/\\evil.test/"] {
            assert_eq!(ask(&get(away)).0, 400, "{away}");
        }
        // Nobody has said which host this is.
        client.send("GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().status, 400);
    }
}

#[test]
fn a_process_that_drains_is_alive_and_not_ready() {
    let directory = tempfile::tempdir().expect("a directory");
    let routes = "[[route]]\npath = \"/health\"\nhealth = true\n[[route]]\npath = \"/ready\"\nready = true\n";
    for mode in MODES {
        let site = Site::start(directory.path(), mode, routes);
        let ask = |client: &mut Client, path: &str| {
            client.send(get(path));
            let answer = client.answer();
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            (answer.status, String::from_utf8(answer.body).expect("text"))
        };
        let mut client = Client::connect(site.address);
        assert_eq!(ask(&mut client, "/health"), (200, "alive\n".to_owned()));
        assert_eq!(ask(&mut client, "/ready"), (200, "ready\n".to_owned()));
        client.send("HEAD /ready HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.answer_to_head().header("content-length"), Some("6"));
        client.send("POST /ready HTTP/1.1\r\nhost: test\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
        // Requests that have begun before the order to end are answered after it.
        let mut begun = ["/health", "/ready"].map(|path| {
            let mut client = Client::connect(site.address);
            client.send(format!("GET {path} HTTP/1.1\r\n"));
            client
        });
        site.runtime.handle().request_shutdown(LONG);
        until("it listens no more", || TcpStream::connect(site.address).is_err());
        begun.iter_mut().for_each(|client| client.send("host: test\r\n\r\n"));
        let answers = begun.each_mut().map(Client::answer);
        assert_eq!((answers[0].status, answers[0].body.as_slice()), (200, b"alive\n".as_slice()));
        assert_eq!(
            (answers[1].status, answers[1].body.as_slice()),
            (503, b"draining\n".as_slice())
        );
        begun.iter_mut().for_each(Client::is_closed);
        assert_eq!(site.runtime.shutdown(LONG).tasks_dropped, 0);
    }
}

#[test]
fn a_program_has_the_same_services() {
    let runtime = Runtime::builder().cores("1".parse().expect("a count")).start().expect("started");
    let any = || "127.0.0.1:0".parse().expect("an address");
    let handle = runtime.handle();
    let serve = Server::builder().listen(any());
    let redirect = Redirect::new("/new/{rest}", 307).expect("a target");
    let moved = serve.clone().start(handle, |_| redirect).expect("a port").local_addrs()[0];
    let alive = serve.clone().start(handle, |_| Health).expect("a port").local_addrs()[0];
    let ready = serve.start(handle, |_| Ready).expect("a port").local_addrs()[0];
    let mut client = Client::connect(moved);
    client.send(get("/a/b"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("location")), (307, Some("/new/a/b")));
    for address in [alive, ready] {
        assert_eq!(Client::connect(address).get().status, 200);
    }
    assert!(Redirect::new("/new", 200).is_err_and(|error| error.is_config()));
}

#[test]
fn a_program_configures_what_a_file_does() {
    let file = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
        [[route]]\npath = \"/a\"\nhealth = true\n[[route]]\npath = \"/b\"\nready = true\n\
        [[route]]\npath = \"/c/*\"\nredirect = { to = \"/{rest}\", status = 301 }\n";
    let program = Config::builder()
        .listener(ListenerConfig::new("a", "127.0.0.1:0".parse().expect("an address")))
        .route(RouteConfig::new("/a").health())
        .route(RouteConfig::new("/b").ready())
        .route(RouteConfig::new("/c/*").redirect("/{rest}").status(301))
        .build()
        .expect("right");
    assert_eq!(Config::from_toml_str(file).expect("right"), program);
    let both = RouteConfig::new("/a").health().body("x");
    assert!(Config::builder().route(both).build().is_err());
}
