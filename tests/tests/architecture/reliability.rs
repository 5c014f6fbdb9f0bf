//! `docs/reliability.md`: each promise names a test, and each named test exists.

use std::fs;

use crate::root;

const DOCUMENT: &str = "docs/reliability.md";

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong with the tests of a row.
fn problems(row: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let files: Vec<(&str, String)> = quoted(row)
        .filter(|name| name.ends_with(".rs") && !name.contains(' '))
        .map(|name| (name, fs::read_to_string(root().join(name)).unwrap_or_default()))
        .collect();
    for (name, text) in &files {
        if !["test]", "proptest!"].iter().any(|sign| text.contains(sign)) {
            problems.push(format!("{name} is no file with tests"));
        }
    }
    let is_test = |name: &&str| {
        name.matches('_').count() >= 3
            && name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
    };
    // Metrics have such names, too.
    for name in quoted(row).filter(is_test).filter(|name| !name.starts_with("snug_")) {
        if !files.iter().any(|(_, text)| text.contains(&format!("fn {name}("))) {
            problems.push(format!("no named file has a test {name}"));
        }
    }
    let by_command = row.contains("the stage `") || quoted(row).any(|word| word.starts_with("cargo xtask "));
    if files.is_empty() && !by_command {
        problems.push("no test is named".to_owned());
    }
    problems.into_iter().map(|problem| format!("{problem}: {row}")).collect()
}

fn rows(text: &str) -> impl Iterator<Item = &str> {
    let is_heading = |row: &&str| row.starts_with("| promise ") || row.starts_with("| fault ");
    text.lines().filter(|line| line.starts_with("| ")).filter(move |row| !is_heading(row))
}

#[test]
fn each_promise_names_tests_that_exist() {
    let text = fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let wrong: Vec<String> = rows(&text).flat_map(problems).collect();
    assert!(wrong.is_empty(), "{DOCUMENT}:\n{}", wrong.join("\n"));
    assert!(rows(&text).count() > 60, "the rows are found");
}

#[test]
fn a_missing_test_is_found() {
    let row = |test: &str| problems(&format!("| It works | {test} | |")).len();
    assert_eq!(row("`tests/tests/architecture/reliability.rs`"), 0);
    assert_eq!(row("`tests/tests/architecture/reliability.rs` `a_missing_test_is_found`"), 0);
    assert_eq!(row("`tests/tests/architecture/reliability.rs` `a_test_that_is_gone`"), 1);
    assert_eq!(row("`tests/tests/architecture/gone.rs`"), 1);
    assert_eq!(row("`tests/src/lib.rs`"), 1);
    assert_eq!(row("somehow"), 1);
    assert_eq!(row("the stage `deny`"), 0);
}
