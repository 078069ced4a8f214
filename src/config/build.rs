//! A configuration that a program makes: the same sections, keys and checks as a file's.

use super::draft::Draft;
use super::keys::{self, Key, Section};
use super::problem::Place;
use super::value::{Name, Origin, Table, Value};
use super::{Config, ConfigError, LogLevel, Problem};
use crate::balance::Policy;
use crate::id::CpuId;
use crate::limits::WhenFull;
use crate::mode::{Mode, Pin};
use crate::sys::directory::Symlinks;
use crate::topology::Cores;
use std::net::SocketAddr;
use std::time::Duration;

/// One setter for each key, with the documentation of the key.
macro_rules! setters {
    ($($name:ident($argument:ident: $Type:ty) => $key:ident, $value:expr;)*) => {$(
        #[doc = concat!("As `", stringify!($name), "` in a file; `corelane check --print-effective` shows its default.")]
        pub fn $name(mut self, $argument: $Type) -> Self {
            self.table().set(&keys::$key, $value, Origin::Code);
            self
        }
    )*};
}

fn number(number: usize) -> Value {
    Value::Count(number as u64)
}

/// Makes a [`Config`]. See [`Config::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing before build()"]
pub struct ConfigBuilder {
    draft: Draft,
}

impl ConfigBuilder {
    fn table(&mut self) -> &mut Table {
        &mut self.draft.runtime
    }

    setters! {
        mode(mode: Mode) => MODE, Value::Text(match mode {
            Mode::ThreadPerCore => "thread-per-core",
            Mode::WorkStealing => "work-stealing",
        }.into());
        cores(cores: Cores) => CORES, Value::Cores(cores);
        pin(pin: Pin) => PIN, Value::Text(match pin {
            Pin::Required => "required",
            Pin::BestEffort => "best-effort",
            Pin::Off => "off",
        }.into());
        blocking_threads(threads: usize) => BLOCKING_THREADS, number(threads);
        rebalance(rebalance: bool) => REBALANCE, Value::Text(if rebalance { "on" } else { "off" }.into());
        max_connections(connections: u64) => MAX_CONNECTIONS, Value::Count(connections);
        when_full(when_full: WhenFull) => WHEN_FULL, Value::Text(keys::WHEN_FULL_WORDS[match when_full {
            WhenFull::Answer => 0,
            WhenFull::Close => 1,
        }].into());
        pid_file(file: impl Into<String>) => PID_FILE, Value::Text(file.into());
        log(level: LogLevel) => LOG, Value::Text(match level {
            LogLevel::Error => "error",
            LogLevel::Warning => "warning",
            LogLevel::Info => "info",
        }.into());
        log_format(format: impl Into<String>) => LOG_FORMAT, Value::Text(format.into());
        drain(time: Duration) => DRAIN, Value::Time(time);
    }

    /// What every shard is held to, unless its [`core`](Self::core) says otherwise.
    pub fn shard(mut self, shard: ShardConfig) -> Self {
        self.draft.shard = shard.0;
        self
    }

    /// Adds what is different on one CPU.
    pub fn core(mut self, core: CoreConfig) -> Self {
        self.draft.cores.push(core.0);
        self
    }

    /// Has a line written for each request, to this path in this format, as `[access_log]` in a file.
    ///
    /// ```
    /// use corelane::Config;
    /// let config = Config::builder().access_log("-", "json").build()?;
    /// assert!(config.access_log().is_some());
    /// let error = Config::builder().access_log("-", "xml").build().unwrap_err();
    /// assert_eq!(error.to_string(), "[access_log] format: expected \"common\", \"combined\" or \"json\", found \"xml\"");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn access_log(mut self, path: impl Into<String>, format: impl Into<String>) -> Self {
        let table = &mut self.draft.access_log;
        table.set(&keys::ACCESS_LOG_PATH, Value::Text(path.into()), Origin::Code);
        table.set(&keys::ACCESS_LOG_FORMAT, Value::Text(format.into()), Origin::Code);
        self
    }

    /// Adds an address to listen on. Without any it is 127.0.0.1:8080.
    pub fn listener(mut self, listener: ListenerConfig) -> Self {
        self.draft.listeners.push(listener.0);
        self
    }

    /// Adds what some requests get. Without any, `GET /` answers `Hello, World!`.
    pub fn route(mut self, route: RouteConfig) -> Self {
        self.draft.routes.push(route.0);
        self
    }

    /// Checks it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn build(self) -> Result<Config, ConfigError> {
        let Draft { runtime, shard, cores, listeners, routes, access_log, .. } = &self.draft;
        let mut problems = refused(&keys::RUNTIME, runtime);
        problems.extend(refused(&keys::SHARD, shard));
        problems.extend(refused(&keys::ACCESS_LOG, access_log));
        problems.extend(cores.iter().flat_map(|table| refused(&keys::CORE, table)));
        problems.extend(listeners.iter().flat_map(|table| refused(&keys::LISTENER, table)));
        problems.extend(routes.iter().flat_map(|table| refused(&keys::ROUTE, table)));
        Config::from_draft(&self.draft, problems)
    }
}

