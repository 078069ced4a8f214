//! From TOML to a draft: which tables and keys there are, and whether each value is of its kind.
//!
//! Goes on after what is wrong, so that everything is said at once.

use super::draft::Draft;
use super::keys::{self, Key, Section};
use super::kind::{Found, Item, Kind, Raw, Refusal};
use super::problem::{Place, Problem, Source, closest};
use super::value::{Origin, Table, Value};
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

type Entry<'a> = (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>);

/// Reads a file's text. What is wrong with it is in the second part; the draft has the rest.
pub(crate) fn read(source: Source) -> (Draft, Vec<Problem>) {
    let text = source.text.clone();
    let (document, errors) = DeTable::parse_recoverable(&text);
    let mut reader = Reader { problems: Vec::new(), directory: source.directory.clone() };
    for error in &errors {
        let message = sentence(error.message());
        reader.problems.push(Problem::new(Place::File(error.span().unwrap_or(0..0)), message));
    }
    // What the parser guessed after an error would only give more errors.
    if !errors.is_empty() {
        return (Draft { source, ..Draft::default() }, reader.problems);
    }
    let mut draft = Draft { source, ..Draft::default() };
    for entry in document.get_ref() {
        reader.section(entry, &mut draft);
    }
    // The map is in the order of its keys; problems and tables are wanted in that of the file.
    reader.problems.sort_by_key(|problem| problem.place.start());
    (draft, reader.problems)
}

/// The parser's words in one line.
fn sentence(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

struct Reader {
    problems: Vec<Problem>,
    /// Where relative names of files begin.
    directory: PathBuf,
}

impl Reader {
    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem::new(Place::File(span), message).hint(hint));
    }

    /// A table of the top.
    fn section(&mut self, (name, value): Entry<'_>, draft: &mut Draft) {
        let known = name.get_ref().as_ref();
        let Some(section) = keys::SECTIONS.iter().find(|section| section.name == known) else {
            return self.unknown_section(name, value);
        };
        let tables = match (value.get_ref(), section.repeated) {
            (DeValue::Table(table), false) => vec![self.table(section, table, name.span())],
            (DeValue::Array(items), true) => self.tables(section, items).unwrap_or_default(),
            (DeValue::Table(_), true) => {
                let message =
                    format!("there may be several of these, so it is written {}", section.title());
                return self.wrong(name.span(), message, None);
            }
            (DeValue::Array(items), false)
                if items.iter().all(|item| item.get_ref().is_table()) =>
            {
                let message =
                    format!("there is one of these only, so it is written {}", section.title());
                return self.wrong(name.span(), message, None);
            }
            (other, _) => {
                let found = Found(raw(other, &[]));
                let message =
                    format!("expected a table, written {}, found {found}", section.title());
                return self.wrong(value.span(), message, None);
            }
        };
        let place = match section.name {
            "runtime" => return draft.runtime = tables.into_iter().next().unwrap_or_default(),
            "shard" => return draft.shard = tables.into_iter().next().unwrap_or_default(),
            "access_log" => {
                return draft.access_log = tables.into_iter().next().unwrap_or_default();
            }
            "core" => &mut draft.cores,
            "listener" => &mut draft.listeners,
            _ => &mut draft.routes,
        };
        *place = tables;
    }

    /// The tables of a list. None: something in it is no table.
    fn tables(&mut self, section: &Section, items: &DeArray<'_>) -> Option<Vec<Table>> {
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push(self.table(section, table, item.span())),
                other => {
                    let found = Found(raw(other, &[]));
                    self.wrong(item.span(), format!("expected a table, found {found}"), None);
                }
            }
        }
        (tables.len() == items.len()).then_some(tables)
    }

    fn unknown_section(&mut self, name: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) {
        let known = name.get_ref().as_ref();
        let closest = closest(known, keys::SECTIONS.iter().map(|section| section.name));
        let meant = keys::SECTIONS.iter().find(|section| Some(section.name) == closest);
        let belongs = whose(known).map(|section| format!("it belongs into {}", section.title()));
        let hint =
            belongs.or_else(|| meant.map(|section| format!("did you mean {}?", section.title())));
        let is_section = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
        let what = if is_section { "section" } else { "key" };
        self.wrong(name.span(), format!("there is no {what} `{known}`"), hint);
    }

    fn table(&mut self, section: &Section, table: &DeTable<'_>, span: Range<usize>) -> Table {
        let mut read = Table::at(span);
        for (name, value) in table {
            let known = name.get_ref().as_ref();
            match section.keys.iter().find(|key| key.name == known) {
                Some(key) => match self.value(key, value) {
                    Some(found) => read.set(key, found, Origin::File(value.span())),
                    None => read.refuse(key),
                },
                None => {
                    let meant = closest(known, section.keys.iter().map(|key| key.name));
                    let hint = meant.map(|key| format!("did you mean `{key}`?"));
                    let other = || {
                        whose(known).map(|section| format!("it belongs into {}", section.title()))
                    };
                    let message = format!("there is no key `{known}` in {}", section.title());
                    self.wrong(name.span(), message, hint.or_else(other));
                }
            }
        }
        read
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        match (&key.kind, value.get_ref()) {
            (Kind::Table(section), DeValue::Table(table)) => {
                return Some(Value::Table(self.table(section, table, value.span())));
            }
            (Kind::Fields, DeValue::Table(table)) => return self.fields(table),
            (Kind::Tables(section), DeValue::Array(items)) if !items.is_empty() => {
                return self.tables(section, items).map(Value::Tables);
            }
            _ => {}
        }
        let items = match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .map(|item| Item { raw: raw(item.get_ref(), &[]), span: item.span() })
                .collect(),
            _ => Vec::new(),
        };
        match key.kind.read(raw(value.get_ref(), &items)) {
            // As it is found from everywhere, so that it is the same in what --print-effective prints.
            Ok(Value::Text(name)) if matches!(key.kind, Kind::FilePath) => {
                Some(Value::Text(self.directory.join(name).to_string_lossy().into_owned()))
            }
            Ok(value) => Some(value),
            Err(Refusal { message, hint, span }) => {
                let place = Place::File(span.unwrap_or(value.span()));
                self.problems.push(Problem::new(place, message).hint(hint).of(key.name));
                None
            }
        }
    }

    fn fields(&mut self, table: &DeTable<'_>) -> Option<Value> {
        let mut fields = Vec::new();
        let before = self.problems.len();
        for (name, value) in table {
            let refused =
                |reader: &mut Reader, span, why: &str| reader.wrong(span, why.to_owned(), None);
            match value.get_ref() {
                DeValue::String(text) => match field_problem(name.get_ref(), text) {
                    Some((true, why)) => refused(self, name.span(), &why),
                    Some((false, why)) => refused(self, value.span(), &why),
                    None => fields.push((
                        name.span().start,
                        name.get_ref().to_string(),
                        text.to_string(),
                    )),
                },
                other => refused(
                    self,
                    value.span(),
                    &format!(
                        "{}: expected a text, found {}",
                        name.get_ref(),
                        Found(raw(other, &[]))
                    ),
                ),
            }
        }
        fields.sort_by_key(|(at, ..)| *at);
        let fields = fields.into_iter().map(|(_, name, value)| (name, value)).collect();
        (self.problems.len() == before).then_some(Value::Fields(fields))
    }
}

