//! The output formats of `snug check`.

use anyhow::{Context as _, Result};
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event},
};
use serde_json::{Value, json};

use super::{
    findings::{CheckReport, Checked, Finding},
    shown::markdown_cell,
};
use crate::{
    columns::{self, Align, plain, visible},
    manifests::Field,
    policy::Problem,
    units,
};

/// Schema of the JSON. Within the number after the slash, fields are only added.
const SCHEMA: &str = "snug.check/1";

fn summary(report: &CheckReport<'_>) -> String {
    let known = report.containers.iter().filter(|one| one.unknown.is_none()).count();
    let of = |problem| report.findings().filter(|(_, it)| it.assessed.problem == problem).count();
    let found: Vec<String> =
        Problem::ALL.into_iter().rev().map(|problem| format!("{} {}", of(problem), problem.id())).collect();
    format!(
        "{} compared with their usage history, {} without enough of it: {}",
        units::count(known, "container"),
        report.containers.len() - known,
        found.join(", ")
    )
}

/// Findings with the most serious first.
fn sorted<'r>(report: &'r CheckReport<'_>) -> Vec<(&'r Checked<'r>, &'r Finding)> {
    let mut all: Vec<_> = report.findings().collect();
    all.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.assessed.problem));
    all
}

pub(super) fn table(report: &CheckReport<'_>) -> String {
    let headings = [
        ("PROBLEM", Align::Left),
        ("CONTAINER", Align::Left),
        ("PLACE", Align::Left),
        ("FINDING", Align::Left),
    ];
    let row = |(checked, finding): &(&Checked<'_>, &Finding)| {
        [
            finding.assessed.problem.id().to_owned(),
            checked.title.clone(),
            plain(&format!("{}:{}", finding.file, finding.line)),
            plain(&finding.assessed.text),
        ]
    };
    let rows: Vec<_> = sorted(report).iter().map(row).collect();
    let mut text = if rows.is_empty() { String::new() } else { columns::render(&headings, &rows) + "\n" };
    text += &format!("{}\n", summary(report));
    for one in &report.containers {
        if let Some(why) = &one.unknown {
            text += &format!("  {}: {}\n", one.title, plain(why));
        }
    }
    text
}

pub(super) fn markdown(report: &CheckReport<'_>) -> String {
    let cell = markdown_cell;
    let mut text = format!("### Requests and limits\n\n{}\n", cell(&summary(report)));
    let all = sorted(report);
    if !all.is_empty() {
        text += "\n| problem | container | place | finding |\n| --- | --- | --- | --- |\n";
    }
    for (checked, finding) in all {
        text += &format!(
            "| {} | {} | {}:{} | {} |\n",
            finding.assessed.problem.id(),
            cell(&checked.title),
            cell(&finding.file),
            finding.line,
            cell(&finding.assessed.text)
        );
    }
    let unknown =
        report.containers.iter().filter_map(|one| Some(format!("{}: {}", one.title, one.unknown.as_ref()?)));
    let notes: Vec<String> = unknown.chain(report.notes.iter().cloned()).collect();
    if !notes.is_empty() {
        text += "\nNot compared:\n\n";
        notes.iter().for_each(|note| text += &format!("- {}\n", cell(note)));
    }
    text
}

fn values(checked: &Checked<'_>) -> Value {
    let mut all = json!({});
    for field in Field::ALL {
        if let Some(text) = checked.target.text(field) {
            let [part, name] = field.keys();
            all[part][name] = text.into();
        }
    }
    all
}

pub(super) fn json(report: &CheckReport<'_>) -> Result<String> {
    let finding = |finding: &Finding| {
        let [part, name] = finding.assessed.field.keys();
        json!({
            "problem": finding.assessed.problem.id(), "field": format!("{part}.{name}"), "text": finding.assessed.text,
            "file": finding.file, "line": finding.line,
        })
    };
    let container = |one: &Checked<'_>| {
        json!({
            "root": one.target.root, "kind": one.target.kind, "namespace": one.target.namespace,
            "workload": one.target.workload, "container": one.target.container, "file": one.file,
            "resources": values(one), "findings": one.findings.iter().map(finding).collect::<Vec<_>>(),
            "unknown": one.unknown,
        })
    };
    let all = json!({
        "schema": SCHEMA, "containers": report.containers.iter().map(container).collect::<Vec<_>>(), "notes": report.notes,
    });
    Ok(serde_json::to_string_pretty(&all).context("cannot write JSON")? + "\n")
}

