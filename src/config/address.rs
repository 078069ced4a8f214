//! Addresses to listen on: what is accepted, and what is said of what is not.
//!
//! Plain parsing, but for the number of an interface, which the system is asked for.

use crate::listen_addr::{ListenAddr, unfit_path};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

const ACCEPTED: &str =
    "an address and a port are wanted, as in 127.0.0.1:8080 or [::1]:8080; names are not looked up";

/// An address to listen on.
///
/// # Errors
/// What is accepted instead.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => SocketAddr::V6(with_interface(text)?),
    };
    match unfit(address) {
        Some(problem) => Err(problem),
        None => Ok(address),
    }
}

/// An address to listen on, `unix:` and the path of a Unix socket, or `inherited:` and the name of a socket that is handed over.
///
/// # Errors
/// What is accepted instead.
pub(crate) fn parse_listen(text: &str) -> Result<ListenAddr, String> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return match unfit_path(path.as_ref()) {
            None => Ok(ListenAddr::Unix(path.into())),
            Some(problem) => Err(problem),
        };
    }
    if let Some(name) = text.strip_prefix(INHERITED) {
        return Ok(ListenAddr::Inherited(name.to_owned()));
    }
    parse(text).map(ListenAddr::Tcp).map_err(|why| match path_in(text) {
        Some(path) => format!("{why}; for a Unix socket: {UNIX}{path}"),
        None => why,
    })
}

/// What the name of a socket that is handed over begins with.
const INHERITED: &str = "inherited:";

/// What a path begins with where an address could stand.
const UNIX: &str = "unix:";

/// The path that somebody may have meant who has written this for an address.
pub(super) fn path_in(text: &str) -> Option<&str> {
    let path = text.strip_prefix(UNIX).unwrap_or(text);
    (path.len() < text.len() || path.starts_with(['/', '.'])).then_some(path)
}

/// Why nobody can listen there.
pub(crate) fn unfit(address: SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            let (ip, port) = (v6.ip(), v6.port());
            Some(format!(
                "a link-local address is one of an interface, which is wanted too: [{ip}%interface]:{port}, as in \
                 [{ip}%eth0]:{port}"
            ))
        }
        _ => {
            let ip = address.ip().to_canonical();
            let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
            let of_many = ip.is_multicast() || broadcast;
            of_many.then(|| {
                format!("{ip} is the address of many hosts at once: nobody can connect to it")
            })
        }
    }
}

/// `[fe80::1%eth0]:8080`. The standard library knows interfaces by their numbers only.
fn with_interface(text: &str) -> Result<SocketAddrV6, String> {
    let parts = || {
        let (ip, rest) = text.strip_prefix('[')?.split_once('%')?;
        let (interface, port) = rest.split_once("]:")?;
        Some((ip.parse::<Ipv6Addr>().ok()?, interface, port.parse::<u16>().ok()?))
    };
    let (ip, interface, port) = parts().ok_or(ACCEPTED)?;
    let number = interface_number(interface)
        .ok_or_else(|| format!("there is no interface {interface:?} here"))?;
    Ok(SocketAddrV6::new(ip, port, 0, number))
}

fn interface_number(name: &str) -> Option<u32> {
    // As a component of a path it must not lead elsewhere.
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_and_others_told_what_is_wanted() {
        for text in ["127.0.0.1:8080", "[::1]:0", "[::]:80", "[fe80::1%3]:80", "0.0.0.0:65535"] {
            assert_eq!(parse(text), Ok(text.parse().expect("an address")), "{text}");
        }
        for text in ["localhost:8080", ":8080", "8080", "::1:8080", "[::1]", "127.0.0.1", "[::1%]:"]
        {
            assert_eq!(parse(text), Err(ACCEPTED.to_owned()), "{text}");
        }
        let error = parse("[fe80::1]:80").expect_err("no interface");
        assert!(error.contains("[fe80::1%interface]:80"), "{error}");
        for text in ["224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80", "[::ffff:224.0.0.1]:80"]
        {
            assert!(parse(text).expect_err(text).contains("many hosts at once"), "{text}");
        }
        for text in ["[fe80::1%nowhere0]:80", "[fe80::1%../lo]:80", "[fe80::1%]:80"] {
            assert!(parse(text).expect_err(text).starts_with("there is no interface"), "{text}");
        }
    }

    #[test]
    fn a_path_is_told_from_an_address() {
        let path = |path: &str| Ok(ListenAddr::Unix(path.into()));
        assert_eq!(parse_listen("unix:/run/app.sock"), path("/run/app.sock"));
        assert_eq!(parse_listen("unix:app.sock"), path("app.sock"));
        assert_eq!(
            parse_listen("[::1]:80").map(|address| address.to_string()),
            Ok("[::1]:80".into())
        );
        let error = parse_listen("/run/app.sock").expect_err("no address");
        assert!(error.ends_with("for a Unix socket: unix:/run/app.sock"), "{error}");
        assert!(parse_listen("unix:").is_err() && parse_listen("localhost:80").is_err());
    }

    #[test]
    fn an_interface_may_be_named() {
        let Some(number) = interface_number("lo") else {
            return eprintln!("SKIPPED: there is no interface lo here");
        };
        let address = parse("[fe80::1%lo]:80").expect("an address");
        assert_eq!(address, format!("[fe80::1%{number}]:80").parse().expect("an address"));
    }
}
