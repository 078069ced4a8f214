//! Files that are right, and what they come to.

use super::{directory, program, run, text, write};
use crate::serve::client::{Client, GET};
use crate::serve::program::Serve;
use corelane::server::Server;
use corelane::{
    Config, CoreConfig, Cores, CpuId, ListenerConfig, Mode, Pin, RouteConfig, ShardConfig,
};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

/// The files that come with the source.
fn shipped() -> Vec<std::path::PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let files = std::fs::read_dir(directory).expect("configs");
    let paths = files.map(|file| file.expect("a file").path());
    // A scenario is another kind of file, and that for HTTPS wants certificates beside it.
    let others = |path: &Path| path.ends_with("scenario.toml") || path.ends_with("https.toml");
    let is_one = |path: &Path| path.extension().is_some_and(|end| end == "toml") && !others(path);
    paths.filter(|path| is_one(path)).collect()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_files_that_come_with_the_source_are_right() {
    let directory = directory();
    assert!(shipped().len() >= 4);
    for path in shipped() {
        let path = path.to_str().expect("text");
        assert_eq!(
            succeeded(&run(&directory, &["check", path])),
            format!("{path}: nothing is wrong with it\n")
        );
    }
}

#[test]
fn what_holds_is_printed_as_a_file_that_says_the_same() {
    let directory = directory();
    for path in shipped() {
        let effective = succeeded(&run(
            &directory,
            &["check", "--print-effective", path.to_str().expect("text")],
        ));
        write(&directory, "again.toml", &effective);
        let again = succeeded(&run(&directory, &["check", "--print-effective", "again.toml"]));
        let values = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.split(" # ").next().expect("a part").trim().to_owned())
                .collect()
        };
        assert_eq!(values(&effective), values(&again), "{}", path.display());
        let (first, second) = (Config::from_path(&path), Config::from_toml_str(&effective));
        assert_eq!(first.expect("right").warnings(), second.expect("right").warnings());
    }
}

