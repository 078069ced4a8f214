//! The house rules that can be read off the source: floors, names, sizes, where `unsafe` may be.
//!
//! The rules are tables. The checker is tried on made-up files as well, so that it is known to find what it looks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Floors, lowest first: the table in docs/ARCHITECTURE.md. A file imports its own floor and those below. The longest
/// entry that fits a path counts; a name ending in `/` stands for the directory and for its root file.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["sync/", "scoped.rs", "id.rs", "error.rs", "sys/", "time/clock.rs"]),
    (
        1,
        &[
            "topology.rs",
            "limits.rs",
            "limits/",
            "listen_addr.rs",
            "mode.rs",
            "balance/",
            "time/wheel.rs",
            "reactor/slots.rs",
            "reactor/guess.rs",
            "table.rs",
            "wait_queue.rs",
            "stats/",
            "tls/",
            "config/",
            "services/target.rs",
            "services/types.rs",
        ],
    ),
    (2, &["park.rs", "task/", "mesh/"]),
    (3, &["reactor/", "shard/", "stealing/", "blocking.rs"]),
    (4, &["net/", "time/", "signal.rs", "http/", "task/coop.rs", "runtime/spawn.rs"]),
    (
        5,
        &[
            "runtime/",
            "server/",
            "services/",
            "tracing.rs",
            "proxy/",
            "admin/",
            "task.rs",
            "task/join_set.rs",
        ],
    ),
    (6, &["cli/", "main.rs", "lib.rs", "models/"]),
];

/// Modules that do not know of others, though they are on one floor. A worker of the work-stealing mode is a shard, not the
/// other way round.
const UNAWARE: &[(&str, &str)] = &[("shard", "stealing"), ("reactor", "stealing")];

/// Names that only some files may name, as paths from outside the crate, and those files.
const NAMES: &[(&str, &[&str])] = &[
    ("mio", &["park.rs", "reactor/", "net/"]),
    ("socket2", &["sys/"]),
    ("core_affinity", &["sys/"]),
    ("libc", &["sys/"]),
    ("rustix", &["sys/"]),
    ("signal_hook", &["signal.rs"]),
    ("crossbeam_deque", &["sync/"]),
    ("crossbeam_queue", &["sync/"]),
    ("crossbeam_utils", &["sync/"]),
    ("std::sync::atomic", &["sync/"]),
    ("core::sync::atomic", &["sync/"]),
    ("clap", &["cli/", "main.rs"]),
    ("hyper", &["http/", "server/", "services/", "proxy/", "admin/", "cli/", "tls/"]),
    (
        "tokio",
        &[
            "net/",
            "http/",
            "server/secure.rs",
            "stealing/",
            "cli/",
            "tls/",
            "runtime/tokio_context.rs",
        ],
    ),
    ("tokio_rustls", &["tls/"]),
    ("webpki", &["tls/"]),
    ("tower_service", &["server/tower.rs"]),
];

/// Pieces of code that only some files may contain.
const CALLS: &[(&[&str], &[&str])] = &[
    (&["Instant", ":", ":", "now"], &["time/clock.rs", "cli/"]),
    (&["SystemTime", ":", ":", "now"], &["cli/", "config/", "http/", "server/", "services/"]),
    (&["todo", "!"], &[]),
    (&["dbg", "!"], &[]),
    (&["unimplemented", "!"], &[]),
];

/// Files that may contain `unsafe`, and do.
const UNSAFE: &[&str] = &[
    "http/io.rs",
    "mesh/thunk.rs",
    "scoped.rs",
    "sys/bytes.rs",
    "sys/handed.rs",
    "sys/process.rs",
    "sys/send_file.rs",
    "sys/socket.rs",
    "sys/steer.rs",
    "task/cell.rs",
    "task/home.rs",
    "task/join.rs",
    "task/list.rs",
    "task/memory.rs",
    "task/waker.rs",
];

/// Files that are compiled for tests and the model checker only. They keep the floors.
const TESTS: &[&str] = &["models/", "sync/model.rs", "task/tests.rs"];

/// Lines that a file may have without its tests.
const LINES_MAX: usize = 500;

/// Files that have more, and how many at most. They ask to be split; nothing is to be added here.
const LONG: &[(&str, usize)] = &[("task/cell.rs", 570)];

