//! Kinds of values: what each accepts, how it is read from a file or from a word, and what is said of anything else.
//!
//! A kind knows what it expects and says so; where the value stands is the caller's business.

use super::address;
use super::keys::Section;
use super::problem::{Place, closest};
use super::value::{Name, Time, Value, parse_time};
use crate::id::CpuId;
use crate::listen_addr::unfit_path;
use crate::services::target::Template;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Which values a key takes.
pub(crate) enum Kind {
    /// A whole number.
    Count {
        least: u64,
        most: u64,
    },
    /// A length of time.
    Time {
        least: Duration,
        most: Duration,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Yes or no.
    Flag,
    /// Any text.
    Text,
    /// The name of a listener.
    Name,
    /// Names of listeners.
    Names,
    Cores,
    Cpu,
    Address,
    /// The path of a Unix socket.
    SocketPath,
    /// The permissions of a file, in octal.
    FileMode,
    Host,
    Path,
    /// The name of a file or a directory.
    FilePath,
    /// The name of a file in a directory that is not said, or nothing.
    FileName,
    /// The value of a header field.
    FieldValue,
    /// Where a redirect leads.
    Target,
    /// One of these numbers.
    OneOf(&'static [u64]),
    /// What is there or not.
    Yes,
    /// Names and texts: header fields.
    Fields,
    /// A table of its own.
    Table(&'static Section),
    /// Several, at least one.
    Tables(&'static Section),
}

/// What stands in a file, or in a variable, before a kind has looked at it.
#[derive(Clone, Copy)]
pub(crate) enum Raw<'a> {
    /// A whole number as it is written, without signs between its digits.
    Integer(&'a str),
    Text(&'a str),
    Flag(bool),
    /// A list, of whole numbers and texts as far as they are that.
    List(&'a [Item<'a>]),
    /// Something that no plain value is made of.
    Other(&'static str),
    /// A word of the environment: what it is depends on who reads it.
    Word(&'a str),
}

/// An item of a list, and where it stands.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    pub(crate) raw: Raw<'a>,
    pub(crate) span: Range<usize>,
}

/// Why a value is refused: what was expected, what was found, and what may have been meant.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The part of the value that is wrong.
    pub(crate) span: Option<Range<usize>>,
}

impl Kind {
    /// Reads a value. Tables and fields are read by those who know what a table is.
    pub(crate) fn read(&self, raw: Raw<'_>) -> Result<Value, Refusal> {
        let value = match (self, raw) {
            (Kind::Count { .. } | Kind::OneOf(_), Raw::Integer(digits) | Raw::Word(digits)) => {
                digits.parse().ok().map(Value::Count)
            }
            (Kind::Time { .. }, Raw::Text(text) | Raw::Word(text)) => {
                parse_time(text).map(Value::Time)
            }
            (Kind::Flag | Kind::Yes, Raw::Flag(flag)) => Some(Value::Flag(flag)),
            (Kind::Flag, Raw::Word("true")) => Some(Value::Flag(true)),
            (Kind::Flag, Raw::Word("false")) => Some(Value::Flag(false)),
            (Kind::Cpu, Raw::Integer(digits) | Raw::Word(digits)) => {
                digits.parse().ok().map(|cpu| Value::Cpu(CpuId(cpu)))
            }
            (Kind::Host, Raw::Text(text) | Raw::Word(text)) => {
                Some(Value::Text(text.to_ascii_lowercase()))
            }
            (
                Kind::Text
                | Kind::Name
                | Kind::Path
                | Kind::FilePath
                | Kind::FileName
                | Kind::FieldValue
                | Kind::FileMode
                | Kind::Choice(_),
                Raw::Text(text) | Raw::Word(text),
            ) => Some(Value::Text(text.to_owned())),
            (Kind::Names, Raw::List(items)) => return self.names(items),
            (Kind::Cores, _) => return self.cores(raw),
            (Kind::Address, Raw::Text(text) | Raw::Word(text)) => {
                return address::parse(text).map(Value::Address).map_err(|why| {
                    let message = format!("{why}; found {}", Found(raw));
                    let hint = address::path_in(text);
                    let hint = hint.map(|path| format!("for a Unix socket: path = {path:?}"));
                    Refusal { message, hint, span: None }
                });
            }
            (Kind::SocketPath | Kind::Target, Raw::Text(text) | Raw::Word(text)) => {
                let unfit = match self {
                    Kind::Target => Template::parse(text).err(),
                    _ => unfit_path(text.as_ref()),
                };
                return match unfit {
                    None => Ok(Value::Text(text.to_owned())),
                    Some(message) => Err(Refusal { message, hint: None, span: None }),
                };
            }
            _ => None,
        };
        let value = value.filter(|value| self.accepts(value)).ok_or_else(|| self.refuse(raw));
        value.map_err(|refusal| match (self, raw) {
            (Kind::Choice(words), Raw::Text(text) | Raw::Word(text)) => {
                let meant = closest(text, words.iter().copied());
                Refusal { hint: meant.map(|word| format!("did you mean \"{word}\"?")), ..refusal }
            }
            (Kind::FileMode, Raw::Integer(digits)) if is_file_mode(digits) => {
                Refusal { hint: Some(format!("did you mean \"0{digits}\"?")), ..refusal }
            }
            _ => refusal,
        })
    }

    /// Whether a value is of this kind.
    ///
    /// # Errors
    /// What was expected.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        if self.accepts(value) { Ok(()) } else { Err(format!("expected {self}, found {value}")) }
    }

    fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Kind::Count { least, most }, Value::Count(count)) => (least..=most).contains(&count),
            (Kind::Time { least, most }, Value::Time(time)) => (least..=most).contains(&time),
            (Kind::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Kind::Name, Value::Text(text)) => is_name(text),
            (Kind::Host, Value::Text(text)) => is_host(text),
            (Kind::Path, Value::Text(text)) => is_path(text),
            (Kind::SocketPath, Value::Text(text)) => unfit_path(text.as_ref()).is_none(),
            (Kind::FileMode, Value::Text(text)) => is_file_mode(text),
            (Kind::FilePath, Value::Text(text)) => !text.is_empty() && !text.contains('\0'),
            (Kind::FileName, Value::Text(text)) => {
                !text.contains(['/', '\0']) && text != "." && text != ".."
            }
            (Kind::FieldValue, Value::Text(text)) => {
                !text.is_empty() && super::file::field_problem("x", text).is_none()
            }
            (Kind::Target, Value::Text(text)) => Template::parse(text).is_ok(),
            (Kind::OneOf(numbers), Value::Count(count)) => numbers.contains(count),
            (Kind::Yes, Value::Flag(flag)) => *flag,
            (Kind::Cpu, Value::Cpu(cpu)) => cpu.0 < crate::sys::affinity::CPU_LIMIT,
            (Kind::Fields, Value::Fields(fields)) => {
                fields.iter().all(|(name, value)| super::file::field_problem(name, value).is_none())
            }
            (Kind::Names, Value::Names(names)) => names.iter().all(|name| is_name(&name.text)),
            (Kind::Text, Value::Text(_))
            | (Kind::Flag, Value::Flag(_))
            | (Kind::Cores, Value::Cores(_))
            | (Kind::Address, Value::Address(_))
            | (Kind::Table(_), Value::Table(_)) => true,
            (Kind::Tables(_), Value::Tables(tables)) => !tables.is_empty(),
            _ => false,
        }
    }

