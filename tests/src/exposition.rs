//! Reads an exposition line by line and takes nothing that the format does not allow.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;

use anyhow::{Context as _, Error, Result, bail, ensure};
use snug_client::exposition::parse_strictly;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    /// The labels, unescaped.
    pub labels: BTreeMap<String, String>,
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
    let read = parse_strictly(line).map_err(Error::msg)?;
    let last: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
    ensure!(last.to_bits() == read.value.to_bits(), "there is a timestamp");
    Ok(Sample { name: read.name, labels: read.labels.into_iter().collect(), value: read.value })
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