/// A file of the source, by its path below `src`.
struct File {
    path: String,
    text: String,
    /// Without comments, texts and tests.
    code: Vec<String>,
}

impl File {
    fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned(), code: words(before_tests(text)) }
    }

    /// The module's path within the crate; empty for the root.
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        match path {
            "lib" | "main" => Vec::new(),
            _ => path.split('/').map(str::to_owned).collect(),
        }
    }
}

/// The part of a file that is not its tests.
fn before_tests(text: &str) -> &str {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("#[cfg(test)]")
            || line.starts_with("#[cfg(all(test")
            || line.starts_with("#[cfg(any(test")
        {
            return &text[..at];
        }
        at += line.len();
    }
    text
}

/// Identifiers, and every other character that is not space by itself. Comments, texts and characters are left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(length) = text_length(rest) {
            words.push("\"\"".to_owned());
            rest = &rest[length..];
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = &rest[end..];
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

/// The length of the text or character that begins here, if one does.
fn text_length(rest: &str) -> Option<usize> {
    let plain = rest.strip_prefix('b').or_else(|| rest.strip_prefix('c')).unwrap_or(rest);
    let prefix = rest.len() - plain.len();
    if let Some(raw) = plain.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let end = body.find(&close).map_or(body.len(), |end| end + close.len());
            return Some(prefix + 1 + hashes + 1 + end);
        }
    }
    let quote = plain.chars().next().filter(|&c| c == '"' || c == '\'')?;
    if quote == '\'' {
        // A lifetime is no character: it has no quote after its first letter.
        let mut chars = plain[1..].chars();
        let first = chars.next()?;
        if first != '\\' && chars.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    for (at, c) in plain.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Every path that begins at `words[at]`, with groups in braces taken apart; and where it ends.
fn paths_at(words: &[String], at: usize) -> (Vec<Vec<String>>, usize) {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let mut prefix = vec![words[at].clone()];
    let mut next = at + 1;
    while word(next) == ":" && word(next + 1) == ":" {
        next += 2;
        if word(next) == "{" {
            let mut paths = Vec::new();
            next += 1;
            while word(next) != "}" && next < words.len() {
                if is_name(word(next)) || word(next) == "*" {
                    let (inner, end) = paths_at(words, next);
                    let name = |path: Vec<String>| if path == ["self"] { Vec::new() } else { path };
                    paths.extend(
                        inner.into_iter().map(|path| [prefix.clone(), name(path)].concat()),
                    );
                    next = end;
                } else {
                    next += 1;
                }
            }
            return (paths, next + 1);
        }
        if !is_name(word(next)) && word(next) != "*" {
            break;
        }
        prefix.push(word(next).to_owned());
        next += 1;
    }
    // `use x as y`
    if word(next) == "as" {
        next += 2;
    }
    (vec![prefix], next)
}

/// Every path in some code that does not continue another.
fn paths(code: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if !is_name(&code[at]) {
            at += 1;
            continue;
        }
        // After `pub use` and in a `use` group at the top, a brace may come first; its members are found on their own.
        let (found, end) = paths_at(code, at);
        all.extend(found);
        at = end.max(at + 1);
    }
    all
}

/// Where the crate's root names come from: `Handle` is `runtime`'s, for example.
fn root_names(files: &[File]) -> BTreeMap<String, Vec<String>> {
    let exports = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.map(|file| reexports(&file.code)).unwrap_or_default()
    };
    let mut names = BTreeMap::new();
    for path in exports("lib.rs") {
        match path.last().map(String::as_str) {
            Some("*") => {
                let module = &path[..path.len() - 1];
                for inner in exports(&format!("{}.rs", module.join("/"))) {
                    if let Some(name) = inner.last() {
                        names.insert(name.clone(), module.to_vec());
                    }
                }
            }
            Some(name) => {
                names.insert(name.to_owned(), path.clone());
            }
            None => {}
        }
    }
    names
}

/// The paths after every `pub use`.
fn reexports(code: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for at in 0..code.len() {
        if code[at] != "use" || at == 0 || code[at - 1] != "pub" {
            continue;
        }
        let end = code[at..].iter().position(|word| word == ";").map_or(code.len(), |end| at + end);
        all.extend(paths(&code[at + 1..end]));
    }
    all
}