    fn refuse(&self, raw: Raw<'_>) -> Refusal {
        let message = format!("expected {self}, found {}", Found(raw));
        Refusal { message, hint: None, span: None }
    }

    fn names(&self, items: &[Item<'_>]) -> Result<Value, Refusal> {
        let name = |item: &Item<'_>| match item.raw {
            Raw::Text(text) if is_name(text) => {
                Ok(Name { text: text.to_owned(), place: Place::File(item.span.clone()) })
            }
            raw => Err(Refusal { span: Some(item.span.clone()), ..Kind::Name.refuse(raw) }),
        };
        items.iter().map(name).collect::<Result<_, _>>().map(Value::Names)
    }

    fn cores(&self, raw: Raw<'_>) -> Result<Value, Refusal> {
        let (text, span) = match raw {
            Raw::Integer(digits) => (digits.to_owned(), None),
            Raw::Text(text) | Raw::Word(text) => (text.to_owned(), None),
            Raw::List(items) => {
                let mut list = String::from("cpu:");
                for (number, item) in items.iter().enumerate() {
                    let Raw::Integer(digits) = item.raw else {
                        let span = Some(item.span.clone());
                        return Err(Refusal { span, ..Kind::Cpu.refuse(item.raw) });
                    };
                    list.push_str(if number == 0 { "" } else { "," });
                    list.push_str(digits);
                }
                (list, None)
            }
            raw => return Err(self.refuse(raw)),
        };
        text.parse().map(Value::Cores).map_err(|error: crate::topology::PlacementError| Refusal {
            message: error.to_string(),
            hint: None,
            span,
        })
    }
}

