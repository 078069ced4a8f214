//! From the path of a request to the name of a file.
//!
//! Plain data. That a name leads to nothing outside a directory is the kernel's business (`sys/directory`); what is refused here is
//! what two programs may understand differently.

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no name that a client sends which means well.
    Bad,
    /// It is the name of something that is not shown.
    Hidden,
}

/// The one name with a dot at its beginning that is for everybody (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// The name that a path stands for, with its percent-encoding taken off. It is empty, or ends with a slash, if it is that of a
/// directory, and otherwise every part of it is a name.
pub(super) fn parse(path: &str, dotfiles: bool) -> Result<Vec<u8>, Refusal> {
    let mut name = Vec::with_capacity(path.len() + 16);
    let mut parts = path.split('/').peekable();
    let mut first = true;
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        if part.is_empty() {
            // `a//b` would be another name of `a/b`.
            return if is_last { Ok(name) } else { Err(Refusal::Hidden) };
        }
        let from = name.len();
        decode(part, &mut name)?;
        match &name[from..] {
            b"." | b".." => return Err(Refusal::Bad),
            [b'.', ..] if !(dotfiles || first && name[from..] == *WELL_KNOWN) => {
                return Err(Refusal::Hidden);
            }
            _ => {}
        }
        first = false;
        if !is_last {
            name.push(b'/');
        }
    }
    Ok(name)
}

fn decode(part: &str, name: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let digits = [bytes.next(), bytes.next()].map(|digit| hex(digit?));
            let [Some(high), Some(low)] = digits else { return Err(Refusal::Bad) };
            high << 4 | low
        } else {
            byte
        };
        if matches!(byte, 0 | b'/' | b'\\') {
            return Err(Refusal::Bad);
        }
        name.push(byte);
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_become_names_once_decoded() {
        for (path, name) in [
            ("", ""),
            ("a", "a"),
            ("a/b.html", "a/b.html"),
            ("a/", "a/"),
            ("a%20b%25", "a b%"),
            ("%c3%A4", "ä"),
            ("%252e%252e/x", "%2e%2e/x"),
            (".well-known/x", ".well-known/x"),
            ("...", "..."),
        ] {
            assert_eq!(parse(path, true), Ok(name.as_bytes().to_vec()), "{path}");
        }
    }

    #[test]
    fn what_is_no_name_or_hidden_is_told_apart() {
        for path in [
            "..", "../x", "a/../b", ".", "a/.", "%2e%2e/x", ".%2E", "a%2fb", "a%2Fb", "a\\b",
            "a%5cb", "a%00", "%", "a%2", "%zz", "%+1",
        ] {
            assert_eq!(parse(path, true), Err(Refusal::Bad), "{path}");
        }
        for path in [
            ".git/config",
            "a/.b",
            "%2egit",
            "a//b",
            "/a",
            "//",
            "a/.well-known/x",
            ".well-known-not",
        ] {
            assert_eq!(parse(path, false), Err(Refusal::Hidden), "{path}");
        }
        assert_eq!(parse("a//b", true), Err(Refusal::Hidden));
    }

    proptest! {
        #[test]
        fn no_name_has_a_part_that_is_none(path in r"[a./%25eEfF0\\]{0,24}", dotfiles: bool) {
            let Ok(name) = parse(&path, dotfiles) else { return Ok(()) };
            prop_assert!(!name.starts_with(b"/") && !name.contains(&0) && !name.contains(&b'\\'));
            let whole = name.strip_suffix(b"/").unwrap_or(&name);
            if !name.is_empty() {
                for part in whole.split(|byte| *byte == b'/') {
                    prop_assert!(!part.is_empty() && part != b"." && part != b"..", "{:?}", name);
                }
            }
        }
    }
}
