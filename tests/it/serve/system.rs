//! What the standard library has no safe form for. Everything unsafe of these tests is here.

#![allow(unsafe_code)]

use std::io::{self, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

/// Sends a signal. The process must be a child that has not been waited for, or its number may be another's.
pub(super) fn send_signal(pid: u32, signal: i32) {
    // SAFETY: no memory is involved.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "signal {signal} to {pid}: {}", io::Error::last_os_error());
}

/// The program will be killed when the thread that starts it ends, and may have this many files open.
pub(super) fn bind_to_this_thread(command: &mut Command, open_files: Option<u64>) {
    let prepare = move || {
        // SAFETY: both calls are allowed between fork and exec; `limit` outlives the call.
        let failed = unsafe {
            let mut failed = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0;
            if let Some(files) = open_files {
                let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
                failed |= libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0;
            }
            failed
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Raises this process's limit of open files. False: the limit cannot be that high.
pub(super) fn may_open_files(wanted: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    if limit.rlim_cur >= wanted {
        return true;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    result == 0 && limit.rlim_cur >= wanted
}

/// The unit of times in /proc/PID/stat.
pub(super) fn clock_tick() -> Duration {
    // SAFETY: no memory is involved.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs(1) / u32::try_from(per_second).expect("a positive number")
}

/// From now on a write to a peer that has gone kills this process, unless the writer sees to it.
pub(super) fn default_sigpipe() {
    // SAFETY: the default action is no handler, so no code runs in a signal's context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Writes to a pipe until it is full; a blocking write to it then waits.
pub(super) fn fill(pipe: &mut PipeWriter) {
    set_flags(pipe, libc::O_NONBLOCK);
    for piece in [4096, 1] {
        let full = loop {
            if let Err(error) = pipe.write(&[b'x'; 4096][..piece]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
    set_flags(pipe, 0);
}

fn set_flags(pipe: &PipeWriter, flags: i32) {
    // SAFETY: the descriptor is open for as long as it is borrowed; no memory is involved.
    let result = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// How many seconds the wall clock of this process is ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Sets the wall clock of this process forward, or back, from what it really is.
pub(super) fn set_wall_clock_ahead(seconds: i64) {
    AHEAD.store(seconds, Ordering::SeqCst);
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// This program's own definition takes the place of the C library's, which does the work.
///
/// # Safety
/// As that of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
    let mut original = ORIGINAL.load(Ordering::Relaxed);
    if original == 0 {
        // SAFETY: the name ends with a zero.
        original = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) } as usize;
        assert_ne!(original, 0, "a C library without clock_gettime");
        ORIGINAL.store(original, Ordering::Relaxed);
    }
    // SAFETY: it is the address of the C library's function, which has this type.
    let original = unsafe { std::mem::transmute::<usize, ClockGettime>(original) };
    // SAFETY: by contract.
    let result = unsafe { original(clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: it has just been written.
        unsafe { (*time).tv_sec += AHEAD.load(Ordering::Relaxed) };
    }
    result
}
