//! The configuration of a server: read from TOML, from the environment, from flags or from a program, and checked.
//!
//! - [`keys`]: every section and key, with its kind, default and meaning: the one place that describes them
//! - [`kind`]: what each key takes, and how it is read
//! - [`value`]: what was given, where, and how it is written
//! - [`address`]: addresses to listen on
//! - [`draft`]: the file form: what was given, and where
//! - [`file`]: from TOML to a draft
//! - [`build`]: from a program to a draft
//! - [`check`]: from a draft to a [`Config`], the checked form; its `listeners`, their `tls` and its `routes` by themselves
//! - [`content`]: what stands in a file
//! - [`problem`]: what is wrong, and how that is shown
//! - [`effective`]: every value that holds, and where it comes from
//! - [`reload`]: what of a new draft can be taken over while the program runs
//!
//! Plain data, but for questions to the system: what stands in a file that is read or named, whether a directory that is named can
//! be opened, and which CPUs may be used. What is made of a configuration (a runtime, listeners, routes) is made on the floors above.

pub(crate) mod address;
mod build;
mod check;
mod content;
mod draft;
mod effective;
mod file;
pub(crate) mod keys;
pub(crate) mod kind;
mod problem;
mod reload;
pub(crate) mod value;

pub use build::{ConfigBuilder, CoreConfig, ListenerConfig, RouteConfig, ShardConfig, TlsConfig};
pub(crate) use check::check;
pub(crate) use draft::Draft;
pub use problem::ConfigError;
pub(crate) use problem::{Place, Problem, Source};
pub(crate) use reload::reload;

use content::Unread;

use crate::balance::Policy;
use crate::id::CpuId;
use crate::limits::{ConnectionLimits, Limits, WhenFull};
use crate::listen_addr::ListenAddr;
use crate::mode::{Mode, Pin};
use crate::services::target::Template;
use crate::sync::Arc;
use crate::sys::cpus::{self, Usable};
use crate::sys::directory::{Directory, Symlinks};
use crate::tls::{self, Tls};
use crate::topology::Cores;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the program logs. Of a program of your own it says what its user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LogLevel {
    /// What has failed for good.
    Error,
    /// Also what goes wrong for a while: shortages, stalls, what the system refuses.
    Warning,
    /// Also what it does: signals, configuration that was read again, the drain.
    #[default]
    Info,
}

/// A configuration that nothing is wrong with.
///
/// What can be written in a file is described in `configs/README.md`, and by `corelane schema` for editors.
///
/// ```
/// use corelane::{Config, server::Server};
/// let config = Config::from_toml_str(r#"
///     [runtime]
///     cores = 1
///
///     [[listener]]
///     name = "public"
///     address = "127.0.0.1:0"
///
///     [[route]]
///     path = "/"
///     respond = { body = "Hello" }
/// "#)?;
/// let runtime = config.runtime().start()?;
/// let server = config.server(&runtime).start_routes(runtime.handle(), &config.routes())?;
/// println!("listening on http://{}", server.local_addrs()[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(crate) mode: Mode,
    pub(crate) cores: Cores,
    pub(crate) pin: Option<Pin>,
    pub(crate) rebalance: bool,
    pub(crate) max_connections: Option<u64>,
    pub(crate) when_full: WhenFull,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) log: LogLevel,
    pub(crate) logs_json: bool,
    pub(crate) drain: Duration,
    pub(crate) shard: Shard,
    pub(crate) core: Vec<Core>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Vec<Route>,
    pub(crate) access_log: Option<AccessLog>,
    warnings: Vec<String>,
    /// Those of them that are about certificates that no client takes any more.
    expired: Vec<String>,
}

/// What a shard is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) limits: Limits,
    pub(crate) stall_threshold: Duration,
    pub(crate) max_connections: Option<u64>,
}

/// What is different on one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) cpu: CpuId,
    pub(crate) shard: Shard,
    /// By name. None: those that no core names.
    pub(crate) listeners: Option<Vec<String>>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: ListenAddr,
    /// Of the file of a Unix socket.
    pub(crate) mode: Option<u32>,
    pub(crate) backlog: u32,
    pub(crate) balance: Policy,
    pub(crate) share: bool,
    pub(crate) only_v6: Option<bool>,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: bool,
    pub(crate) receive_buffer: Option<u32>,
    pub(crate) send_buffer: Option<u32>,
    pub(crate) limits: ConnectionLimits,
    pub(crate) proxied: bool,
    pub(crate) tls: Option<Secure>,
}

/// HTTPS: what the files gave, and how they are read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Secure {
    pub(crate) tls: Tls,
    pub(crate) builder: tls::Builder,
}

/// Where a line for each request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessLog {
    pub(crate) path: String,
    /// One of [`keys::ACCESS_LOG_FORMATS`].
    pub(crate) format: String,
}

/// What some requests get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// By name. None: every listener.
    pub(crate) listener: Option<String>,
    /// In lower case. None: any host.
    pub(crate) host: Option<String>,
    /// With a `*` at its end, every path that begins so.
    pub(crate) path: String,
    pub(crate) action: Action,
}

impl Route {
    /// Whether requests of a listener may get files by it.
    pub(crate) fn has_files_of(&self, listener: &str) -> bool {
        let is_its = self.listener.as_deref().is_none_or(|name| name == listener);
        is_its && matches!(self.action, Action::Files(_))
    }
}

