//! Memory: what a million tasks took is given back, and what cannot be had ends the process with a message.
//!
//! The C library's allocator keeps freed memory that lies below what is in use. `malloc_trim` makes it give back what
//! it can, so that what is measured is what the runtime holds and not what the allocator has put by.

use super::harness::*;
use super::process;
use corelane::{HostedShard, Limits};
use std::future::pending;
use std::hint::black_box;
use std::time::Duration;

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: no pointers; it may be called at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// Resident memory in KiB, as small as the allocator lets it be.
fn resident() -> u64 {
    trim();
    process::status_kib("VmRSS").expect("Linux")
}

#[test]
fn the_memory_of_a_million_tasks_is_given_back() {
    const NAME: &str = "memory::the_memory_of_a_million_tasks_is_given_back";
    const TASKS: usize = 1_000_000;
    if process::is_sanitized() {
        return process::skipped("AddressSanitizer keeps freed memory on purpose");
    }
    let outcome = process::alone(NAME, &[], || {
        let before = resident();
        let shard = HostedShard::new(Limits::default()).expect("a shard");
        let mut peaks = Vec::new();
        let mut floors = Vec::new();
        for round in 0..3 {
            let tasks: Vec<_> = shard.enter(|| {
                (0..TASKS)
                    .map(|number| {
                        corelane::spawn_local(async move {
                            let _held = black_box([number; 8]);
                            pending::<()>().await;
                        })
                    })
                    .collect()
            });
            while shard.turn(Duration::ZERO) {}
            peaks.push(process::status_kib("VmRSS").expect("Linux") - before);
            if round % 2 == 0 {
                // Detached, aborted and freed by the shard.
                tasks.iter().for_each(corelane::JoinHandle::abort);
                drop(tasks);
            } else {
                shard.enter(|| {
                    tasks.iter().for_each(corelane::JoinHandle::abort);
                    drop(tasks);
                });
            }
            while shard.turn(Duration::ZERO) {}
            floors.push(resident().saturating_sub(before));
        }
        drop(shard);
        let end = resident().saturating_sub(before);
        println!(
            "KiB above the start: peaks {peaks:?}, after each {floors:?}, after the shard {end}"
        );
        // The same again takes no more than the first time.
        assert!(peaks[2] <= peaks[0] + peaks[0] / 10, "{peaks:?}");
        assert!(floors[2] <= floors[0] + peaks[0] / 10, "{floors:?}");
        // A shard keeps its tables at the size they once had: three words per task. The tasks are gone.
        assert!(floors[2] <= peaks[2] / 8, "{floors:?} of {peaks:?}");
        // And a shard that is gone keeps nothing.
        assert!(end <= peaks[2] / 10, "{end} of {peaks:?}");
    });
    if let Some(outcome) = outcome {
        outcome.passed();
        println!("{}", outcome.stdout);
    }
}

#[test]
fn memory_does_not_grow_with_the_number_of_things_done() {
    const NAME: &str = "memory::memory_does_not_grow_with_the_number_of_things_done";
    if process::is_sanitized() {
        return process::skipped("AddressSanitizer keeps freed memory on purpose");
    }
    let outcome = process::alone(NAME, &[], || {
        let runtime = shards(2);
        let handle = runtime.handle().clone();
        let round = |count: u32| {
            let handle = handle.clone();
            let work = runtime.handle().submit_to(FIRST, move || async move {
                for number in 0..count {
                    corelane::spawn_local(async {}).await.expect("no panic");
                    drop(corelane::spawn_local(corelane::yield_now()));
                    handle.submit_to(SECOND, || async {}).await.expect("answered");
                    let task = handle.spawn_on(SECOND, pending::<()>).expect("room");
                    task.abort();
                    task.await.expect_err("aborted");
                    let timer = corelane::time::sleep(Duration::from_secs(1_000));
                    assert!(poll_now(timer).await.is_pending());
                    if number % 16 == 0 {
                        let stream =
                            corelane::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
                        stream.writable().await.expect("writable");
                        corelane::spawn_blocking(move || drop(stream)).await.expect("no panic");
                    }
                }
            });
            wait(work).expect("no panic");
            resident()
        };
        round(1_000);
        let before = round(1_000);
        let after = round(10_000);
        println!("{before} KiB, then {after} KiB");
        assert!(after <= before + 2_048, "{before} KiB, then {after} KiB");
    });
    if let Some(outcome) = outcome {
        outcome.passed();
        println!("{}", outcome.stdout);
    }
}

#[test]
fn memory_that_cannot_be_had_ends_the_process_with_a_message() {
    const NAME: &str = "memory::memory_that_cannot_be_had_ends_the_process_with_a_message";
    if process::is_sanitized() {
        return process::skipped("AddressSanitizer needs terabytes of address space");
    }
    let limited = ["sh", "-c", "ulimit -v 400000; exec \"$@\"", "sh"];
    let outcome = process::alone(NAME, &limited, || {
        let runtime = shards(2);
        let done = runtime.handle().submit_to(SECOND, || async {
            let mut count = 0u64;
            loop {
                drop(corelane::spawn_local(async move {
                    let _held = black_box([count; 64]);
                    pending::<()>().await;
                }));
                count += 1;
                if count.is_multiple_of(1_000) {
                    corelane::yield_now().await;
                }
            }
        });
        let _: Result<(), _> = wait(done);
    });
    if let Some(outcome) = outcome {
        outcome.aborted();
        assert!(outcome.stderr.contains("memory allocation of"), "{outcome:#?}");
    }
}
