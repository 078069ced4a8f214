//! The table of raw requests in tests/http1, read. Its README says how a case is written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One case: what is sent, and what must come of it.
#[derive(Debug, Default)]
pub(super) struct Case {
    /// The file that it stands in, without its ending.
    pub(super) theme: String,
    pub(super) name: String,
    pub(super) section: String,
    /// Everything that is sent.
    pub(super) raw: Vec<u8>,
    /// What happens before the byte at this place is sent, in order.
    pub(super) pauses: Vec<(usize, Pause)>,
    /// Where requests end that are accepted.
    pub(super) ends: Vec<usize>,
    pub(super) expected: Outcome,
    /// Why what is expected does not happen yet, and what does.
    pub(super) known: Option<(String, Outcome)>,
    /// The first bodies of the answers.
    pub(super) saw: Vec<String>,
    /// How it is cut on the way decides what happens: it is sent in one write only.
    pub(super) only_whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// An interim answer is awaited.
    Interim(u16),
    /// The client says that it has no more to send.
    Shut,
}

/// What comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) statuses: Vec<u16>,
    pub(super) after: After,
}

/// What becomes of the connection after the last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum After {
    /// It answers another request.
    #[default]
    Open,
    Close,
    /// One or the other, but nothing else.
    Either,
    /// It is no longer HTTP: what follows comes back as it is.
    Tunnel,
}

impl Case {
    /// The method of a request, by its place: what an answer to it may have depends on that.
    pub(super) fn method(&self, number: usize) -> &[u8] {
        let from = number.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        let rest = self.raw[from.unwrap_or(0)..].trim_ascii_start();
        &rest[..rest.iter().position(|&byte| byte == b' ').unwrap_or(0)]
    }
}

/// Every case of the table.
pub(super) fn read() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http1");
    let entries = fs::read_dir(&directory).expect("the table");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "cases"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let theme = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("UTF-8");
        cases.extend(parse(&theme, &text));
    }
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases are named {}", case.name);
    }
    cases
}

/// The cases of one file.
///
/// # Panics
/// A line says nothing that is known, or a case lacks something.
fn parse(theme: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let (theme, name) = (theme.to_owned(), name.to_owned());
            cases.push(Case { theme, name, ..Case::default() });
            continue;
        }
        let taken = cases.last_mut().is_some_and(|case| take(case, line).is_some());
        assert!(taken, "{theme}.cases:{}: not understood: {line}", number + 1);
    }
    for case in &cases {
        assert!(!case.section.is_empty(), "{} does not say what section it is of", case.name);
        let outcome = &case.expected;
        assert!(
            !outcome.statuses.is_empty() || outcome.after == After::Close,
            "{} does not say what is expected",
            case.name
        );
    }
    cases
}

/// Takes a line into its case. None: it has no meaning.
fn take(case: &mut Case, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "rfc" => case.section = rest.to_owned(),
        // For readers, and for those who compare parsers.
        "note" | "differs" => {}
        ">" => {
            case.raw.extend(unescape(rest)?);
            case.raw.extend(b"\r\n");
        }
        "+" => case.raw.extend(unescape(rest)?),
        "*" => {
            let (times, text) = rest.split_once(' ')?;
            case.raw.extend(unescape(text)?.repeat(times.parse().ok()?));
        }
        "*." => {
            let (times, text) = rest.split_once(' ')?;
            for _ in 0..times.parse().ok()? {
                case.raw.extend(unescape(text)?);
                case.ends.push(case.raw.len());
            }
        }
        "." => case.ends.push(case.raw.len()),
        "?" => case.pauses.push((case.raw.len(), Pause::Interim(rest.parse().ok()?))),
        "shut" => case.pauses.push((case.raw.len(), Pause::Shut)),
        "=" => case.expected = outcome(rest)?,
        "known" => case.known = Some((rest.to_owned(), Outcome::default())),
        "-" => case.known.as_mut()?.1 = outcome(rest)?,
        "saw" => case.saw.push(rest.to_owned()),
        "only" if rest == "whole" => case.only_whole = true,
        _ => return None,
    }
    Some(())
}

/// `200 400 close`, `200*3 open`, `close`.
fn outcome(text: &str) -> Option<Outcome> {
    let mut words: Vec<&str> = text.split(' ').collect();
    let after = match words.pop()? {
        "open" => After::Open,
        "close" => After::Close,
        "either" => After::Either,
        "tunnel" => After::Tunnel,
        _ => return None,
    };
    let mut statuses = Vec::new();
    for word in words {
        let (status, times) = word.split_once('*').unwrap_or((word, "1"));
        let times = times.parse().ok()?;
        statuses.extend(std::iter::repeat_n(status.parse::<u16>().ok()?, times));
    }
    Some(Outcome { statuses, after })
}

/// `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => b'\0',
                b'\\' => b'\\',
                b'x' => {
                    let mut digit = || char::from(rest.next()?).to_digit(16);
                    u8::try_from(digit()? * 16 + digit()?).ok()?
                }
                _ => return None,
            },
        });
    }
    Some(bytes)
}

#[test]
fn a_case_is_read_as_it_is_written() {
    let text = "# why\n\n[one]\nrfc 9112 3\n> GET / HTTP/1.1\n+ a\\x20\\0\n* 3 x\\r\n.\n? 100\n*. 2 y\n\
                shut\n= 200*2 400 close\nknown not so\n- 200 open\nsaw hello\nonly whole\n";
    let case = parse("t", text).remove(0);
    assert_eq!(case.raw, b"GET / HTTP/1.1\r\na \0x\rx\rx\ryy");
    assert_eq!(case.ends, [25, 26, 27]);
    assert_eq!(case.pauses, [(25, Pause::Interim(100)), (27, Pause::Shut)]);
    assert_eq!(case.expected, Outcome { statuses: vec![200, 200, 400], after: After::Close });
    let (reason, outcome) = case.known.expect("known");
    assert_eq!(
        (reason.as_str(), outcome.statuses, outcome.after),
        ("not so", vec![200], After::Open)
    );
    assert_eq!((case.saw, case.only_whole), (vec!["hello".to_owned()], true));
}

#[test]
#[should_panic(expected = "t.cases:2: not understood: + \\q")]
fn a_line_without_a_meaning_is_named() {
    parse("t", "[one]\n+ \\q\n");
}
