//! The load generator wrk: its arguments and its report.

use std::net::SocketAddr;
use std::time::Duration;

use super::process::Process;

/// Time wrk may take beyond what it was told.
const GRACE: Duration = Duration::from_secs(20);

/// One use of wrk.
#[derive(Clone, Debug)]
pub(super) struct Wrk<'a> {
    pub(super) threads: usize,
    pub(super) connections: usize,
    /// The CPUs it may use, or all.
    pub(super) cpus: Option<&'a [usize]>,
    pub(super) close: bool,
    /// A Lua script, if requests are not simply repeated.
    pub(super) script: Option<&'a str>,
}

/// What wrk reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Socket errors and answers that are not 200.
    pub(super) errors: f64,
}

impl Wrk<'_> {
    /// Loads a server for a while.
    pub(super) fn run(&self, server: SocketAddr, time: Duration) -> Result<Report, String> {
        let mut arguments = vec![
            "wrk".to_owned(),
            format!("-t{}", self.threads),
            format!("-c{}", self.connections),
            format!("-d{}s", time.as_secs().max(1)),
            "--latency".to_owned(),
        ];
        if self.close {
            arguments.extend(["-H".to_owned(), "Connection: close".to_owned()]);
        }
        if let Some(script) = self.script {
            arguments.extend(["-s".to_owned(), script.to_owned()]);
        }
        arguments.push(format!("http://{server}/"));
        let process = Process::start_quietly(&arguments, self.cpus)?;
        let text = process.output(time + GRACE).map_err(|error| format!("wrk {error}"))?;
        parse(&text).ok_or_else(|| format!("wrk's report is not as expected:\n{text}"))
    }
}

fn parse(text: &str) -> Option<Report> {
    let after = |mark: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(mark))?;
        Some(line.trim())
    };
    let summary = text.lines().find(|line| line.contains(" requests in "))?;
    let requests = summary.split_ascii_whitespace().next()?.parse().ok()?;
    let numbers = |line: &str| -> f64 {
        let words = line.split(|character: char| !character.is_ascii_digit());
        words.filter_map(|word| word.parse::<f64>().ok()).sum()
    };
    let socket_errors = after("Socket errors:").map_or(0.0, numbers);
    let refused = after("Non-2xx or 3xx responses:").map_or(0.0, numbers);
    Some(Report {
        requests,
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p50_ms: milliseconds(after("50%")?)?,
        p99_ms: milliseconds(after("99%")?)?,
        errors: socket_errors + refused,
    })
}

/// A time as wrk writes it: `1.50ms`, `90.00us`, `2.00s`, `1.05m`.
fn milliseconds(text: &str) -> Option<f64> {
    let (suffix, microseconds) = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)]
        .into_iter()
        .find(|(suffix, _)| text.ends_with(suffix))?;
    Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * microseconds / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Running 2s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   692.27us   78.96us   1.79ms   74.08%
    Req/Sec    92.70k     4.35k   98.18k    85.71%
  Latency Distribution
     50%  688.00us
     75%  733.00us
     90%  781.00us
     99%    1.02s
  193691 requests in 2.10s, 24.75MB read
  Socket errors: connect 0, read 3, write 1, timeout 0
  Non-2xx or 3xx responses: 2
Requests/sec:  92224.74
Transfer/sec:     11.79MB
";

    #[test]
    fn a_report_is_read_with_its_units_and_errors() {
        let expected = Report {
            requests: 193_691.0,
            requests_per_second: 92_224.74,
            p50_ms: 0.688,
            p99_ms: 1020.0,
            errors: 6.0,
        };
        assert_eq!(parse(TEXT), Some(expected));
    }

    #[test]
    fn a_report_without_errors_has_none() {
        let text: String = TEXT
            .lines()
            .filter(|line| !line.contains("rro") && !line.contains("Non"))
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(parse(&text).map(|report| report.errors), Some(0.0));
    }
}
