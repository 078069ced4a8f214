//! What was measured, as `report.json` holds it: raw figures, from which every table, chart and sentence is made.
//!
//! Plain data. Times are in microseconds unless a name says otherwise.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format of `report.json`. Others are refused.
pub(crate) const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    /// What was typed, word by word.
    pub(crate) command: String,
    /// When it began: as `2026-11-25 09:30 UTC`.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// Each contender and what it is made of: packages and their versions, or "unknown".
    #[serde(default)]
    pub(crate) versions: Vec<(String, String)>,
    /// Seconds of one round, without its warm-up.
    pub(crate) seconds: f64,
    /// Rounds that were wanted for each contender.
    pub(crate) rounds: u32,
    /// It was interrupted: what was not measured is missing.
    pub(crate) interrupted: bool,
    pub(crate) scenarios: Vec<Scenario>,
}

/// Where it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// CPUs that this process may use.
    pub(crate) cpus: usize,
    /// The CPUs that the contenders were confined to. A server that ran already is not among them.
    #[serde(default)]
    pub(crate) contender_cpus: Vec<usize>,
    /// The CPUs that the load generator was confined to.
    #[serde(default)]
    pub(crate) generator_cpus: Vec<usize>,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Of this program.
    pub(crate) version: String,
}

/// One kind of work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// What it asks, in one sentence.
    pub(crate) asks: String,
    /// Who should win it, in one sentence.
    pub(crate) expects: String,
    pub(crate) connections: u32,
    /// Requests per second that were due, if the load was open.
    pub(crate) rate: Option<f64>,
    /// Bytes of each answer or request that the scenario is about; 0 for the short one.
    pub(crate) payload: u64,
    /// Requests that each connection sends at a time.
    #[serde(default)]
    pub(crate) pipeline: u32,
    /// In the order of the tables. The first is what the others are compared with.
    pub(crate) contenders: Vec<Contender>,
}

/// One contender in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contender {
    pub(crate) name: String,
    /// What the table calls it: "thread per core", "Tokio, one runtime per core".
    pub(crate) architecture: String,
    /// Rounds in the order in which they ran; round `n` of one contender ran beside round `n` of the others.
    pub(crate) rounds: Vec<Round>,
    /// Why there are no more rounds: it died, refused, answered garbage or was never ready.
    pub(crate) failure: Option<String>,
    /// Rounds that are missing though the contender has done nothing wrong: what measures it failed, and why.
    #[serde(default)]
    pub(crate) dropped: Vec<String>,
}

/// One round of one contender.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Which round: those with the same number ran one after the other.
    pub(crate) number: u32,
    pub(crate) seconds: f64,
    /// Answered in order, and before the round was over.
    pub(crate) requests: u64,
    /// Latencies: value in microseconds and how often it was seen, in ascending order; the bins of an HdrHistogram with
    /// three digits.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// By kind: "connect", "read", "write", "timeout", "status", "garbage", "unanswered" (at the end of the round, and
    /// after a time of grace), "idle" (silent connections that were not there at the end).
    pub(crate) errors: BTreeMap<String, u64>,
    /// CPU time of the contender's processes. None: it is not known, of a server that was not started here, for example.
    #[serde(default)]
    pub(crate) user_micros: Option<u64>,
    #[serde(default)]
    pub(crate) system_micros: Option<u64>,
    /// None: a thread ended meanwhile, so they cannot be told.
    #[serde(default)]
    pub(crate) context_switches: Option<u64>,
    /// Resident memory at the end of the round.
    pub(crate) rss_bytes: u64,
    /// Share of its time in which the generator's busiest thread had a CPU, or waited for one: 1.0 is all of it.
    pub(crate) generator_busy: f64,
    /// Share of that thread's time in which it waited for a CPU that others had.
    #[serde(default)]
    pub(crate) generator_waited: f64,
    /// Requests by the core, shard or worker that served them, if the contender tells.
    pub(crate) per_core: Vec<u64>,
    /// CPU time of the load generator's process.
    #[serde(default)]
    pub(crate) generator_micros: u64,
    /// Share of its CPU that the neighbour had, if there was one.
    #[serde(default)]
    pub(crate) neighbour: Option<f64>,
    /// What crossed between cores, if the contender tells.
    pub(crate) crossed: Option<Crossed>,
}

/// Events between the cores of one of our own modes, in one round.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Crossed {
    pub(crate) foreign_wakes: u64,
    pub(crate) steals: u64,
    pub(crate) inbox_messages: u64,
}
