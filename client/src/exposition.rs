//! Reads Prometheus's text format 0.0.4.
//!
//! A parser of our own, because the available crates either fail on `}` or `,` in a label value, or skip lines that they do
//! not understand. The format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

/// One sample.
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

    fn write(sample: &Sample) -> String {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> =
            sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        format!("{}{{{}}} {}\n", sample.name, labels.join(","), sample.value)
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
            prop_assert_eq!(parse(&write(&sample)), Ok(vec![sample]));
        }
    }
}
