//! The pages for people: links lead somewhere, and every command is run by a test or says why not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;
use snug_tests::pages::{self, Page, Runner};

/// Languages of blocks; the empty one is output.
const LANGUAGES: [&str; 9] = ["", "sh", "text", "yaml", "json", "toml", "diff", "promql", "rust"];

/// The lines outside of fenced blocks, with their numbers.
fn prose(page: &Page) -> Vec<(usize, &str)> {
    let mut is_inside = false;
    let outside = page.text.lines().enumerate().filter(|(_, line)| {
        is_inside ^= line.starts_with("```");
        !is_inside && !line.starts_with("```")
    });
    outside.map(|(number, line)| (number + 1, line)).collect()
}

/// The targets of links in a line, without those in code spans.
fn links(line: &str) -> Vec<String> {
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchor that GitHub gives a heading: lower case, spaces as hyphens, without punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = prose(page).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

/// The path that a link of a page leads to, without `..`.
fn resolved(page: &Page, target: &str) -> String {
    let mut parts: Vec<&str> = page.path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The links of a page that lead nowhere.
fn broken(page: &Page, all: &BTreeMap<&str, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in prose(page) {
        for target in links(line) {
            if target.starts_with("https://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.path.clone() } else { resolved(page, file) };
            let is_there = pages::root().join(&path).exists();
            let has_anchor = fragment.is_empty()
                || all.get(path.as_str()).is_some_and(|anchors| anchors.contains(fragment));
            if !is_there || !has_anchor {
                wrong.push(format!("{}:{number}: {target}", page.path));
            }
        }
    }
    wrong
}

#[test]
fn links_lead_to_files_and_headings() {
    let pages = pages::all();
    assert!(pages.len() > 20, "{}", pages.len());
    let all = pages.iter().map(|page| (page.path.as_str(), anchors(page))).collect();
    let wrong: Vec<String> = pages.iter().flat_map(|page| broken(page, &all)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The check must be able to fail.
    let text =
        "[a](nowhere.md) [b](../README.md#none) [c](#none) `[d](code)` [e](../README.md#limits)".to_owned();
    assert_eq!(broken(&Page { path: "docs/x.md".to_owned(), text }, &all).len(), 3);
}

#[test]
fn every_page_is_in_the_index() {
    let pages = pages::all();
    let index = pages.iter().find(|page| page.path == "docs/README.md").unwrap();
    let listed: BTreeSet<String> = prose(index)
        .iter()
        .flat_map(|(_, line)| links(line))
        .map(|target| resolved(index, target.split('#').next().unwrap()))
        .collect();
    for page in pages.iter().filter(|page| page.path.starts_with("docs/") && page.path != index.path) {
        let folder = page.path.rsplit_once('/').unwrap().0;
        // A folder may have an index of its own.
        let index = format!("{folder}/README.md");
        assert!(listed.contains(&page.path) || listed.contains(&index), "{} is not in the index", page.path);
    }
}

#[test]
fn blocks_have_a_language_and_commands_have_a_place() {
    let mut commands = 0;
    for page in pages::all() {
        for block in page.blocks().unwrap() {
            let place = format!("{}:{}", page.path, block.line);
            assert!(LANGUAGES.contains(&block.language.as_str()), "{place}: {:?}", block.language);
            assert!(block.language == "sh" || block.place == Runner::Host, "{place}: it has no commands");
            commands += usize::from(block.language == "sh");
        }
        // A block without a fence has no language.
        let mut before = "";
        for (number, line) in prose(&page) {
            let is_block =
                before.is_empty() && line.starts_with("    ") && !line.trim_start().starts_with('-');
            assert!(!is_block, "{}:{number}: a block without a fence", page.path);
            before = line;
        }
    }
    assert!(commands > 10, "{commands}");
}

#[test]
fn shown_output_is_what_the_command_prints() {
    let mut shown = 0;
    for page in pages::all() {
        for block in page.blocks().unwrap() {
            let Some(file) = &block.output_of else { continue };
            let printed = std::fs::read_to_string(pages::root().join(file)).unwrap();
            assert!(printed.contains(&block.text), "{}:{} differs from {file}", page.path, block.line);
            shown += 1;
        }
    }
    assert!(shown >= 8, "{shown}");
}

/// The sources below these folders, without the breaks of long texts.
fn sources(folders: &[&str]) -> std::io::Result<String> {
    fn collect(folder: &Path, text: &mut String) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                collect(&path, text)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path)?;
                let mut parts = source.split("\\\n");
                text.push_str(parts.next().unwrap_or_default());
                parts.for_each(|part| text.push_str(part.trim_start()));
            }
        }
        Ok(())
    }
    let mut text = String::new();
    folders.iter().try_for_each(|folder| collect(&pages::root().join(folder), &mut text))?;
    Ok(text)
}

