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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

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
