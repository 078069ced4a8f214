//! A server that is told to read its file again.

use super::{directory, run, text, write};
use crate::serve::client::Client;
use crate::serve::program::{Program, Serve};
use crate::serve::until;

const LISTENER: &str = "[runtime]\ncores = 1\npid_file = \"PID\"\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n";

fn file(directory: &tempfile::TempDir, body: &str) -> String {
    let pid = directory.path().join("pid");
    let listener = LISTENER.replace("PID", pid.to_str().expect("text"));
    format!("{listener}[[route]]\npath = \"/\"\nrespond = {{ body = \"{body}\" }}\n")
}

fn start(path: &std::path::Path) -> Program {
    Serve::with_arguments(&["serve", "--config", path.to_str().expect("text")]).start()
}

#[track_caller]
fn says(program: &Program, what: &str) {
    until(what, || program.err.so_far().iter().any(|line| line.contains(what)));
}

#[test]
fn routes_change_on_open_connections_too() {
    let directory = directory();
    let path = write(&directory, "server.toml", file(&directory, "one"));
    let mut program = start(&path);
    let mut client = Client::connect(program.address());
    assert_eq!(client.get().body, b"one");
    write(&directory, "server.toml", file(&directory, "two"));
    let output = run(&directory, &["reload", "--config", "server.toml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("process {} was told", program.pid())));
    says(&program, "read again");
    assert_eq!(client.get().body, b"two");
    assert!(directory.path().join("pid").exists());
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert!(!directory.path().join("pid").exists(), "it is removed at the end");
    let output = run(&directory, &["reload", "--config", "server.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("no server runs with server.toml"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_bad_file_changes_nothing_and_is_not_even_sent() {
    let directory = directory();
    let path = write(&directory, "server.toml", file(&directory, "one"));
    let program = start(&path);
    let mut client = Client::connect(program.address());
    write(&directory, "server.toml", file(&directory, "two").replace("respond", "reply"));
    let output = run(&directory, &["reload", "--config", "server.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no key `reply` in [[route]]"));
    program.signal(libc::SIGHUP);
    says(&program, "nothing was changed, because of what is wrong:");
    says(&program, "there is no key `reply` in [[route]]");
    assert_eq!(client.get().body, b"one");
}

#[test]
fn what_cannot_change_is_named_and_the_rest_changes() {
    let directory = directory();
    let path = write(&directory, "server.toml", file(&directory, "one"));
    let program = start(&path);
    let mut client = Client::connect(program.address());
    let new = file(&directory, "two").replace("cores = 1", "cores = 1\npin = \"off\"");
    let new = format!(
        "{new}[shard]\nevents = 5\n[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n"
    );
    write(&directory, "server.toml", new);
    program.signal(libc::SIGHUP);
    says(
        &program,
        "only a start anew will change [runtime] pin, [shard] events, [[listener]] \"b\", which is new",
    );
    assert_eq!(client.get().body, b"two");
}

#[test]
fn the_balance_changes_and_its_thread_comes_and_goes() {
    let directory = directory();
    let by = |policy: &str, body: &str| {
        file(&directory, body).replace("[[route]]", &format!("balance = \"{policy}\"\n[[route]]"))
    };
    let path = write(&directory, "server.toml", by("least", "one"));
    let program = start(&path);
    let weighs = || program.threads().iter().any(|(name, _)| name == "corelane-steer");
    assert!(!weighs());
    let mut client = Client::connect(program.address());
    for (policy, body) in [("weighted", "two"), ("hash", "three"), ("weighted", "four")] {
        write(&directory, "server.toml", by(policy, body));
        program.signal(libc::SIGHUP);
        until("it is read again", || client.get().body == body.as_bytes());
        until("the thread comes or goes", || weighs() == (policy == "weighted"));
        Client::connect(program.address()).get();
    }
    let said = program.err.so_far();
    assert!(!said.iter().any(|line| line.contains("cannot be spread")), "{said:?}");
}

#[test]
fn what_is_logged_changes() {
    let directory = directory();
    let path = write(&directory, "server.toml", file(&directory, "one"));
    let mut program = start(&path);
    let mut client = Client::connect(program.address());
    program.signal(libc::SIGHUP);
    says(&program, "read again");
    let new =
        file(&directory, "two").replace("cores = 1", "cores = 1\nlog = \"error\"\npin = \"off\"");
    write(&directory, "server.toml", &new);
    program.signal(libc::SIGHUP);
    until("it is read again", || client.get().body == b"two");
    write(&directory, "server.toml", new.replace("log", "lock"));
    program.signal(libc::SIGHUP);
    // Errors are still logged.
    says(&program, "nothing was changed");
    let lines = program.err.so_far().len();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert_eq!(program.err.all().len(), lines, "{:?}", program.err.all());
    assert!(program.err.all().iter().all(|line| !line.contains("start anew")));
}

#[test]
fn a_route_for_a_listener_that_waits_for_the_next_start_waits_too() {
    let directory = directory();
    let path = write(&directory, "server.toml", file(&directory, "one"));
    let program = start(&path);
    let mut client = Client::connect(program.address());
    let new = format!(
        "{}[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n[[route]]\nlistener = \"b\"\npath = \"/b\"\nrespond = {{}}\n",
        file(&directory, "two")
    );
    write(&directory, "server.toml", new);
    program.signal(libc::SIGHUP);
    says(
        &program,
        "only a start anew will change [[listener]] \"b\", which is new, each [[route]] of \"b\"",
    );
    assert_eq!(client.get().body, b"two");
    client.send("GET /b HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    // Under another name it is another listener: this one stays, with its routes, until the next start.
    let body = file(&directory, "three").replace("name = \"a\"", "name = \"c\"");
    let body = body.replace("[[route]]", "[[route]]\nlistener = \"c\"");
    write(&directory, "server.toml", body);
    program.signal(libc::SIGHUP);
    says(
        &program,
        "[[listener]] \"a\", which is gone, [[listener]] \"c\", which is new, each [[route]] of \"c\"",
    );
}

#[test]
fn two_servers_do_not_share_a_pid_file() {
    let directory = directory();
    let path = write(&directory, "server.toml", file(&directory, "one"));
    let program = start(&path);
    let arguments = ["serve", "--config", path.to_str().expect("text")];
    let (status, _, said) = Serve::with_arguments(&arguments).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    assert!(said.iter().any(|line| line.contains("another server holds the pid_file")), "{said:?}");
    assert!(directory.path().join("pid").exists());
    drop(program);
}