pub(super) fn sarif(report: &CheckReport<'_>) -> Result<String> {
    let rule = |problem: Problem| {
        json!({
            "id": problem.id(), "shortDescription": { "text": problem.description() },
            "defaultConfiguration": { "level": problem.level() },
        })
    };
    let result = |(checked, finding): (&Checked<'_>, &Finding)| {
        let rule = Problem::ALL.iter().position(|it| *it == finding.assessed.problem);
        // Lines move; the container and the value do not.
        let fingerprint = format!("{} {}", checked.title, finding.assessed.field.name());
        json!({
            "ruleId": finding.assessed.problem.id(), "ruleIndex": rule, "level": finding.assessed.problem.level(),
            "message": { "text": format!("{}: {}", checked.title, visible(&finding.assessed.text)) },
            "locations": [{ "physicalLocation": {
                "artifactLocation": { "uri": uri(&finding.file) }, "region": { "startLine": finding.line },
            } }],
            "partialFingerprints": { "containerAndValue/v1": fingerprint },
        })
    };
    let notes = report.notes.iter().map(|note| json!({ "level": "note", "message": { "text": note } }));
    let all = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "snug", "version": env!("CARGO_PKG_VERSION"), "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": Problem::ALL.map(rule),
            } },
            "results": report.findings().map(result).collect::<Vec<_>>(),
            "invocations": [{ "executionSuccessful": true, "toolExecutionNotifications": notes.collect::<Vec<_>>() }],
        }],
    });
    Ok(serde_json::to_string_pretty(&all).context("cannot write SARIF")? + "\n")
}

/// A path as a relative URI.
fn uri(path: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
    path.bytes()
        .map(|byte| if is_kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A suite for each file, with a test for each container.
pub(super) fn junit(report: &CheckReport<'_>) -> Result<String> {
    let mut files: Vec<&str> = report.containers.iter().map(|one| one.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let of = |file: &str| report.containers.iter().filter(move |one| one.file == file).collect::<Vec<_>>();
    let failed = |all: &[&Checked<'_>]| all.iter().filter(|one| !one.findings.is_empty()).count();
    let skipped = |all: &[&Checked<'_>]| all.iter().filter(|one| one.unknown.is_some()).count();
    let everything: Vec<&Checked<'_>> = report.containers.iter().collect();
    let counts = |element: &mut BytesStart<'_>, all: &[&Checked<'_>]| {
        for (name, count) in
            [("tests", all.len()), ("failures", failed(all)), ("skipped", skipped(all)), ("errors", 0)]
        {
            element.push_attribute((name, count.to_string().as_str()));
        }
    };
    let mut suites = BytesStart::new("testsuites");
    suites.push_attribute(("name", "snug check"));
    counts(&mut suites, &everything);
    writer.write_event(Event::Start(suites))?;
    for file in files {
        let own = of(file);
        let mut suite = BytesStart::new("testsuite");
        suite.push_attribute(("name", visible(file).as_str()));
        counts(&mut suite, &own);
        writer.write_event(Event::Start(suite))?;
        for one in own {
            let mut case = BytesStart::new("testcase");
            case.push_attribute(("name", one.title.as_str()));
            case.push_attribute(("classname", visible(file).as_str()));
            writer.write_event(Event::Start(case))?;
            if let Some(why) = &one.unknown {
                let mut skipped = BytesStart::new("skipped");
                skipped.push_attribute(("message", visible(why).as_str()));
                writer.write_event(Event::Empty(skipped))?;
            }
            // JUnit allows one failure for each test.
            if let Some(worst) = one.findings.iter().max_by_key(|it| it.assessed.problem) {
                let mut failure = BytesStart::new("failure");
                failure.push_attribute(("type", worst.assessed.problem.id()));
                failure.push_attribute(("message", visible(&worst.assessed.text).as_str()));
                writer.write_event(Event::Start(failure))?;
                let line = |it: &Finding| {
                    format!("{}: {}:{}: {}", it.assessed.problem.id(), it.file, it.line, it.assessed.text)
                };
                let lines: Vec<String> = one.findings.iter().map(|it| visible(&line(it))).collect();
                writer.write_event(Event::Text(BytesText::new(&lines.join("\n"))))?;
                writer.write_event(Event::End(BytesEnd::new("failure")))?;
            }
            writer.write_event(Event::End(BytesEnd::new("testcase")))?;
        }
        writer.write_event(Event::End(BytesEnd::new("testsuite")))?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuites")))?;
    Ok(String::from_utf8(writer.into_inner())? + "\n")
}
