//! Which bytes of a file a request asks for (RFC 9110, 14).
//!
//! Plain data.

use std::ops::Range;

/// What a `Range` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It means nothing here: everything is sent.
    Everything,
    /// These bytes, in the order in which they were asked for; one at least.
    Parts(Vec<Range<u64>>),
    /// None that there are; or more parts, or others, than anybody needs (RFC 9110, 14.2 and 15.5.17).
    Nothing,
}

/// Parts that one request may ask for. Programs that show a document page by page ask for tens.
pub(super) const PARTS_MAX: usize = 64;

/// Parts that overlap are refused: what they are good for is to have a server send more than it has.
pub(super) fn parse(field: &str, size: u64) -> Asked {
    let Some((unit, set)) = field.split_once('=') else { return Asked::Everything };
    if !unit.trim_matches(SPACE).eq_ignore_ascii_case("bytes") {
        return Asked::Everything;
    }
    let specs = set.split(',').map(|spec| spec.trim_matches(SPACE)).filter(|spec| !spec.is_empty());
    let (mut parts, mut count) = (Vec::new(), 0);
    for spec in specs {
        count += 1;
        let Some(part) = part(spec, size) else { return Asked::Everything };
        if count <= PARTS_MAX && !part.is_empty() {
            parts.push(part);
        }
    }
    match count {
        0 => Asked::Everything,
        _ if count > PARTS_MAX || parts.is_empty() || overlap(&parts) => Asked::Nothing,
        _ => Asked::Parts(parts),
    }
}

const SPACE: [char; 2] = [' ', '\t'];

/// The bytes that one part names; empty if there are none. None: it is malformed.
fn part(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let from = size.saturating_sub(number(last)?);
        return Some(from..size);
    }
    let first = number(first)?;
    let end = match last {
        "" => size,
        last => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        }
    };
    Some(first.min(end)..end)
}

/// However large: what is beyond every file is beyond this one.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn overlap(parts: &[Range<u64>]) -> bool {
    let mut sorted: Vec<&Range<u64>> = parts.iter().collect();
    sorted.sort_by_key(|part| part.start);
    sorted.windows(2).any(|pair| pair[0].end > pair[1].start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn parts_are_read_as_the_standard_says() {
        let parts = |parts: &[Range<u64>]| Asked::Parts(parts.to_vec());
        let cases = [
            ("bytes=0-0", parts(&[0..1])),
            ("bytes=0-", parts(&[0..10])),
            ("bytes=3-5", parts(&[3..6])),
            ("bytes=3-99", parts(&[3..10])),
            ("bytes=3-99999999999999999999999", parts(&[3..10])),
            ("bytes=-3", parts(&[7..10])),
            ("bytes=-99", parts(&[0..10])),
            ("Bytes = 0-1 , 4-5", parts(&[0..2, 4..6])),
            ("bytes=,,4-5,,0-1,", parts(&[4..6, 0..2])),
            ("bytes=0-1,20-30", parts(&[0..2])),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=0-4,4-5", Asked::Nothing),
            ("bytes=0-,0-", Asked::Nothing),
            ("bytes=", Asked::Everything),
            ("bytes", Asked::Everything),
            ("bytes=a-b", Asked::Everything),
            ("bytes=5-3", Asked::Everything),
            ("bytes=0-1,x", Asked::Everything),
            ("bytes=--1", Asked::Everything),
            ("bytes=+1-2", Asked::Everything),
            ("bytes=1", Asked::Everything),
            ("lines=0-1", Asked::Everything),
        ];
        for (field, asked) in cases {
            assert_eq!(parse(field, 10), asked, "{field}");
        }
        for field in ["bytes=0-", "bytes=-5"] {
            assert_eq!(parse(field, 0), Asked::Nothing, "{field} of nothing");
        }
        let many = |count: usize| {
            let parts: Vec<String> =
                (0..count).map(|number| format!("{0}-{0}", number * 2)).collect();
            parse(&format!("bytes={}", parts.join(",")), 1000)
        };
        assert!(matches!(many(PARTS_MAX), Asked::Parts(parts) if parts.len() == PARTS_MAX));
        assert_eq!(many(PARTS_MAX + 1), Asked::Nothing);
    }

    proptest! {
        #[test]
        fn parts_are_never_more_than_there_is(field in "(bytes=)?[0-9, -]{0,30}", size in 0..50u64) {
            if let Asked::Parts(parts) = parse(&field, size) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
                prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= size);
            }
        }
    }
}
