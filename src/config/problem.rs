//! What is wrong with a configuration, and how that is shown: where, the line, what was expected, what may have been meant.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One thing that is wrong, or unwise, with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    /// The key whose value it is about.
    pub(crate) key: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// Where something stands that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In these bytes of the file.
    File(Range<usize>),
    /// In a flag, a variable or a setting of this name.
    Named(String),
    /// It is about the whole.
    Nowhere,
}

impl Place {
    /// Where in the file; 0 if it is not there.
    pub(crate) fn start(&self) -> usize {
        match self {
            Place::File(span) => span.start,
            _ => 0,
        }
    }
}

impl Problem {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Problem {
        Problem { place, key: None, message: message.into(), hint: None }
    }

    /// About the value of a key.
    pub(crate) fn of(mut self, key: &'static str) -> Problem {
        self.key = Some(key);
        self
    }

    /// With advice.
    pub(crate) fn hint(mut self, hint: impl Into<Option<String>>) -> Problem {
        self.hint = hint.into();
        self
    }
}

/// What a configuration was read from: a name for messages, and the text that they show lines of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file's name; empty if there is no file.
    pub(crate) name: String,
    pub(crate) text: String,
    /// Where relative names of files in it begin; empty: at the working directory.
    pub(crate) directory: PathBuf,
}

impl Source {
    /// Line and column, from 1, of a byte. Columns are characters.
    pub(crate) fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(byte)];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    fn show(&self, problem: &Problem, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { place, key, message, hint } = problem;
        let of_key = key.map(|key| format!("{key}: ")).unwrap_or_default();
        match place {
            Place::File(span) => self.show_place(span, &format!("{of_key}{message}"), f)?,
            Place::Named(name) => write!(f, "{name}: {message}")?,
            Place::Nowhere if self.name.is_empty() => write!(f, "{of_key}{message}")?,
            Place::Nowhere => write!(f, "{}: {of_key}{message}", self.name)?,
        }
        match hint {
            Some(hint) => write!(f, "\n  = {hint}"),
            None => Ok(()),
        }
    }

    fn show_place(
        &self,
        span: &Range<usize>,
        message: &str,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let (line, column) = self.position(span.start);
        let name = if self.name.is_empty() { "config" } else { &self.name };
        writeln!(f, "{name}:{line}:{column}: {message}")?;
        let Excerpt { text, from, length } = self.excerpt(span);
        let number = line.to_string();
        writeln!(f, "  {number} | {text}")?;
        write!(f, "  {:width$} | {:from$}{}", "", "", "^".repeat(length), width = number.len())
    }

    /// The line that the span begins on, cut around it if it is long.
    fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        /// Characters before the span, and from its beginning on, that are shown.
        const BEFORE: usize = 60;
        const AFTER: usize = 60;
        let start = self.text.floor_char_boundary(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end =
            self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let end = self.text.floor_char_boundary(span.end).clamp(start, line_end);
        let before: Vec<char> = self.text[line_start..start].chars().collect();
        let from = before.len().saturating_sub(BEFORE);
        let cut_before = if from > 0 { "..." } else { "" };
        let after = self.text[start..line_end].trim_end_matches('\r');
        let cut_after = if after.chars().count() > AFTER { "..." } else { "" };
        // Whatever would move the cursor would move the mark off its place.
        let plain = |character: char| if character.is_control() { ' ' } else { character };
        let shown = before[from..].iter().copied().chain(after.chars().take(AFTER)).map(plain);
        let text = format!("{cut_before}{}{cut_after}", shown.collect::<String>());
        let length = self.text[start..end].chars().count().clamp(1, AFTER);
        Excerpt { text, from: cut_before.len() + before.len() - from, length }
    }
}

/// A line as it is shown, and where the mark under it goes, in characters.
struct Excerpt {
    text: String,
    from: usize,
    length: usize,
}

/// What is wrong with a configuration: everything that could be found out, in the order of the file.
///
/// Its text has for each the file, line and column, what was expected, the line itself, and what may have been meant:
///
/// ```
/// let error = corelane::Config::from_toml_str("[shard]\npolls_per_tern = 10\n").unwrap_err();
/// assert_eq!(error.to_string(), "\
/// config:2:1: there is no key `polls_per_tern` in [shard]
///   2 | polls_per_tern = 10
///     | ^^^^^^^^^^^^^^
///   = did you mean `polls_per_turn`?");
/// assert_eq!(error.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    source: Source,
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(source: Source, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| problem.place.start());
        ConfigError { source, problems }
    }

    /// How many things are wrong; never 0.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Problems that are shown: a file of another kind altogether has thousands.
        const SHOWN: usize = 50;
        for (number, problem) in self.problems.iter().take(SHOWN).enumerate() {
            f.write_str(if number == 0 { "" } else { "\n" })?;
            self.source.show(problem, f)?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A warning as a text of its own.
pub(crate) fn warning(source: &Source, problem: &Problem) -> String {
    struct Shown<'a>(&'a Source, &'a Problem);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.show(self.1, f)
        }
    }
    Shown(source, problem).to_string()
}

/// The word that was probably meant: the one that differs least, if that is little.
pub(crate) fn closest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text: Vec<char> = text.chars().take(64).flat_map(char::to_lowercase).collect();
    let distance = |word: &&str| edits(&text, &word.chars().collect::<Vec<_>>());
    let (distance, word) =
        words.map(|word| (distance(&word), word)).min_by_key(|(edits, _)| *edits)?;
    (distance <= 1 + word.len() / 4).then_some(word)
}

/// How many characters have to be changed, added, left out or swapped with the next, to make one of the other.
fn edits(from: &[char], to: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let mut least = (last[column] + usize::from(a != b))
                .min(last[column + 1] + 1)
                .min(current[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_meant_is_found_unless_it_is_far_off() {
        let words = ["mode", "cores", "pin", "blocking_threads"];
        let meant = |text| closest(text, words.into_iter());
        assert_eq!(meant("core"), Some("cores"));
        assert_eq!(meant("Mode"), Some("mode"));
        assert_eq!(meant("moed"), Some("mode"));
        assert_eq!(meant("blocking-thread"), Some("blocking_threads"));
        assert_eq!(meant("threads"), None);
        assert_eq!(meant(""), None);
    }

    #[test]
    fn the_mark_stands_under_what_it_marks() {
        let text = format!("a = 1\n{}ä\tkey = {}\n", "x".repeat(100), "y".repeat(100));
        let at = text.find("key").unwrap();
        let source = Source { name: "f".into(), text, ..Source::default() };
        let error = ConfigError::new(source, vec![Problem::new(Place::File(at..at + 3), "wrong")]);
        let shown = error.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "f:2:103: wrong");
        let column = lines[2].chars().position(|c| c == '^').unwrap();
        let under: String = lines[1].chars().skip(column).take(3).collect();
        assert_eq!((under.as_str(), lines[2].matches('^').count()), ("key", 3));
        assert!(lines[1].ends_with("...") && lines[1].contains("| ..."), "{shown}");
    }

    proptest! {
        #[test]
        fn any_place_of_any_text_can_be_shown(text in "(.|\n){0,80}", start in 0..400usize, length in 0..400usize) {
            let source = Source { text, ..Source::default() };
            let start = start.min(source.text.len());
            let span = start..(start + length).min(source.text.len());
            let error = ConfigError::new(source, vec![Problem::new(Place::File(span), "wrong")]);
            prop_assert!(error.to_string().starts_with("config:"));
        }
    }
}
