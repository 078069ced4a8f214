//! User-space instructions per request, counted by cachegrind.
//!
//! Two runs of different length are subtracted, so that start-up and connection set-up cancel out.
//! The figure repeats to about 0.1 % and says nothing about the kernel's share.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::Settings;
use super::contender::{Contender, Placement};
use super::process::Process;
use super::report::Table;

const REQUESTS_SHORT: u64 = 4_000;
const REQUESTS_LONG: u64 = 24_000;

/// The contender the others are given as a difference to.
const FLOOR: &str = "hyper-floor";

/// A run under the profiler may take this long, and its end this long.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Counts every contender's instructions and prints them.
pub(super) fn measure(settings: &Settings) {
    println!(
        "\nuser-space instructions per request: cachegrind, h2load --h1 -c16, \
         {REQUESTS_LONG} minus {REQUESTS_SHORT} requests"
    );
    let mut counts = Vec::new();
    for contender in &settings.contenders {
        match per_request(contender, settings) {
            Ok(count) => counts.push((contender.name(), count)),
            Err(error) => eprintln!("{}: {error}", contender.name()),
        }
    }
    let floor = counts.iter().find(|(name, _)| *name == FLOOR).map(|(_, count)| *count);
    let mut table = Table::new("contender", ["instructions/request", "above hyper-floor"]);
    for (name, count) in counts {
        let above = floor.map_or("-".to_owned(), |floor| format!("{:+.0}", count - floor));
        table.row(name, [format!("{count:.0}"), above]);
    }
    table.print();
}

fn per_request(contender: &Contender, settings: &Settings) -> Result<f64, String> {
    let short = total(contender, REQUESTS_SHORT, settings)?;
    let long = total(contender, REQUESTS_LONG, settings)?;
    Ok((long - short) / (REQUESTS_LONG - REQUESTS_SHORT) as f64)
}

fn total(contender: &Contender, requests: u64, settings: &Settings) -> Result<f64, String> {
    let path = settings.scratch.file("cachegrind.out");
    let file = path.to_str().ok_or("the temporary path is not UTF-8")?;
    let prefix = ["valgrind", "-q", "--tool=cachegrind", "--cache-sim=no"];
    let mut prefix: Vec<String> = prefix.map(str::to_owned).to_vec();
    prefix.push(format!("--cachegrind-out-file={file}"));
    // Its remarks about the cache it does not simulate are of no interest.
    prefix.push(format!("--log-file={file}.log"));
    let placement = Placement { cpus: &settings.cpus[..1], confined: false };
    let mut server = contender.start(placement, &prefix)?;
    let url = format!("http://{}/", server.address);
    let count = requests.to_string();
    let load = ["h2load", "--h1", "-c16", "-n", &count, &url].map(str::to_owned);
    let output = Process::start_quietly(&load, None)?;
    let output = output.output(LOAD_LIMIT).map_err(|error| format!("h2load {error}"))?;
    if !output.contains(&format!("{requests} succeeded")) {
        return Err(format!("not every request succeeded:\n{output}"));
    }
    server.process.stop(Signal::TERM, STOP_LIMIT)?;
    let text = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
    // One count for each run: the next must not read this one's.
    fs::remove_file(&path).map_err(|error| format!("{file}: {error}"))?;
    summary(&text).ok_or_else(|| "cachegrind's file has no summary".to_owned())
}

fn summary(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("summary:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_first_number_behind_its_mark() {
        assert_eq!(summary("fn=a\n1 2\nsummary: 12345\n"), Some(12345.0));
        assert_eq!(summary("fn=a\n"), None);
    }
}
