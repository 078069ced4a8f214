//! `corelane reload`, and what a server does when it is told to read its file again.

use super::CANNOT_START;
use super::log::Log;
use super::serve::Options as ServeOptions;
use super::settings::Given;
use crate::config::{self, Config, Draft};
use crate::server::{AccessLog, Routes, Server};
use crate::sys::process;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The flags of `reload`.
#[derive(clap::Args)]
pub(super) struct Options {
    /// The configuration file of the server, which names its pid_file. It is checked before the server is told.
    #[arg(long, value_name = "FILE", env = "CORELANE_CONFIG")]
    config: PathBuf,
}

/// Checks the file, and tells the server that runs with it to read it again.
pub(super) fn run(options: &Options) -> ExitCode {
    let told = Given::take(Some(&options.config))
        .and_then(|given| given.check())
        .map_err(|error| error.to_string())
        .and_then(|config| {
            tell(&config, &options.config).map_err(|error| format!("corelane: {error}"))
        });
    match told {
        Ok(process) => {
            let file = options.config.display();
            let _ = writeln!(
                io::stdout(),
                "{file}: nothing is wrong with it; process {process} was told to read it again, and logs what came of it"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

fn tell(config: &Config, file: &Path) -> Result<u32, String> {
    let Some(path) = &config.pid_file else {
        return Err(format!(
            "{} names no pid_file, so it is not known which process to tell: add pid_file to [runtime] and start the \
             server anew, or send SIGHUP to it",
            file.display()
        ));
    };
    let shown = path.display();
    let process = running(path).map_err(|error| format!("{shown}: {error}"))?;
    let Some(process) = process else {
        return Err(format!("no server runs with {}: nobody holds {shown}", file.display()));
    };
    process::hang_up(process)
        .map_err(|error| format!("process {process} cannot be told: {error}"))?;
    Ok(process)
}

/// The process that holds a pid file, if one does.
fn running(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let number = text.trim().parse::<u32>().ok().filter(|number| *number > 1);
    number.map(Some).ok_or_else(|| io::Error::other("it has no process number in it"))
}

/// A file with the number of this process, locked for as long as it runs and removed at its end.
pub(super) struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written, or another process holds it.
    pub(super) fn create(path: &Path) -> Result<PidFile, String> {
        let failed = |error: io::Error| {
            format!("the pid_file {} cannot be written: {error}", path.display())
        };
        let mut file =
            File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another server holds the pid_file {}", path.display()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(PidFile { path: path.to_owned(), _locked: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a running server can be given anew.
pub(super) struct Running {
    draft: Draft,
    config: Config,
    routes: Routes,
    access_log: Option<AccessLog>,
}

impl Running {
    /// Starts the access log, if there is to be one.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn new(given: Given, config: Config, log: &Log) -> Result<Running, String> {
        let access_log = config.access_log().zip(config.access_log_parts());
        let access_log = access_log.map(|(settings, (target, _))| {
            let log = log.clone();
            let settings = settings.on_dropped(move |lines, error| {
                let why = error.map_or("they come faster than it takes them".to_owned(), |error| {
                    error.to_string()
                });
                log.warning(format!("{lines} lines of the access log were dropped: {why}"));
            });
            settings
                .start()
                .map_err(|error| format!("the access log {target} cannot be written: {error}"))
        });
        let (access_log, routes) = (access_log.transpose()?, config.routes());
        Ok(Running { draft: given.draft, config, routes, access_log })
    }

    pub(super) fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The configuration that holds now.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the file again and takes over what can be, or nothing. Says which, and why. The access log is opened again in
    /// any case: what has renamed its file waits for that.
    pub(super) fn reload(&mut self, options: &ServeOptions, server: &Server, log: &Log) {
        self.read_again(options, server, log);
        let parts = self.config.access_log_parts();
        let Some((access_log, (target, format))) = self.access_log.as_ref().zip(parts) else {
            return;
        };
        match access_log.reopen(&target) {
            Ok(()) => access_log.set_format(format),
            Err(error) => log.error(format!(
                "the access log {target} cannot be written, it stays where it was: {error}"
            )),
        }
    }

    fn read_again(&mut self, options: &ServeOptions, server: &Server, log: &Log) {
        let Some(file) = &options.config else { return };
        let new = Given::take(Some(file)).map(|given| given.with_flags(&options.flags));
        // First by itself: what is wrong with it is best said of the file as it is.
        let new = new.and_then(|given| given.check().map(|_| given.draft));
        let merged = new.map(|new| config::reload(&self.draft, &new));
        let checked = merged.and_then(|reload| {
            let config = Config::from_draft(&reload.draft, Vec::new())?;
            Ok((reload, config))
        });
        match checked {
            Ok((_, config)) if !config.expired().is_empty() => {
                let expired = config.expired().join("\n");
                log.error(format!("nothing was changed, because of what is wrong:\n{expired}"));
            }
            Ok((reload, config)) => {
                self.take(config, reload.draft, server, log);
                log.info(format!(
                    "{}: read again; what it says of routes, balance, limits, certificates, the log and the drain holds now",
                    file.display()
                ));
                if !reload.waiting.is_empty() {
                    log.warning(format!(
                        "only a start anew will change {}",
                        reload.waiting.join(", ")
                    ));
                }
            }
            Err(error) => {
                log.error(format!("nothing was changed, because of what is wrong:\n{error}"))
            }
        }
    }

    fn take(&mut self, mut config: Config, draft: Draft, server: &Server, log: &Log) {
        log.set_level(config.log());
        self.routes.replace(&config);
        for (number, listener) in config.listeners.iter_mut().enumerate() {
            let before = self.config.listeners.get(number).and_then(|before| before.tls.as_ref());
            if let (Some(before), Some(new)) = (before, &mut listener.tls) {
                new.tls = before.tls.clone();
                if let Err(error) = new.tls.replace(new.builder.clone()) {
                    log.error(format!("the certificates that are in use stay: {error}"));
                }
            }
            server.set_limits(number, listener.limits.clone());
            let balance = listener.balance;
            if server.policy(number).is_some_and(|policy| policy != balance)
                && let Err(error) = server.set_policy(number, balance)
            {
                log.warning(error.to_string());
            }
        }
        (self.config, self.draft) = (config, draft);
    }
}
