//! The kinds of work that are compared: what each asks, who should win it, and how the load is made.

use super::Options;
use super::contender::BYTES_MAX;
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// One kind of work.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: String,
    /// What it asks, in one sentence.
    pub(super) asks: String,
    /// Who should win it, in one sentence.
    pub(super) expects: String,
    pub(super) work: Work,
}

/// How the load is made.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) path: String,
    pub(super) connections: Connections,
    pub(super) pipeline: u32,
    pub(super) close: bool,
    pub(super) skewed: bool,
    /// Bytes that go up with each request.
    pub(super) upload: Option<u64>,
    /// Silent connections besides.
    pub(super) idle: u32,
    /// Another process takes most of one core.
    pub(super) neighbour: bool,
    /// Bytes that the scenario is about.
    pub(super) payload: u64,
}

/// An answer from here on is better sent from where it is than copied first.
const LARGE_ANSWER: u64 = 32 << 10;

impl Work {
    /// Whether whoever writes a server for this work would tell it that answers are large.
    pub(super) fn has_large_answers(&self) -> bool {
        let bytes = self.path.strip_prefix("/bytes/").and_then(|bytes| bytes.parse::<u64>().ok());
        bytes.is_some_and(|bytes| bytes >= LARGE_ANSWER)
    }
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    Fixed(u32),
    /// For each core.
    PerCore(u32),
}

impl Connections {
    pub(super) fn count(self, cores: usize) -> u32 {
        match self {
            Connections::Fixed(count) => count,
            Connections::PerCore(count) => count * cores as u32,
        }
    }
}

/// Many connections that ask for a short answer.
const HELLO: Work = Work {
    path: String::new(),
    connections: Connections::Fixed(256),
    pipeline: 1,
    close: false,
    skewed: false,
    upload: None,
    idle: 0,
    neighbour: false,
    payload: 0,
};

/// Bytes of a large answer or request.
const LARGE: u64 = 1 << 20;

/// Every scenario, in the order in which they run.
pub(super) fn all(payload: Option<u64>) -> Vec<Scenario> {
    let scenario = |name: &str, asks: &str, expects: &str, path: &str, work: Work| Scenario {
        name: name.to_owned(),
        asks: asks.to_owned(),
        expects: expects.to_owned(),
        work: Work { path: path.to_owned(), ..work },
    };
    let large = payload.unwrap_or(LARGE);
    vec![
        scenario(
            "hello",
            "What does a short answer cost when many connections are kept alive?",
            "Thread per core: nothing is shared, and there is enough to do for every core.",
            &payload.map_or("/".to_owned(), |bytes| format!("/bytes/{bytes}")),
            Work { payload: payload.unwrap_or(0), ..HELLO },
        ),
        scenario(
            "few",
            "What if there are only two connections for each core?",
            "Work stealing, where the kernel puts them on the same core by chance.",
            "/",
            Work { connections: Connections::PerCore(2), ..HELLO },
        ),
        scenario(
            "pipelined",
            "What if each client sends sixteen requests at a time?",
            "Whoever answers a burst with one system call: both of our modes do, and the threads; Tokio's contenders, which leave \
             hyper's pipeline_flush off as it comes, do not.",
            "/",
            Work { connections: Connections::Fixed(64), pipeline: 16, ..HELLO },
        ),
        scenario(
            "churn",
            "What does a connection cost that is used once?",
            "Thread per core: one core accepts, serves and closes it.",
            "/",
            Work { connections: Connections::Fixed(64), close: true, ..HELLO },
        ),
        scenario(
            "skewed",
            "What if a tenth of the connections sends nine tenths of the requests?",
            "Work stealing, if the busy connections are on the same core by chance.",
            "/",
            Work { connections: Connections::PerCore(20), skewed: true, ..HELLO },
        ),
        scenario(
            "heavy-tail",
            "What if one request in a hundred computes for 5 ms?",
            "Work stealing in the tail: others take what waits behind the long one.",
            "/burn?micros=5000&one-in=100",
            Work { connections: Connections::Fixed(64), ..HELLO },
        ),
        scenario(
            "blocking-handler",
            "What if one request in a thousand blocks its thread for 50 ms?",
            "A thread per connection; then work stealing.",
            "/block?millis=50&one-in=1000",
            Work { connections: Connections::Fixed(64), ..HELLO },
        ),
        scenario(
            "neighbour",
            "What if another process takes most of one core?",
            "Work stealing: a pinned core cannot give its connections away.",
            "/",
            Work { connections: Connections::Fixed(64), neighbour: true, ..HELLO },
        ),
        scenario(
            "idle-crowd",
            "What do ten thousand silent connections cost those that are busy?",
            "Nobody should feel them; a thread for each takes memory.",
            "/",
            Work { connections: Connections::Fixed(64), idle: 10_000, ..HELLO },
        ),
        scenario(
            "download",
            "What does an answer of a megabyte cost?",
            "Nobody: the kernel copies.",
            &format!("/bytes/{large}"),
            Work { connections: Connections::Fixed(32), payload: large, ..HELLO },
        ),
        scenario(
            "upload",
            "What does a request of a megabyte cost?",
            "Nobody: the kernel copies.",
            "/upload",
            Work {
                connections: Connections::Fixed(32),
                upload: Some(large),
                payload: large,
                ..HELLO
            },
        ),
        scenario(
            "fan-out",
            "What if the handler waits for work on another core?",
            "Whoever crosses cheaply, or need not cross.",
            "/fan-out",
            Work { connections: Connections::Fixed(64), ..HELLO },
        ),
    ]
}

