//! No runtime: two pinned threads that spin on a cache line each, as a bound for messages between threads that are
//! awake. What a round trip costs here is what the machine takes to move two lines between its CPUs.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::Operation;
use super::cross::ROUND_TRIPS;
use super::sample::Figures;
use crate::os;

/// The last round that each side has begun, and what its CPU fetches with it.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

#[derive(Default)]
struct Lines {
    near: Line,
    far: Line,
}

/// Measures round trips; there is nothing else that a line could do.
pub(super) fn measure(operation: Operation, cpus: [usize; 2]) -> Result<Figures, String> {
    if operation != Operation::RoundTrip {
        return Err("only round trips are measured without a runtime".to_owned());
    }
    let pin = |cpu| os::pin(&[cpu]).map_err(|error| format!("pinning: {error}"));
    let rounds = ROUND_TRIPS + ROUND_TRIPS / 10;
    let lines = Arc::new(Lines::default());
    let answering = thread::spawn({
        let lines = Arc::clone(&lines);
        move || {
            // A side that is not where it should be answers all the same: the other waits for it.
            let pinned = pin(cpus[1]);
            for round in 1..=rounds {
                wait_for(&lines.near, round);
                lines.far.0.store(round, Ordering::Release);
            }
            pinned
        }
    });
    let pinned = pin(cpus[0]);
    let mut nanoseconds = Vec::with_capacity(rounds as usize);
    for round in 1..=rounds {
        let start = Instant::now();
        lines.near.0.store(round, Ordering::Release);
        wait_for(&lines.far, round);
        nanoseconds.push(start.elapsed().as_nanos() as f64);
    }
    pinned?;
    answering.join().expect("it does not panic")?;
    nanoseconds.drain(..(ROUND_TRIPS / 10) as usize);
    Ok(Figures::of_distribution(&mut nanoseconds))
}

fn wait_for(line: &Line, round: u64) {
    while line.0.load(Ordering::Acquire) < round {
        spin_loop();
    }
}
