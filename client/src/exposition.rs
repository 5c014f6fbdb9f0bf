//! Reads Prometheus's text format 0.0.4.
//!
//! A parser of our own, because the available crates either fail on `}` or `,` in a label value, or skip lines that they do
//! not understand. The format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Label names and values, in the order of the line.
    pub labels: Vec<(String, String)>,
    /// The value, in the unit that the name ends in.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty if the label is absent, which Prometheus treats the same.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }

    /// Name and labels in the form that Prometheus' own libraries write.
    fn series(&self) -> String {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> =
            self.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        if labels.is_empty() { self.name.clone() } else { format!("{}{{{}}}", self.name, labels.join(",")) }
    }
}

/// A line that does not follow the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not Prometheus text format: {why}")]
pub struct ParseError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with the line.
    pub why: &'static str,
}

/// Parses a page. Comments, types and timestamps are ignored.
///
/// # Errors
/// When a line does not follow the format.
pub fn parse(page: &str) -> Result<Vec<Sample>, ParseError> {
    let mut samples = Vec::new();
    for (at, line) in page.lines().enumerate() {
        let line = line.trim_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        samples.push(sample(line).map_err(|why| ParseError { line: at + 1, why })?);
    }
    Ok(samples)
}

/// Parses the line of a sample, for tests of what writes it: it must have the form that Prometheus' own libraries write, which the format
/// does not demand, and each label once.
///
/// # Errors
/// What is wrong with the line.
pub fn parse_strictly(line: &str) -> Result<Sample, &'static str> {
    let sample = sample(line)?;
    let values = line.strip_prefix(&sample.series()).and_then(|rest| rest.strip_prefix(' '));
    let values = values.ok_or("the series is not written as Prometheus writes it")?;
    if values.split(' ').any(|part| part.is_empty() || part.contains('\t')) {
        return Err("values are not separated by one blank");
    }
    let names: BTreeSet<&str> = sample.labels.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() < sample.labels.len() { Err("a label is there twice") } else { Ok(sample) }
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let (name, rest) = name(line, true).ok_or("the line does not begin with a metric name")?;
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let mut fields = rest.split_ascii_whitespace();
    let value = fields.next().ok_or("the sample has no value")?;
    let value = value.parse().map_err(|_| "the value is not a number")?;
    if fields.next().is_some_and(|timestamp| timestamp.parse::<i64>().is_err()) {
        return Err("the timestamp is not a whole number");
    }
    if fields.next().is_some() {
        return Err("there is text after the timestamp");
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Splits off the name of a metric, or of a label, which has no colons.
fn name(text: &str, colons: bool) -> Option<(&str, &str)> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    let end = text.find(|c| !inside(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    name.starts_with(|c: char| !c.is_ascii_digit()).then_some((name, rest))
}

type Labels<'a> = (Vec<(String, String)>, &'a str);

/// Reads labels up to the closing brace, which may follow a comma.
fn labels(mut rest: &str) -> Result<Labels<'_>, &'static str> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (label, after) = name(rest, false).ok_or("a label name is missing")?;
        let after = after.trim_start().strip_prefix('=').ok_or("a label has no value")?;
        let after = after.trim_start().strip_prefix('"').ok_or("a label value is not in quotes")?;
        let (value, after) = quoted(after)?;
        labels.push((label.to_owned(), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("labels are not separated by commas"),
        }
    }
}

/// Reads up to the closing quote; `\\`, `\"` and `\n` are escapes.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or("a label value has no closing quote")? {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some(c @ ('"' | '\\')) => c,
                _ => return Err("a label value has an unknown escape"),
            }),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "# HELP up Whether.\n# TYPE up gauge\nup 1\n\nhits_total{path=\"/a,b}\",who=\"\\\"x\\\"\\\\\\n\",} 1.5e3 1700000000000\n\
                    empty{} NaN\nlow -Inf\n:odd:name { a = \"b\" } +Inf\n";
        let samples = parse(page).unwrap();
        assert_eq!(samples.len(), 5);
        assert_eq!((samples[0].name.as_str(), samples[0].value), ("up", 1.0));
        assert_eq!(samples[1].label("path"), "/a,b}");
        assert_eq!(samples[1].label("who"), "\"x\"\\\n");
        assert_eq!(samples[1].label("absent"), "");
        assert_eq!(samples[1].value, 1500.0);
        assert!(samples[2].value.is_nan());
        assert_eq!(samples[3].value, f64::NEG_INFINITY);
        assert_eq!((samples[4].name.as_str(), samples[4].label("a")), (":odd:name", "b"));
    }

    #[test]
    fn invalid_lines_are_errors_with_number() {
        for (line, why) in [
            ("<html>", "the line does not begin with a metric name"),
            ("9lives 1", "the line does not begin with a metric name"),
            ("up", "the sample has no value"),
            ("up one", "the value is not a number"),
            ("up 1 soon", "the timestamp is not a whole number"),
            ("up 1 2 3", "there is text after the timestamp"),
            ("up{a} 1", "a label has no value"),
            ("up{a=b} 1", "a label value is not in quotes"),
            ("up{a=\"b} 1", "a label value has no closing quote"),
            ("up{a=\"\\t\"} 1", "a label value has an unknown escape"),
            ("up{a=\"b\" c=\"d\"} 1", "labels are not separated by commas"),
            ("up{,} 1", "a label name is missing"),
            ("up{", "a label name is missing"),
        ] {
            assert_eq!(
                parse(&format!("# comment\n{line}\n")).unwrap_err(),
                ParseError { line: 2, why },
                "{line}"
            );
        }
    }

    #[test]
    fn other_forms_are_not_strict() {
        for line in ["up 1", "up{a=\"b\",c=\"\\\"\\\\\\n\"} 1 1700000000000"] {
            assert!(parse_strictly(line).is_ok(), "{line:?}");
        }
        for line in [
            "",
            "# a",
            " up 1",
            "up  1",
            "up\t1",
            "up 1 ",
            "up 1  2",
            "up{} 1",
            "up{a=\"b\",} 1",
            "up{a=\"b\"}1",
            "up{a=\"b\", c=\"d\"} 1",
            "up {a=\"b\"} 1",
            "up{a=\"b\",a=\"c\"} 1",
        ] {
            assert!(parse_strictly(line).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn wild_pages_never_panic(page in any::<String>()) {
            let _ = parse(&page);
        }

        #[test]
        fn almost_pages_never_panic(page in "[a-z_:]{0,4}\\{?[a-z]{0,3}=?\"?[\\\\n\",}]{0,4}[0-9eE+. -]{0,8}\n?") {
            let _ = parse(&page);
        }

        #[test]
        fn what_was_written_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}",
            labels in proptest::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,6}", "[^\r]{0,8}"), 0..4),
            value in proptest::num::f64::NORMAL,
        ) {
            let sample = Sample { name, labels, value };
            let line = format!("{} {}", sample.series(), sample.value);
            let names: BTreeSet<_> = sample.labels.iter().map(|(name, _)| name).collect();
            prop_assert_eq!(parse_strictly(&line).is_ok(), names.len() == sample.labels.len());
            prop_assert_eq!(parse(&(line + "\n")), Ok(vec![sample]));
        }
    }
}
