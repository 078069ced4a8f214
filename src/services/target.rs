//! Where a redirect leads: a text with places that a request fills.
//!
//! Plain data. What a request brings in never says to which host the target leads, but for the host that it is for itself: the
//! authority is written out, or is `{host}`, and ends before anything else is filled in.

/// The status codes of a redirect to one target (RFC 9110, 15.4).
pub(crate) const STATUSES: &[u64] = &[301, 302, 303, 307, 308];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Host,
    Path,
    Rest,
    Query,
}

const PLACES: [(&str, Part); 4] =
    [("host", Part::Host), ("path", Part::Path), ("rest", Part::Rest), ("query", Part::Query)];

/// What a request brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// Without a port.
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
    /// Of the path, what the `*` of the route stands for.
    pub(crate) rest: &'a str,
    /// Without its question mark.
    pub(crate) query: Option<&'a str>,
}

impl Template {
    /// Takes a text apart.
    ///
    /// # Errors
    /// What is wrong with it, and what is expected instead.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        if text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
            return Err("a target has visible ASCII characters only, and no spaces".to_owned());
        }
        let parts = parts(text)?;
        let template = Template { parts };
        template.check()?;
        Ok(template)
    }

    pub(crate) fn wants_host(&self) -> bool {
        self.parts.contains(&Part::Host)
    }

    /// The target for a request. None: it would be none.
    pub(crate) fn fill(&self, ask: &Ask<'_>) -> Option<String> {
        let mut target = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => target.push_str(text),
                Part::Host => target.push_str(ask.host.filter(|host| !host.is_empty())?),
                Part::Path => target.push_str(Some(ask.path).filter(|path| path.starts_with('/'))?),
                Part::Rest => target.push_str(ask.rest),
                Part::Query => {
                    if let Some(query) = ask.query {
                        target.push('?');
                        target.push_str(query);
                    }
                }
            }
        }
        // Two slashes begin a host, and browsers take a backslash for a slash.
        let leads_away = target.starts_with("//") || target.starts_with("/\\");
        let is_clean = target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        (is_clean && !leads_away).then_some(target)
    }

    fn check(&self) -> Result<(), String> {
        let begins = "a target begins with http://, https:// or one slash";
        let Some(Part::Text(first)) = self.parts.first() else { return Err(begins.to_owned()) };
        let scheme = ["http://", "https://"].into_iter().find(|scheme| first.starts_with(scheme));
        let mut in_path = scheme.is_none();
        if in_path
            && (!first.starts_with('/') || first.starts_with("//") || first.starts_with("/\\"))
        {
            return Err(begins.to_owned());
        }
        let mut authority = String::new();
        let mut has_query = false;
        for (number, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => {
                    let skip = scheme.filter(|_| number == 0).map_or(0, str::len);
                    let text = &text[skip..];
                    let end = text.find(['/', '?', '#']).filter(|_| !in_path);
                    if !in_path {
                        authority.push_str(&text[..end.unwrap_or(text.len())]);
                        in_path = end.is_some();
                    }
                    has_query |= text.contains(['?', '#']);
                }
                Part::Host if !in_path => authority.push_str("{host}"),
                Part::Host => {}
                Part::Path => in_path = true,
                Part::Rest if !in_path => {
                    return Err("{rest} could change the host: write a slash before it".to_owned());
                }
                Part::Rest => {}
                Part::Query if has_query => {
                    return Err(
                        "{query} brings its own question mark: there is one before it".to_owned()
                    );
                }
                Part::Query => (in_path, has_query) = (true, true),
            }
        }
        match scheme.map(|_| authority.strip_prefix("{host}").unwrap_or(&authority)) {
            // What follows a `{host}` is a port, or nothing.
            Some(port) if authority.starts_with("{host}") => {
                let digits = port.strip_prefix(':').unwrap_or(port);
                let is_port = port.is_empty() || (digits != port && digits.parse::<u16>().is_ok());
                if is_port {
                    Ok(())
                } else {
                    Err("after {host} there is a port, a slash or {path}".to_owned())
                }
            }
            Some(authority) if !is_authority(authority) => {
                Err(format!("\"{authority}\" is no host, and no host with a port"))
            }
            _ => Ok(()),
        }
    }
}

