//! Threads and CPUs: where shards run, and what happens when they may not.

use super::harness::*;
use super::process::{self, QuotaGroup};
use corelane::{Cores, CpuId, HostedShard, Limits, Pin, Runtime};
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// The CPUs that a thread may run on, as the kernel writes them.
fn allowed(task: &str) -> String {
    process::status_field(&format!("/proc/{task}/status"), "Cpus_allowed_list").expect("Linux")
}

fn this_thread_allowed() -> String {
    allowed("thread-self")
}

/// The numbers in such a list.
fn cpus(list: &str) -> Vec<usize> {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    list.split(',')
        .flat_map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            number(first)..=number(last)
        })
        .collect()
}

/// The threads of this process whose names begin like this, with the CPUs they may run on.
fn threads_called(prefix: &str) -> HashMap<String, String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let named = tasks.filter_map(|task| {
        let id = task.ok()?.file_name().into_string().ok()?;
        // It may have ended since.
        let name = fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
        let allowed =
            process::status_field(&format!("/proc/self/task/{id}/status"), "Cpus_allowed_list")?;
        Some((name.trim().to_owned(), allowed))
    });
    named.filter(|(name, _)| name.starts_with(prefix)).collect()
}

fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").expect("Linux").count()
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux").count()
}

#[test]
fn each_shard_is_a_named_thread_that_may_run_on_its_cpu_only() {
    within_reason(|| {
        let usable = cpus(&this_thread_allowed());
        let runtime = Runtime::builder()
            .cores(Cores::Count(usable.len()))
            .pin(Pin::Required)
            .thread_name("pins-seen")
            .start()
            .expect("started");
        let threads = threads_called("pins-seen-");
        assert_eq!(threads.len(), usable.len());
        let mut used = Vec::new();
        for info in runtime.shards() {
            assert!(info.pinned);
            let name = format!("pins-seen-{}", info.shard.index());
            assert_eq!(threads[&name], info.cpu.0.to_string());
            let there = on(runtime.handle(), info.shard, || {
                (std::thread::current().name().map(str::to_owned), this_thread_allowed())
            });
            assert_eq!(there, (Some(name), info.cpu.0.to_string()));
            used.push(info.cpu.0);
        }
        used.sort_unstable();
        assert_eq!(used, usable, "each CPU once");
        assert_eq!(cpus(&this_thread_allowed()), usable, "the starting thread is left alone");
        drop(runtime);
        assert!(threads_called("pins-seen-").is_empty(), "they have been joined");
    });
}

#[test]
fn shards_run_on_the_cpus_that_were_listed_in_that_order() {
    within_reason(|| {
        let mut usable = cpus(&this_thread_allowed());
        usable.reverse();
        let list = usable.iter().copied().map(CpuId).collect();
        let runtime = Runtime::builder().cores(Cores::List(list)).start().expect("started");
        assert!(runtime.shards().iter().map(|info| info.cpu.0).eq(usable.iter().copied()));
        for info in runtime.shards() {
            assert_eq!(
                on(runtime.handle(), info.shard, this_thread_allowed),
                info.cpu.0.to_string()
            );
        }
    });
}

#[test]
fn the_default_is_a_shard_for_each_cpu_that_may_be_used() {
    within_reason(|| {
        let runtime = Runtime::builder().start().expect("started");
        let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(runtime.handle().shard_count(), parallelism);
        let physical = Runtime::builder().cores(Cores::Physical).start().expect("started");
        assert!(
            (1..=cpus(&this_thread_allowed()).len()).contains(&physical.handle().shard_count())
        );
    });
}

#[test]
fn without_pins_threads_run_anywhere() {
    within_reason(|| {
        let runtime =
            Runtime::builder().cores(Cores::Count(1)).pin(Pin::Off).start().expect("started");
        assert!(!runtime.shards()[0].pinned);
        assert_eq!(on(runtime.handle(), FIRST, this_thread_allowed), this_thread_allowed());
    });
}

