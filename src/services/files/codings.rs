//! Which compressed form of a file a client prefers (RFC 9110, 12.5.3).
//!
//! Plain data.

use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// A content coding that a file may be there in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Zstandard,
    Gzip,
}

/// Of those that a client likes as much, the smaller files first.
const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstandard, Coding::Gzip];

impl Coding {
    /// As the standard calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstandard => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What is behind the name of such a file.
    pub(super) fn end(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstandard => ".zst",
            Coding::Gzip => ".gz",
        }
    }

    /// Its number, and whether a client means it by this name.
    fn is_meant_by(self, name: &str) -> bool {
        // RFC 9110, 8.4.1.3.
        name.eq_ignore_ascii_case(self.name())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// What is said of each coding, of the file as it is, and of the rest: thousandths of a quality.
#[derive(Default)]
struct Said {
    codings: [Option<u32>; CODINGS.len()],
    identity: Option<u32>,
    others: Option<u32>,
}

/// The codings that a client takes at least as gladly as the file as it is, the best first.
pub(super) fn preferred(headers: &HeaderMap) -> Vec<Coding> {
    let mut said = Said::default();
    let fields = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok());
    for item in fields.flat_map(|field| field.split(',')) {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let (name, Some(quality)) = (name.trim(), quality(weight)) else { continue };
        match CODINGS.iter().position(|coding| coding.is_meant_by(name)) {
            Some(number) => said.codings[number] = Some(quality),
            None if name == "*" => said.others = Some(quality),
            None if name.eq_ignore_ascii_case("identity") => said.identity = Some(quality),
            None => {}
        }
    }
    let quality = |number: usize| said.codings[number].or(said.others).unwrap_or(0);
    // What is not mentioned is taken, but as the last resort if something else was.
    let identity = said.identity.or(said.others).unwrap_or(0);
    let mut numbers: Vec<usize> = (0..CODINGS.len())
        .filter(|number| quality(*number) > 0 && quality(*number) >= identity)
        .collect();
    numbers.sort_by_key(|number| std::cmp::Reverse(quality(*number)));
    numbers.into_iter().map(|number| CODINGS[number]).collect()
}

/// Thousandths, of `q=0.5` or of nothing. None: it is neither.
fn quality(weight: &str) -> Option<u32> {
    let weight = weight.trim();
    if weight.is_empty() {
        return Some(1000);
    }
    let (name, value) = weight.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value = value.trim();
    let (whole, rest) = value.split_once('.').unwrap_or((value, ""));
    if rest.len() > 3 || !rest.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let rest: u32 = format!("{rest:0<3}").parse().ok()?;
    match (whole, rest) {
        ("0", rest) => Some(rest),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_go_by_what_the_client_says() {
        let cases = [
            (None, ""),
            (Some(""), ""),
            (Some("gzip"), "gzip"),
            (Some("gzip, deflate, br, zstd"), "br zstd gzip"),
            (Some("GZIP;q=1.0, br;q=0.5"), "gzip br"),
            (Some("br;q=0, gzip"), "gzip"),
            (Some("*"), "br zstd gzip"),
            (Some("*;q=0"), ""),
            (Some("*;q=0.1, br;q=0"), "zstd gzip"),
            (Some("identity, gzip;q=0.5"), ""),
            (Some("identity;q=0.5, gzip;q=0.5"), "gzip"),
            (Some("identity;q=0, gzip;q=0.001"), "gzip"),
            (Some("x-gzip"), "gzip"),
            (Some("gzip;q=1.001"), ""),
            (Some("gzip;q=0.1234, br;q=x, zstd;level=3"), ""),
            (Some("br ; q=0.3 , gzip ; Q=0.9"), "gzip br"),
        ];
        for (field, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(field) = field {
                headers.insert(ACCEPT_ENCODING, field.parse().expect("a value"));
            }
            let names: Vec<_> = preferred(&headers).into_iter().map(Coding::name).collect();
            assert_eq!(names.join(" "), expected, "{field:?}");
        }
    }
}
