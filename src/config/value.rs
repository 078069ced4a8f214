//! Values: what was given for each key, where, and how it is written.

use super::keys::Key;
use super::problem::Place;
use crate::id::CpuId;
use crate::topology::Cores;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// A value that its kind has accepted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Time(Duration),
    Text(String),
    Flag(bool),
    Names(Vec<Name>),
    Cores(Cores),
    Cpu(CpuId),
    Address(SocketAddr),
    Fields(Vec<(String, String)>),
    Table(Table),
    Tables(Vec<Table>),
}

/// A name, and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// Where it was written is not what it says.
impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.text == other.text
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// These bytes of the file.
    File(Range<usize>),
    /// This environment variable.
    Environment(String),
    /// This flag of the command line.
    Flag(&'static str),
    /// A program that uses the library.
    Code,
}

/// A value that was given, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Set {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What was given of a section.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// The header, if it stands in a file.
    pub(crate) span: Option<Range<usize>>,
    sets: Vec<(&'static str, Set)>,
    /// Keys that stand there with a value that is none.
    refused: Vec<&'static str>,
}

/// Where it was written is not what it says.
impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        let value = |(name, set): &(&'static str, Set)| (*name, set.value.clone());
        self.sets.iter().map(value).eq(other.sets.iter().map(value))
    }
}

impl Table {
    pub(crate) fn at(span: Range<usize>) -> Table {
        Table { span: Some(span), ..Table::default() }
    }

    /// Gives a key a value; what was given before is replaced.
    pub(crate) fn set(&mut self, key: &Key, value: Value, origin: Origin) {
        self.unset(key);
        self.sets.push((key.name, Set { value, origin }));
    }

    /// Takes back what was given for a key.
    pub(crate) fn unset(&mut self, key: &Key) {
        self.sets.retain(|(name, _)| *name != key.name);
    }

    /// Remembers that a key stands there with a value that is none.
    pub(crate) fn refuse(&mut self, key: &Key) {
        self.refused.push(key.name);
    }

    /// Whether a key stands there with a value that is none.
    pub(crate) fn has_refused(&self, key: &Key) -> bool {
        self.refused.contains(&key.name)
    }

    /// What was given for a key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Set> {
        self.sets.iter().find(|(name, _)| *name == key.name).map(|(_, set)| set)
    }

    /// Where a key's value stands; if it stands nowhere, where the table begins.
    pub(crate) fn place(&self, key: &Key) -> Place {
        match self.get(key).map(|set| &set.origin) {
            Some(Origin::File(span)) => Place::File(span.clone()),
            Some(Origin::Environment(name)) => Place::Named(name.clone()),
            Some(Origin::Flag(flag)) => Place::Named((*flag).to_owned()),
            Some(Origin::Code) => Place::Named(key.name.to_owned()),
            None => self.beginning(),
        }
    }

    /// Where the table begins.
    pub(crate) fn beginning(&self) -> Place {
        self.span.clone().map_or(Place::Nowhere, Place::File)
    }

    /// What was given, or else the default.
    pub(crate) fn value(&self, key: &Key) -> Option<Value> {
        self.get(key).map(|set| set.value.clone()).or_else(|| key.default())
    }
}

/// One function for each type of value: what was given or the default, if that is of this type.
macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident: $variant:ident($Type:ty);)*) => {
        impl Table {$(
            $(#[$doc])*
            pub(crate) fn $name(&self, key: &Key) -> Option<$Type> {
                match self.value(key)? {
                    Value::$variant(value) => Some(value),
                    _ => None,
                }
            }
        )*}
    };
}

typed! {
    count: Count(u64);
    time: Time(Duration);
    text: Text(String);
    flag: Flag(bool);
    names: Names(Vec<Name>);
    cores: Cores(Cores);
    cpu: Cpu(CpuId);
    address: Address(SocketAddr);
    fields: Fields(Vec<(String, String)>);
    table: Table(Table);
    tables: Tables(Vec<Table>);
}

/// As it is written in a file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => write!(f, "{count}"),
            Value::Time(time) => write!(f, "\"{}\"", Time(*time)),
            Value::Text(text) => write!(f, "{}", Quoted(text)),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Names(names) => {
                let names: Vec<String> =
                    names.iter().map(|name| Quoted(&name.text).to_string()).collect();
                write!(f, "[{}]", names.join(", "))
            }
            Value::Cores(Cores::Count(count)) => write!(f, "{count}"),
            Value::Cores(cores) => write!(f, "\"{cores}\""),
            Value::Cpu(cpu) => write!(f, "{}", cpu.0),
            Value::Address(address) => write!(f, "\"{address}\""),
            Value::Fields(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{} = {}", Quoted(name), Quoted(value)))
                    .collect();
                if fields.is_empty() {
                    f.write_str("{}")
                } else {
                    write!(f, "{{ {} }}", fields.join(", "))
                }
            }
            Value::Table(_) => f.write_str("{ }"),
            Value::Tables(_) => f.write_str("[]"),
        }
    }
}

/// A text as TOML writes it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                control if control.is_control() => write!(f, "\\u{:04X}", control as u32)?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
    }
}

const UNITS: [(&str, u64); 6] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// A number and a unit, such as `250ms`.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    number.parse::<u64>().ok()?.checked_mul(*nanos).map(Duration::from_nanos)
}

/// In the largest unit that it is a whole number of.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fits = |(_, unit): &&(&str, u64)| nanos.is_multiple_of(u128::from(*unit));
        match UNITS.iter().rev().find(fits) {
            Some((name, unit)) => write!(f, "{}{name}", nanos / u128::from(*unit)),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_and_written() {
        let pairs = [
            ("0s", 0),
            ("50us", 50),
            ("1ms", 1_000),
            ("25 ms", 25_000),
            ("2s", 2_000_000),
            ("1m", 60_000_000),
        ];
        for (text, micros) in pairs {
            assert_eq!(parse_time(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for text in [
            "",
            "1",
            "ms",
            "1 second",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "1ns",
            "9999999999999d",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(Time(Duration::from_millis(90_000)).to_string(), "90s");
        assert_eq!(Time(Duration::from_secs(86_400)).to_string(), "1d");
    }

    proptest! {
        #[test]
        fn a_time_that_is_written_is_read_again(micros in 0..10_000_000_000u64) {
            let time = Duration::from_micros(micros);
            prop_assert_eq!(parse_time(&Time(time).to_string()), Some(time));
        }
    }
}