/// Somebody searches the page for the message that a program has printed. `…` is what differs.
#[test]
fn messages_in_troubleshooting_are_those_of_the_programs() {
    let sources = sources(&["agent/src", "cli/src", "client/src", "sizing/src"]).unwrap();
    let is_printed = |message: &str| message.split('…').all(|part| sources.contains(part.trim()));
    let pages = pages::all();
    let page = pages.iter().find(|page| page.path == "docs/troubleshooting.md").unwrap();
    let cells = page.text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let messages: Vec<&str> = cells
        .filter_map(|(cell, _)| cell.strip_prefix('`')?.strip_suffix('`'))
        .flat_map(|cell| cell.split("`, `"))
        .collect();
    assert!(messages.len() > 25, "{messages:?}");
    let wrong: Vec<&&str> = messages.iter().filter(|message| !is_printed(message)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(!is_printed("the agent … nowhere to be found"));
}

/// The versions in the support matrix are those of the tests.
#[test]
fn the_support_matrix_is_what_tests_cover() {
    let read = |path: &str| std::fs::read_to_string(pages::root().join(path)).unwrap();
    let between = |text: &str, before: &str, after: &str| {
        let rest = text.split_once(before).unwrap().1;
        rest.split_once(after).unwrap().0.to_owned()
    };
    let page = read("docs/support.md");
    let node = between(&read("xtask/src/toolchain.rs"), "KUBERNETES_VERSION: &str = \"", "\"");
    let minor = node.rsplit_once('.').unwrap().0;
    assert!(page.contains(&format!("| {minor} | run")), "{minor}");
    let schemas = between(&read("tests/tests/manifests.rs"), "RangeInclusive<u32> = ", ";");
    let (first, last) = schemas.split_once("..=").unwrap();
    assert!(page.contains(&format!("| 1.{first} to 1.{last} | schemas")), "{schemas}");
    let samples = std::fs::read_dir(pages::root().join("tests/fixtures")).unwrap();
    let mut samples: BTreeSet<String> = samples
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_prefix("kubelet-")?.to_owned()))
        .collect();
    samples.retain(|version| version.starts_with("1.") && !version.contains('-'));
    assert!(page.contains(&format!("| {} | samples", Vec::from_iter(samples).join(", "))));
    let ecs = between(&read("agent/src/exporters/ecs.rs"), "ECS_VERSION: &str = \"", "\"");
    assert!(page.contains(&format!("the Elastic Common Schema {ecs} |")), "{ecs}");
    assert!(pages::root().join(format!("tests/fixtures/ecs-{ecs}.json")).exists(), "{ecs}");
}

/// A collector refuses pipelines with components that it does not know, and warns about others.
#[test]
fn pipelines_of_the_collector_have_the_components_that_are_configured() {
    let pages = pages::all();
    let page = pages.iter().find(|page| page.path == "docs/others.md").unwrap();
    let block =
        page.blocks().unwrap().into_iter().find(|block| block.text.starts_with("receivers:")).unwrap();
    let config: Value = serde_saphyr::from_str(&block.text).unwrap();
    let names = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    for kind in ["receivers", "processors", "exporters"] {
        let pipelines = config["service"]["pipelines"].as_object().unwrap();
        let used = pipelines.values().flat_map(|pipeline| pipeline[kind].as_array().unwrap());
        let used: BTreeSet<String> = used.map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(used, names(&config[kind]), "{kind}");
    }
}