/// What is wrong with a header field, and whether that is its name (RFC 9110, section 5.6.2) or its value (5.5).
pub(super) fn field_problem(name: &str, value: &str) -> Option<(bool, String)> {
    const BY_THE_SERVER: [&str; 8] = [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Some((true, format!("{name:?} is no name of a header field")));
    }
    if BY_THE_SERVER.contains(&name.to_ascii_lowercase().as_str()) {
        return Some((true, format!("the field {name} is the server's own business")));
    }
    let visible = |byte: u8| byte == b'\t' || (b' '..0x7f).contains(&byte);
    let edges = value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']);
    let wrong = edges || !value.bytes().all(visible);
    wrong.then(|| {
        (false, format!("{name}: expected visible ASCII characters, without space around them"))
    })
}

/// The section that has this key, where it was not looked for.
fn whose(key: &str) -> Option<&'static Section> {
    keys::SECTIONS.into_iter().find(|section| section.keys.iter().any(|known| known.name == key))
}

fn raw<'a>(value: &'a DeValue<'_>, items: &'a [Item<'a>]) -> Raw<'a> {
    match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(number) => integer(number),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => Raw::Other("a date or a time of day"),
        DeValue::Array(_) => Raw::List(items),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn integer<'a>(number: &'a DeInteger<'_>) -> Raw<'a> {
    match number.radix() {
        10 => Raw::Integer(number.as_str()),
        _ => Raw::Other("a number that is not decimal"),
    }
}
