//! The page has the numbers of the JSON output, and names are text in it.

use snug_sizing::engine::{Pools, Profile};

use super::{entry, holds, report};
use crate::{
    evidence::Snapshot,
    policy::Policies,
    recommend::{detail::Details, html::Page, report::Report},
};

fn page(report: &Report) -> String {
    let (snapshot, pools) = (Snapshot::default(), Pools::default());
    let policies = Policies::new(snug_sizing::engine::Policy::new(Profile::Standard.risk()));
    let mut page = Page::default();
    page.add("", report, &Details::new(&snapshot, &pools, &policies));
    page.html().unwrap()
}

fn data(page: &str) -> Result<serde_json::Value, String> {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").ok_or("no data")?;
    let (json, _) = rest.split_once("</script>").ok_or("no end of data")?;
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// The tags of a page, without their attributes' values.
fn tags(page: &str) -> Vec<String> {
    let (mut tags, mut tag, mut quote) = (Vec::new(), None::<String>, None);
    for c in page.chars() {
        match (&mut tag, quote) {
            (None, _) if c == '<' => tag = Some(String::new()),
            (Some(_), Some(open)) => quote = (c != open).then_some(open),
            (Some(_), None) if c == '"' || c == '\'' => quote = Some(c),
            (Some(text), None) if c == '>' => tags.push(std::mem::take(text)),
            (Some(text), None) => text.push(c),
            (None, _) => {}
        }
        if c == '>' && quote.is_none() {
            tag = None;
        }
    }
    tags
}

/// Whether names are text alone: a page of plain names has the same tags.
pub(super) fn is_safe(report: &Report) -> Result<(), String> {
    let mut plain = report.clone();
    for entry in &mut plain.recommendations {
        for name in [&mut entry.namespace, &mut entry.workload, &mut entry.container] {
            if !name.is_empty() {
                "x".clone_into(name);
            }
        }
    }
    let (with_names, without) = (page(report), page(&plain));
    // The script and the style are the same in both.
    let body = |page: &str| page.split_once("<body>").map(|(_, body)| body.to_owned()).unwrap_or_default();
    let markup = |page: &str| {
        let body = body(page);
        let end = body.find("<script").unwrap_or(body.len());
        tags(&body[..end])
    };
    holds(markup(&with_names) == markup(&without), || with_names.clone())?;
    holds(with_names.matches("</script").count() == 2, || with_names.clone())?;
    let json = serde_json::to_value(report).map_err(|error| error.to_string())?;
    let in_page = data(&with_names)?;
    holds(in_page["reports"][0] == json, || format!("{in_page} of {json}"))
}

#[test]
fn a_page_loads_nothing() {
    let found = page(&report(vec![entry(
        ["shop", "Deployment", "web", "app"],
        Default::default(),
        Default::default(),
    )]));
    for forbidden in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!found.contains(forbidden), "{forbidden}");
    }
    assert!(found.contains("default-src 'none'") && found.starts_with("<!doctype html>"));
    assert!(
        is_safe(&report(vec![entry(
            ["</script><script>alert(1)</script>", "Deployment", "\"'><img>", "&amp;"],
            Default::default(),
            Default::default()
        )]))
        .is_ok()
    );
}