/// What is done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Respond(Respond),
    Files(FilesOf),
    Redirect(RedirectTo),
    Health,
    Ready,
}

/// A fixed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Respond {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// If the headers do not say it.
    pub(crate) content_type: &'static str,
}

/// The files below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilesOf {
    /// Open since it was checked.
    pub(crate) directory: Arc<Directory>,
    pub(crate) index: String,
    pub(crate) precompressed: bool,
    pub(crate) symlinks: Symlinks,
    pub(crate) dotfiles: bool,
    pub(crate) cache_control: Option<String>,
}

/// Where clients are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedirectTo {
    pub(crate) to: Template,
    pub(crate) status: u16,
}

/// Longest file that is read: a configuration of thousands of routes fits.
const FILE_MAX: u64 = 4 << 20;

impl Config {
    /// Settings for a configuration that a program makes, with the names of the file.
    ///
    /// ```
    /// use corelane::{Config, Cores, ListenerConfig, ShardConfig};
    /// use std::time::Duration;
    /// let config = Config::builder()
    ///     .cores(Cores::Count(1))
    ///     .shard(ShardConfig::new().polls_per_turn(32).busy_poll(Duration::ZERO))
    ///     .listener(ListenerConfig::new("public", "127.0.0.1:0".parse()?).backlog(64))
    ///     .build()?;
    /// let error = Config::builder().shard(ShardConfig::new().events(0)).build().unwrap_err();
    /// assert_eq!(error.to_string(), "[shard] events: expected a whole number from 1 to 1048576, found 0");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads a configuration from a text. The CPUs it names are looked for on this machine.
    ///
    /// # Errors
    /// Everything that is wrong with it, with line and column. See [`ConfigError`].
    pub fn from_toml_str(text: &str) -> Result<Config, ConfigError> {
        Config::from_source(Source { text: text.to_owned(), ..Source::default() })
    }

    /// Reads a configuration from a file.
    ///
    /// # Errors
    /// The file cannot be read, is none, has more than 4 MiB, or is not UTF-8; or as [`from_toml_str`](Self::from_toml_str).
    pub fn from_path(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
        Config::from_source(read_file(path.as_ref())?)
    }

    fn from_source(source: Source) -> Result<Config, ConfigError> {
        let (draft, problems) = Draft::from_source(source);
        Config::from_draft(&draft, problems)
    }

    /// The configuration that a draft comes to; `problems` are what is wrong with it already.
    pub(crate) fn from_draft(
        draft: &Draft,
        mut problems: Vec<Problem>,
    ) -> Result<Config, ConfigError> {
        let usable: Option<Usable> = cpus::usable().ok();
        let checked = check(draft, usable.as_ref());
        problems.extend(checked.errors);
        if !problems.is_empty() {
            return Err(ConfigError::new(draft.source.clone(), problems));
        }
        let text = |problem: &Problem| problem::warning(&draft.source, problem);
        let warnings = checked.warnings.iter().map(text).collect();
        let expired = checked.expired.iter().map(text).collect();
        Ok(Config { warnings, expired, ..checked.config })
    }

    /// What may be unwise in it, though it is not wrong: two shards on one physical core, what means nothing in
    /// work-stealing mode, a certificate that is not valid yet. One text each, which may have several lines.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The certificates in it that have expired, one text each, which may have several lines. A server starts with them all the
    /// same: others may be good, and the clock may be wrong.
    pub fn expired(&self) -> &[String] {
        &self.expired
    }

    /// What is to be logged.
    pub fn log(&self) -> LogLevel {
        self.log
    }

    /// Whether that is to be written as JSON.
    pub fn logs_json(&self) -> bool {
        self.logs_json
    }

    /// How long open requests get to finish at the end.
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// Whether shards must be pinned.
    pub(crate) fn chosen_pin(&self) -> Pin {
        self.pin.unwrap_or(self.mode.default_pin())
    }

    /// How tasks are scheduled.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

impl Draft {
    /// What a file gives, and what is wrong with it.
    pub(crate) fn from_source(source: Source) -> (Draft, Vec<Problem>) {
        file::read(source)
    }

    /// Every value that holds, and where it comes from, as a file that says the same.
    pub(crate) fn effective(&self) -> String {
        effective::effective(self)
    }
}

/// The text of a file, or why it cannot be had.
pub(crate) fn read_file(path: &Path) -> Result<Source, ConfigError> {
    let name = path.display().to_string();
    let directory = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory.parent().unwrap_or(Path::new("")).to_owned();
    let wrong = |source: Source, place, message: String| {
        Err(ConfigError::new(source, vec![Problem::new(place, message)]))
    };
    let nothing = |message| {
        wrong(Source { name: name.clone(), ..Source::default() }, Place::Nowhere, message)
    };
    let bytes = match content::read(path, FILE_MAX) {
        Ok(bytes) => bytes,
        Err(Unread::Failed(why)) => return nothing(why),
        Err(Unread::TooLong) => {
            return nothing(format!(
                "has more than {} MiB, which no configuration needs",
                FILE_MAX >> 20
            ));
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text, directory }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = Source { name, text, directory };
            wrong(
                source,
                Place::File(good..good + 1),
                "this byte is not UTF-8, as TOML must be".to_owned(),
            )
        }
    }
}
