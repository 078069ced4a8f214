//! Listeners: where each listens, whether two are in each other's way, and whether what is said goes with a socket of its kind.

use super::{Checker, First, number};
use crate::balance::Policy;
use crate::config::draft::Draft;
use crate::config::keys::{self, Key};
use crate::config::problem::{Place, Problem};
use crate::config::value::Table;
use crate::config::{Listener, address};
use crate::limits::ConnectionLimits;
use crate::listen_addr::ListenAddr;
use crate::sys::socket;
use std::path::Path;

impl Checker<'_> {
    pub(super) fn listeners(&mut self) -> Vec<Listener> {
        let draft = self.draft;
        let (mut names, mut listeners) = (First::default(), Vec::<Listener>::new());
        let mut places: Vec<Place> = Vec::new();
        let default = [Draft::default_listener()];
        let given = if draft.listeners.is_empty() { &default[..] } else { &draft.listeners };
        for table in given {
            let name = table.text(&keys::NAME);
            if let Some(name) = &name {
                let place = table.place(&keys::NAME);
                if let Some(first) = names.again(name.clone(), &place) {
                    self.twice(place, &format!("there is a listener \"{name}\""), first);
                }
            } else {
                self.needed(table, &keys::NAME, "name = \"public\"");
            }
            let Some((address, place)) = self.where_it_listens(table) else { continue };
            let new = listener(table, name.unwrap_or_default(), address);
            if let Some(other) = listeners.iter().position(|other| are_one(other, &new)) {
                let Listener { name, address: theirs, .. } = &listeners[other];
                let what = match (&new.address, theirs) {
                    (ListenAddr::Unix(path), _) => {
                        format!("{} is listened on by \"{name}\"", path.display())
                    }
                    (ListenAddr::Inherited(socket), _) => {
                        format!("{socket:?} is listened on by \"{name}\"")
                    }
                    (address, theirs) => {
                        format!("{address} is listened on by \"{name}\", at {theirs},")
                    }
                };
                self.twice(place.clone(), &what, places[other].clone());
            }
            self.kind_of_socket(table, &new);
            let new = Listener { tls: self.tls(table, new.limits.http2), ..new };
            listeners.push(new);
            places.push(place);
        }
        listeners
    }

    /// The address or the path, and its place in the file.
    fn where_it_listens(&mut self, table: &Table) -> Option<(ListenAddr, Place)> {
        let is_there = |key: &Key| table.get(key).is_some() || table.has_refused(key);
        let there: Vec<&'static Key> =
            keys::LISTENER.one_of.iter().copied().filter(|key| is_there(key)).collect();
        match there[..] {
            [] => {
                let message = "there is no address and no path: one of them is wanted";
                let hint = "for example: address = \"127.0.0.1:8080\", or path = \"/run/app.sock\"";
                let problem = Problem::new(table.beginning(), message);
                self.errors.push(problem.hint(hint.to_owned()));
            }
            [first, second, ..] => {
                let (first, second) = (first.name, second);
                let message = format!(
                    "a listener has one place, and this has {first} too: for the other add a [[listener]]"
                );
                let problem = Problem::new(table.place(second), message);
                self.errors.push(problem.of(second.name));
            }
            [_] => {}
        }
        if let Some(name) = table.text(&keys::INHERITED) {
            return Some((ListenAddr::Inherited(name), table.place(&keys::INHERITED)));
        }
        if let Some(path) = table.text(&keys::SOCKET_PATH) {
            return Some((ListenAddr::Unix(path.into()), table.place(&keys::SOCKET_PATH)));
        }
        let (address, place) = (table.address(&keys::ADDRESS)?, table.place(&keys::ADDRESS));
        if let Some(unfit) = address::unfit(address) {
            self.errors.push(Problem::new(place.clone(), unfit).of(keys::ADDRESS.name));
        }
        Some((ListenAddr::Tcp(address), place))
    }

    /// Whether what is said goes with a socket of its kind.
    fn kind_of_socket(&mut self, table: &Table, new: &Listener) {
        let mut wrong = |key: &'static Key, message: &str| {
            self.errors.push(Problem::new(table.place(key), message).of(key.name));
        };
        let policy = new.balance;
        let of_unix = |why| (keys::UNIX_ONLY, why);
        let of_tcp = |why| (keys::TCP_ONLY, why);
        let refused = match new.address {
            ListenAddr::Tcp(_) => vec![of_unix("only a Unix socket, which has a path, has this")],
            ListenAddr::Unix(_) => {
                vec![of_tcp("a Unix socket does not have this, only an address")]
            }
            ListenAddr::Inherited(_) => vec![of_tcp(NOT_OURS), of_unix(NOT_OURS)],
        };
        for (others, why) in refused {
            for key in others.iter().copied().filter(|key| table.get(key).is_some()) {
                wrong(key, why);
            }
        }
        if matches!(new.address, ListenAddr::Inherited(_)) && policy != Policy::Hash {
            let message = format!(
                "\"{policy}\" chooses among sockets, and what is handed over is one for all cores: the first that looks \
                 has the connection"
            );
            wrong(&keys::BALANCE, &message);
        }
        if new.address.as_unix().is_some() && policy != Policy::Hash {
            let message = format!(
                "\"{policy}\" chooses among sockets, and a Unix socket is one for all cores: the first that looks has the \
                 connection"
            );
            wrong(&keys::BALANCE, &message);
        }
        if new.address.as_tcp().is_some() && new.share && policy.is_by_kernel_program() {
            let message = format!(
                "\"{policy}\" chooses among the sockets of this process only, and the port is shared with others"
            );
            wrong(&keys::BALANCE, &message);
        }
    }
}

