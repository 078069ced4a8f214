//! What the operating system is asked for: CPUs, file limits, listening sockets, an exit on a signal.
//!
//! Called while a process or a thread starts, never on a measured path.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process;
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Connections the kernel may hold before they are accepted; the same for every server.
const BACKLOG: i32 = 4096;

/// The CPUs this process may use, in order.
fn allowed_cpus() -> Vec<usize> {
    sched_getaffinity(None)
        .map(|set| (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
        .unwrap_or_default()
}

/// Two CPUs that follow each other, or why there are none.
pub(crate) fn two_cpus() -> Result<[usize; 2], String> {
    let cpus = allowed_cpus();
    let pair = cpus.windows(2).find(|pair| pair[0] + 1 == pair[1]);
    let pair = pair.ok_or("two neighbouring CPUs are needed, this process may not use any")?;
    Ok([pair[0], pair[1]])
}

/// Allows the calling thread the given CPUs only. Safe to call between fork and exec.
pub(crate) fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files as far as it goes without privilege and returns it.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, which the caller sees in the answer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Ends the process on SIGTERM or SIGINT, after `last` has run on the waiting thread.
pub(crate) fn exit_on_signal(code: i32, last: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            last();
            process::exit(code);
        }
    })?;
    Ok(())
}

/// `count` non-blocking listeners on one address, the port chosen once if it is 0.
///
/// With more than one they share the port by SO_REUSEPORT.
pub(crate) fn listeners(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let shared = count > 1;
    let first = listener(address, shared)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listener(bound, shared)?);
    }
    Ok(listeners)
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
