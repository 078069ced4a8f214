//! Routes: what each is for, and that it does one thing.

use super::{Checker, First, number};
use crate::config::content::{self, Unread};
use crate::config::keys::{self, Key};
use crate::config::problem::{Place, Problem};
use crate::config::value::Table;
use crate::config::{Action, FilesOf, RedirectTo, Respond, Route};
use crate::services::target::Template;
use crate::services::types;
use crate::sync::Arc;
use crate::sys::directory::{Directory, Symlinks};
use bytes::Bytes;
use std::path::Path;

/// Longest file that is the body of a response: it is in memory as long as the configuration holds.
const BODY_MAX: u64 = 1 << 20;

impl Checker<'_> {
    pub(super) fn routes(&mut self, names: &[&str]) -> Vec<Route> {
        let draft = self.draft;
        let (mut seen, mut routes) = (First::default(), Vec::new());
        for table in &draft.routes {
            let listener = table.text(&keys::ROUTE_LISTENER);
            if let Some(name) = &listener {
                self.known_listener(
                    &keys::ROUTE_LISTENER,
                    name,
                    table.place(&keys::ROUTE_LISTENER),
                    names,
                );
            }
            let path = table.text(&keys::PATH);
            if path.is_none() {
                self.needed(table, &keys::PATH, "path = \"/\"");
            }
            let action = self.action(table);
            if let (Some(path), Some(Action::Files(_))) = (&path, &action)
                && !path.ends_with("/*")
            {
                let message =
                    "files are below a path: one that ends with /*, such as \"/static/*\"";
                self.wrong_value(table.place(&keys::PATH), &keys::PATH, message);
            }
            let (Some(path), Some(action)) = (path, action) else { continue };
            let host = table.text(&keys::HOST);
            let place = table.place(&keys::PATH);
            if let Some(first) = seen.again((listener.clone(), host.clone(), path.clone()), &place)
            {
                self.twice(
                    place,
                    &format!("\"{path}\" has a route, of the same listener and host"),
                    first,
                );
            }
            routes.push(Route { listener, host, path, action });
        }
        routes
    }

    /// What a route does. None: that has had its word.
    fn action(&mut self, table: &Table) -> Option<Action> {
        let actions = keys::ROUTE.one_of;
        let is_there = |key: &&&Key| table.get(key).is_some() || table.has_refused(key);
        let names: Vec<&str> = actions.iter().map(|key| key.name).collect();
        let mut there = actions.iter().filter(is_there);
        let Some(first) = there.next() else {
            let message = format!("this route does nothing: one of {} is wanted", names.join(", "));
            let hint = "for example: respond = { body = \"Hello\" }".to_owned();
            self.errors.push(Problem::new(table.beginning(), message).hint(hint));
            return None;
        };
        if let Some(second) = there.next() {
            let message = format!(
                "a route does one thing, and this has {} too: for the other add a [[route]]",
                first.name
            );
            self.errors.push(Problem::new(table.place(second), message).of(second.name));
        }
        if let Some(respond) = table.table(&keys::RESPOND) {
            return self.respond(&respond).map(Action::Respond);
        }
        if let Some(files) = table.table(&keys::FILES) {
            return self.files(&files).map(Action::Files);
        }
        if let Some(redirect) = table.table(&keys::REDIRECT) {
            return self.redirect(&redirect).map(Action::Redirect);
        }
        let has = |key| table.flag(key) == Some(true);
        (has(&keys::HEALTH).then_some(Action::Health))
            .or(has(&keys::READY).then_some(Action::Ready))
    }

    fn respond(&mut self, table: &Table) -> Option<Respond> {
        let status = number(table, &keys::STATUS) as u16;
        let headers = table.fields(&keys::HEADERS).unwrap_or_default();
        let (key, body, content_type) = match table.text(&keys::BODY_FILE) {
            Some(name) => {
                if table.get(&keys::BODY).is_some() {
                    let message = "the body is in the file, and cannot be here too";
                    self.wrong_value(table.place(&keys::BODY), &keys::BODY, message);
                }
                let body = self.body_of(table, Path::new(&name))?;
                (&keys::BODY_FILE, body, types::of(name.as_bytes()))
            }
            None => {
                let body = table.text(&keys::BODY).unwrap_or_default();
                (&keys::BODY, Bytes::from(body), "text/plain; charset=utf-8")
            }
        };
        // RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5.
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            let message = format!("a response of status {status} has no body");
            self.wrong_value(table.place(key), key, message);
        }
        Some(Respond { status, headers, body, content_type })
    }

    fn body_of(&mut self, table: &Table, file: &Path) -> Option<Bytes> {
        let shown = file.display();
        let message = match content::read(file, BODY_MAX) {
            Ok(bytes) => return Some(bytes.into()),
            Err(Unread::Failed(why)) => format!("{shown} {why}"),
            Err(Unread::TooLong) => format!(
                "{shown} has more than {} MiB, too much to be kept in memory",
                BODY_MAX >> 20
            ),
        };
        self.wrong_value(table.place(&keys::BODY_FILE), &keys::BODY_FILE, message);
        None
    }

    fn files(&mut self, table: &Table) -> Option<FilesOf> {
        let Some(dir) = table.text(&keys::DIR) else {
            self.needed(table, &keys::DIR, "dir = \"site\"");
            return None;
        };
        // Opened here and kept: what was found right is what is served.
        let directory = match Directory::open(Path::new(&dir)) {
            Ok(directory) => Arc::new(directory),
            Err(why) => {
                self.wrong_value(table.place(&keys::DIR), &keys::DIR, format!("{dir} {why}"));
                return None;
            }
        };
        Some(FilesOf {
            directory,
            index: table.text(&keys::INDEX).unwrap_or_default(),
            precompressed: table.flag(&keys::PRECOMPRESSED).unwrap_or_default(),
            symlinks: match table.text(&keys::SYMLINKS).as_deref() {
                Some("none") => Symlinks::None,
                Some("all") => Symlinks::All,
                _ => Symlinks::Inside,
            },
            dotfiles: table.flag(&keys::DOTFILES).unwrap_or_default(),
            cache_control: table.text(&keys::CACHE_CONTROL),
        })
    }

    fn redirect(&mut self, table: &Table) -> Option<RedirectTo> {
        let Some(to) = table.text(&keys::TO) else {
            self.needed(table, &keys::TO, "to = \"https://{host}{path}{query}\"");
            return None;
        };
        let status = number(table, &keys::REDIRECT_STATUS) as u16;
        Some(RedirectTo { to: Template::parse(&to).ok()?, status })
    }

    fn wrong_value(&mut self, place: Place, key: &'static Key, message: impl Into<String>) {
        self.errors.push(Problem::new(place, message).of(key.name));
    }
}
