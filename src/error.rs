//! The library's error: opaque, with predicates for its kind, and the cause as its source.

use std::fmt;

/// Why something that starts or stops a runtime failed.
///
/// Its text says what was attempted, on what, and what may help; the cause, if the operating system gave one, is its
/// [`source`](std::error::Error::source).
pub struct Error {
    kind: ErrorKind,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds that [`Error`]'s predicates tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The CPUs asked for cannot be had.
    Placement,
    /// A thread, poll or pin was refused by the operating system.
    Start,
    /// An address could not be bound.
    Bind,
    /// A setting contradicts another or is not available.
    Config,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into(), source: None }
    }

    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.source = Some(source.into());
        self
    }

    /// The CPUs asked for are not there, or not this process's to use.
    pub fn is_placement(&self) -> bool {
        self.kind == ErrorKind::Placement
    }

    /// The operating system refused a thread, a poll or a pin.
    pub fn is_start(&self) -> bool {
        self.kind == ErrorKind::Start
    }

    /// An address could not be bound.
    pub fn is_bind(&self) -> bool {
        self.kind == ErrorKind::Bind
    }

    /// A setting contradicts another, or is not available.
    pub fn is_config(&self) -> bool {
        self.kind == ErrorKind::Config
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("text", &self.text)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
