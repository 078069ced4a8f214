//! What the contenders are made of: the versions of the packages that this program was built with.
//!
//! They are read from the `Cargo.lock` that lay beside the source when it was compiled. Of programs that are not ours nothing is
//! known.

use super::bench::Source;

const LOCK: &str = include_str!("../../../Cargo.lock");

/// What is said where nothing is known.
const UNKNOWN: &str = "unknown";

/// What a contender is made of: "Tokio 1.54.0, hyper 1.12.0".
pub(super) fn made_of(source: &Source) -> String {
    let Source::Own(name) = source else { return UNKNOWN.to_owned() };
    let packages: &[&str] = match name.as_str() {
        "thread-per-core" | "work-stealing" => &["corelane", "mio", "hyper"],
        "tokio" | "tokio-per-core" => &["tokio", "mio", "hyper", "hyper-util"],
        _ => &["corelane", "httparse"],
    };
    let each = packages
        .iter()
        .map(|package| format!("{package} {}", version(LOCK, package).unwrap_or(UNKNOWN)));
    each.collect::<Vec<_>>().join(", ")
}

/// The version of a package in a lock file.
fn version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let wanted = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != wanted);
    lines.next()?;
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::run::OURS;
    use super::*;

    #[test]
    fn versions_are_read_from_the_lock() {
        let lock = "[[package]]\nname = \"tokio-util\"\nversion = \"9\"\n\n[[package]]\nname = \"tokio\"\nversion = \"1.2.3\"\n";
        assert_eq!(version(lock, "tokio"), Some("1.2.3"));
        assert_eq!(version(lock, "hyper"), None);
        assert_eq!(version(LOCK, "corelane"), Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn of_ours_everything_is_known_and_of_others_nothing() {
        for (name, _) in OURS {
            let made_of = made_of(&Source::Own(name.to_owned()));
            assert!(!made_of.contains(UNKNOWN), "{name}: {made_of}");
        }
        assert_eq!(made_of(&Source::Command(Vec::new())), UNKNOWN);
    }
}
