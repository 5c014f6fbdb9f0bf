//! docs/policy.md has every field, the numbers of the profiles, and examples that are valid.

use std::collections::BTreeSet;

use serde_json::Value;
use snug_sizing::engine::Profile;

use super::{Policies, Policy, PolicyAnnotation};

const PAGE: &str = include_str!("../../../docs/policy.md");

fn policies() -> Policies {
    Policies::new(Policy::new(Profile::Standard.risk()))
}

/// The rows of a table, as cells, that follow this header.
fn rows(header: &str) -> Vec<Vec<&'static str>> {
    let (_, table) = PAGE.split_once(header).unwrap();
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_has_every_field() {
    // The error about an unknown field lists those that exist.
    let error = policies().with_text("page", "policies:\n- unknown: 1\n").unwrap_err();
    let error = format!("{:#}", anyhow::Error::from(error));
    let (_, expected) = error.split_once("expected one of").unwrap_or_else(|| panic!("{error}"));
    let expected = expected.split(['`', ',', ' ', '\n', '\'', '"']);
    let names: BTreeSet<&str> =
        rows("| field | value | default |").iter().map(|row| row[0].trim_matches('`')).collect();
    let known: BTreeSet<&str> = expected.filter(|word| names.contains(word)).collect();
    assert_eq!(known, names, "fields of the page that do not exist: {error}");
    let fields = ["match", "exclude", "risk", "cpuLimit", "qos", "horizon", "min", "max", "thresholds"];
    assert_eq!(names, fields.into());
}

#[test]
fn the_profiles_have_their_numbers() {
    let rows = rows("| `risk` | OOM kills |");
    assert_eq!(rows.len(), Profile::ALL.len());
    for (row, profile) in rows.iter().zip(Profile::ALL) {
        let risk = profile.risk();
        let percent = |share: f64| format!("{} %", (share * 1e6).round() / 1e4);
        let expected = [
            format!("`{}`", profile.as_str()),
            format!("1 in {} days of a pod", (1.0 / risk.oom_kills).round()),
            percent(risk.cpu_work),
            percent(risk.throttled),
        ];
        assert_eq!(row[..], expected, "{row:?}");
    }
}

#[test]
fn the_examples_are_valid() {
    let blocks: Vec<&str> =
        PAGE.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let [file, template] = blocks[..] else { panic!("{blocks:?}") };
    policies().with_text("page", file).unwrap();
    let template: Value = serde_saphyr::from_str(template).unwrap();
    let text = template["spec"]["template"]["metadata"]["annotations"]["snug/policy"].as_str().unwrap();
    let annotation =
        PolicyAnnotation { namespace: "shop".to_owned(), pod: "web-1".to_owned(), text: text.to_owned() };
    assert_eq!(policies().with_annotations([annotation]).1, [""; 0]);
}
