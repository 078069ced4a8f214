//! The measurements that put a load on a server: requests per second, CPU per request, latency.

use std::fs;
use std::time::Duration;

use super::contender::{Contender, Placement, REFERENCES, TOKIO};
use super::report::{Metric, Results, Sample};
use super::wrk::Wrk;
use super::{Settings, Target};

/// Load before the figures count.
const WARM_UP: Duration = Duration::from_secs(1);

/// Requests sent at a time by the pipelining load.
const PIPELINE_DEPTH: usize = 16;

const METRICS: [Metric; 6] = [
    Metric { title: "requests/s", digits: 0, compared: true },
    Metric { title: "CPU us/request", digits: 2, compared: true },
    Metric { title: "user us", digits: 2, compared: false },
    Metric { title: "p50 ms", digits: 2, compared: false },
    Metric { title: "p99 ms", digits: 2, compared: true },
    Metric { title: "errors", digits: 0, compared: false },
];

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) target: Target,
    title: &'static str,
    server_threads: usize,
    /// The server on the first CPU and wrk on the second, or both wherever they go.
    apart: bool,
    wrk_threads: usize,
    connections: usize,
    close: bool,
    pipelined: bool,
}

impl Load {
    const ONE_THREAD: Load = Load {
        target: Target::Http,
        title: "one server thread on one CPU, wrk -t1 -c64 on another",
        server_threads: 1,
        apart: true,
        wrk_threads: 1,
        connections: 64,
        close: false,
        pipelined: false,
    };

    /// All of them, in the order they are run.
    pub(super) const ALL: [Load; 6] = [
        Load::ONE_THREAD,
        Load {
            title: "one server thread on one CPU, wrk -t1 -c512 on another",
            connections: 512,
            ..Load::ONE_THREAD
        },
        Load {
            title: "two server threads, wrk -t2 -c1000, nothing else pinned",
            server_threads: 2,
            apart: false,
            wrk_threads: 2,
            connections: 1000,
            ..Load::ONE_THREAD
        },
        Load {
            target: Target::Pipeline,
            title: "one server thread on one CPU, wrk -t1 -c64 on another, 16 requests pipelined",
            pipelined: true,
            ..Load::ONE_THREAD
        },
        Load {
            target: Target::Churn,
            title: "one server thread on one CPU, wrk -t1 -c64 on another, Connection: close",
            close: true,
            ..Load::ONE_THREAD
        },
        Load {
            target: Target::Contended,
            title: "two server threads, wrk -t1 -c64, nothing else pinned: a client takes a CPU away",
            server_threads: 2,
            apart: false,
            ..Load::ONE_THREAD
        },
    ];
}

/// Runs one load on every contender, round by round, and prints the comparison.
pub(super) fn measure(load: &Load, settings: &Settings) {
    let mut contenders = settings.contenders.clone();
    let tokio = contenders.iter().position(|contender| contender.name() == TOKIO);
    if let Some(index) = tokio.filter(|_| load.pipelined) {
        contenders.insert(index + 1, Contender::tokio_flush());
    }
    let mut results = Results::new(&METRICS);
    for round in 0..settings.rounds {
        for index in 0..contenders.len() {
            let contender = &contenders[(round + index) % contenders.len()];
            let sample = once(load, contender, settings).map_err(|error| {
                eprintln!("{}, round {}: {error}", contender.name(), round + 1);
            });
            results.add(contender.name(), round, sample.ok());
        }
    }
    results.sort_like(contenders.iter().map(Contender::name));
    let seconds = settings.load_time.as_secs();
    let title = format!("{}; medians of {} rounds of {seconds} s", load.title, settings.rounds);
    results.print(&title, &REFERENCES);
}

fn once(load: &Load, contender: &Contender, settings: &Settings) -> Result<Sample, String> {
    let script = load.pipelined.then(|| pipeline_script(settings)).transpose()?;
    let wrk = Wrk {
        threads: load.wrk_threads,
        connections: load.connections,
        cpus: load.apart.then_some(&settings.cpus[1..]),
        close: load.close,
        script: script.as_deref(),
    };
    let cpus = &settings.cpus[..load.server_threads];
    let server = contender.start(Placement { cpus, confined: load.apart }, &[])?;
    wrk.run(server.address, WARM_UP)?;
    let before = server.process.cpu_time()?;
    let report = wrk.run(server.address, settings.load_time)?;
    let used = server.process.cpu_time()?.since(before);
    if report.requests == 0.0 {
        return Err("no request was answered".to_owned());
    }
    Ok(vec![
        report.requests_per_second,
        used.total_seconds() * 1e6 / report.requests,
        used.user_seconds * 1e6 / report.requests,
        report.p50_ms,
        report.p99_ms,
        report.errors,
    ])
}

/// Writes the script that makes wrk pipeline and returns its path.
fn pipeline_script(settings: &Settings) -> Result<String, String> {
    let path = settings.scratch.file("pipeline.lua");
    let script = format!(
        "local all\n\
         init = function(args) all = string.rep(wrk.format(), {PIPELINE_DEPTH}) end\n\
         request = function() return all end\n"
    );
    fs::write(&path, script).map_err(|error| format!("{}: {error}", path.display()))?;
    path.to_str().map(str::to_owned).ok_or_else(|| "the temporary path is not UTF-8".to_owned())
}
