//! What can be written in a configuration: every section, every key, what its value may be, and what it is if nothing is
//! written.
//!
//! These tables are the one place where a key is described. The file reader, the environment, the messages, `--print-effective`
//! and the schema for editors all read them; the checker names the keys by their constants.

use super::kind::Kind;
use super::value::Value;
use crate::balance::Policy;
use crate::limits::{self, BUSY_POLL_MAX, ConnectionLimits, Limits, RESERVED_MAX};
use crate::services::target::STATUSES;
use Absent::{Is, Tells, Wrong};
use std::time::Duration;

/// A table of the file.
pub(crate) struct Section {
    /// As it is written: `[name]` or `[[name]]`.
    pub(crate) name: &'static str,
    /// Whether there may be several.
    pub(crate) repeated: bool,
    /// One sentence.
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [&'static Key],
    /// Of these there must be exactly one.
    pub(crate) one_of: &'static [&'static Key],
    /// And of these one at most.
    pub(crate) not_both: &'static [&'static Key],
}

impl Section {
    /// As a reader knows it.
    pub(crate) fn title(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

/// A key of a section.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) absent: Absent,
    /// Whether a change of it can be taken over while the program runs.
    pub(crate) live: bool,
    /// One sentence or two.
    pub(crate) doc: &'static str,
}

/// What it means that a key is not written.
pub(crate) enum Absent {
    /// It has this value.
    Is(fn() -> Value),
    /// Something is missing.
    Wrong,
    /// What its description says.
    Tells,
}

impl Key {
    /// Its value if it is not written.
    pub(crate) fn default(&self) -> Option<Value> {
        match self.absent {
            Absent::Is(value) => Some(value()),
            Absent::Wrong | Absent::Tells => None,
        }
    }
}

/// Declares the keys of a section, each as a constant, and the list of them.
macro_rules! keys {
    ($(#[$doc:meta])* $list:ident; $($name:ident = $text:literal, $kind:expr, $absent:expr, $live:expr, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub(crate) static $name: Key =
                Key { name: $text, kind: $kind, absent: $absent, live: $live, doc: $about };
        )*
        $(#[$doc])*
        static $list: &[&Key] = &[$(&$name),*];
    };
}

/// Can be taken over while the program runs, or only at its start.
const LIVE: bool = true;
const FIXED: bool = false;

const MANY: u64 = u32::MAX as u64;
const RESERVED: u64 = RESERVED_MAX as u64;

const fn count(least: u64, most: u64) -> Kind {
    Kind::Count { least, most }
}

const fn time(least: Duration, most: Duration) -> Kind {
    Kind::Time { least, most }
}

const ZERO: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// The names of the modes, of the ways to pin, and of the policies.
pub(crate) const MODES: &[&str] = &["thread-per-core", "work-stealing"];
/// Not done, and done.
pub(crate) const SWITCHES: &[&str] = &["off", "on"];
pub(crate) const WHEN_FULL_WORDS: &[&str] = &["503", "close"];
pub(crate) const CLIENTS: &[&str] = &["required", "optional"];
/// The older first.
pub(crate) const TLS_VERSIONS: &[&str] = &["1.2", "1.3"];
pub(crate) const PINS: &[&str] = &["required", "best-effort", "off"];
/// From the fewest that are followed to the most.
pub(crate) const SYMLINK_CHOICES: &[&str] = &["none", "inside", "all"];
/// From the least that is logged to the most.
pub(crate) const LOG_LEVELS: &[&str] = &["error", "warning", "info"];
pub(crate) const LOG_FORMATS: &[&str] = &["text", "json"];
pub(crate) const ACCESS_LOG_FORMATS: &[&str] = &["common", "combined", "json"];
const POLICIES: [&str; Policy::ALL.len()] = {
    let mut names = [""; Policy::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Policy::ALL[index].name();
        index += 1;
    }
    names
};

/// A time that connections are held to by default.
fn held_to(time: impl FnOnce(&ConnectionLimits) -> Option<Duration>) -> Value {
    Value::Time(time(&ConnectionLimits::default()).expect("each has one"))
}

fn number(number: usize) -> Value {
    Value::Count(number as u64)
}

keys! {
    RUNTIME_KEYS;
    MODE = "mode", Kind::Choice(MODES), Is(|| Value::Text(MODES[0].into())), FIXED,
        "How tasks are scheduled: each connection stays on its core, or any core serves any connection.";
    CORES = "cores", Kind::Cores, Is(|| Value::Cores(crate::topology::Cores::All)), FIXED,
        "Which CPUs get a shard: \"all\", \"physical\", a count, or a list such as [0, 1] or \"0-3,8\".";
    PIN = "pin", Kind::Choice(PINS), Tells, FIXED,
        "Whether shards must be pinned to their CPUs. Without it: best-effort, and off in work-stealing mode.";
    BLOCKING_THREADS = "blocking_threads", count(1, MANY),
        Is(|| number(Limits::default().blocking_threads)), FIXED,
        "Threads that run blocking calls, at most, for all shards together.";
    REBALANCE = "rebalance", Kind::Choice(SWITCHES), Is(|| Value::Text(SWITCHES[0].into())), FIXED,
        "Whether connections move, between two requests, from a core that is held up to one that is not.";
    MAX_CONNECTIONS = "max_connections", count(1, MANY), Tells, FIXED,
        "Connections at most, on all shards together. Without it: as many as descriptors allow, less a fiftieth.";
    WHEN_FULL = "when_full", Kind::Choice(WHEN_FULL_WORDS), Is(|| Value::Text(WHEN_FULL_WORDS[0].into())), FIXED,
        "What becomes of connections that are too many: answered with 503, or closed.";
    PID_FILE = "pid_file", Kind::Text, Tells, FIXED,
        "A file that the process number is written to, for `corelane reload`. It is removed at the end.";
    LOG = "log", Kind::Choice(LOG_LEVELS), Is(|| Value::Text("info".into())), LIVE,
        "What is logged on standard error: errors only, warnings too, or what the program does as well.";
    LOG_FORMAT = "log_format", Kind::Choice(LOG_FORMATS), Is(|| Value::Text("text".into())), FIXED,
        "How that is written: as lines of text, or as an object of JSON in each line.";
    DRAIN = "drain", time(ZERO, HOUR), Is(|| Value::Time(10 * SECOND)), LIVE,
        "How long open requests get to finish after a signal.";
}

keys! {
    SHARD_KEYS;
    POLLS_PER_TURN = "polls_per_turn", count(1, MANY),
        Is(|| Value::Count(Limits::default().polls_per_turn.into())), FIXED,
        "Tasks polled in one turn before timers, sockets and inbox get theirs.";
    TURN_TIME = "turn_time", time(Duration::from_micros(1), HOUR), Is(|| Value::Time(Limits::default().turn_time)), FIXED,
        "Time the polls of one turn may take.";
    IO_PER_POLL = "io_per_poll", count(1, MANY),
        Is(|| Value::Count(Limits::default().io_per_poll.into())), FIXED,
        "Socket operations of one task before it lets others run.";
    MESSAGES_PER_TURN = "messages_per_turn", count(1, MANY),
        Is(|| number(Limits::default().messages_per_turn)), FIXED,
        "Messages from other shards handled in one turn.";
    INBOX_CAPACITY = "inbox_capacity", count(1, RESERVED), Is(|| number(Limits::default().inbox_capacity)), FIXED,
        "Messages that may wait in a shard's inbox; a sender beyond that is told so.";
    TIMERS_PER_TURN = "timers_per_turn", count(1, MANY),
        Is(|| number(Limits::default().timers_per_turn)), FIXED,
        "Timers fired in one turn.";
    EVENTS = "events", count(1, RESERVED), Is(|| number(Limits::default().events)), FIXED,
        "Readiness events taken from the kernel at once.";
    BUSY_POLL = "busy_poll", time(ZERO, BUSY_POLL_MAX), Is(|| Value::Time(Limits::default().busy_poll)), FIXED,
        "Longest look at the inbox before a shard sleeps, once other shards have talked to it; \"0s\" switches it off.";
    SHARD_MAX_CONNECTIONS = "max_connections", count(1, MANY), Tells, FIXED,
        "Connections at most, on one shard. Without it: only those of all shards together are bounded.";
    STALL_THRESHOLD = "stall_threshold", time(MILLISECOND, HOUR), Is(|| Value::Time(limits::STALL_THRESHOLD)), FIXED,
        "How long a task may hold its shard before that is logged.";
}

keys! {
    CORE_OWN_KEYS;
    CPU = "cpu", Kind::Cpu, Wrong, FIXED, "Which CPU this is about.";
    CORE_LISTENERS = "listeners", Kind::Names, Tells, FIXED,
        "The listeners that this core serves, and that only cores which name them serve. Without it: all that no core names.";
}

keys! {
    LISTENER_KEYS;
    NAME = "name", Kind::Name, Wrong, FIXED, "What cores and routes call it.";
    ADDRESS = "address", Kind::Address, Tells, FIXED,
        "Address and port to listen on, as \"127.0.0.1:8080\" or \"[::1]:8080\". Port 0 lets the system choose. Without it: path or inherited says where.";
    SOCKET_PATH = "path", Kind::SocketPath, Tells, FIXED,
        "Path of a Unix socket to listen on; a relative one begins at the working directory. Without it: address or inherited says where.";
    INHERITED = "inherited", Kind::Name, Tells, FIXED,
        "The name or the number of a listening socket that a service manager hands over (systemd's FileDescriptorName). Without it: address or path says where.";
    SOCKET_MODE = "mode", Kind::FileMode, Tells, FIXED,
        "Who may connect to the Unix socket, as chmod has it: \"0660\" is its user and group. Without it: as the umask says.";
    BACKLOG = "backlog", count(1, 65_535), Is(|| Value::Count(crate::sys::socket::DEFAULT_BACKLOG.into())), FIXED,
        "Connections that may wait to be accepted, per shard, on a Unix socket of all together; cut to the system's somaxconn.";
    BALANCE = "balance", Kind::Choice(&POLICIES), Is(|| Value::Text(Policy::default().name().into())), LIVE,
        "Which shard gets a connection. On a Unix socket only \"hash\": the first that looks has it.";
    SHARE = "share", Kind::Flag, Is(|| Value::Flag(false)), FIXED,
        "Whether other processes of the same user may listen on the same port, and get a part of the connections.";
    ONLY_V6 = "only_v6", Kind::Flag, Tells, FIXED,
        "Whether an IPv6 address leaves IPv4 connections alone. Without it: as the system is set.";
    NODELAY = "nodelay", Kind::Flag, Is(|| Value::Flag(true)), FIXED,
        "Whether small responses are sent at once, without waiting for the peer's acknowledgement (TCP_NODELAY).";
    KEEPALIVE = "keepalive", Kind::Flag, Is(|| Value::Flag(false)), FIXED,
        "Whether the system looks for peers that have vanished (SO_KEEPALIVE).";
    RECEIVE_BUFFER = "receive_buffer", count(1_024, 1 << 30), Tells, FIXED,
        "Bytes the system may hold for one connection until they are read (SO_RCVBUF). Without it: the system adapts it.";
    SEND_BUFFER = "send_buffer", count(1_024, 1 << 30), Tells, FIXED,
        "Bytes the system may hold for one connection until the peer takes them (SO_SNDBUF). Without it: the system adapts it.";
    TLS = "tls", Kind::Table(&TLS_SECTION), Tells, LIVE, "HTTPS: certificates, and whom to trust. Without it: HTTP.";
    PROXIED = "proxied", Kind::Flag, Is(|| Value::Flag(false)), FIXED,
        "Whether a proxy in front says who has connected, by a header of the PROXY protocol before anything else. It is believed.";
    HANDSHAKE_TIMEOUT = "handshake_timeout", time(MILLISECOND, HOUR), Is(|| held_to(|limits| limits.handshake_timeout)), LIVE,
        "How long a connection may take for what comes before HTTP: the header of a proxy, a TLS handshake.";
    FIRST_BYTE_TIMEOUT = "first_byte_timeout", time(MILLISECOND, HOUR), Is(|| held_to(|limits| limits.first_byte_timeout)), LIVE,
        "How long a connection may say nothing at first.";
    HEADER_TIMEOUT = "header_timeout", time(MILLISECOND, HOUR), Is(|| held_to(|limits| limits.header_timeout)), LIVE,
        "How long a client may take for the head of a request; then it gets 408.";
    BODY_TIMEOUT = "body_timeout", time(MILLISECOND, HOUR), Is(|| held_to(|limits| limits.body_timeout)), LIVE,
        "How long a client may take for 4 KiB of a body that is waited for, or its rest; then it gets 408.";
    REQUEST_TIMEOUT = "request_timeout", time(MILLISECOND, DAY), Is(|| held_to(|limits| limits.request_timeout)), LIVE,
        "How long the service may take for an answer; then the client gets 503.";
    WRITE_TIMEOUT = "write_timeout", time(MILLISECOND, HOUR), Is(|| held_to(|limits| limits.write_timeout)), LIVE,
        "How long a client may take to take 4 KiB of what is sent, or the rest; then the connection is reset.";
    IDLE_TIMEOUT = "idle_timeout", time(MILLISECOND, DAY), Is(|| held_to(|limits| limits.idle_timeout)), LIVE,
        "How long a connection may be idle between two requests.";
    MAX_AGE = "max_age", time(SECOND, YEAR), Is(|| held_to(|limits| limits.max_age)), LIVE,
        "The age from which a connection ends after the request at hand.";
    MAX_REQUESTS = "max_requests", count(1, MANY), Is(|| Value::Count(ConnectionLimits::default().max_requests)), LIVE,
        "Requests after which a connection ends.";
    HEADER_BYTES = "header_bytes", count(1_024, 1 << 20), Is(|| Value::Count(ConnectionLimits::default().header_bytes.into())), LIVE,
        "Bytes of a request's head; with more it gets 431.";
    HEADER_COUNT = "header_count", count(1, 10_000), Is(|| Value::Count(ConnectionLimits::default().header_count.into())), LIVE,
        "Fields of a request's head; with more it gets 431.";
    URI_BYTES = "uri_bytes", count(1, 65_534), Is(|| Value::Count(ConnectionLimits::default().uri_bytes.into())), LIVE,
        "Bytes of a request's target; with more it gets 414.";
    BODY_BYTES = "body_bytes", count(0, 1 << 50), Is(|| Value::Count(ConnectionLimits::default().body_bytes)), LIVE,
        "Bytes of a request's body; with more it gets 413.";
    HTTP2 = "http2", Kind::Flag, Is(|| Value::Flag(ConnectionLimits::default().http2)), LIVE,
        "Whether HTTP/2 is spoken too, to clients that begin with it.";
    HTTP2_STREAMS = "http2_streams", count(1, 10_000), Is(|| Value::Count(ConnectionLimits::default().http2_streams.into())), LIVE,
        "Requests that one HTTP/2 connection may have under way.";
    HTTP2_CONTROL_FRAMES = "http2_control_frames", count(100, MANY), Is(|| Value::Count(ConnectionLimits::default().http2_control_frames.into())), LIVE,
        "Frames that ask for nothing, such as PING, which an HTTP/2 client may send in ten seconds besides those its answers allow.";
}

keys! {
    TLS_KEYS;
    CERTIFICATES = "certificate", Kind::Tables(&CERTIFICATE_SECTION), Wrong, LIVE,
        "Certificates, of which each client gets the one for the name it asks for (SNI), and the first if there is none.";
    CLIENT_AUTHORITIES = "client_authorities", Kind::FilePath, Tells, LIVE,
        "A PEM file with the certificates of those who issue certificates of clients. Without it: clients are not asked for any.";
    CLIENT_CERTIFICATES = "client_certificates", Kind::Choice(CLIENTS), Is(|| Value::Text(CLIENTS[0].into())), LIVE,
        "Whether a client without a certificate is turned away, if there are client_authorities.";
    MIN_VERSION = "min_version", Kind::Choice(TLS_VERSIONS), Is(|| Value::Text(TLS_VERSIONS[0].into())), LIVE,
        "The oldest version of TLS that is spoken.";
}

keys! {
    CERTIFICATE_KEYS;
    CHAIN = "chain", Kind::FilePath, Wrong, LIVE,
        "A PEM file with the server's certificate, and then those who issued it, without the root.";
    KEY = "key", Kind::FilePath, Wrong, LIVE, "A PEM file with its private key.";
}

/// Keys of a listener that mean nothing on a Unix socket, or nothing on an internet address. On a socket that is handed over neither do.
pub(crate) static TCP_ONLY: &[&Key] = &[&SHARE, &ONLY_V6, &NODELAY, &KEEPALIVE, &RECEIVE_BUFFER];
pub(crate) static UNIX_ONLY: &[&Key] = &[&SOCKET_MODE];

keys! {
    ROUTE_KEYS;
    ROUTE_LISTENER = "listener", Kind::Name, Tells, LIVE, "The listener whose requests it is for. Without it: every listener.";
    HOST = "host", Kind::Host, Tells, LIVE, "The host it is for, without a port. Without it: any host.";
    PATH = "path", Kind::Path, Wrong, LIVE,
        "The path it is for; with a * at its end, every path that begins so. The longest that fits is taken.";
    RESPOND = "respond", Kind::Table(&RESPOND_SECTION), Tells, LIVE, "A fixed response.";
    FILES = "files", Kind::Table(&FILES_SECTION), Tells, LIVE, "The files below a directory.";
    REDIRECT = "redirect", Kind::Table(&REDIRECT_SECTION), Tells, LIVE, "Sends clients elsewhere.";
    HEALTH = "health", Kind::Yes, Tells, LIVE, "Answers 200, as long as the process serves at all.";
    READY = "ready", Kind::Yes, Tells, LIVE,
        "Answers 200, and 503 once the process has been told to end.";
}

keys! {
    RESPOND_KEYS;
    STATUS = "status", count(200, 599), Is(|| Value::Count(200)), LIVE, "The status code.";
    HEADERS = "headers", Kind::Fields, Is(|| Value::Fields(Vec::new())), LIVE,
        "Header fields. Without a content-type it is text/plain; charset=utf-8, or goes by the end of the file's name.";
    BODY = "body", Kind::Text, Is(|| Value::Text(String::new())), LIVE, "The body.";
    BODY_FILE = "file", Kind::FilePath, Tells, LIVE,
        "A file whose content is the body, read when the configuration is; a relative name begins where the configuration file is. Without it: body is the body.";
}

keys! {
    FILES_KEYS;
    DIR = "dir", Kind::FilePath, Wrong, LIVE,
        "The directory. What the * of the path stands for is the name of a file in it. A relative name begins where the configuration file is.";
    INDEX = "index", Kind::FileName, Is(|| Value::Text("index.html".into())), LIVE,
        "The file that stands for its directory; \"\" for none.";
    PRECOMPRESSED = "precompressed", Kind::Flag, Is(|| Value::Flag(false)), LIVE,
        "Whether clients that take it get the file beside it with .br, .zst or .gz behind its name, if that is not older.";
    SYMLINKS = "symlinks", Kind::Choice(SYMLINK_CHOICES), Is(|| Value::Text("inside".into())), LIVE,
        "Which symbolic links are followed: none, those that lead to something below the directory, or all.";
    DOTFILES = "dotfiles", Kind::Flag, Is(|| Value::Flag(false)), LIVE,
        "Whether names that begin with a dot are served; .well-known is in any case.";
    CACHE_CONTROL = "cache_control", Kind::FieldValue, Tells, LIVE,
        "The field Cache-Control, such as \"max-age=3600\". Without it: there is none, and browsers guess.";
}

keys! {
    REDIRECT_KEYS;
    TO = "to", Kind::Target, Wrong, LIVE,
        "Where to: {host} and {path} are those of the request, {rest} is what the * of the path stands for, {query} its query with the question mark.";
    REDIRECT_STATUS = "status", Kind::OneOf(STATUSES), Is(|| Value::Count(308)), LIVE,
        "The status code. After 307 and 308 clients repeat method and body.";
}

keys! {
    ACCESS_LOG_KEYS;
    ACCESS_LOG_PATH = "path", Kind::Text, Wrong, LIVE,
        "The file that lines are appended to; \"-\" is standard output, \"stderr\" standard error.";
    ACCESS_LOG_FORMAT = "format", Kind::Choice(ACCESS_LOG_FORMATS), Is(|| Value::Text("combined".into())), LIVE,
        "How a line is written.";
}

pub(crate) static RUNTIME: Section = Section {
    name: "runtime",
    repeated: false,
    doc: "The process as a whole.",
    keys: RUNTIME_KEYS,
    one_of: &[],
    not_both: &[],
};

pub(crate) static SHARD: Section = Section {
    name: "shard",
    repeated: false,
    doc: "What every shard is held to, unless its [[core]] says otherwise.",
    keys: SHARD_KEYS,
    one_of: &[],
    not_both: &[],
};

/// What is a core's own, followed by all keys of a shard.
static CORE_KEYS: [&Key; CORE_OWN_KEYS.len() + SHARD_KEYS.len()] = {
    let mut keys: [&Key; CORE_OWN_KEYS.len() + SHARD_KEYS.len()] =
        [&CPU; CORE_OWN_KEYS.len() + SHARD_KEYS.len()];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = if index < CORE_OWN_KEYS.len() {
            CORE_OWN_KEYS[index]
        } else {
            SHARD_KEYS[index - CORE_OWN_KEYS.len()]
        };
        index += 1;
    }
    keys
};

pub(crate) static CORE: Section = Section {
    name: "core",
    repeated: true,
    doc: "What is different on one CPU: any key of [shard], and which listeners it serves.",
    keys: &CORE_KEYS,
    one_of: &[],
    not_both: &[],
};

pub(crate) static LISTENER: Section = Section {
    name: "listener",
    repeated: true,
    doc: "An address to listen on, the path of a Unix socket, or a socket that is handed over.",
    keys: LISTENER_KEYS,
    one_of: &[&ADDRESS, &SOCKET_PATH, &INHERITED],
    not_both: &[],
};

pub(crate) static ROUTE: Section = Section {
    name: "route",
    repeated: true,
    doc: "What some requests get. Without any route, GET / answers Hello, World!",
    keys: ROUTE_KEYS,
    one_of: &[&RESPOND, &FILES, &REDIRECT, &HEALTH, &READY],
    not_both: &[],
};

pub(crate) static TLS_SECTION: Section = Section {
    name: "listener.tls",
    repeated: false,
    doc: "HTTPS. Relative names of files begin where the configuration file is.",
    keys: TLS_KEYS,
    one_of: &[],
    not_both: &[],
};

pub(crate) static CERTIFICATE_SECTION: Section = Section {
    name: "listener.tls.certificate",
    repeated: true,
    doc: "A certificate and its key.",
    keys: CERTIFICATE_KEYS,
    one_of: &[],
    not_both: &[],
};

pub(crate) static RESPOND_SECTION: Section = Section {
    name: "route.respond",
    repeated: false,
    doc: "A response with a fixed body.",
    keys: RESPOND_KEYS,
    one_of: &[],
    not_both: &[&BODY, &BODY_FILE],
};

pub(crate) static FILES_SECTION: Section = Section {
    name: "route.files",
    repeated: false,
    doc: "The files below a directory, for GET and HEAD.",
    keys: FILES_KEYS,
    one_of: &[],
    not_both: &[],
};

pub(crate) static REDIRECT_SECTION: Section = Section {
    name: "route.redirect",
    repeated: false,
    doc: "Where clients are sent instead.",
    keys: REDIRECT_KEYS,
    one_of: &[],
    not_both: &[],
};

pub(crate) static ACCESS_LOG: Section = Section {
    name: "access_log",
    repeated: false,
    doc: "A line for each request. Without this section there is none.",
    keys: ACCESS_LOG_KEYS,
    one_of: &[],
    not_both: &[],
};

/// The sections of a file, in the order in which they are best read.
pub(crate) static SECTIONS: [&Section; 6] =
    [&RUNTIME, &SHARD, &CORE, &LISTENER, &ROUTE, &ACCESS_LOG];
