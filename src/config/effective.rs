//! Every value that holds, and where it comes from: what `--print-effective` shows.
//!
//! The text is a file that says the same. Comments say whether a value is a default, or from where it was given.

use super::draft::Draft;
use super::keys::{self, Key, Section};
use super::kind::Kind;
use super::problem::Source;
use super::value::{Origin, Set, Table, Value};
use std::fmt::Write;

/// The text for a draft that nothing is wrong with.
pub(crate) fn effective(draft: &Draft) -> String {
    let mut page = Page { source: &draft.source, text: String::new() };
    page.section(&keys::RUNTIME, &draft.runtime, None);
    page.section(&keys::SHARD, &draft.shard, None);
    for core in &draft.cores {
        page.section(&keys::CORE, core, Some(&draft.shard));
    }
    if draft.listeners.is_empty() {
        page.section(&keys::LISTENER, &Draft::default_listener(), None);
    }
    for listener in &draft.listeners {
        page.section(&keys::LISTENER, listener, None);
    }
    for route in &draft.routes {
        page.section(&keys::ROUTE, route, None);
    }
    if draft.access_log != Table::default() {
        page.section(&keys::ACCESS_LOG, &draft.access_log, None);
    }
    page.text
}

struct Page<'a> {
    source: &'a Source,
    text: String,
}

/// Whether the key means nothing beside what the table has: another that excludes it, a socket of another kind, or no authorities. Its
/// default would be refused if it were read again.
fn means_nothing(section: &Section, key: &Key, table: &Table) -> bool {
    if std::ptr::eq(key, &keys::CLIENT_CERTIFICATES) {
        return table.get(&keys::CLIENT_AUTHORITIES).is_none();
    }
    let is_one_of = |keys: &[&Key]| keys.iter().any(|&other| std::ptr::eq(other, key));
    let is_out_by = |keys: &[&Key]| {
        is_one_of(keys)
            && table.get(key).is_none()
            && keys.iter().any(|other| table.get(other).is_some())
    };
    if is_out_by(section.one_of) || is_out_by(section.not_both) {
        return true;
    }
    let has = |key| table.get(key).is_some();
    (is_one_of(keys::TCP_ONLY) && !has(&keys::ADDRESS))
        || (is_one_of(keys::UNIX_ONLY) && !has(&keys::SOCKET_PATH))
}

impl Page<'_> {
    /// A table. What it does not say and `else_from` does is that other's.
    fn section(&mut self, section: &Section, table: &Table, else_from: Option<&Table>) {
        let space = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{space}{}", section.title());
        let mut tables = Vec::new();
        for key in section.keys.iter().filter(|key| !means_nothing(section, key, table)) {
            match (&key.kind, table.get(key).or_else(|| else_from?.get(key))) {
                (Kind::Table(section), Some(Set { value: Value::Table(inner), .. })) => {
                    tables.push((section, inner))
                }
                (Kind::Tables(section), Some(Set { value: Value::Tables(inner), .. })) => {
                    tables.extend(inner.iter().map(|inner| (section, inner)));
                }
                (_, Some(Set { value, origin })) => self.line(key, value, &self.origin(origin)),
                (_, None) => match key.default() {
                    Some(default) => self.line(key, &default, "default"),
                    None => self.unset(key),
                },
            }
        }
        for (section, inner) in tables {
            self.section(section, inner, None);
        }
    }

    /// A key without a value, and what holds instead, which its description says.
    fn unset(&mut self, key: &Key) {
        let instead =
            key.doc.split_once("Without it: ").map(|(_, instead)| instead.trim_end_matches('.'));
        let instead = instead.map(|instead| format!(": {instead}")).unwrap_or_default();
        let _ = writeln!(self.text, "# {} is not set{instead}", key.name);
    }

    fn line(&mut self, key: &Key, value: &Value, origin: &str) {
        let _ = writeln!(self.text, "{:<40} # {origin}", format!("{} = {value}", key.name));
    }

    fn origin(&self, origin: &Origin) -> String {
        match origin {
            Origin::File(span) => {
                format!("{}:{}", self.source.name, self.source.position(span.start).0)
            }
            Origin::Environment(name) => name.clone(),
            Origin::Flag(flag) => (*flag).to_owned(),
            Origin::Code => "default".to_owned(),
        }
    }
}
