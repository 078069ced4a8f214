//! Lines on standard error that never hold a shard up.
//!
//! Whoever logs puts the line into a bounded queue; one thread writes. A reader that has stopped reading (a full pipe)
//! stops that thread only: lines beyond the queue are dropped and counted, and the count is written when writing works
//! again. Errors of writing are ignored, since there is nowhere to report them.

use crate::config::LogLevel;
use crate::server::access_log::rfc_3339;
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use std::io::Write;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Lines that may wait for the writer.
const QUEUE: usize = 256;
/// How long the end of the program waits for the last lines to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Cheap to clone; see the module.
#[derive(Clone)]
pub(super) struct Log {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    /// The place of the least important level that is written, for all clones.
    level: Arc<AtomicU32>,
}

enum Line {
    Text(LogLevel, String),
    /// Answer when everything before this has been written.
    Flush(mpsc::Sender<()>),
}

impl Log {
    /// Starts the writer, for lines of this level and above, as text or as JSON.
    pub(super) fn start(level: LogLevel, json: bool) -> std::io::Result<Log> {
        let write = if json { write_json } else { write_text };
        let (lines, queue) = mpsc::sync_channel::<Line>(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let missing = dropped.clone();
        thread::Builder::new().name("corelane-log".into()).spawn(move || {
            for line in queue {
                let lost = missing.swap(0, Ordering::Relaxed);
                let mut error = std::io::stderr().lock();
                if lost > 0 {
                    let text =
                        format!("{lost} lines were dropped because standard error was not read");
                    let _ = write(&mut error, LogLevel::Warning, &text);
                }
                match line {
                    Line::Text(level, text) => drop(write(&mut error, level, &text)),
                    Line::Flush(done) => drop(done.send(())),
                }
            }
        })?;
        Ok(Log { lines, dropped, level: Arc::new(AtomicU32::new(level as u32)) })
    }

    /// Writes lines of this level and above from now on.
    pub(super) fn set_level(&self, level: LogLevel) {
        self.level.store(level as u32, Ordering::Relaxed);
    }

    /// Something has failed for good.
    pub(super) fn error(&self, text: impl Into<String>) {
        self.line(LogLevel::Error, text);
    }

    /// Something goes wrong that may be over soon, or somebody may want to change.
    pub(super) fn warning(&self, text: impl Into<String>) {
        self.line(LogLevel::Warning, text);
    }

    /// What the program does.
    pub(super) fn info(&self, text: impl Into<String>) {
        self.line(LogLevel::Info, text);
    }

    /// Writes a line some time soon, or counts it as dropped.
    pub(super) fn line(&self, level: LogLevel, text: impl Into<String>) {
        if level as u32 > self.level.load(Ordering::Relaxed) {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Line::Text(level, text.into())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the lines so far, for a short while.
    pub(super) fn flush(&self) {
        let (done, written) = mpsc::channel();
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }
}

type Stderr<'a> = std::io::StderrLock<'a>;

fn write_text(error: &mut Stderr<'_>, _: LogLevel, text: &str) -> std::io::Result<()> {
    writeln!(error, "corelane: {text}")
}

/// One object in a line, whatever the text has in it.
fn write_json(error: &mut Stderr<'_>, level: LogLevel, text: &str) -> std::io::Result<()> {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warning",
        LogLevel::Info => "info",
    };
    let time = rfc_3339(SystemTime::now());
    let line = serde_json::json!({ "time": time, "level": level, "message": text });
    writeln!(error, "{line}")
}

/// Lets one line a second through, and counts the others.
pub(super) struct OncePerSecond {
    last: Option<Instant>,
    held_back: u64,
}

impl OncePerSecond {
    pub(super) fn new() -> Self {
        OncePerSecond { last: None, held_back: 0 }
    }

    /// Some: say it, and how many like it were held back since the last.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_a_count_of_the_rest() {
        let start = Instant::now();
        let mut limit = OncePerSecond::new();
        assert_eq!(limit.pass(start), Some(0));
        assert_eq!(limit.pass(start + Duration::from_millis(300)), None);
        assert_eq!(limit.pass(start + Duration::from_millis(999)), None);
        assert_eq!(limit.pass(start + Duration::from_millis(1300)), Some(2));
    }
}