/// What entry of a table a path below `src` belongs to: the longest one.
fn fits(entry: &str, path: &str) -> bool {
    match entry.strip_suffix('/') {
        Some(directory) => path == format!("{directory}.rs") || path.starts_with(entry),
        None => path == entry,
    }
}

fn floor_of(path: &str) -> Option<u8> {
    let entries =
        FLOORS.iter().flat_map(|(floor, entries)| entries.iter().map(move |entry| (floor, entry)));
    let fitting = entries.filter(|(_, entry)| fits(entry, path));
    fitting.max_by_key(|(_, entry)| entry.len()).map(|(floor, _)| *floor)
}

/// The file that a path from the crate's root leads to.
fn target<'a>(path: &[String], files: &BTreeSet<&'a str>) -> Option<&'a str> {
    (1..=path.len()).rev().find_map(|length| {
        let name = format!("{}.rs", path[..length].join("/"));
        files.get(name.as_str()).copied()
    })
}

/// Checks every rule and lists what is wrong.
fn check(files: &[File]) -> Vec<String> {
    let known: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let roots = root_names(files);
    let mut wrong = Vec::new();
    for file in files {
        check_shape(file, &mut wrong);
        check_names(file, &mut wrong);
        check_imports(file, &known, &roots, &mut wrong);
    }
    for allowed in UNSAFE {
        match files.iter().find(|file| file.path == *allowed) {
            Some(file) if file.code.iter().any(|word| word == "unsafe") => {}
            _ => wrong.push(format!("{allowed} may contain unsafe code and contains none")),
        }
    }
    wrong
}

fn check_shape(file: &File, wrong: &mut Vec<String>) {
    let path = &file.path;
    if !file.text.starts_with("//!") && path != "main.rs" {
        wrong.push(format!("{path} does not open with `//!`"));
    }
    let lines = before_tests(&file.text).lines().count();
    let most = LONG.iter().find(|(long, _)| long == path).map_or(LINES_MAX, |(_, most)| *most);
    if lines > most {
        wrong.push(format!("{path} has {lines} lines without its tests"));
    }
    if most > LINES_MAX && lines <= LINES_MAX {
        wrong.push(format!("{path} is not long any more"));
    }
    if is_test(path) {
        return;
    }
    if file.code.iter().any(|word| word == "unsafe") && !UNSAFE.contains(&path.as_str()) {
        wrong.push(format!("{path} must not contain unsafe code"));
    }
    for (call, allowed) in CALLS {
        let found =
            file.code.windows(call.len()).any(|words| words.iter().zip(*call).all(|(a, b)| a == b));
        if found && !allowed.iter().any(|entry| fits(entry, path)) {
            wrong.push(format!("{path} must not contain {}", call.concat()));
        }
    }
}

fn is_test(path: &str) -> bool {
    TESTS.iter().any(|entry| fits(entry, path))
}

fn check_names(file: &File, wrong: &mut Vec<String>) {
    if is_test(&file.path) {
        return;
    }
    let all = paths(&file.code);
    for (name, allowed) in NAMES {
        if allowed.iter().any(|entry| fits(entry, &file.path)) {
            continue;
        }
        let name: Vec<&str> = name.split("::").collect();
        // A name alone is no path: `let tokio = 1` is allowed.
        let named = all.iter().any(|path| {
            path.len() > name.len().max(1) - usize::from(name.len() > 1)
                && path.iter().zip(&name).all(|(a, b)| a == b)
        });
        if named {
            wrong.push(format!("{} must not name {}", file.path, name.join("::")));
        }
    }
}

fn check_imports(
    file: &File,
    known: &BTreeSet<&str>,
    roots: &BTreeMap<String, Vec<String>>,
    wrong: &mut Vec<String>,
) {
    let path = &file.path;
    let Some(own) = floor_of(path) else {
        wrong.push(format!("{path} has no floor"));
        return;
    };
    let module = file.module();
    for import in paths(&file.code) {
        let full = match import[0].as_str() {
            "crate" => import[1..].to_vec(),
            // `pub(super)`
            "super" if import.len() == 1 => continue,
            "super" if !module.is_empty() => {
                let ups =
                    import.iter().take_while(|name| *name == "super").count().min(module.len());
                [module[..module.len() - ups].to_vec(), import[ups..].to_vec()].concat()
            }
            _ => continue,
        };
        let Some(first) = full.first() else { continue };
        // `crate::Handle` is `runtime`'s. A lower-case name may be both a module and a function: the module counts.
        let full =
            if target(&full, known).is_some() { &full } else { roots.get(first).unwrap_or(&full) };
        let Some(there) = target(full, known) else { continue };
        let Some(floor) = floor_of(there) else { continue };
        if floor > own {
            wrong.push(format!("{path} (floor {own}) imports {} (floor {floor})", full.join("::")));
        }
        for (this, that) in UNAWARE {
            if fits(&format!("{this}/"), path) && fits(&format!("{that}/"), there) {
                wrong.push(format!("{path} imports {}: {this} knows no {that}", full.join("::")));
            }
        }
    }
}

