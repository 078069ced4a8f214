//! Lets the thread that starts a runtime believe that there are more CPUs than there are.
//!
//! A runtime refuses more shards than CPUs, and rightly so; but what happens between three shards must be tested on
//! two CPUs, and on one. This program's own definition of `sched_getaffinity` takes the place of the C library's.

#![allow(unsafe_code)]

use std::cell::Cell;

thread_local! {
    static CPUS: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn of_cpus<R>(cpus: usize, f: impl FnOnce() -> R) -> R {
    CPUS.set(cpus);
    let result = f();
    CPUS.set(0);
    result
}

/// # Safety
/// As that of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn sched_getaffinity(
    pid: libc::pid_t,
    size: libc::size_t,
    set: *mut libc::cpu_set_t,
) -> libc::c_int {
    // SAFETY: by contract `set` has `size` bytes; the kernel says how many of them it wrote.
    let written = unsafe { libc::syscall(libc::SYS_sched_getaffinity, pid, size, set) };
    let Ok(written) = usize::try_from(written) else { return -1 };
    // SAFETY: as above.
    let bytes = unsafe { std::slice::from_raw_parts_mut(set.cast::<u8>(), size) };
    bytes[written..].fill(0);
    for cpu in 0..CPUS.get() {
        bytes[cpu / 8] |= 1 << (cpu % 8);
    }
    0
}
