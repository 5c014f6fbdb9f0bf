//! Lines of JSON in the forms of log stores: documents of the Elastic Common Schema in a bulk request, and a push request of Loki.
//! The commands are those of docs/others.md.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};
use snug_tests::{
    ecs::Schema,
    pages::{self, Runner},
};

use crate::{cannot_run, has_program};

/// The lines that the agent wrote.
const LINES: &str = "events.jsonl";
/// Loki's limits by default: labels of a stream, and bytes of a line.
const MAX_LABELS: usize = 15;
const MAX_LINE: usize = 256 << 10;

/// Checks real lines against the schema, and what the page makes of them.
pub(super) fn accept(lines: &Path) -> Result<()> {
    let text = fs::read_to_string(lines)?;
    let written: Vec<Map<String, Value>> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let schema = Schema::read()?;
    for line in &written {
        schema.check(line).with_context(|| Value::from(line.clone()).to_string())?;
    }
    if !has_program("jq") {
        return cannot_run("there is no jq");
    }
    let folder = tempfile::tempdir()?;
    fs::copy(lines, folder.path().join(LINES))?;
    let all = pages::all();
    let page = all.iter().find(|page| page.path == "docs/others.md").context("no page")?;
    let commands = page.commands(&Runner::Host)?;
    let mut run = 0;
    for block in commands.iter().filter(|block| block.text.contains(LINES) && block.text.starts_with("jq ")) {
        let done = Command::new("sh").args(["-euc", &block.text]).current_dir(folder.path()).status()?;
        ensure!(done.success(), "{}:{}", page.path, block.line);
        run += 1;
    }
    ensure!(run == 2, "{run} blocks of {} read {LINES}", page.path);
    bulk(&fs::read_to_string(folder.path().join("bulk.ndjson"))?, &written)?;
    push(&serde_json::from_slice(&fs::read(folder.path().join("push.json"))?)?, &written)
}

/// A bulk request: before each document a line with what to do. A data stream takes `create` only, and the last line ends, too.
fn bulk(request: &str, written: &[Map<String, Value>]) -> Result<()> {
    ensure!(request.ends_with('\n'), "the last line does not end");
    let lines: Vec<Map<String, Value>> =
        request.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 2 * written.len(), "{} lines", lines.len());
    for (pair, document) in lines.chunks(2).zip(written) {
        let [action, found] = pair else { unreachable!("lines are even") };
        ensure!(action.len() == 1 && action["create"].as_object().is_some_and(Map::is_empty), "{action:?}");
        ensure!(found == document, "{found:?}");
    }
    Ok(())
}

/// A push request: streams with labels, and pairs of nanoseconds since the epoch and a line, both texts.
fn push(request: &Value, written: &[Map<String, Value>]) -> Result<()> {
    let mut lines = Vec::new();
    for stream in request["streams"].as_array().context("no streams")? {
        let labels = stream["stream"].as_object().context("no labels")?;
        ensure!((1..=MAX_LABELS).contains(&labels.len()), "{labels:?}");
        for (name, value) in labels {
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit());
            ensure!(is_name && value.as_str().is_some_and(|value| !value.is_empty()), "{name}={value}");
        }
        for entry in stream["values"].as_array().context("no values")? {
            let (at, line) = (entry[0].as_str().context("no time")?, entry[1].as_str().context("no line")?);
            ensure!(
                entry.as_array().is_some_and(|entry| entry.len() == 2) && line.len() <= MAX_LINE,
                "{entry}"
            );
            let document: Map<String, Value> = serde_json::from_str(line)?;
            let written = document["@timestamp"].as_str().context("no @timestamp")?;
            let nanos = humantime::parse_rfc3339(written)?.duration_since(std::time::UNIX_EPOCH)?.as_nanos();
            ensure!(at.parse::<u128>()? == nanos, "{at} for {written}");
            lines.push(document);
        }
    }
    let by_sequence = |line: &Map<String, Value>| line["event.sequence"].as_u64();
    lines.sort_by_key(by_sequence);
    ensure!(lines == written, "{lines:?}");
    Ok(())
}
