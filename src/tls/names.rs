//! Which certificate a client gets: by the name that it asks for (SNI), from the names that the certificates have.
//!
//! Made once when the files are read, and only read after that, by all shards at once. [`Names`] is plain data; [`ByName`] gives
//! it to rustls.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// Finds certificates, which are numbered in the order in which they were given, by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By name in lower case. A wildcard is under what follows its star: `*.example.com` under `.example.com`.
    by_name: HashMap<String, Vec<usize>>,
    /// The first, and those that have all its names: the same for other kinds of keys.
    default: Vec<usize>,
}

impl Names {
    pub(super) fn new<'a>(certificates: impl IntoIterator<Item = &'a [String]>) -> Names {
        let mut names = Names::default();
        let mut first: Option<&[String]> = None;
        for (number, of_this) in certificates.into_iter().enumerate() {
            let first = *first.get_or_insert(of_this);
            if number == 0 || !first.is_empty() && first.iter().all(|name| of_this.contains(name)) {
                names.default.push(number);
            }
            for name in of_this {
                let key = name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase();
                let numbers = names.by_name.entry(key).or_default();
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        names
    }

    /// The certificates for a client that asks for this name, best first; those of the default if none has it.
    ///
    /// A name itself comes before a wildcard, and a wildcard stands for exactly one label (RFC 6125, 6.4.3).
    pub(super) fn find(&self, name: Option<&str>) -> impl Iterator<Item = usize> + Clone {
        // "example.com." is the same name, written out to the root.
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let under = |key: &str| self.by_name.get(key).map_or(&[][..], Vec::as_slice);
        let exact = name.as_deref().map_or(&[][..], under);
        let parent = name.as_deref().and_then(|name| Some(&name[name.find('.')?..]));
        let wildcard = parent.map_or(&[][..], under);
        let none = exact.is_empty() && wildcard.is_empty();
        let default = if none { self.default.as_slice() } else { &[] };
        exact.iter().chain(wildcard).chain(default).copied()
    }
}

/// The certificates with their keys, for rustls.
pub(super) struct ByName {
    pub(super) names: Names,
    pub(super) keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.names.find(hello.server_name());
        let mut keys = found.filter_map(|number| self.keys.get(number));
        let first = keys.clone().next();
        // A client that cannot verify ECDSA gets the RSA certificate of the same name. If none suits, rustls says so.
        let suits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.find(suits).or(first).cloned()
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(certificates: &[&[&str]]) -> Names {
        let owned: Vec<Vec<String>> = certificates
            .iter()
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
            .collect();
        Names::new(owned.iter().map(Vec::as_slice))
    }

    fn found(names: &Names, name: &str) -> Vec<usize> {
        names.find(Some(name)).collect()
    }

    #[test]
    fn a_name_comes_before_a_wildcard_and_a_wildcard_before_the_default() {
        let names = names(&[&["first.example"], &["*.b.example"], &["A.b.example", "b.example"]]);
        assert_eq!(found(&names, "a.B.example"), [2, 1]);
        assert_eq!(found(&names, "c.b.example"), [1]);
        assert_eq!(found(&names, "b.example"), [2]);
        assert_eq!(found(&names, "b.example."), [2]);
        assert_eq!(found(&names, "c.c.b.example"), [0]);
        assert_eq!(found(&names, "example"), [0]);
        assert_eq!(names.find(None).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn certificates_with_the_names_of_the_first_are_the_default_too() {
        let names = names(&[&["a.example"], &["b.example"], &["b.example", "a.example"], &[]]);
        assert_eq!(names.find(None).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(found(&names, "a.example"), [0, 2]);
    }

    #[test]
    fn a_default_without_names_has_no_others_beside_it() {
        let names = names(&[&[], &["b.example"]]);
        assert_eq!(found(&names, "c.example"), [0]);
    }

    #[test]
    fn without_certificates_nothing_is_found() {
        assert_eq!(names(&[]).find(Some("a")).count(), 0);
    }

    /// A name of few labels, so that they meet.
    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]", 1..4).prop_map(|labels| labels.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        (any::<bool>(), name())
            .prop_map(|(wild, name)| if wild { format!("*.{name}") } else { name })
    }

    proptest! {
        #[test]
        fn who_is_found_is_who_has_the_name(
            certificates in proptest::collection::vec(proptest::collection::vec(pattern(), 0..4), 1..5),
            asked in name(),
        ) {
            let names = Names::new(certificates.iter().map(Vec::as_slice));
            let with = |pattern: &str| -> Vec<usize> {
                let has = |names: &Vec<String>| names.iter().any(|name| name == pattern);
                (0..certificates.len()).filter(|number| has(&certificates[*number])).collect()
            };
            let wild = asked.split_once('.').map(|(_, parent)| with(&format!("*.{parent}")));
            let expected = [with(&asked), wild.unwrap_or_default()].concat();
            let found = found(&names, &asked);
            if expected.is_empty() {
                prop_assert_eq!(found.first(), Some(&0));
            } else {
                prop_assert_eq!(found, expected);
            }
        }
    }
}