/// What is not of its key's kind.
fn refused(section: &Section, table: &Table) -> Vec<Problem> {
    let problem = |key: &&Key| match (&table.get(key)?.value, &key.kind) {
        (Value::Table(inner), super::kind::Kind::Table(section)) => {
            refused(section, inner).into_iter().next()
        }
        (Value::Tables(inner), super::kind::Kind::Tables(section)) if !inner.is_empty() => {
            inner.iter().flat_map(|inner| refused(section, inner)).next()
        }
        (value, kind) => {
            let message = kind.check(value).err()?;
            Some(Problem::new(Place::Named(format!("{} {}", section.title(), key.name)), message))
        }
    };
    section.keys.iter().filter_map(problem).collect()
}

/// What every shard is held to.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing before it is given to a ConfigBuilder"]
pub struct ShardConfig(Table);

/// What is different on one CPU.
#[derive(Clone, Debug)]
#[must_use = "it does nothing before it is given to a ConfigBuilder"]
pub struct CoreConfig(Table);

/// The keys of `[shard]`, which a core has too.
macro_rules! shard_setters {
    () => {
        setters! {
            polls_per_turn(polls: u32) => POLLS_PER_TURN, Value::Count(polls.into());
            turn_time(time: Duration) => TURN_TIME, Value::Time(time);
            io_per_poll(operations: u32) => IO_PER_POLL, Value::Count(operations.into());
            messages_per_turn(messages: usize) => MESSAGES_PER_TURN, number(messages);
            inbox_capacity(messages: usize) => INBOX_CAPACITY, number(messages);
            timers_per_turn(timers: usize) => TIMERS_PER_TURN, number(timers);
            events(events: usize) => EVENTS, number(events);
            busy_poll(time: Duration) => BUSY_POLL, Value::Time(time);
            max_connections(connections: u64) => SHARD_MAX_CONNECTIONS, Value::Count(connections);
            stall_threshold(time: Duration) => STALL_THRESHOLD, Value::Time(time);
        }
    };
}

impl ShardConfig {
    /// The defaults.
    pub fn new() -> Self {
        ShardConfig::default()
    }

    fn table(&mut self) -> &mut Table {
        &mut self.0
    }

    shard_setters!();
}

impl CoreConfig {
    /// The shard of this CPU, no different yet.
    pub fn new(cpu: CpuId) -> Self {
        let mut table = Table::default();
        table.set(&keys::CPU, Value::Cpu(cpu), Origin::Code);
        CoreConfig(table)
    }

    fn table(&mut self) -> &mut Table {
        &mut self.0
    }

    /// The listeners that this core serves, and that only cores which name them serve.
    pub fn listeners(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names = names
            .into_iter()
            .map(|name| Name { text: name.into(), place: Place::Named("listeners".into()) });
        self.0.set(&keys::CORE_LISTENERS, Value::Names(names.collect()), Origin::Code);
        self
    }

    shard_setters!();
}

/// An address to listen on.
#[derive(Clone, Debug)]
#[must_use = "it does nothing before it is given to a ConfigBuilder"]
pub struct ListenerConfig(Table);

impl ListenerConfig {
    /// This address, under a name that cores and routes use.
    pub fn new(name: impl Into<String>, address: SocketAddr) -> Self {
        let mut table = Table::default();
        table.set(&keys::NAME, Value::Text(name.into()), Origin::Code);
        table.set(&keys::ADDRESS, Value::Address(address), Origin::Code);
        ListenerConfig(table)
    }

