//! Sending parts of files to sockets inside the kernel (`sendfile`), and what goes before them.
//!
//! Any thread may call it; what it leaves behind is one bit in the thread's signal mask. `sendfile` has no `MSG_NOSIGNAL`: a peer
//! that has gone would kill a host program that has not asked to ignore `SIGPIPE`. So a thread that sends files has the signal
//! blocked from then on, which is the thread's alone.

#![allow(unsafe_code)]

use super::socket::MAX_SLICES;
use rustix::fs::sendfile;
use socket2::SockRef;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

thread_local! {
    static BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Sends so many bytes of a file, from `offset` on, as many as there is room for. 0: the file has no more.
pub(crate) fn send_file(
    socket: &impl AsFd,
    file: &impl AsFd,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    if !BLOCKED.get() {
        block_sigpipe()?;
    }
    let mut offset = offset;
    Ok(sendfile(socket, file, Some(&mut offset), count)?)
}

/// Sends several buffers as one, and says that more comes at once, so that what comes fills up the last segment.
pub(crate) fn send_more(socket: &impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[..bufs.len().min(MAX_SLICES)];
    SockRef::from(socket).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL | libc::MSG_MORE)
}

#[cold]
fn block_sigpipe() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call makes the set, and the others get it made.
    let failed = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())
    };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    BLOCKED.set(true);
    Ok(())
}
