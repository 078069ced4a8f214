//! Steering new connections among the listening sockets of one port: classic BPF programs, and what may be lost by a close.
//!
//! The kernel keeps the sockets that listen on one address with `SO_REUSEPORT` as a list, the *group*, in the order in
//! which they began to listen. A program that is attached to any of them (`SO_ATTACH_REUSEPORT_CBPF`, no privilege
//! needed) is run for each new connection and returns the place in the list of the socket that gets it. A number beyond
//! the list's end leaves the choice to the kernel's hash. When a socket is closed the last one takes its place, so the
//! programs must be made anew after that.
//!
//! The makers of programs are pure. This file keeps no state, and closes nothing.

// `socket2` has neither option.
#![allow(unsafe_code)]

use crate::id::CpuId;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One instruction: the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// What the kernel runs.
pub(crate) type Program = Vec<Instruction>;

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

/// Leaves the choice to the kernel's hash: no list has a place of this number.
const NOBODY: u32 = u32::MAX;

// Codes and offsets are those of linux/bpf_common.h and linux/filter.h.
const LOAD: u16 = 0x20;
const MODULO: u16 = 0x94;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_CPU`: the CPU that the packet is handled on.
const CPU: u32 = (-0x1000 + 36_i32) as u32;
/// `SKF_AD_OFF + SKF_AD_RANDOM`: another number each time, of 32 bits.
const RANDOM: u32 = (-0x1000 + 56_i32) as u32;

const ATTACH: libc::c_int = 51;
const DETACH: libc::c_int = 68;

/// Draws lots: each place gets a share in proportion to its weight, one of weight 0 nothing.
///
/// Two instructions for each place in a row, so that no jump is longer than one instruction.
///
/// # Errors
/// No place has a weight, or there are so many that the kernel would not take the program: more than 2047.
pub(crate) fn weighted(weights: &[u16]) -> io::Result<Program> {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let total = u32::try_from(total).map_err(|_| invalid("the weights are too large"))?;
    if total == 0 {
        return Err(invalid("no listening socket has a weight"));
    }
    let mut program = vec![plain(LOAD, RANDOM), plain(MODULO, total)];
    let mut below = 0;
    for (place, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
        below += u32::from(weight);
        if below < total {
            program.push(jump(IF_AT_LEAST, below, 1, 0));
        }
        program.push(plain(RETURN, place as u32));
    }
    checked(program)
}

/// The place whose CPU handles the packet; for other CPUs by `others`, or by the kernel's hash without it.
///
/// # Errors
/// There are so many places that the kernel would not take the program: more than 2047, or about half of that with
/// `others`.
pub(crate) fn by_cpu(cpus: &[Option<CpuId>], others: Option<Program>) -> io::Result<Program> {
    let mut program = vec![plain(LOAD, CPU)];
    for (place, cpu) in cpus.iter().enumerate() {
        let Some(cpu) = cpu else { continue };
        let number = u32::try_from(cpu.0).map_err(|_| invalid("a CPU's number is too large"))?;
        program.push(jump(IF_EQUAL, number, 0, 1));
        program.push(plain(RETURN, place as u32));
    }
    program.extend(others.unwrap_or_else(|| vec![plain(RETURN, NOBODY)]));
    checked(program)
}

fn plain(code: u16, operand: u32) -> Instruction {
    jump(code, operand, 0, 0)
}

fn jump(code: u16, operand: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, operand }
}

fn checked(program: Program) -> io::Result<Program> {
    if program.len() > INSTRUCTIONS_MAX {
        return Err(invalid("more sockets listen on one address than a program can choose among"));
    }
    Ok(program)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Has the program choose for the whole group of `socket`, in the place of the one before.
///
/// # Errors
/// The system's: it knows no such option, a filter of system calls forbids it, the socket is in no group.
pub(crate) fn attach(socket: &impl AsFd, program: &Program) -> io::Result<()> {
    let length = program.len() as libc::c_ushort;
    let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
    let given = libc::sock_fprog { len: length, filter };
    // SAFETY: `given` lives until the call returns, and names `length` instructions of a vector that does too. Each is
    // laid out as a `sock_filter`. The kernel reads them and keeps a copy of its own.
    unsafe { set(socket, ATTACH, (&raw const given).cast(), size_of_val(&given)) }
}

/// Lets the kernel's hash choose again.
///
/// # Errors
/// The system's. That there was no program is none.
pub(crate) fn detach(socket: &impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: `unused` lives until the call returns.
    match unsafe { set(socket, DETACH, (&raw const unused).cast(), size_of_val(&unused)) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

/// # Safety
/// `value` leads to `length` bytes that can be read, and are what `option` wants.
unsafe fn set(
    socket: &impl AsFd,
    option: libc::c_int,
    value: *const libc::c_void,
    length: usize,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed; the rest is the caller's promise.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, length as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Connections to this port, of whatever address, whose handshake has begun and not ended, by their two ends.
///
/// Such a one belongs to a listening socket, and is lost with it. The system does not tell to which. Reads all TCP
/// sockets of the network namespace: this may take milliseconds, and is not for a shard.
///
/// # Errors
/// There is no /proc that tells.
pub(crate) fn half_open(port: u16) -> io::Result<HashSet<String>> {
    let mut found = half_open_in(&fs::read_to_string("/proc/net/tcp")?, port);
    // Without IPv6 there is no such file.
    if let Ok(text) = fs::read_to_string("/proc/net/tcp6") {
        found.extend(half_open_in(&text, port));
    }
    Ok(found)
}

fn half_open_in(text: &str, port: u16) -> HashSet<String> {
    /// `TCP_SYN_RECV`
    const STATE: &str = "03";
    let port = format!(":{port:04X}");
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == STATE && local.ends_with(&port)).then(|| format!("{local} {remote}"))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::{self, ListenOptions, listen};
    use proptest::prelude::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// What a program returns for a packet on this CPU and this lot. Checks what the kernel's verifier checks.
    fn run(program: &[Instruction], cpu: u32, random: u32) -> u32 {
        assert!(program.len() <= INSTRUCTIONS_MAX);
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, operand } = program[at];
            at += 1;
            match code {
                LOAD if operand == CPU => accumulator = cpu,
                LOAD if operand == RANDOM => accumulator = random,
                MODULO => accumulator %= operand,
                IF_EQUAL => {
                    at += usize::from(if accumulator == operand { if_true } else { if_false })
                }
                IF_AT_LEAST => {
                    at += usize::from(if accumulator >= operand { if_true } else { if_false })
                }
                RETURN => return operand,
                _ => panic!("{code:#x} {operand:#x} is no instruction of ours"),
            }
        }
    }

    #[test]
    fn lots_are_drawn_in_proportion() {
        let program = weighted(&[3, 0, 1]).expect("a program");
        let drawn: Vec<u32> = (0..8).map(|lot| run(&program, 0, lot)).collect();
        assert_eq!(drawn, [0, 0, 0, 2, 0, 0, 0, 2]);
        assert_eq!(run(&weighted(&[0, 0, 5]).expect("a program"), 0, u32::MAX), 2);
        for none in [&[][..], &[0], &[0, 0]] {
            assert_eq!(weighted(none).expect_err("none").kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn each_cpu_has_its_place_and_others_are_left_to_the_hash() {
        let cpus = [Some(CpuId(4)), None, Some(CpuId(0))];
        let program = by_cpu(&cpus, None).expect("a program");
        assert_eq!([4, 0, 1].map(|cpu| run(&program, cpu, 0)), [0, 2, NOBODY]);
        let others = weighted(&[1, 0, 1]).expect("a program");
        let program = by_cpu(&cpus, Some(others)).expect("a program");
        assert_eq!([0, 1].map(|lot| run(&program, 7, lot)), [0, 2]);
        assert_eq!([0, 1].map(|lot| run(&program, 4, lot)), [0, 0]);
    }

    #[test]
    fn a_thousand_places_fit_and_too_many_are_refused() {
        let mut weights = vec![1000; 1024];
        let program = weighted(&weights).expect("a program");
        assert_eq!(run(&program, 0, 1_023_999), 1023);
        weights[7] = 0;
        let mut cpus: Vec<_> = (0..1024).map(|number| Some(CpuId(number))).collect();
        cpus[7] = None;
        let both = by_cpu(&cpus, Some(weighted(&weights).expect("a program"))).expect("a program");
        assert_eq!(run(&both, 1023, 0), 1023);
        assert_eq!(run(&both, 7, 7999), 8);
        assert!(weighted(&[1; 2047]).is_ok());
        let text = weighted(&[1; 2048]).expect_err("too many").to_string();
        assert_eq!(text, "more sockets listen on one address than a program can choose among");
    }

    proptest! {
        #[test]
        fn every_lot_falls_to_a_place_with_a_weight(
            weights in prop::collection::vec(0u16..=1000, 1..100),
            lot in any::<u32>(),
        ) {
            let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
            match weighted(&weights) {
                Err(_) => prop_assert_eq!(total, 0),
                Ok(program) => {
                    let place = run(&program, 0, lot) as usize;
                    let before: u32 = weights[..place].iter().map(|&weight| u32::from(weight)).sum();
                    let within = before..before + u32::from(weights[place]);
                    prop_assert!(within.contains(&(lot % total)));
                }
            }
        }
    }

    /// So many sockets that listen on one port of this address, in order.
    fn group(address: &str, count: usize) -> Option<(SocketAddr, Vec<TcpListener>)> {
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = listen(address.parse().expect("an address"), &options).ok()?;
        let address = first.local_addr().expect("an address");
        let others = (1..count).map(|_| listen(address, &options).expect("the port is shared"));
        Some((address, std::iter::once(first).chain(others).collect()))
    }

    /// Always this place.
    fn only(place: u32) -> Program {
        vec![plain(RETURN, place)]
    }

    /// Connects so often, and says who got how many. On the loopback device a connection is in the queue when
    /// `connect` returns.
    fn connects(to: SocketAddr, group: &[TcpListener], count: usize) -> Vec<usize> {
        let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(to).expect("served")).collect();
        let queued = |listener| std::iter::from_fn(|| socket::accept(listener).ok()).count();
        let counts: Vec<usize> = group.iter().map(queued).collect();
        assert_eq!(counts.iter().sum::<usize>(), count, "none is lost");
        drop(clients);
        counts
    }

    #[test]
    fn a_place_is_that_in_the_order_of_listening_and_the_last_takes_one_that_is_freed() {
        let (to, mut group) = group("127.0.0.1:0", 4).expect("IPv4");
        // Attached by any of them.
        attach(&group[3], &only(1)).expect("attached");
        assert_eq!(connects(to, &group, 20), [0, 20, 0, 0]);
        attach(&group[0], &only(3)).expect("attached");
        assert_eq!(connects(to, &group, 20), [0, 0, 0, 20]);
        // The second goes: its place is the fourth's now, and there is no fourth place.
        attach(&group[0], &only(1)).expect("attached");
        let last = group.pop().expect("the fourth");
        group[1] = last;
        assert_eq!(connects(to, &group, 20), [0, 20, 0]);
        // Beyond the end the hash chooses.
        attach(&group[0], &only(3)).expect("attached");
        let by_hash = connects(to, &group, 200);
        assert!(by_hash.iter().all(|&count| count > 0), "{by_hash:?}");
        attach(&group[0], &only(2)).expect("attached");
        assert_eq!(connects(to, &group, 20), [0, 0, 20]);
        detach(&group[1]).expect("detached");
        detach(&group[1]).expect("there is none any more");
        let by_hash = connects(to, &group, 200);
        assert!(by_hash.iter().all(|&count| count > 0), "{by_hash:?}");
    }

    #[test]
    fn weights_are_kept_for_every_kind_of_address() {
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let Some((address, group)) = group(listen, 3) else {
                eprintln!("SKIPPED: cannot listen on {listen}");
                continue;
            };
            let to = SocketAddr::new(connect.parse().expect("an address"), address.port());
            attach(&group[0], &weighted(&[0, 300, 100]).expect("a program")).expect("attached");
            let counts = connects(to, &group, 400);
            assert_eq!(counts[0], 0, "{listen}");
            // Three quarters are 300; the deviation is 9.
            assert!((200..=380).contains(&counts[1]), "{listen}: {counts:?}");
        }
    }

    #[test]
    fn a_socket_that_shares_no_port_has_no_program() {
        let alone = TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(attach(&alone, &only(0)).is_err());
    }

    #[test]
    fn a_descriptor_that_is_left_keeps_the_place() {
        let (to, mut group) = group("127.0.0.1:0", 2).expect("IPv4");
        let kept = group[0].try_clone().expect("a duplicate");
        drop(group.remove(0));
        attach(&kept, &only(1)).expect("attached");
        assert_eq!(connects(to, &group, 20), [20], "the place of the second is still the second");
        drop(kept);
        attach(&group[0], &only(0)).expect("attached");
        assert_eq!(connects(to, &group, 20), [20]);
    }

    #[test]
    fn what_the_kernel_writes_of_half_open_connections_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                    0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
                    1: 0100007F:1F90 0100007F:C350 03 00000000:00000000\n   \
                    2: 0100007F:0050 0100007F:C351 03 00000000:00000000\n   \
                    3: 0100007F:1F90 0100007F:C352 01 00000000:00000000\n\n   4:\n";
        let found = half_open_in(text, 8080);
        assert_eq!(found, HashSet::from(["0100007F:1F90 0100007F:C350".to_owned()]));
        assert!(half_open_in("", 8080).is_empty());
    }

    #[test]
    fn a_handshake_that_has_not_ended_is_seen() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some((to, group)) = group(address, 1) else {
                eprintln!("SKIPPED: cannot listen on {address}");
                continue;
            };
            let seconds: libc::c_int = 30;
            // SAFETY: the value is an integer that lives until the call returns. With this option the kernel takes the
            // end of a handshake for lost until data comes.
            let deferred = unsafe {
                let value = (&raw const seconds).cast();
                let fd = group[0].as_raw_fd();
                libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, 4)
            };
            assert_eq!(deferred, 0);
            assert!(half_open(to.port()).expect("/proc").is_empty());
            let mut client = TcpStream::connect(to).expect("it takes it for connected");
            assert_eq!(half_open(to.port()).expect("/proc").len(), 1);
            io::Write::write_all(&mut client, b"x").expect("sent");
            assert!(half_open(to.port()).expect("/proc").is_empty());
        }
    }
}
