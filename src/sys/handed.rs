//! Listening sockets that a service manager has opened and handed over: systemd's protocol (`sd_listen_fds(3)`).
//!
//! `LISTEN_PID` says for which process they are, `LISTEN_FDS` how many there are, from descriptor 3 on, `LISTEN_FDNAMES` their names. The
//! descriptors stay open and are duplicated for whoever asks; they are closed in programs that this process starts.

#![allow(unsafe_code)]

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use socket2::{SockAddr, SockRef, Type};
use std::io;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;

const FIRST: RawFd = 3;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Handed {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The socket of this name, or of this number, from 0.
///
/// # Errors
/// There is none, or several, or it is no stream socket that listens.
pub(crate) fn listener(name: &str) -> io::Result<Handed> {
    let names = names(|variable| std::env::var(variable).ok())?;
    let place = place(&names, name).map_err(io::Error::other)?;
    let number = FIRST + place as RawFd;
    // SAFETY: the service manager has opened it for this process, as it says, and nobody here closes it. If it is not open the
    // call that follows fails.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    of(fcntl_dupfd_cloexec(socket, FIRST)?)
}

/// A socket, by its kind.
fn of(socket: OwnedFd) -> io::Result<Handed> {
    let it = SockRef::from(&socket);
    if it.r#type()? != Type::STREAM || !it.is_listener()? {
        return Err(io::Error::other("it is no stream socket that listens"));
    }
    it.set_nonblocking(true)?;
    let address: SockAddr = it.local_addr()?;
    if address.is_unix() {
        return Ok(Handed::Unix(socket.into()));
    }
    // Connections inherit it.
    it.set_tcp_nodelay(true)?;
    Ok(Handed::Tcp(socket.into()))
}

impl Handed {
    pub(crate) fn try_clone(&self) -> io::Result<Handed> {
        match self {
            Handed::Tcp(socket) => socket.try_clone().map(Handed::Tcp),
            Handed::Unix(socket) => socket.try_clone().map(Handed::Unix),
        }
    }
}

/// The names of what was handed over.
fn names(variable: impl Fn(&str) -> Option<String>) -> io::Result<Vec<String>> {
    let number = |name: &str| variable(name).and_then(|text| text.parse::<u32>().ok());
    let ours = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|count| ours && (1..=1024).contains(count));
    let count = count.ok_or_else(|| {
        io::Error::other("nobody has handed a socket over to this process (LISTEN_PID, LISTEN_FDS)")
    })?;
    let given = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names: Vec<String> = given.split(':').map(str::to_owned).collect();
    names.resize(count as usize, String::new());
    Ok(names)
}

/// Where it is among them.
fn place(names: &[String], wanted: &str) -> Result<usize, String> {
    let mut same = names.iter().enumerate().filter(|(_, name)| *name == wanted);
    match (same.next(), same.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!(
            "several sockets were handed over as {wanted:?}: give each a name of its own, or say which by its number, from 0"
        )),
        (None, _) => match wanted.parse::<usize>() {
            Ok(number) if number < names.len() => Ok(number),
            _ => {
                let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                Err(format!(
                    "no socket was handed over as {wanted:?}: there are {}",
                    names.join(", ")
                ))
            }
        },
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn named(pid: u32, count: &str, given: Option<&str>) -> io::Result<Vec<String>> {
        names(|variable| match variable {
            "LISTEN_PID" => Some(pid.to_string()),
            "LISTEN_FDS" => Some(count.to_owned()),
            _ => given.map(str::to_owned),
        })
    }

    #[test]
    fn sockets_are_found_by_their_names_or_numbers() {
        let names = named(std::process::id(), "3", Some("http:https:http")).expect("three");
        assert_eq!(place(&names, "https"), Ok(1));
        assert_eq!(place(&names, "2"), Ok(2));
        assert!(place(&names, "http").expect_err("two").contains("several"));
        let none = place(&names, "3").expect_err("none");
        assert!(none.ends_with("there are \"http\", \"https\", \"http\""), "{none}");
        let names = named(std::process::id(), "2", None).expect("two without names");
        assert_eq!((place(&names, "1"), place(&names, "2").is_err()), (Ok(1), true));
    }

    #[test]
    fn what_is_for_another_process_is_not_ours() {
        assert!(named(std::process::id() + 1, "3", None).is_err());
        for count in ["0", "", "x", "100000"] {
            assert!(named(std::process::id(), count, None).is_err(), "{count}");
        }
    }

    #[test]
    fn only_a_stream_socket_that_listens_is_one() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(matches!(of(tcp.into()), Ok(Handed::Tcp(_))));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert!(of(udp.into()).is_err());
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(of(one.into()).is_err());
        assert!(of(std::fs::File::open("/dev/null").expect("it is there").into()).is_err());
    }
}