/// What is expected.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Count { least, most } => write!(f, "a whole number from {least} to {most}"),
            Kind::Time { least, most } => {
                write!(f, "a time from {} to {}, such as \"250ms\"", Time(*least), Time(*most))
            }
            Kind::Choice(words) => {
                for (number, word) in words.iter().enumerate() {
                    write!(f, "{}\"{word}\"", before(number, words.len()))?;
                }
                Ok(())
            }
            Kind::Flag => f.write_str("true or false"),
            Kind::Text => f.write_str("a text"),
            Kind::Name => f.write_str("a name of letters, digits, - and _, 64 at most"),
            Kind::Names => f.write_str("a list of names of listeners"),
            Kind::Cores => f.write_str(
                "\"all\", \"physical\", a count, or a list of CPUs such as [0, 1] or \"0-3,8\"",
            ),
            Kind::Cpu => {
                write!(f, "the number of a CPU, from 0 to {}", crate::sys::affinity::CPU_LIMIT - 1)
            }
            Kind::Address => f.write_str("an address and a port, such as \"127.0.0.1:8080\""),
            Kind::SocketPath => f.write_str("the path of a Unix socket, such as \"/run/app.sock\""),
            Kind::FileMode => f.write_str("a file mode in octal, such as \"0660\""),
            Kind::Host => f.write_str("a host without a port, such as \"example.org\""),
            Kind::Path => f.write_str(
                "a path such as \"/hello\", or the beginning of one such as \"/static/*\"",
            ),
            Kind::FilePath => f.write_str("the name of a file or a directory, such as \"site\""),
            Kind::FileName => f.write_str("the name of a file, without a slash"),
            Kind::FieldValue => f.write_str("visible ASCII characters, without space around them"),
            Kind::Target => f.write_str("a target, such as \"https://{host}{path}{query}\""),
            Kind::OneOf(numbers) => {
                for (number, one) in numbers.iter().enumerate() {
                    write!(f, "{}{one}", before(number, numbers.len()))?;
                }
                Ok(())
            }
            Kind::Yes => f.write_str("true"),
            Kind::Fields => f.write_str("a table of texts"),
            Kind::Table(_) => f.write_str("a table"),
            Kind::Tables(section) => write!(f, "a list of tables, written {}", section.title()),
        }
    }
}

/// What stands before this one of so many alternatives.
fn before(number: usize, count: usize) -> &'static str {
    match number {
        0 => "",
        _ if number + 1 == count => " or ",
        _ => ", ",
    }
}

/// What was found instead.
pub(crate) struct Found<'a>(pub(crate) Raw<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters of a text that are shown.
        const SHOWN: usize = 40;
        match self.0 {
            Raw::Integer(digits) => f.write_str(digits),
            Raw::Text(text) | Raw::Word(text) if text.chars().count() > SHOWN => {
                let shown: String = text.chars().take(SHOWN).collect();
                write!(f, "{shown:?}...")
            }
            Raw::Text(text) | Raw::Word(text) => write!(f, "{text:?}"),
            Raw::Flag(flag) => write!(f, "{flag}"),
            Raw::List(_) => f.write_str("a list"),
            Raw::Other(what) => f.write_str(what),
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_host(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = !text.is_empty() && text.bytes().all(name);
    let v6 = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    text.len() <= 253 && (is_name || v6.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()))
}

/// Three octal digits, with a zero before them or without.
fn is_file_mode(text: &str) -> bool {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    digits.len() == 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
}

fn is_path(text: &str) -> bool {
    let plain = text.strip_suffix('*').unwrap_or(text);
    let wrong = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'*' | b'?' | b'#');
    text.starts_with('/') && !plain.bytes().any(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_stands_for_a_host_or_a_path_is_known() {
        for text in ["example.org", "a", "[::1]", "10.0.0.1", "a_b.test"] {
            assert!(is_host(text), "{text}");
        }
        for text in ["", "example.org:80", "a b", "[::1", "http://a", "[x]"] {
            assert!(!is_host(text), "{text}");
        }
        for text in ["/", "/*", "/a/b", "/a%20b*"] {
            assert!(is_path(text), "{text}");
        }
        for text in ["", "a", "/a b", "/*/b", "/a?b", "/ä", "*"] {
            assert!(!is_path(text), "{text}");
        }
        for text in ["0660", "660", "000", "0000", "0777"] {
            assert!(is_file_mode(text), "{text}");
        }
        for text in ["", "66", "0o660", "0688", "1777", "06600", "rw-"] {
            assert!(!is_file_mode(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,20}|[0-9]{0,25}(us|ms|s|d)?") {
            let kinds = [
                Kind::Count { least: 0, most: 10 },
                Kind::Time { least: Duration::ZERO, most: Duration::from_secs(1) },
                Kind::Choice(&["one", "two"]),
                Kind::Flag, Kind::Text, Kind::Name, Kind::Cores, Kind::Cpu, Kind::Address, Kind::Host, Kind::Path,
                Kind::SocketPath, Kind::FileMode, Kind::FilePath, Kind::FileName, Kind::FieldValue, Kind::Target, Kind::OneOf(&[1, 2]), Kind::Yes,
            ];
            for kind in kinds {
                for raw in [Raw::Word(&text), Raw::Text(&text), Raw::Integer(&text)] {
                    if let Err(refusal) = kind.read(raw) {
                        prop_assert!(!refusal.message.is_empty());
                    }
                }
            }
        }
    }
}