const NOT_OURS: &str = "whoever opens the socket that is handed over decides this";

/// Whether two listen at one place, as far as the file says.
fn are_one(one: &Listener, other: &Listener) -> bool {
    match (&one.address, &other.address) {
        (ListenAddr::Tcp(a), ListenAddr::Tcp(b)) => {
            b.port() != 0 && socket::overlap((*b, other.only_v6), (*a, one.only_v6))
        }
        (ListenAddr::Unix(a), ListenAddr::Unix(b)) => plain(a) == plain(b),
        (ListenAddr::Inherited(a), ListenAddr::Inherited(b)) => a == b,
        _ => false,
    }
}

/// Without a `.` at its beginning: the others do not count anyway.
fn plain(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

fn listener(table: &Table, name: String, address: ListenAddr) -> Listener {
    let mode = table.text(&keys::SOCKET_MODE);
    Listener {
        name,
        address,
        mode: mode.and_then(|digits| u32::from_str_radix(&digits, 8).ok()),
        backlog: number(table, &keys::BACKLOG) as u32,
        balance: table
            .text(&keys::BALANCE)
            .and_then(|text| text.parse::<Policy>().ok())
            .unwrap_or_default(),
        share: table.flag(&keys::SHARE).unwrap_or_default(),
        only_v6: table.flag(&keys::ONLY_V6),
        nodelay: table.flag(&keys::NODELAY).unwrap_or_default(),
        keepalive: table.flag(&keys::KEEPALIVE).unwrap_or_default(),
        receive_buffer: table.count(&keys::RECEIVE_BUFFER).map(|bytes| bytes as u32),
        send_buffer: table.count(&keys::SEND_BUFFER).map(|bytes| bytes as u32),
        limits: limits(table),
        proxied: table.flag(&keys::PROXIED).unwrap_or_default(),
        tls: None,
    }
}

fn limits(table: &Table) -> ConnectionLimits {
    ConnectionLimits {
        handshake_timeout: table.time(&keys::HANDSHAKE_TIMEOUT),
        first_byte_timeout: table.time(&keys::FIRST_BYTE_TIMEOUT),
        header_timeout: table.time(&keys::HEADER_TIMEOUT),
        body_timeout: table.time(&keys::BODY_TIMEOUT),
        request_timeout: table.time(&keys::REQUEST_TIMEOUT),
        write_timeout: table.time(&keys::WRITE_TIMEOUT),
        idle_timeout: table.time(&keys::IDLE_TIMEOUT),
        max_age: table.time(&keys::MAX_AGE),
        max_requests: number(table, &keys::MAX_REQUESTS) as u64,
        header_bytes: number(table, &keys::HEADER_BYTES) as u32,
        header_count: number(table, &keys::HEADER_COUNT) as u32,
        uri_bytes: number(table, &keys::URI_BYTES) as u32,
        body_bytes: number(table, &keys::BODY_BYTES) as u64,
        http2: table.flag(&keys::HTTP2).unwrap_or(true),
        http2_streams: number(table, &keys::HTTP2_STREAMS) as u32,
        http2_control_frames: number(table, &keys::HTTP2_CONTROL_FRAMES) as u32,
        // Known when the routes are.
        send_files: false,
    }
}