/// Those of `--quick`.
const QUICK: [&str; 3] = ["hello", "skewed", "heavy-tail"];

/// The scenarios that were asked for.
///
/// # Errors
/// One that there is not.
pub(super) fn chosen(options: &Options) -> Result<Vec<Scenario>, String> {
    let mut all = all(options.payload);
    let known: Vec<String> = all.iter().map(|scenario| scenario.name.clone()).collect();
    if let Some(unknown) = options.scenario.iter().find(|name| !known.contains(name)) {
        return Err(format!("there is no scenario {unknown}; there are: {}", known.join(", ")));
    }
    let wanted = |name: &str| match options.scenario.is_empty() {
        // Scenarios of one's own are wanted instead.
        true if !options.scenario_file.is_empty() => false,
        true => !options.quick || QUICK.contains(&name),
        false => options.scenario.iter().any(|wanted| wanted == name),
    };
    all.retain(|scenario| wanted(&scenario.name));
    // Nobody has asked for this one. A scenario of one's own somebody has asked for.
    if options.rate.is_some() && options.scenario.is_empty() {
        all.retain(|scenario| !scenario.work.skewed);
    }
    for file in &options.scenario_file {
        let scenario = read(file)?;
        if all.iter().any(|known| known.name == scenario.name) {
            let (file, name) = (file.display(), scenario.name);
            return Err(format!(
                "{file}: there is a scenario called {name} already: call this one something else"
            ));
        }
        all.push(scenario);
    }
    if options.rate.is_some()
        && let Some(skewed) = all.iter().find(|scenario| scenario.work.skewed)
    {
        return Err(format!(
            "--rate makes no sense in {}, whose rates follow each other",
            skewed.name
        ));
    }
    if let Some(count) = options.connections {
        for scenario in &mut all {
            scenario.work.connections = Connections::Fixed(count);
        }
    }
    Ok(all)
}

/// A scenario in a file: its fields, all but `name` and `path` optional.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    name: String,
    path: String,
    #[serde(default)]
    asks: String,
    #[serde(default)]
    expects: String,
    #[serde(default = "connections")]
    connections: u32,
    #[serde(default = "one")]
    pipeline: u32,
    #[serde(default)]
    close: bool,
    #[serde(default)]
    skewed: bool,
    upload: Option<u64>,
    #[serde(default)]
    idle: u32,
    #[serde(default)]
    neighbour: bool,
}

fn connections() -> u32 {
    64
}

fn one() -> u32 {
    1
}

/// # Errors
/// The file cannot be read, or says something else.
fn read(file: &Path) -> Result<Scenario, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("{} cannot be read: {why}", file.display());
    // Of a pipe there may be no end.
    if fs::metadata(file).is_ok_and(|it| !it.is_file()) {
        return Err(cannot(&"it is no file"));
    }
    let text = fs::read_to_string(file).map_err(|error| cannot(&error))?;
    scenario_of(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn scenario_of(text: &str) -> Result<Scenario, String> {
    let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
    if !written.path.starts_with('/') {
        return Err(format!("path is {:?}, and must begin with a slash", written.path));
    }
    // RFC 9112, 3.2: what a request line can hold.
    if !written.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let path = &written.path;
        return Err(format!(
            "path is {path:?}, and must be of visible ASCII: write other characters as %XX"
        ));
    }
    if written.name.trim().is_empty() || written.name.chars().any(char::is_control) {
        return Err(format!("name is {:?}, and must be a line of text", written.name));
    }
    for (field, value, least, most) in [
        ("connections", written.connections.into(), 1, 100_000),
        ("pipeline", written.pipeline.into(), 1, 1000),
        ("idle", written.idle.into(), 0, 1_000_000),
        ("upload", written.upload.unwrap_or(0), 0, BYTES_MAX as u64),
    ] {
        if value < least || value > most {
            return Err(format!("{field} is {value}, and must be {least} to {most}"));
        }
    }
    if written.close && written.pipeline > 1 {
        let pipeline = written.pipeline;
        return Err(format!(
            "pipeline is {pipeline}, and close is true: a connection that is closed after each request has one at a time"
        ));
    }
    Ok(Scenario {
        name: written.name,
        asks: written.asks,
        expects: written.expects,
        work: Work {
            path: written.path,
            connections: Connections::Fixed(written.connections),
            pipeline: written.pipeline,
            close: written.close,
            skewed: written.skewed,
            upload: written.upload,
            idle: written.idle,
            neighbour: written.neighbour,
            payload: written.upload.unwrap_or(0),
        },
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_can_be_written_down() {
        let example = include_str!("../../../configs/scenario.toml");
        let scenario = scenario_of(example).expect("the example");
        assert_eq!(scenario.work.connections, Connections::Fixed(200));
        for (text, says) in [
            ("path = '/'", "name"),
            ("name = 'x'\npath = 'y'", "slash"),
            ("name = 'x'\npath = '/'\nconections = 5", "conections"),
            ("name = 'x'\npath = '/'\nconnections = 0", "1 to 100000"),
        ] {
            let error = scenario_of(text).expect_err("refused");
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn every_scenario_says_what_it_asks() {
        let all = all(None);
        assert!(all.iter().all(|it| it.asks.ends_with('?') && it.expects.ends_with('.')));
        assert!(QUICK.iter().all(|quick| all.iter().any(|it| it.name == *quick)));
    }
}