#[test]
fn each_value_says_where_it_comes_from() {
    let directory = directory();
    let file = "\u{feff}[runtime]\ncores = [0]\n[shard]\nevents = 7\nio_per_poll = 8\n[[core]]\ncpu = 0\nevents = 9\n";
    write(&directory, "some.toml", file);
    let mut command = program(&directory, &["check", "--print-effective", "some.toml"]);
    let printed =
        succeeded(&command.env("CORELANE_SHARD_BUSY_POLL", "0s").output().expect("started"));
    let shard = printed.find("[shard]").expect("a section");
    let core = printed.find("[[core]]").expect("a section");
    let origin = |from: usize, key: &str| {
        let line = printed[from..]
            .lines()
            .find(|line| line.starts_with(&format!("{key} = ")))
            .expect("a line");
        line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(origin(0, "cores"), "\"cpu:0\" # some.toml:2");
    assert_eq!(origin(0, "mode"), "\"thread-per-core\" # default");
    assert_eq!(origin(shard, "events"), "7 # some.toml:4");
    assert_eq!(origin(shard, "busy_poll"), "\"0s\" # CORELANE_SHARD_BUSY_POLL");
    assert_eq!(origin(core, "events"), "9 # some.toml:8");
    assert_eq!(origin(core, "io_per_poll"), "8 # some.toml:5");
    assert_eq!(origin(core, "turn_time"), "\"1ms\" # default");
    assert_eq!(origin(core, "address"), "\"127.0.0.1:8080\" # default");
}

#[test]
fn an_empty_file_says_what_no_file_says() {
    let (empty, nothing) = (Config::from_toml_str(""), Config::builder().build());
    assert_eq!(empty.expect("right"), nothing.expect("right"));
}

#[test]
fn a_program_says_what_a_file_says() {
    let file = r#"
        [runtime]
        mode = "thread-per-core"
        cores = [0]
        pin = "off"
        blocking_threads = 3
        rebalance = "on"
        pid_file = "corelane.pid"
        drain = "2s"
        [shard]
        polls_per_turn = 1
        turn_time = "2ms"
        io_per_poll = 3
        messages_per_turn = 4
        inbox_capacity = 5
        timers_per_turn = 6
        events = 7
        busy_poll = "8us"
        stall_threshold = "9ms"
        [[core]]
        cpu = 0
        listeners = ["a", "b", "c"]
        events = 70
        [[listener]]
        name = "a"
        address = "127.0.0.1:0"
        backlog = 10
        balance = "round-robin"
        share = true
        nodelay = false
        keepalive = true
        receive_buffer = 65536
        send_buffer = 65537
        header_timeout = "11s"
        [[listener]]
        name = "b"
        address = "[::1]:0"
        only_v6 = true
        [[listener]]
        name = "c"
        path = "/run/app.sock"
        mode = "660"
    "#;
    let route = "[[route]]\nlistener = \"a\"\nhost = \"Example.org\"\npath = \"/x\"\n\
                 respond = { status = 404, body = \"no\", headers = { x-a = \"1\" } }\n";
    let shard = || {
        ShardConfig::new()
            .polls_per_turn(1)
            .turn_time(Duration::from_millis(2))
            .io_per_poll(3)
            .messages_per_turn(4)
            .inbox_capacity(5)
            .timers_per_turn(6)
            .events(7)
            .busy_poll(Duration::from_micros(8))
            .stall_threshold(Duration::from_millis(9))
    };
    let any = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let program = Config::builder()
        .mode(Mode::ThreadPerCore)
        .cores(Cores::List(vec![CpuId(0)]))
        .pin(Pin::Off)
        .blocking_threads(3)
        .rebalance(true)
        .pid_file("corelane.pid")
        .drain(Duration::from_secs(2))
        .shard(shard())
        .core(CoreConfig::new(CpuId(0)).listeners(["a", "b", "c"]).events(70))
        .listener(
            ListenerConfig::new("a", any("127.0.0.1:0"))
                .backlog(10)
                .balance(corelane::balance::Policy::RoundRobin)
                .share(true)
                .nodelay(false)
                .keepalive(true)
                .receive_buffer(65536)
                .send_buffer(65537)
                .header_timeout(Duration::from_secs(11)),
        )
        .listener(ListenerConfig::new("b", any("[::1]:0")).only_v6(true))
        .listener(ListenerConfig::unix("c", "/run/app.sock").mode(0o660))
        .route(
            RouteConfig::new("/x")
                .listener("a")
                .host("Example.org")
                .status(404)
                .body("no")
                .headers([("x-a", "1")]),
        )
        .build()
        .expect("right");
    let file = Config::from_toml_str(&format!("{file}{route}")).expect("right");
    assert_eq!(file, program);
}

#[test]
fn flags_take_the_place_of_the_file_and_the_file_that_of_the_defaults() {
    let directory = directory();
    let file = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:1\"\n[[route]]\npath = \"/\"\nrespond = { body = \"from the file\" }\n";
    let path = write(&directory, "server.toml", file);
    let arguments = [
        "serve",
        "--config",
        path.to_str().expect("text"),
        "--listen",
        "127.0.0.1:0",
        "--cores",
        "1",
    ];
    let mut program = Serve::with_arguments(&arguments).start();
    let mut client = Client::connect(program.address());
    assert_eq!(client.get().body, b"from the file");
    program.signal(libc::SIGTERM);
    program.exits_with(0);
}

#[test]
fn the_schema_wants_an_address_or_a_path() {
    let schema = succeeded(&run(&directory(), &["schema"]));
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let listener = &schema["properties"]["listener"]["items"];
    let one_of = serde_json::json!([{ "required": ["address"] }, { "required": ["path"] }, { "required": ["inherited"] }]);
    assert_eq!(listener["oneOf"], one_of);
    assert_eq!(listener["required"], serde_json::json!(["name"]));
    assert_eq!(listener["properties"]["mode"]["pattern"], "^0?[0-7]{3}$");
    assert!(schema["properties"]["core"]["items"]["oneOf"].is_null());
    let route = &schema["properties"]["route"]["items"];
    let actions = route["oneOf"].as_array().expect("alternatives");
    assert!(actions.contains(&serde_json::json!({ "required": ["redirect"] })), "{actions:?}");
    let respond = &route["properties"]["respond"];
    assert_eq!(respond["not"], serde_json::json!({ "required": ["body", "file"] }));
    let redirect = &route["properties"]["redirect"];
    assert_eq!(redirect["required"], serde_json::json!(["to"]));
    assert_eq!(redirect["properties"]["status"]["default"], 308);
}

#[test]
fn a_flag_with_a_path_takes_the_place_of_the_file() {
    let directory = directory();
    let flags = ["check", "--print-effective", "--listen", "unix:app.sock"];
    let effective = succeeded(&run(&directory, &flags));
    let path = effective.lines().find(|line| line.starts_with("path = ")).expect("a line");
    assert_eq!(path.split_whitespace().collect::<Vec<_>>()[2..], ["\"app.sock\"", "#", "--listen"]);
    assert!(!effective.contains("nodelay") && !effective.contains("address"), "{effective}");
    let output = run(&directory, &["check", "--listen", "/run/app.sock"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("for a Unix socket: unix:/run/app.sock"), "{said}");
}

#[test]
fn a_core_serves_the_listeners_that_it_names_and_only_those() {
    let Some(cpus) = two_cpus() else { return eprintln!("SKIPPED: this needs two CPUs") };
    let directory = directory();
    let file = format!(
        "[runtime]\ncores = [{}, {}]\n[[core]]\ncpu = {}\nlisteners = [\"admin\"]\n\
         [[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"admin\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nlistener = \"admin\"\npath = \"/\"\nrespond = {{ body = \"admin\" }}\n\
         [[route]]\npath = \"/\"\nrespond = {{ body = \"public\" }}\n",
        cpus[0], cpus[1], cpus[1]
    );
    let path = write(&directory, "server.toml", file);
    let config = Config::from_path(&path).expect("right");
    let runtime = config.runtime().start().expect("started");
    let server: Server =
        config.server(&runtime).start_routes(runtime.handle(), &config.routes()).expect("started");
    let [public, admin] = server.local_addrs() else { panic!("two addresses") };
    let accepts =
        || runtime.handle().stats().iter().map(|shard| shard.accepts).collect::<Vec<u64>>();
    let mut clients = Vec::new();
    for (address, body) in [(public, "public"), (admin, "admin")] {
        for _ in 0..20 {
            let mut client = Client::connect(*address);
            client.send(GET);
            assert_eq!(client.answer().body, body.as_bytes());
            clients.push(client);
        }
    }
    crate::serve::until("both have accepted all that was theirs", || accepts() == [20, 20]);
}

fn two_cpus() -> Option<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    match list.trim().parse::<Cores>().ok()? {
        Cores::List(cpus) if cpus.len() >= 2 => {
            Some(cpus.iter().take(2).map(|cpu| cpu.0).collect())
        }
        _ => None,
    }
}

#[test]
fn sockets_are_told_what_the_file_says() {
    let directory = directory();
    let file = "[runtime]\ncores = 1\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\nbacklog = 7\n\
                receive_buffer = 10000\nsend_buffer = 20000\n";
    let path = write(&directory, "server.toml", file);
    let program =
        Serve::with_arguments(&["serve", "--config", path.to_str().expect("text")]).start();
    let port = program.address().port();
    let Ok(output) =
        std::process::Command::new("ss").args(["-ltnmH", &format!("sport = :{port}")]).output()
    else {
        return eprintln!("SKIPPED: there is no ss here");
    };
    let told = text(&output.stdout);
    // The system doubles what it is asked for, and shows the backlog in the third column.
    assert!(told.contains("rb20000") && told.contains("tb40000"), "{told}");
    assert_eq!(told.split_whitespace().nth(2), Some("7"), "{told}");
}

#[test]
fn a_port_may_be_shared_if_both_say_so() {
    let directory = directory();
    let serve = |share: bool, address: &str| {
        let file = format!(
            "[runtime]\ncores = 1\n[[listener]]\nname = \"a\"\naddress = \"{address}\"\nshare = {share}\n"
        );
        let path = write(&directory, "server.toml", file);
        Serve::with_arguments(&["serve", "--config", path.to_str().expect("text")])
    };
    let one = serve(true, "127.0.0.1:0").start();
    let address = one.address().to_string();
    let two = serve(true, &address).start();
    assert_eq!(two.address(), one.address());
    let (status, _, said) = serve(false, &address).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    assert!(said.iter().any(|line| line.contains("cannot listen on")), "{said:?}");
    drop(one);
}

#[test]
fn what_means_nothing_in_the_other_mode_is_a_warning() {
    let directory = directory();
    let file = "[runtime]\nmode = \"work-stealing\"\n[[core]]\ncpu = 0\nlisteners = [\"a\"]\n\
                [[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\nbalance = \"p2c\"\n";
    write(&directory, "server.toml", file);
    let output = run(&directory, &["check", "server.toml"]);
    succeeded(&output);
    let said = text(&output.stderr);
    assert!(said.contains("warning: server.toml:5:13: listeners: in work-stealing mode"), "{said}");
    assert!(said.contains("warning: server.toml:9:11: balance: in work-stealing mode"), "{said}");
}
