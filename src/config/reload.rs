//! What of a new draft can be taken over while the program runs.

use super::draft::{DEFAULT_LISTENER, Draft};
use super::keys::{self, Key, Section};
use super::value::Table;

/// What a new draft comes to while the program runs.
pub(crate) struct Reload {
    /// The running draft, with everything of the new one that can be taken over.
    pub(crate) draft: Draft,
    /// What else is different, and waits for the next start.
    pub(crate) waiting: Vec<String>,
}

/// Takes over what can be. Listeners are the same if they have the same name.
pub(crate) fn reload(running: &Draft, new: &Draft) -> Reload {
    let mut draft = running.clone();
    let mut waiting = Vec::new();
    draft.source = new.source.clone();
    take(&keys::RUNTIME, "", &mut draft.runtime, &new.runtime, &mut waiting);
    take(&keys::SHARD, "", &mut draft.shard, &new.shard, &mut waiting);
    let has_access_log = |draft: &Draft| draft.access_log.get(&keys::ACCESS_LOG_PATH).is_some();
    if has_access_log(&draft) == has_access_log(new) {
        take(&keys::ACCESS_LOG, "", &mut draft.access_log, &new.access_log, &mut waiting);
    } else {
        waiting.push(keys::ACCESS_LOG.title());
    }
    if draft.cores != new.cores {
        waiting.push(keys::CORE.title());
    }
    let name = |table: &Table| table.text(&keys::NAME).unwrap_or_default();
    for listener in &mut draft.listeners {
        let of = format!(" \"{}\"", name(listener));
        match new.listeners.iter().find(|other| name(other) == name(listener)) {
            Some(other) => take_listener(&of, listener, other, &mut waiting),
            None => waiting.push(format!("{}{of}, which is gone", keys::LISTENER.title())),
        }
    }
    let is_new = |table: &&Table| running.listeners.iter().all(|other| name(other) != name(table));
    let added = new.listeners.iter().filter(is_new);
    waiting.extend(
        added.map(|table| format!("{} \"{}\", which is new", keys::LISTENER.title(), name(table))),
    );
    draft.routes = routes(running, new, &mut waiting);
    Reload { draft, waiting }
}

/// The new routes, but for those of a listener that is new: they wait with it. One that is gone and still runs keeps its own.
fn routes(running: &Draft, new: &Draft, waiting: &mut Vec<String>) -> Vec<Table> {
    let of = |table: &Table| table.text(&keys::ROUTE_LISTENER);
    let has = |draft: &Draft, name: &str| {
        let mut names = draft.listeners.iter().map(|one| one.text(&keys::NAME));
        // Without any there is one, which a route can name as well.
        (draft.listeners.is_empty() && name == DEFAULT_LISTENER)
            || names.any(|one| one.as_deref() == Some(name))
    };
    let is_in = |draft: &Draft, table: &Table| of(table).is_none_or(|name| has(draft, &name));
    let (mut routes, wait): (Vec<Table>, Vec<Table>) =
        new.routes.iter().cloned().partition(|table| is_in(running, table));
    let mut names: Vec<String> = wait.iter().filter_map(of).collect();
    names.dedup();
    let title = keys::ROUTE.title();
    waiting.extend(names.iter().map(|name| format!("each {title} of \"{name}\"")));
    routes.extend(running.routes.iter().filter(|table| !is_in(new, table)).cloned());
    routes
}

/// A listener that is plain stays so, and one that is encrypted too.
fn take_listener(of: &str, running: &mut Table, new: &Table, waiting: &mut Vec<String>) {
    let before = running.get(&keys::TLS).cloned();
    take(&keys::LISTENER, of, running, new, waiting);
    match (before, running.get(&keys::TLS).is_some()) {
        (Some(before), false) => running.set(&keys::TLS, before.value, before.origin),
        (None, true) => running.unset(&keys::TLS),
        _ => return,
    }
    waiting.push(format!("{}{of} {}", keys::LISTENER.title(), keys::TLS.name));
}

/// Takes over the keys of a table that can be, and names the others that are different.
fn take(section: &Section, of: &str, running: &mut Table, new: &Table, waiting: &mut Vec<String>) {
    let differs = |key: &&&Key| running.value(key) != new.value(key);
    let different: Vec<&Key> = section.keys.iter().filter(differs).copied().collect();
    for key in different {
        match (key.live, new.get(key)) {
            (false, _) => waiting.push(format!("{}{of} {}", section.title(), key.name)),
            (true, Some(set)) => running.set(key, set.value.clone(), set.origin.clone()),
            (true, None) => running.unset(key),
        }
    }
}