    /// A Unix socket at this path, as `path` in a file, under a name that cores and routes use.
    ///
    /// ```
    /// use corelane::{Config, ListenerConfig};
    /// let proxy = ListenerConfig::unix("proxy", "/run/app.sock").mode(0o660);
    /// Config::builder().listener(proxy).build()?;
    /// let error = Config::builder().listener(ListenerConfig::unix("proxy", "")).build().unwrap_err();
    /// assert!(error.to_string().starts_with("[[listener]] path: expected the path of a Unix socket"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unix(name: impl Into<String>, path: impl Into<String>) -> Self {
        let mut table = Table::default();
        table.set(&keys::NAME, Value::Text(name.into()), Origin::Code);
        table.set(&keys::SOCKET_PATH, Value::Text(path.into()), Origin::Code);
        ListenerConfig(table)
    }

    /// A socket that a service manager hands over, as `inherited` in a file.
    pub fn inherited(name: impl Into<String>, socket: impl Into<String>) -> Self {
        let mut table = Table::default();
        table.set(&keys::NAME, Value::Text(name.into()), Origin::Code);
        table.set(&keys::INHERITED, Value::Text(socket.into()), Origin::Code);
        ListenerConfig(table)
    }

    fn table(&mut self) -> &mut Table {
        &mut self.0
    }

    setters! {
        mode(mode: u32) => SOCKET_MODE, Value::Text(format!("{mode:04o}"));
        backlog(connections: u32) => BACKLOG, Value::Count(connections.into());
        balance(policy: Policy) => BALANCE, Value::Text(policy.name().into());
        share(share: bool) => SHARE, Value::Flag(share);
        only_v6(only: bool) => ONLY_V6, Value::Flag(only);
        nodelay(nodelay: bool) => NODELAY, Value::Flag(nodelay);
        keepalive(keepalive: bool) => KEEPALIVE, Value::Flag(keepalive);
        receive_buffer(bytes: u32) => RECEIVE_BUFFER, Value::Count(bytes.into());
        send_buffer(bytes: u32) => SEND_BUFFER, Value::Count(bytes.into());
        proxied(proxied: bool) => PROXIED, Value::Flag(proxied);
        tls(tls: TlsConfig) => TLS, Value::Table(tls.0);
        handshake_timeout(time: Duration) => HANDSHAKE_TIMEOUT, Value::Time(time);
        first_byte_timeout(time: Duration) => FIRST_BYTE_TIMEOUT, Value::Time(time);
        header_timeout(time: Duration) => HEADER_TIMEOUT, Value::Time(time);
        body_timeout(time: Duration) => BODY_TIMEOUT, Value::Time(time);
        request_timeout(time: Duration) => REQUEST_TIMEOUT, Value::Time(time);
        write_timeout(time: Duration) => WRITE_TIMEOUT, Value::Time(time);
        idle_timeout(time: Duration) => IDLE_TIMEOUT, Value::Time(time);
        max_age(time: Duration) => MAX_AGE, Value::Time(time);
        max_requests(requests: u64) => MAX_REQUESTS, Value::Count(requests);
        header_bytes(bytes: u32) => HEADER_BYTES, Value::Count(bytes.into());
        header_count(fields: u32) => HEADER_COUNT, Value::Count(fields.into());
        uri_bytes(bytes: u32) => URI_BYTES, Value::Count(bytes.into());
        body_bytes(bytes: u64) => BODY_BYTES, Value::Count(bytes);
        http2(http2: bool) => HTTP2, Value::Flag(http2);
        http2_streams(streams: u32) => HTTP2_STREAMS, Value::Count(streams.into());
        http2_control_frames(frames: u32) => HTTP2_CONTROL_FRAMES, Value::Count(frames.into());
    }
}

/// HTTPS on a listener.
///
/// ```no_run
/// use corelane::{Config, ListenerConfig, TlsConfig};
/// let tls = TlsConfig::new("chain.pem", "key.pem").min_version("1.3");
/// let public = ListenerConfig::new("public", "0.0.0.0:443".parse()?).tls(tls);
/// let config = Config::builder().listener(public).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing before it is given to a ListenerConfig"]
pub struct TlsConfig(Table);

impl TlsConfig {
    /// With a certificate and its key, which clients get that ask for no name, or for one that no other certificate has.
    pub fn new(chain: impl Into<String>, key: impl Into<String>) -> Self {
        TlsConfig(Table::default()).certificate(chain, key)
    }

    fn table(&mut self) -> &mut Table {
        &mut self.0
    }

    /// Adds a certificate and its key.
    pub fn certificate(mut self, chain: impl Into<String>, key: impl Into<String>) -> Self {
        let mut certificate = Table::default();
        certificate.set(&keys::CHAIN, Value::Text(chain.into()), Origin::Code);
        certificate.set(&keys::KEY, Value::Text(key.into()), Origin::Code);
        let mut certificates = self.0.tables(&keys::CERTIFICATES).unwrap_or_default();
        certificates.push(certificate);
        self.0.set(&keys::CERTIFICATES, Value::Tables(certificates), Origin::Code);
        self
    }

    setters! {
        client_authorities(file: impl Into<String>) => CLIENT_AUTHORITIES, Value::Text(file.into());
        client_certificates(required: bool) => CLIENT_CERTIFICATES, Value::Text(
            keys::CLIENTS[usize::from(!required)].into());
        min_version(version: impl Into<String>) => MIN_VERSION, Value::Text(version.into());
    }
}

/// What some requests get.
#[derive(Clone, Debug)]
#[must_use = "it does nothing before it is given to a ConfigBuilder"]
pub struct RouteConfig(Table);