/// A host by name or address, with a port or without.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rfind(':').filter(|colon| !text[*colon..].contains(']')) {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    };
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = (!host.is_empty() && host.bytes().all(name))
        || v6.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(brace);
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
        let Some((name, after)) = inner else {
            return Err(
                "a brace is alone: places are written {host}, {path}, {rest} or {query}".to_owned()
            );
        };
        let Some((_, part)) = PLACES.iter().find(|(known, _)| *known == name) else {
            return Err(format!(
                "nothing is called {{{name}}}: there are {{host}}, {{path}}, {{rest}} and {{query}}"
            ));
        };
        parts.push(part.clone());
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(template: &str, ask: Ask<'_>) -> Option<String> {
        Template::parse(template).expect("a template").fill(&ask)
    }

    const ASK: Ask<'static> =
        Ask { host: Some("example.org"), path: "/a/b", rest: "b", query: Some("x=1") };

    #[test]
    fn places_are_filled() {
        let cases = [
            ("https://{host}{path}{query}", "https://example.org/a/b?x=1"),
            ("https://{host}:8443/", "https://example.org:8443/"),
            ("http://other.test/{rest}", "http://other.test/b"),
            ("http://[::1]:80{path}", "http://[::1]:80/a/b"),
            ("/new/{rest}{query}", "/new/b?x=1"),
            ("/", "/"),
            ("https://other.test?from={path}", "https://other.test?from=/a/b"),
            ("https://other.test{query}", "https://other.test?x=1"),
            ("/login?host={host}", "/login?host=example.org"),
        ];
        for (template, target) in cases {
            assert_eq!(filled(template, ASK).as_deref(), Some(target), "{template}");
        }
        assert_eq!(filled("/{rest}{query}", Ask { query: None, ..ASK }).as_deref(), Some("/b"));
    }

    #[test]
    fn what_would_lead_elsewhere_leads_nowhere() {
        for rest in ["/evil.test", "\\evil.test"] {
            assert_eq!(filled("/{rest}", Ask { rest, ..ASK }), None, "{rest}");
        }
        assert_eq!(filled("https://{host}/", Ask { host: None, ..ASK }), None);
        assert_eq!(filled("https://{host}{path}", Ask { path: "*", ..ASK }), None);
        assert_eq!(filled("/{rest}", Ask { rest: "a\r\nset-cookie: x", ..ASK }), None);
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [
            "",
            "x",
            "//x/",
            "/\\x",
            "ftp://x/",
            "{path}",
            "https://",
            "https:///x",
            "https://{rest}",
            "https://a{rest}",
            "https://{host}a/",
            "https://{host}:x/",
            "https://a@b/",
            "https://a:99999/",
            "/{nothing}",
            "/{",
            "/}",
            "/a b",
            "/ä",
            "/?a{query}",
            "/\r\n",
            "https://a{host}/",
            "https://{query}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_request_says_which_host_it_leads_to(
            template in r"(https://site\.test|/|/a)(/|\{path\}|\{rest\}|\{query\}|\?|x|\.){0,4}",
            path in r"[/\\@.:a-z?#]{0,6}", rest in r"[/\\@.:a-z?#]{0,6}", query in r"[/\\@.:a-z?#]{0,6}",
        ) {
            let written = template.trim_start_matches("https://").split(['/', '?', '{']).next().unwrap_or("");
            let Ok(template) = Template::parse(&template) else { return Ok(()) };
            let ask = Ask { host: Some("own.test"), path: &path, rest: &rest, query: Some(&query) };
            let Some(target) = template.fill(&ask) else { return Ok(()) };
            let target = target.replace('\\', "/");
            match target.strip_prefix("https://") {
                Some(after) => {
                    let after = after.strip_prefix(written).expect("the host that was written");
                    prop_assert!(after.is_empty() || after.starts_with(['/', '?', '#']), "{}", target);
                }
                None => prop_assert!(target.starts_with('/') && !target.starts_with("//"), "{}", target),
            }
        }
    }
}
