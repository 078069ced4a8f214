//! Where the settings of a server come from: the defaults, a file, the environment, flags. Each replaces those before.

use super::serve;
use crate::config::keys;
use crate::config::value::{Origin, Table, Value};
use crate::config::{Config, ConfigError, Draft, Place, Problem, read_file};
use crate::listen_addr::ListenAddr;
use std::path::Path;
use std::time::Duration;

/// What was given, and what is wrong with it so far.
pub(super) struct Given {
    pub(super) draft: Draft,
    problems: Vec<Problem>,
}

impl Given {
    /// Takes a file, if there is one, and the environment.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn take(file: Option<&Path>) -> Result<Given, ConfigError> {
        let (mut draft, mut problems) = match file {
            Some(path) => Draft::from_source(read_file(path)?),
            None => (Draft::default(), Vec::new()),
        };
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        problems.extend(draft.take_environment(variables));
        Ok(Given { draft, problems })
    }

    /// Takes flags, too.
    pub(super) fn with_flags(mut self, flags: &serve::Flags) -> Given {
        let runtime = &mut self.draft.runtime;
        let mut set = |key, value: Option<Value>, flag| {
            if let Some(value) = value {
                runtime.set(key, value, Origin::Flag(flag));
            }
        };
        set(&keys::CORES, flags.cores.clone().map(Value::Cores), "--cores");
        set(&keys::MODE, flags.mode.clone().map(Value::Text), "--mode");
        set(&keys::PIN, flags.pin.clone().map(Value::Text), "--pin");
        set(&keys::REBALANCE, flags.rebalance.clone().map(Value::Text), "--rebalance");
        set(&keys::LOG_FORMAT, flags.log_format.clone().map(Value::Text), "--log-format");
        let drain =
            flags.drain_seconds.map(|seconds| Value::Time(Duration::from_secs(seconds.into())));
        set(&keys::DRAIN, drain, "--drain-seconds");
        if !flags.listen.is_empty() {
            let listener = |(index, address): (usize, &ListenAddr)| {
                let mut table = Table::default();
                let flag = || Origin::Flag("--listen");
                table.set(&keys::NAME, Value::Text(format!("listen-{}", index + 1)), flag());
                match address {
                    ListenAddr::Tcp(address) => {
                        table.set(&keys::ADDRESS, Value::Address(*address), flag());
                    }
                    ListenAddr::Unix(path) => {
                        let path = path.to_string_lossy().into_owned();
                        table.set(&keys::SOCKET_PATH, Value::Text(path), flag());
                    }
                    ListenAddr::Inherited(name) => {
                        table.set(&keys::INHERITED, Value::Text(name.clone()), flag());
                    }
                }
                table
            };
            self.problems.extend(self.names_of_listeners_gone());
            self.draft.listeners = flags.listen.iter().enumerate().map(listener).collect();
        }
        if let (Some(chain), Some(key)) = (&flags.certificate, &flags.key) {
            self.encrypt(chain, key);
        }
        self
    }

    /// Has every listener speak HTTPS.
    fn encrypt(&mut self, chain: &Path, key: &Path) {
        const FLAG: Origin = Origin::Flag("--certificate");
        let text = |path: &Path| Value::Text(path.to_string_lossy().into_owned());
        let (mut certificate, mut tls) = (Table::default(), Table::default());
        certificate.set(&keys::CHAIN, text(chain), FLAG);
        certificate.set(&keys::KEY, text(key), Origin::Flag("--key"));
        tls.set(&keys::CERTIFICATES, Value::Tables(vec![certificate]), FLAG);
        if self.draft.listeners.is_empty() {
            self.draft.listeners.push(Draft::default_listener());
        }
        for listener in &mut self.draft.listeners {
            listener.set(&keys::TLS, Value::Table(tls.clone()), FLAG);
        }
    }

    /// Said once, before what comes of it.
    fn names_of_listeners_gone(&self) -> Option<Problem> {
        let names = |tables: &[Table], key| tables.iter().any(|table| table.get(key).is_some());
        let named = names(&self.draft.routes, &keys::ROUTE_LISTENER)
            || names(&self.draft.cores, &keys::CORE_LISTENERS);
        let message = "it takes the place of every [[listener]] of the file, so no [[route]] and no [[core]] may name one";
        named.then(|| Problem::new(Place::Named("--listen".into()), message))
    }

    /// The configuration that all of it comes to.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn check(&self) -> Result<Config, ConfigError> {
        Config::from_draft(&self.draft, self.problems.clone())
    }
}