impl RouteConfig {
    /// The requests of this path; with a `*` at its end, of every path that begins so. They get an empty response of
    /// status 200.
    pub fn new(path: impl Into<String>) -> Self {
        let mut table = Table::default();
        table.set(&keys::PATH, Value::Text(path.into()), Origin::Code);
        table.set(&keys::RESPOND, Value::Table(Table::default()), Origin::Code);
        RouteConfig(table)
    }

    fn table(&mut self) -> &mut Table {
        &mut self.0
    }

    setters! {
        listener(name: impl Into<String>) => ROUTE_LISTENER, Value::Text(name.into());
        host(host: impl Into<String>) => HOST, Value::Text(host.into().to_ascii_lowercase());
    }

    fn respond(mut self, key: &Key, value: Value) -> Self {
        let mut respond = self.0.table(&keys::RESPOND).unwrap_or_default();
        respond.set(key, value, Origin::Code);
        self.0.set(&keys::RESPOND, Value::Table(respond), Origin::Code);
        self
    }

    /// Those requests are answered as [`services::Health`](crate::services::Health) does.
    pub fn health(self) -> Self {
        self.instead(&keys::HEALTH, Value::Flag(true))
    }

    /// Those requests are answered as [`services::Ready`](crate::services::Ready) does.
    pub fn ready(self) -> Self {
        self.instead(&keys::READY, Value::Flag(true))
    }

    /// Those requests get the files below a directory, as [`services::Files`](crate::services::Files) does; a relative name begins at
    /// the working directory. The path is the beginning of one, such as `/static/*`.
    pub fn files(self, dir: impl Into<String>) -> Self {
        let mut files = Table::default();
        files.set(&keys::DIR, Value::Text(dir.into()), Origin::Code);
        self.instead(&keys::FILES, Value::Table(files))
    }

    /// The file that stands for its directory, or an empty name.
    pub fn index(self, index: impl Into<String>) -> Self {
        self.of_files(&keys::INDEX, Value::Text(index.into()))
    }

    /// Whether clients get compressed forms of the files that are there.
    pub fn precompressed(self, precompressed: bool) -> Self {
        self.of_files(&keys::PRECOMPRESSED, Value::Flag(precompressed))
    }

    /// Which symbolic links are followed.
    pub fn symlinks(self, symlinks: Symlinks) -> Self {
        let choice = match symlinks {
            Symlinks::None => "none",
            Symlinks::Inside => "inside",
            Symlinks::All => "all",
        };
        self.of_files(&keys::SYMLINKS, Value::Text(choice.into()))
    }

    /// Whether names that begin with a dot are served.
    pub fn dotfiles(self, dotfiles: bool) -> Self {
        self.of_files(&keys::DOTFILES, Value::Flag(dotfiles))
    }

    /// The field `Cache-Control` of the files.
    pub fn cache_control(self, value: impl Into<String>) -> Self {
        self.of_files(&keys::CACHE_CONTROL, Value::Text(value.into()))
    }

    fn of_files(mut self, key: &Key, value: Value) -> Self {
        let mut files = self.0.table(&keys::FILES).unwrap_or_default();
        files.set(key, value, Origin::Code);
        self.0.set(&keys::FILES, Value::Table(files), Origin::Code);
        self
    }

    /// Those requests are sent to another target, as [`services::Redirect`](crate::services::Redirect) does, with status 308.
    pub fn redirect(self, to: impl Into<String>) -> Self {
        let mut redirect = Table::default();
        redirect.set(&keys::TO, Value::Text(to.into()), Origin::Code);
        self.instead(&keys::REDIRECT, Value::Table(redirect))
    }

    /// Of everything that a route can do it does this.
    fn instead(mut self, action: &'static Key, value: Value) -> Self {
        keys::ROUTE.one_of.iter().for_each(|key| self.0.unset(key));
        self.0.set(action, value, Origin::Code);
        self
    }

    /// The status code of the response, or of the redirect.
    pub fn status(mut self, status: u16) -> Self {
        let status = Value::Count(status.into());
        let Some(mut redirect) = self.0.table(&keys::REDIRECT) else {
            return self.respond(&keys::STATUS, status);
        };
        redirect.set(&keys::REDIRECT_STATUS, status, Origin::Code);
        self.0.set(&keys::REDIRECT, Value::Table(redirect), Origin::Code);
        self
    }

    /// The body of the response.
    pub fn body(self, body: impl Into<String>) -> Self {
        self.respond(&keys::BODY, Value::Text(body.into()))
    }

    /// A file whose content is the body of the response, read when the configuration is built; a relative name begins at the
    /// working directory.
    pub fn body_file(self, file: impl Into<String>) -> Self {
        self.respond(&keys::BODY_FILE, Value::Text(file.into()))
    }

    /// The header fields of the response.
    pub fn headers(
        self,
        fields: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.respond(&keys::HEADERS, Value::Fields(fields.collect()))
    }
}
