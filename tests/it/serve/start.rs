//! Starting: what is printed, which CPUs and sockets are taken, what is answered, what is refused.

use super::client::{Client, GET};
use super::program::{Program, Serve};
use super::skipped;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::thread::available_parallelism;

fn cpus() -> usize {
    available_parallelism().expect("a number of CPUs").get()
}

/// The CPUs this process may use, as the kernel writes them, one by one.
fn allowed() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let list =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
    let number = |text: &str| text.trim().parse::<usize>().expect("a number");
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        number(first)..=number(last)
    };
    list.split(',').flat_map(range).collect()
}

/// The CPUs that the lines about shards name, after a look at those lines.
#[track_caller]
fn cpus_of_shards(program: &Program) -> Vec<usize> {
    let lines = program.out.so_far();
    let shards = lines.iter().take_while(|line| line.starts_with("shard "));
    let cpu = |(shard, line): (usize, &String)| {
        let cpu = line
            .strip_prefix(&format!("shard {shard} on CPU "))
            .and_then(|rest| rest.strip_suffix(", pinned"));
        cpu.and_then(|cpu| cpu.parse().ok()).unwrap_or_else(|| panic!("shard {shard}: {line}"))
    };
    shards.enumerate().map(cpu).collect()
}

/// Name's number and allowed CPUs of each shard's thread, by number.
fn shard_threads(program: &Program) -> Vec<(usize, String)> {
    let shard = |(name, cpus): (String, String)| {
        Some((name.strip_prefix("corelane-")?.parse().ok()?, cpus))
    };
    let mut threads: Vec<(usize, String)> =
        program.threads().into_iter().filter_map(shard).collect();
    threads.sort();
    threads
}

/// How many sockets listen on this port of 127.0.0.1, as `ss -ltn` would show.
fn sockets_that_listen_on(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("a table");
    let local = format!("0100007F:{port:04X}");
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("0A")
    };
    table.lines().filter(listens).count()
}

#[test]
fn it_prints_a_line_per_shard_and_then_where_it_listens() {
    let program = Serve::new(&[]).start();
    let shards = cpus_of_shards(&program);
    assert_eq!(shards.len(), cpus());
    let lines = program.out.so_far();
    let rest: Vec<_> =
        lines[shards.len()..].iter().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(rest, [&format!("listening on http://{}", program.address())]);
    assert_ne!(program.address().port(), 0);
    Client::connect(program.address()).get().is_hello();
    assert!(program.complaints().is_empty());
}

#[test]
fn the_program_without_a_command_serves() {
    let program = Serve::with_arguments(&["--listen", "127.0.0.1:0", "--cores", "1"]).start();
    Client::connect(program.address()).get().is_hello();
}

#[test]
fn every_address_is_listened_on() {
    let mut addresses = vec!["127.0.0.1:0", "127.0.0.1:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push("[::1]:0");
    } else {
        skipped("an address of IPv6: there is no IPv6");
    }
    let flags: Vec<&str> = addresses.iter().flat_map(|address| ["--listen", address]).collect();
    let program = Serve::new(&flags).start();
    assert_eq!(program.addresses().len(), addresses.len());
    for address in program.addresses() {
        Client::connect(address).get().is_hello();
    }
}