#[test]
fn on_one_cpu_there_is_one_shard() {
    const NAME: &str = "threads::on_one_cpu_there_is_one_shard";
    if !process::is_child(NAME) && !process::has("taskset", &["-c", "1", "true"]) {
        return process::skipped("no taskset, or no CPU 1");
    }
    let outcome = process::alone(NAME, &["taskset", "-c", "1"], || {
        let runtime = Runtime::builder().thread_name("alone").start().expect("started");
        assert_eq!(runtime.handle().shard_count(), 1);
        let info = runtime.shards()[0];
        assert_eq!((info.cpu, info.pinned), (CpuId(1), true));
        assert_eq!(
            threads_called("alone-"),
            HashMap::from([("alone-0".to_owned(), "1".to_owned())])
        );
        assert_eq!(on(runtime.handle(), FIRST, this_thread_allowed), "1");
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[test]
fn fewer_cpus_than_asked_for_is_an_error_that_names_those_there_are() {
    const NAME: &str = "threads::fewer_cpus_than_asked_for_is_an_error_that_names_those_there_are";
    if !process::is_child(NAME) && !process::has("taskset", &["-c", "0", "true"]) {
        return process::skipped("no taskset, or no CPU 0");
    }
    let outcome = process::alone(NAME, &["taskset", "-c", "0"], || {
        let (threads, fds) = (thread_count(), open_fds());
        let refused = |cores: Cores| Runtime::builder().cores(cores).start().expect_err("one CPU");
        for cores in [Cores::List(vec![CpuId(0), CpuId(1)]), "1,".parse().expect("a list")] {
            let error = refused(cores);
            assert!(error.is_placement(), "{error}");
            assert_eq!(error.to_string(), "CPU 1 is not among the CPUs this process may use (0)");
        }
        let error = refused(Cores::Count(2));
        assert!(error.is_placement(), "{error}");
        assert_eq!(
            error.to_string(),
            "2 cores are wanted, but this process may use only 1 CPU (0)"
        );
        assert_eq!((thread_count(), open_fds()), (threads, fds));
        // `all` and `physical` make do with what there is.
        for cores in [Cores::All, Cores::Physical] {
            let runtime = Runtime::builder().cores(cores).start().expect("started");
            assert_eq!(runtime.shards()[0].cpu, CpuId(0));
            assert_eq!(runtime.handle().shard_count(), 1);
        }
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

/// Starts two shards where that must fail, and sees that nothing is left; then lifts what made it fail.
fn fails_and_leaves_nothing(expected: &str, lower: impl FnOnce(), lift: impl FnOnce()) {
    // Whatever is made once per process, it is made now.
    drop(shards(1));
    eventually("its threads are gone", || thread_count() <= 2);
    let (threads, fds) = (thread_count(), open_fds());
    lower();
    let error = start(2, Runtime::builder().thread_name("half")).expect_err("it cannot be had");
    // First, since looking needs fds itself.
    lift();
    let left = threads_called("half-");
    assert!(error.is_start() && !error.is_placement(), "{error:?}");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert!(left.is_empty(), "{left:?}");
    eventually("no thread is left", || thread_count() == threads);
    assert_eq!(open_fds(), fds, "no fd is left");
    let runtime = start(2, Runtime::builder()).expect("now there is enough");
    assert_eq!(on(runtime.handle(), SECOND, || 2), 2);
}

#[test]
fn a_thread_that_cannot_be_had_fails_the_start_and_leaves_nothing_behind() {
    const NAME: &str =
        "threads::a_thread_that_cannot_be_had_fails_the_start_and_leaves_nothing_behind";
    if !process::is_child(NAME) && !is_root() {
        return process::skipped("only root can become a user whose threads are counted");
    }
    let outcome = process::alone(NAME, &[], || {
        // Root's threads are not limited, so this process becomes somebody else whom nobody else is.
        become_user(40_000 + std::process::id() % 20_000);
        let one_more = || set_limit(libc::RLIMIT_NPROC, thread_count() as u64 + 1);
        let many = || set_limit(libc::RLIMIT_NPROC, 1_000);
        fails_and_leaves_nothing("the operating system gave no thread for shard 1", one_more, many);
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[test]
fn a_stack_that_cannot_be_had_fails_the_start_and_leaves_nothing_behind() {
    const NAME: &str =
        "threads::a_stack_that_cannot_be_had_fails_the_start_and_leaves_nothing_behind";
    if process::is_sanitized() {
        return process::skipped("AddressSanitizer has its own idea of address space");
    }
    let outcome = process::alone(NAME, &[], || {
        let lower = || {
            let used = process::status_kib("VmSize").expect("Linux");
            // Less than a stack. One that was used before may be used again, so the first shard may get its own.
            set_limit(libc::RLIMIT_AS, (used + 1024) * 1024);
        };
        let lift = || set_limit(libc::RLIMIT_AS, u64::MAX);
        fails_and_leaves_nothing("the operating system gave no thread for shard", lower, lift);
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[test]
fn fds_that_cannot_be_had_fail_the_start_and_leave_nothing_behind() {
    const NAME: &str = "threads::fds_that_cannot_be_had_fail_the_start_and_leave_nothing_behind";
    let outcome = process::alone(NAME, &[], || {
        // Each shard needs an epoll instance and an eventfd at least.
        for more in 0..4 {
            let lower = || set_limit(libc::RLIMIT_NOFILE, number_of_a_new_fd(more));
            let lift = || set_limit(libc::RLIMIT_NOFILE, u64::MAX);
            fails_and_leaves_nothing("got no epoll instance or eventfd", lower, lift);
        }
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

/// The number that an fd gets that is made after `before` others. The limit is one of numbers, and this process may
/// have inherited fds with numbers far apart.
fn number_of_a_new_fd(before: usize) -> u64 {
    use std::os::fd::AsRawFd;
    let null = || fs::File::open("/dev/null").expect("it is always there");
    let others: Vec<_> = (0..before).map(|_| null()).collect();
    let number = null().as_raw_fd();
    drop(others);
    u64::try_from(number).expect("not negative")
}

/// Runs a test under strace, which fails a system call every time.
fn with_failing(name: &str, call: &str, body: impl FnOnce()) {
    let probe = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"];
    if !process::is_child(name) && !process::has("strace", &probe) {
        return process::skipped("no strace, or it may not trace");
    }
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error=EPERM"));
    let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    if let Some(outcome) = process::alone(name, &wrapper, body) {
        outcome.passed();
    }
}

#[test]
fn a_required_pin_that_is_denied_fails_the_start() {
    const NAME: &str = "threads::a_required_pin_that_is_denied_fails_the_start";
    with_failing(NAME, "sched_setaffinity", || {
        let (threads, fds) = (thread_count(), open_fds());
        let started = Runtime::builder().pin(Pin::Required).thread_name("denied").start();
        let error = started.expect_err("denied");
        assert!(error.is_start(), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("cannot be pinned to CPU") && text.contains("not permitted"),
            "{text}"
        );
        assert!(threads_called("denied-").is_empty());
        eventually("no thread is left", || thread_count() == threads);
        assert_eq!(open_fds(), fds);
    });
}

#[test]
fn without_that_requirement_a_denied_pin_is_told_and_nothing_more() {
    const NAME: &str = "threads::without_that_requirement_a_denied_pin_is_told_and_nothing_more";
    with_failing(NAME, "sched_setaffinity", || {
        let everywhere = this_thread_allowed();
        let runtime = Runtime::builder().pin(Pin::BestEffort).start().expect("started");
        for info in runtime.shards() {
            assert!(!info.pinned);
            assert_eq!(on(runtime.handle(), info.shard, this_thread_allowed), everywhere);
        }
        let pool = runtime.handle().spawn_blocking(this_thread_allowed);
        assert_eq!(wait(pool).expect("no panic"), everywhere);
    });
}

#[test]
fn the_blocking_pool_and_its_children_do_not_inherit_a_shards_mask() {
    within_reason(|| {
        let everywhere = this_thread_allowed();
        let runtime = shards(1);
        let child = || {
            let output =
                std::process::Command::new("cat").arg("/proc/self/status").output().expect("cat");
            let text = String::from_utf8(output.stdout).expect("text");
            let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.expect("Linux").trim().to_owned()
        };
        // Threads that the shard started, and threads that somebody else started; new ones and ones used again.
        for _ in 0..3 {
            let masks = runtime.handle().submit_to(FIRST, move || async move {
                let own = corelane::spawn_blocking(this_thread_allowed).await.expect("no panic");
                let child = corelane::spawn_blocking(child).await.expect("no panic");
                // Name resolution goes through the pool; it must not hurt it.
                corelane::net::lookup_host("localhost:80").await.expect("resolved").for_each(drop);
                (own, child)
            });
            let (own, child_of_shard) = wait(masks).expect("no panic");
            let outside = runtime.handle().spawn_blocking(move || (this_thread_allowed(), child()));
            let (outside, child_of_thread) = wait(outside).expect("no panic");
            for mask in [own, child_of_shard, outside, child_of_thread] {
                assert_eq!(mask, everywhere);
            }
        }
        let info = runtime.shards()[0];
        if info.pinned {
            assert_eq!(on(runtime.handle(), FIRST, this_thread_allowed), info.cpu.0.to_string());
        }
    });
}

#[test]
fn threads_that_become_shards_for_a_while_keep_their_mask() {
    let before = this_thread_allowed();
    let inside = corelane::block_on(async { this_thread_allowed() });
    assert_eq!(inside, before);
    let shard = HostedShard::new(Limits::default()).expect("a shard");
    assert_eq!(shard.enter(this_thread_allowed), before);
    shard.turn(Duration::ZERO);
    drop(shard);
    assert_eq!(this_thread_allowed(), before);
}

#[test]
fn a_cpu_quota_limits_the_default_number_of_shards() {
    const NAME: &str = "threads::a_cpu_quota_limits_the_default_number_of_shards";
    if process::is_child(NAME) {
        QuotaGroup::join();
        let runtime = Runtime::builder().start().expect("started");
        assert_eq!(runtime.handle().shard_count(), 1);
        // Asked for in so many words, they are granted.
        let all = cpus(&this_thread_allowed()).len();
        let runtime = Runtime::builder().cores(Cores::Count(all)).start().expect("started");
        assert_eq!(runtime.handle().shard_count(), all);
        return;
    }
    // Half a CPU, and one and a half: both are one shard.
    for quota in [50_000, 150_000] {
        let Some(group) = QuotaGroup::new(quota) else {
            return process::skipped("no CPU cgroup can be made here");
        };
        group.run(NAME).passed();
    }
}

#[allow(unsafe_code)]
fn is_root() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() == 0 }
}

#[allow(unsafe_code)]
fn become_user(user: u32) {
    // SAFETY: system calls without pointers. A process that has changed its user cannot read about itself in /proc
    // before it has said that it may be dumped.
    unsafe {
        assert_eq!(libc::setuid(user), 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
}

/// Sets the soft limit, as far as the hard one allows.
#[allow(unsafe_code)]
fn set_limit(resource: libc::__rlimit_resource_t, value: u64) {
    // SAFETY: `limit` is a plain structure that outlives both calls.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
        limit.rlim_cur = value.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
    }
}

#[cfg(feature = "signal")]
#[test]
fn a_signal_that_nobody_would_report_is_an_error_and_not_a_signal() {
    use corelane::signal::{SignalKind, ctrl_c, signal};
    let error = wait(ctrl_c()).expect_err("nothing was sent, and no shard waits");
    assert!(error.to_string().contains("no Corelane shard"), "{error}");
    let mut signal = signal(SignalKind::user_defined2()).expect("it can be caught");
    let waited = std::panic::AssertUnwindSafe(|| wait(signal.recv()));
    assert!(std::panic::catch_unwind(waited).is_err());
}
