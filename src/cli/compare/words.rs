//! A command as it is written, taken apart into words: at spaces, but not within quotes, as a shell would. Nothing else is special.

/// The words. None: a quote is not closed.
pub(super) fn words(command: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    // The word so far: two quotes with nothing between them are one too.
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => all.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    quote.is_none().then_some(all)
}

/// Words as one line that a shell takes apart into the same words.
pub(super) fn command_line(words: impl IntoIterator<Item = String>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if word.chars().any(char::is_control) {
        // Most shells know this form, and it stays on its line.
        let escaped = |c: char| match c {
            '\\' => r"\\".to_owned(),
            '\'' => r"\'".to_owned(),
            c if c.is_ascii_control() => format!(r"\{:03o}", c as u32),
            c => c.to_string(),
        };
        format!("$'{}'", word.chars().map(escaped).collect::<String>())
    } else if word.is_empty() || !word.chars().all(is_plain) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        word
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_shell_finds_the_same_words() {
        for (word, expected) in [
            ("--out=a/b", "--out=a/b"),
            ("", "''"),
            ("it's  mine", r"'it'\''s  mine'"),
            ("$a*", "'$a*'"),
            ("a\n'b\\", r"$'a\012\'b\\'"),
        ] {
            assert_eq!(quoted(word.to_owned()), expected);
        }
        assert_eq!(command_line(["a".to_owned(), "b c".to_owned()]), "a 'b c'");
    }

    #[test]
    fn spaces_part_words_and_quotes_keep_them() {
        for (command, expected) in [
            ("a  b\tc ", &["a", "b", "c"][..]),
            ("sh -c 'server & wait'", &["sh", "-c", "server & wait"]),
            (r#"a "it's" b'c d'e ''"#, &["a", "it's", "bc de", ""]),
            (r"a\b", &[r"a\b"]),
            ("", &[]),
        ] {
            assert_eq!(
                words(command).as_deref(),
                Some(&expected.iter().map(|it| it.to_string()).collect::<Vec<_>>()[..]),
                "{command}"
            );
        }
        assert_eq!(words("sh -c 'server"), None);
    }
}