/// Every file below `src`.
fn source() -> Vec<File> {
    fn read(directory: &Path, root: &Path, files: &mut Vec<File>) {
        let mut entries: Vec<_> = fs::read_dir(directory)
            .expect("src")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                read(&path, root, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below src").to_str().expect("a name");
                let text = fs::read_to_string(&path).expect("text");
                files.push(File::new(name, &text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    read(&root, &root, &mut files);
    files
}

#[test]
fn the_source_keeps_the_house_rules() {
    let files = source();
    assert!(files.len() > 40, "the source has been found");
    let wrong = check(&files);
    assert!(wrong.is_empty(), "{} rules are broken:\n{}", wrong.len(), wrong.join("\n"));
}

/// A made-up source: the files that must contain unsafe code, and these.
fn made_up(files: &[(&str, &str)]) -> Vec<String> {
    let mut all: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
    for path in UNSAFE {
        if !files.iter().any(|(given, _)| given == path) {
            let long = LONG.iter().any(|(long, _)| long == path);
            let lines = "\n".repeat(if long { LINES_MAX } else { 0 });
            all.push(File::new(
                path,
                &format!("//! It does.{lines}\nfn f() {{ unsafe {{ g() }} }}"),
            ));
        }
    }
    check(&all)
}

#[test]
fn a_clean_file_has_nothing_wrong() {
    let wrong = made_up(&[
        (
            "shard.rs",
            "//! A shard.\nuse crate::id::ShardId;\nuse crate::task::{cell, home::Home};\nfn f<'a>(a: &'a str) -> char { 'x' }\n",
        ),
        ("id.rs", "//! Names.\nuse std::fmt;\n"),
        ("task.rs", "//! The facade, on a higher floor.\n"),
        ("task/state.rs", "//! S.\npub(super) fn f() {}\n"),
    ]);
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_found() {
    const OTHERS: &[(&str, &str)] = &[
        ("runtime.rs", "//! R.\npub use spawn::{spawn_local, yield_now};\n"),
        ("runtime/spawn.rs", "//! S.\n"),
        (
            "lib.rs",
            "//! L.\npub use id::{ShardId};\n#[cfg(not(loom))]\npub use {blocking::spawn_blocking, runtime::*};\n",
        ),
        ("blocking.rs", "//! B.\n"),
        ("stealing/worker.rs", "//! W.\n"),
        ("shard/turn.rs", "//! T.\n"),
        ("net/tcp.rs", "//! T.\n"),
        ("reactor/engine.rs", "//! E.\n"),
    ];
    let long = format!("//! Long.\n{}", "\n".repeat(500));
    for (path, text, expected) in [
        ("id.rs", "use std::fmt;\n", "id.rs does not open with `//!`"),
        ("id.rs", long.as_str(), "id.rs has 501 lines without its tests"),
        (
            "shard.rs",
            "//! S.\nuse crate::net::tcp::TcpStream;\n",
            "shard.rs (floor 3) imports net::tcp::TcpStream (floor 4)",
        ),
        (
            "shard.rs",
            "//! S.\nuse crate::{id, net::{self, tcp}};\n",
            "shard.rs (floor 3) imports net::tcp (floor 4)",
        ),
        (
            "http/executor.rs",
            "//! E.\nfn f() { crate::spawn_local(g()) }\n",
            "http/executor.rs (floor 4) imports runtime (floor 5)",
        ),
        (
            "shard.rs",
            "//! S.\nfn f() { drop(crate::net::tcp::x()) }\n",
            "shard.rs (floor 3) imports net::tcp::x (floor 4)",
        ),
        (
            "reactor/slots.rs",
            "//! S.\nuse super::engine::Reactor;\n",
            "reactor/slots.rs (floor 1) imports reactor::engine::Reactor (floor 3)",
        ),
        (
            "shard.rs",
            "//! S.\nuse crate::stealing::worker;\n",
            "shard.rs imports stealing::worker: shard knows no stealing",
        ),
        (
            "reactor/engine.rs",
            "//! E.\nuse crate::stealing::worker;\n",
            "reactor/engine.rs imports stealing::worker: reactor knows no stealing",
        ),
        ("nowhere.rs", "//! N.\n", "nowhere.rs has no floor"),
        ("shard.rs", "//! S.\nuse mio::Token;\n", "shard.rs must not name mio"),
        (
            "shard.rs",
            "//! S.\nuse std::sync::{Arc, atomic::AtomicU32};\n",
            "shard.rs must not name std::sync::atomic",
        ),
        (
            "shard.rs",
            "//! S.\nfn f() -> std::sync::atomic::AtomicU32 { g() }\n",
            "shard.rs must not name std::sync::atomic",
        ),
        ("shard.rs", "//! S.\nfn f() { libc::getpid(); }\n", "shard.rs must not name libc"),
        (
            "park.rs",
            "//! P.\nuse crossbeam_queue::SegQueue;\n",
            "park.rs must not name crossbeam_queue",
        ),
        ("server.rs", "//! S.\nuse clap::Parser;\n", "server.rs must not name clap"),
        (
            "shard.rs",
            "//! S.\nfn f() { std::time::Instant::now(); }\n",
            "shard.rs must not contain Instant::now",
        ),
        (
            "shard.rs",
            "//! S.\nfn f() { unsafe { g() } }\n",
            "shard.rs must not contain unsafe code",
        ),
        ("shard.rs", "//! S.\nfn f() { todo!() }\n", "shard.rs must not contain todo!"),
        ("shard.rs", "//! S.\nfn f() { dbg!(1); }\n", "shard.rs must not contain dbg!"),
        (
            "task/cell.rs",
            "//! C.\nfn f() { unsafe { g() } }\n",
            "task/cell.rs is not long any more",
        ),
        (
            "task/cell.rs",
            "//! C.\n#![allow(unsafe_code)]\n// unsafe\n",
            "task/cell.rs may contain unsafe code and contains none",
        ),
    ] {
        let others = OTHERS.iter().copied().filter(|(other, _)| *other != path);
        let files: Vec<_> = others.chain([(path, text)]).collect();
        assert!(
            made_up(&files).iter().any(|wrong| wrong == expected),
            "{expected}: {:#?}",
            made_up(&files)
        );
    }
}

#[test]
fn what_only_looks_like_a_broken_rule_is_none() {
    let text = r##"//! It says `unsafe`, `todo!()` and `crate::net::tcp`.
// use mio::Token; unsafe { dbg!(1) }
/* Instant::now() */
const TEXT: &str = "unsafe { todo!() } use mio::Token; crate::net::tcp::x \" // ";
const RAW: &str = r#"unsafe " dbg!() "#;
const BYTES: &[u8] = b"unsafe";
fn f<'unsafe_>(x: &'unsafe_ str, mio: u8) -> [char; 3] { ['"', '\'', '\\'] }
fn unsafe_looking() { let tokio = 1; let instant = super::now; }
#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    fn f() { unsafe { todo!() } crate::net::tcp::x(); std::time::Instant::now(); }
}
"##;
    let wrong = made_up(&[("shard.rs", text), ("net/tcp.rs", "//! T.\n")]);
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn paths_are_taken_apart() {
    let all = |text: &str| {
        let paths = paths(&words(text));
        paths
            .into_iter()
            .filter(|path| path.len() > 1)
            .map(|path| path.join("::"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        all("use crate::a::{b, c::{self, d as e}, f::*};"),
        ["crate::a::b", "crate::a::c", "crate::a::c::d", "crate::a::f::*"]
    );
    assert_eq!(all("let x = crate::a::b::<u8>(super::c);"), ["crate::a::b", "super::c"]);
    assert_eq!(all("pub(crate) use {a::b, c::d};"), ["a::b", "c::d"]);
    assert!(all("\"crate::a::b\" // crate::c::d").is_empty());
}