#[test]
fn the_built_in_service_answers() {
    let program = Serve::new(&["--cores", "1"]).start();
    let mut client = Client::connect(program.address());

    let answer = client.get();
    answer.is_hello();
    assert_eq!(answer.header("content-length"), Some("13"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(answer.header("date").is_some());

    client.send("HEAD / HTTP/1.1\r\nhost: test\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("13")));

    client.send("GET /nothing HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().status, 404);

    client.send("DELETE / HTTP/1.1\r\nhost: test\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));

    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    client.answer().is_hello();
    client.is_closed();
}

#[test]
fn a_request_that_is_none_is_refused_and_the_connection_closed() {
    let program = Serve::new(&["--cores", "1"]).start();
    let mut client = Client::connect(program.address());
    client.send("\0\0\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    client.is_closed();
    Client::connect(program.address()).get().is_hello();
}

#[test]
fn the_flag_for_cores_decides_which_cpus_have_a_shard() {
    let allowed = allowed();
    let on = |cores: &str| cpus_of_shards(&Serve::new(&["--cores", cores]).start());
    assert_eq!(on("all").len(), cpus());
    assert_eq!(on("1").len(), 1);
    assert_eq!(on(&format!("cpu:{}", allowed[0])), [allowed[0]]);
    let physical = on("physical");
    assert!(
        !physical.is_empty() && physical.iter().all(|cpu| allowed.contains(cpu)),
        "{physical:?}"
    );
    if let [first, second, ..] = allowed[..] {
        assert_eq!(on(&format!("{first},{second}")), [first, second]);
        assert_eq!(on(&format!("{second},{first}")), [second, first]);
        assert_eq!(on("2").len(), 2);
    } else {
        skipped("lists of CPUs: there is only one");
    }
}

#[test]
fn each_shard_is_a_thread_on_its_cpu_only_with_a_socket_of_its_own() {
    let program = Serve::new(&[]).start();
    let expected: Vec<_> =
        cpus_of_shards(&program).iter().map(ToString::to_string).enumerate().collect();
    assert_eq!(shard_threads(&program), expected);
    assert_eq!(sockets_that_listen_on(program.address().port()), expected.len());
}

#[test]
fn without_pinning_shards_may_run_anywhere() {
    let program = Serve::new(&["--pin", "off", "--cores", "1"]).start();
    assert!(program.out.so_far()[0].ends_with(", not pinned"), "{:?}", program.out.so_far());
    let main_thread = program.threads()[0].1.clone();
    assert_eq!(shard_threads(&program), [(0, main_thread)]);
}

#[test]
fn on_a_mask_of_one_cpu_there_is_one_shard() {
    let last = allowed().pop().expect("a CPU");
    if Command::new("taskset").arg("--version").output().is_err() {
        return skipped("there is no taskset");
    }
    let program = Serve::new(&[]).under(&["taskset", "-c", &last.to_string()]).start();
    assert_eq!(cpus_of_shards(&program), [last]);
    assert_eq!(shard_threads(&program), [(0, last.to_string())]);
    Client::connect(program.address()).get().is_hello();
    drop(program);

    // What is not allowed is refused, and the refusal says what is.
    let Some(&other) = allowed().iter().find(|&&cpu| cpu != last) else { return };
    let serve = Serve::new(&["--cores", &format!("cpu:{other}")]);
    let (status, out, err) = serve.under(&["taskset", "-c", &last.to_string()]).run_to_its_end();
    assert_eq!((status.code(), out), (Some(2), vec![]));
    let text = err.join("\n");
    assert!(text.contains(&format!("CPU {other}")) && text.contains(&last.to_string()), "{text}");
}

#[test]
fn either_mode_can_be_chosen() {
    for (mode, pinned) in [("thread-per-core", "pinned"), ("work-stealing", "not pinned")] {
        let serve = Serve::new(&["--mode", mode, "--cores", "1"]).start();
        let lines = serve.out.so_far();
        assert!(lines[0].ends_with(&format!(", {pinned}")), "{lines:?}");
        Client::connect(serve.address()).get().is_hello();
    }
}

#[test]
fn bad_flags_are_refused_with_what_is_wrong() {
    let refused: &[(&[&str], &str)] = &[
        (&["serve", "--cores", "0"], "'0'"),
        (&["serve", "--cores", "many"], "'many'"),
        (&["serve", "--cores", ""], "--cores"),
        (&["serve", "--cores", "1-0"], "'1-0'"),
        (&["serve", "--cores", "0,0"], "CPU 0 is listed twice"),
        (&["serve", "--cores", "cpu:-1"], "cpu:-1"),
        (&["serve", "--cores", "99999999999999999999"], "99999999999999999999"),
        (&["serve", "--listen", "127.0.0.1:0", "--cores", "4000"], "4000"),
        (&["serve", "--listen", "127.0.0.1:0", "--cores", "cpu:1023"], "CPU 1023"),
        (&["serve", "--listen", "nonsense"], "'nonsense'"),
        (&["serve", "--listen", "127.0.0.1:70000"], "'127.0.0.1:70000'"),
        (&["serve", "--listen", "127.0.0.1"], "'127.0.0.1'"),
        (&["serve", "--listen", ":8080"], "':8080'"),
        (&["serve", "--listen", ":8080"], "127.0.0.1:8080 or [::1]:8080; names are not looked up"),
        (&["serve", "--listen", "localhost:8080"], "127.0.0.1:8080 or [::1]:8080; names are not"),
        (&["serve", "--listen", "8080"], "127.0.0.1:8080 or [::1]:8080; names are not looked up"),
        (&["serve", "--listen", "::1:8080"], "127.0.0.1:8080 or [::1]:8080; names are not looked"),
        (&["serve", "--listen", "[fe80::1]:8080"], "[fe80::1%interface]:8080"),
        (&["serve", "--listen", "[fe80::1%none0]:8080"], "there is no interface \"none0\""),
        (&["serve", "--mode", "fast"], "'fast'"),
        (&["serve", "--pin", "maybe"], "'maybe'"),
        (&["serve", "--drain-seconds", "-1"], "-1"),
        (&["serve", "--drain-seconds", "soon"], "'soon'"),
        (&["serve", "--drain-seconds", "4294967296"], "4294967296"),
        (&["serve", "--colour"], "'--colour'"),
        (&["serve", "extra"], "'extra'"),
        (&["nothing"], "'nothing'"),
        (&["--cores"], "--cores"),
        // A network for documentation, which no machine has.
        (
            &["serve", "--listen", "192.0.2.1:8080", "--cores", "1"],
            "cannot listen on 192.0.2.1:8080",
        ),
    ];
    for (arguments, said) in refused {
        let (status, out, err) = Serve::with_arguments(arguments).run_to_its_end();
        let text = err.join("\n");
        assert_eq!(status.code(), Some(2), "{arguments:?}: {text}");
        assert!(out.is_empty(), "{arguments:?}: {out:?}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn an_address_that_is_given_twice_is_nobody_elses_fault() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a port");
    let (once, all) = (address.to_string(), format!("0.0.0.0:{}", address.port()));
    for other in [&once, &all] {
        let said = &format!("--listen: {once} is listened on by \"listen-1\", at {other}, already");
        let serve = Serve::new(&["--cores", "1", "--listen", other, "--listen", &once]);
        let (status, out, err) = serve.run_to_its_end();
        assert_eq!((status.code(), out), (Some(2), vec![]), "{err:?}");
        assert!(err.len() == 1 && err[0].contains(said), "{err:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let (status, out, err) = Serve::with_arguments(arguments).run_to_its_end();
        assert_eq!((status.code(), err), (Some(0), vec![]), "{arguments:?}");
        assert!(!out.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_idle_server_uses_no_cpu_time() {
    let program = Serve::new(&[]).start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(program.address())).collect();
    for client in &mut clients {
        client.send(GET);
        client.answer().is_hello();
    }
    let before = program.cpu_time();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = program.cpu_time() - before;
    assert!(used <= std::time::Duration::from_millis(20), "{used:?} in a second of silence");
}
