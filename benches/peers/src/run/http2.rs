//! HTTP/2: requests per second of servers that are asked a hundred things at a time on each connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::Settings;
use super::contender::{Contender, Placement};
use super::process::Process;
use super::report::{Metric, Results, Sample};

/// The servers that speak it, and what their ratios refer to.
pub(super) const SERVERS: [&str; 3] = ["corelane-server", "tokio-auto", "tokio-per-core-auto"];
const REFERENCES: [&str; 2] = ["tokio-auto", "tokio-per-core-auto"];

const CONNECTIONS: usize = 32;
const STREAMS: usize = 100;

/// Load before the figures count.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time h2load may take beyond what it was told.
const GRACE: Duration = Duration::from_secs(20);

const METRICS: [Metric; 4] = [
    Metric { title: "requests/s", digits: 0, compared: true },
    Metric { title: "CPU us/request", digits: 2, compared: true },
    Metric { title: "mean ms", digits: 2, compared: false },
    Metric { title: "errors", digits: 0, compared: false },
];

/// Runs the load on every contender, round by round, and prints the comparison.
pub(super) fn measure(settings: &Settings) {
    let contenders = &settings.contenders;
    let mut results = Results::new(&METRICS);
    for round in 0..settings.rounds {
        for index in 0..contenders.len() {
            let contender = &contenders[(round + index) % contenders.len()];
            let sample = once(contender, settings).map_err(|error| {
                eprintln!("{}, round {}: {error}", contender.name(), round + 1);
            });
            results.add(contender.name(), round, sample.ok());
        }
    }
    results.sort_like(contenders.iter().map(Contender::name));
    let seconds = settings.load_time.as_secs();
    let title = format!(
        "HTTP/2: one server thread on one CPU, h2load -c{CONNECTIONS} -m{STREAMS} on another; \
         medians of {} rounds of {seconds} s",
        settings.rounds
    );
    results.print(&title, &REFERENCES);
}

fn once(contender: &Contender, settings: &Settings) -> Result<Sample, String> {
    let cpus = &settings.cpus[..1];
    let server = contender.start(Placement { cpus, confined: true }, &[])?;
    load(server.address, WARM_UP, settings)?;
    let before = server.process.cpu_time()?;
    let report = load(server.address, settings.load_time, settings)?;
    let used = server.process.cpu_time()?.since(before);
    if report.requests == 0.0 {
        return Err("no request was answered".to_owned());
    }
    Ok(vec![
        report.requests / settings.load_time.as_secs_f64(),
        used.total_seconds() * 1e6 / report.requests,
        report.mean_ms,
        report.errors,
    ])
}

/// What h2load reports.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Report {
    /// That were answered with 2xx.
    requests: f64,
    mean_ms: f64,
    errors: f64,
}

fn load(server: SocketAddr, time: Duration, settings: &Settings) -> Result<Report, String> {
    let arguments = [
        "h2load".to_owned(),
        "-t1".to_owned(),
        format!("-c{CONNECTIONS}"),
        format!("-m{STREAMS}"),
        format!("-D{}", time.as_secs().max(1)),
        format!("http://{server}/"),
    ];
    let process = Process::start_quietly(&arguments, Some(&settings.cpus[1..]))?;
    let text = process.output(time + GRACE).map_err(|error| format!("h2load {error}"))?;
    parse(&text).ok_or_else(|| format!("h2load's report is not as expected:\n{text}"))
}

fn parse(text: &str) -> Option<Report> {
    let after = |mark: &str| text.lines().find_map(|line| line.trim().strip_prefix(mark));
    let before = |line: &str, mark: &str| -> Option<f64> {
        let part = line.split(',').find_map(|part| part.trim().strip_suffix(mark))?;
        part.trim().parse().ok()
    };
    let (requests, statuses) = (after("requests:")?, after("status codes:")?);
    // Smallest, largest, mean.
    let mean = after("time for request:")?.split_ascii_whitespace().nth(2)?;
    Some(Report {
        requests: before(statuses, "2xx")?,
        mean_ms: milliseconds(mean)?,
        errors: before(requests, "failed")? + before(requests, "errored")?,
    })
}

/// A time as h2load writes it: `90us`, `1.50ms`, `2.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (suffix, microseconds) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .into_iter()
        .find(|(suffix, _)| text.ends_with(suffix))?;
    Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * microseconds / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
finished in 4.00s, 250000.50 req/s, 9.00MB/s
requests: 1000002 total, 1003202 started, 1000002 done, 1000000 succeeded, 2 failed, 1 errored, 0 timeout
status codes: 1000000 2xx, 0 3xx, 0 4xx, 2 5xx
traffic: 36.00MB (37748736) total, 9.00MB (9437184) headers (space savings 90.00%), 12.40MB (13000000) data
                     min         max         mean         sd        +/- sd
time for request:      900us     20.00ms     12.34ms      1.00ms    80.00%
";

    #[test]
    fn a_report_is_read_with_its_units_and_errors() {
        let expected = Report { requests: 1_000_000.0, mean_ms: 12.34, errors: 3.0 };
        assert_eq!(parse(TEXT), Some(expected));
    }
}
