//! Label matchers, and the selector of all queries.

use std::fmt;

use crate::advice::CommandRule;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl Comparison {
    /// Longer operators first.
    const ALL: [(&'static str, Self); 4] =
        [("=~", Self::Regex), ("!~", Self::NotRegex), ("!=", Self::NotEqual), ("=", Self::Equal)];
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) comparison: Comparison,
    pub(super) value: String,
}

impl Matcher {
    pub(super) fn new(label: &str, comparison: Comparison, value: &str) -> Self {
        Self { label: label.to_owned(), comparison, value: value.to_owned() }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator =
            Comparison::ALL.iter().find(|(_, it)| *it == self.comparison).map_or("=", |(text, _)| text);
        write!(f, "{}{operator}\"", self.label)?;
        for c in self.value.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Matchers of one `--match`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matchers(pub(super) Vec<Matcher>);

/// Parses `--match`: one or more Prometheus matchers, such as `cluster=prod` or `{cluster=~"prod-.*",region!="us"}`.
///
/// # Errors
/// A text that says what is wrong and what is allowed.
pub fn parse_matchers(text: &str) -> Result<Matchers, String> {
    const ALLOWED: &str =
        "allowed is LABEL=VALUE, with =, !=, =~ or !~, such as cluster=prod or 'cluster=~\"prod-.*\"'";
    let trimmed = text.trim();
    let mut rest = trimmed.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(trimmed).trim();
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        let end = rest.find(['=', '!']).ok_or_else(|| format!("{rest:?} has no operator; {ALLOWED}"))?;
        let (label, after) = rest.split_at(end);
        let label = label.trim();
        if !is_label(label) {
            return Err(format!("{label:?} is not the name of a label; {ALLOWED}"));
        }
        let found =
            Comparison::ALL.iter().find_map(|(operator, it)| Some((*it, after.strip_prefix(operator)?)));
        let (comparison, after) = found.ok_or_else(|| format!("{after:?} has no operator; {ALLOWED}"))?;
        let (value, after) =
            value(after.trim_start()).ok_or_else(|| format!("a quote is missing in {text:?}; {ALLOWED}"))?;
        matchers.push(Matcher { label: label.to_owned(), comparison, value });
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.is_empty() => after,
            None => return Err(format!("{after:?} follows a value; {ALLOWED}")),
        };
    }
    if matchers.is_empty() { Err(format!("no matcher; {ALLOWED}")) } else { Ok(Matchers(matchers)) }
}

fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(is_inner) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Parses `--cluster-label`.
///
/// # Errors
/// A text that says what is wrong and what is allowed.
pub fn parse_label(text: &str) -> Result<String, String> {
    let label = text.trim();
    if is_label(label) {
        Ok(label.to_owned())
    } else {
        Err(format!("{label:?} is not the name of a label; allowed is a name such as cluster"))
    }
}

/// A value, quoted or up to the next comma, and the rest.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.trim_end().to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"' | '\'') => value.push(c),
                // Part of a regular expression.
                c => value.extend(['\\', c]),
            },
            c if c == quote => return Some((value, text.get(at + c.len_utf8()..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    None
}

/// Which series are queried: those of `--match`, and of some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) matchers: Vec<Matcher>,
    /// Namespaces; empty for all.
    pub(super) namespaces: Vec<String>,
}

impl Selection {
    /// The alternative sets of matchers, with further ones. A series has its own namespace in `exported_namespace` where the
    /// label `namespace` is of what was scraped.
    pub(super) fn alternatives(&self, more: &[Matcher]) -> Vec<Vec<Matcher>> {
        let mut all: Vec<Matcher> = more.to_vec();
        all.extend(self.matchers.iter().cloned());
        if self.namespaces.is_empty() {
            return vec![all];
        }
        let names: Vec<String> = self.namespaces.iter().map(|name| escaped(name)).collect();
        let names = names.join("|");
        let with = |matchers: &[Matcher]| all.iter().chain(matchers).cloned().collect::<Vec<_>>();
        let own = Matcher::new("namespace", Comparison::Regex, &names);
        if !CommandRule::ExportedLabels.is_on() {
            return vec![with(&[own])];
        }
        vec![
            with(&[own, Matcher::new("exported_namespace", Comparison::Equal, "")]),
            with(&[Matcher::new("exported_namespace", Comparison::Regex, &names)]),
        ]
    }

    /// For messages: ` with cluster="prod"`, or nothing.
    pub(super) fn with_matchers(&self) -> String {
        if self.matchers.is_empty() {
            return String::new();
        }
        let all: Vec<String> = self.matchers.iter().map(ToString::to_string).collect();
        format!(" with {}", all.join(","))
    }
}

/// A name as a regular expression. Characters that no name has are left out.
fn escaped(name: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    name.chars()
        .filter(|c| !c.is_control())
        .flat_map(|c| if plain(&c) { vec![c] } else { vec!['\\', c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read_as_prometheus_writes_them() {
        let read = |text: &str| -> Vec<String> {
            parse_matchers(text).unwrap().0.iter().map(ToString::to_string).collect()
        };
        assert_eq!(read("cluster=prod"), ["cluster=\"prod\""]);
        assert_eq!(read("cluster = 'prod'"), ["cluster=\"prod\""]);
        assert_eq!(
            read("{cluster=~\"prod-.*|a\\\\.b\", region!=us,a!~\"x,y\",}"),
            ["cluster=~\"prod-.*|a\\\\.b\"", "region!=\"us\"", "a!~\"x,y\""]
        );
        assert_eq!(read("a=\"b\\\"c\""), ["a=\"b\\\"c\""]);
        assert_eq!(read("cluster="), ["cluster=\"\""], "without the label");
        for bad in ["", "{}", "cluster", "=a", "a b=c", "1a=b", "a=\"b", "a=\"b\"c", "a!b"] {
            assert!(parse_matchers(bad).unwrap_err().contains("allowed is"), "{bad}");
        }
    }

    #[test]
    fn namespaces_are_escaped_in_selectors() {
        let selection = |namespaces: &[&str]| Selection {
            matchers: vec![Matcher::new("cluster", Comparison::Equal, "a")],
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        };
        let text = |selection: &Selection| -> Vec<String> {
            let alternatives = selection.alternatives(&[]);
            alternatives
                .iter()
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
                .collect()
        };
        assert_eq!(text(&selection(&[])), ["cluster=\"a\""]);
        assert_eq!(
            text(&selection(&["shop", "a.*\"} or vector(1)"])),
            [
                "cluster=\"a\",namespace=~\"shop|a\\\\.\\\\*\\\\\\\"\\\\}\\\\ or\\\\ vector\\\\(1\\\\)\",exported_namespace=\"\"",
                "cluster=\"a\",exported_namespace=~\"shop|a\\\\.\\\\*\\\\\\\"\\\\}\\\\ or\\\\ vector\\\\(1\\\\)\"",
            ]
        );
    }
}
