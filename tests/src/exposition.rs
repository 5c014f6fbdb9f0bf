//! Reads an exposition line by line and takes nothing that the format does not allow.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name.
    pub name: String,
    /// The labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty when it is absent, which is the same to Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Whether it has this name and these labels, among others.
    pub fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name && labels.iter().all(|(label, value)| self.label(label) == *value)
    }
}

/// The samples of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Page(pub Vec<Sample>);

impl Page {
    /// The samples with this name and these labels, among others.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        self.0.iter().filter(|sample| sample.is(name, labels)).collect()
    }

    /// The only sample with this name and these labels; `None` without one.
    ///
    /// # Errors
    /// When there are several.
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<f64>> {
        match self.all(name, labels).as_slice() {
            [] => Ok(None),
            [sample] => Ok(Some(sample.value)),
            several => bail!("{name}{labels:?} is there {} times", several.len()),
        }
    }

    /// The value of the only sample with this name and these labels.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        self.one(name, labels)?.with_context(|| format!("{name}{labels:?} is not there"))
    }

    /// Whether any sample is of this family.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }
}

/// Reads a page.
///
/// # Errors
/// When a line is not of the format, or a series is there twice.
pub fn parse(text: &str) -> Result<Page> {
    ensure!(text.ends_with('\n'), "the last line does not end");
    let mut samples = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let sample = sample(line).with_context(|| format!("not a sample: {line:?}"))?;
        ensure!(seen.insert((sample.name.clone(), sample.labels.clone())), "there twice: {line:?}");
        samples.push(sample);
    }
    Ok(Page(samples))
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "{name:?} is no name");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label without value")?;
            ensure!(is_name(label), "{label:?} is no label");
            let (value, after) = quoted(after)?;
            ensure!(labels.insert(label.to_owned(), value).is_none(), "{label} is there twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').context("no blank before the value")?;
    Ok(Sample { name: name.to_owned(), labels, value: value.parse().with_context(|| value.to_owned())? })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The text up to the closing quote, unescaped, and what follows that.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                other => bail!("\\ before {other:?}"),
            },
            c => value.push(c),
        }
    }
    bail!("a value without end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unescaped() {
        let page = parse("# TYPE a gauge\na{x=\"1,}\",y=\"\\\"\\\\\\n\"} 2.5\nb 1e+300\n").unwrap();
        assert_eq!(page.0.len(), 2);
        assert_eq!((page.0[0].label("x"), page.0[0].label("y"), page.0[0].value), ("1,}", "\"\\\n", 2.5));
        assert_eq!(page.value("b", &[]).unwrap(), 1e300);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "a 1",
            "a\n",
            "a{ 1\n",
            "a{x=\"1} 1\n",
            "a{x=\"\\t\"} 1\n",
            "a{x=\"1\"}1\n",
            "a one\n",
            "1a 1\n",
            "a 1 1700000000000\n",
            "a 1\na 1\n",
            "a{x=\"1\"} 1\na{x=\"1\"} 2\n",
            "a{x=\"1\",x=\"2\"} 1\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
