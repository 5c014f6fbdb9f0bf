//! Names that no API server would accept, in every output.

use proptest::prelude::*;
use serde_json::Value;
use snug_sizing::workload::Resources;

use super::{entry, holds, pages, report, shell, vpa};
use crate::{
    advice::CommandRule,
    recommend::{
        apply, formats, overview,
        report::{Entry, Report},
    },
    terminal::Terminal,
};

/// What ends lines and cells, quotes, expands, comments, or turns the direction of a text somewhere.
const HOSTILE: [&str; 30] = [
    "'",
    "\"",
    "`",
    "$(reboot)",
    ";",
    "&",
    "|",
    "\\",
    "\n",
    "\r",
    "\t",
    "\0",
    "\u{1b}[2J",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{2066}",
    "\u{feff}",
    "#",
    ":",
    ": ",
    "- ",
    "--",
    "=",
    "+",
    "@",
    "<b>",
    "[x](y)",
    "{{",
];
/// Characters that some reader takes for the end of a line.
const LINE_ENDS: [char; 6] = ['\n', '\r', '\u{b}', '\u{85}', '\u{2028}', '\u{2029}'];

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![2 => "[a-z]{1,4}".prop_map(String::from), 1 => prop::sample::select(HOSTILE.to_vec()).prop_map(str::to_owned)];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

type Names = [String; 4];

fn names() -> impl Strategy<Value = Vec<Names>> {
    let kinds = ["Deployment", "CronJob", "Pod", "Unit", "Container", "-x\u{2028}y"];
    let owner = prop::sample::select(kinds.to_vec()).prop_map(str::to_owned);
    let namespace = prop_oneof![3 => name(), 1 => Just(String::new())];
    let one = (namespace, owner, name(), name())
        .prop_map(|(namespace, owner, workload, container)| [namespace, owner, workload, container]);
    prop::collection::vec(one, 1..4)
}

fn is_hostile(names: &[Names]) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    names.iter().flatten().any(|name| !name.chars().all(plain))
}

fn of(names: &[Names]) -> Report {
    let values = Resources { cpu_request: Some(100), memory_limit: Some(64 << 20), ..Resources::default() };
    let of = |[namespace, owner, workload, container]: &Names| {
        entry([namespace, owner, workload, container], values, values)
    };
    report(names.iter().map(of).collect())
}

fn yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("{error}: {text}"))
}

fn no_odd_line_ends(text: &str) -> Result<(), String> {
    let odd = text.chars().find(|c| *c != '\n' && LINE_ENDS.contains(c));
    holds(odd.is_none(), || format!("{odd:?} in {text:?}"))
}

fn patch(report: &Report) -> Result<(), String> {
    let script = apply::patch(report);
    no_odd_line_ends(&script)?;
    for words in shell::commands(&script)? {
        let is_known =
            matches!(words.first().map(String::as_str), Some("kubectl" | "systemctl" | "docker" | "mkdir"));
        holds(is_known, || format!("{words:?}"))?;
        // Names are never where an option may be.
        let options: Vec<&str> =
            words.iter().map(String::as_str).filter(|word| word.starts_with('-')).collect();
        let known = ["-n", "--type", "--patch", "--subresource", "-p", "--memory", "--memory-swap", "--cpus"];
        holds(options.iter().all(|option| known.contains(option)), || format!("{options:?}"))?;
    }
    Ok(())
}

fn kustomize(report: &Report) -> Result<(), String> {
    let text = apply::kustomize(report).map_err(|error| error.to_string())?;
    let parsed = yaml(&text)?;
    let mut keys: Vec<&String> = parsed.as_object().ok_or("no object")?.keys().collect();
    keys.sort();
    holds(keys == ["apiVersion", "kind", "patches"], || text.clone())?;
    // YAML 1.1 ends lines and comments at these too.
    let comments = text.lines().filter(|line| line.starts_with('#'));
    comments.into_iter().try_for_each(no_odd_line_ends)?;
    for one in parsed["patches"].as_array().into_iter().flatten() {
        let patch = yaml(one["patch"].as_str().unwrap_or_default())?;
        holds(patch["metadata"]["name"] == one["target"]["name"], || text.clone())?;
    }
    Ok(())
}

fn helm(report: &Report) -> Result<(), String> {
    let text = apply::helm(report).map_err(|error| error.to_string())?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| format!("{error}: {text}"))?;
    let comments = text.lines().filter(|line| line.starts_with('#'));
    comments.into_iter().try_for_each(no_odd_line_ends)?;
    let workloads = report.recommendations.chunk_by(Entry::is_of_one_workload);
    let expected = workloads.filter(|entries| !entries[0].namespace.is_empty()).count();
    holds(documents.len() == expected, || format!("{} documents of {expected}: {text}", documents.len()))
}

fn csv(report: &Report) -> Result<(), String> {
    let text = formats::csv(report).map_err(|error| error.to_string())?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    holds(rows.len() == report.recommendations.len(), || text.clone())?;
    for (row, entry) in rows.iter().zip(&report.recommendations) {
        let cells = row.iter().zip([&entry.namespace, &entry.owner, &entry.workload, &entry.container]);
        for (cell, name) in cells {
            holds(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), || format!("a formula: {cell:?}"))?;
            let is_left_out = |c: char| {
                c.is_control()
                    || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
            };
            let name: String = name.chars().filter(|c| !is_left_out(*c)).collect();
            let read = cell.strip_prefix('\'').unwrap_or(cell);
            holds(read == name, || format!("{cell:?} of {name:?}"))?;
        }
    }
    Ok(())
}

fn markdown(report: &Report) -> Result<(), String> {
    let text = formats::markdown(report);
    no_odd_line_ends(&text)?;
    holds(text.lines().count() == 2 + report.recommendations.len(), || text.clone())?;
    for line in text.lines() {
        // A backslash takes the meaning from what follows.
        let (mut cells, mut is_escaped, mut is_markup) = (0, false, false);
        for c in line.chars() {
            cells += usize::from(!is_escaped && c == '|');
            is_markup |= !is_escaped && matches!(c, '<' | '[' | '`');
            is_escaped = !is_escaped && c == '\\';
        }
        holds(cells == 13 && !is_markup, || format!("{cells} in {line}"))?;
    }
    Ok(())
}

fn tables(report: &Report) -> Result<(), String> {
    let narrow = Terminal { width: Some(80), ..Terminal::PIPE };
    for (wide, terminal) in [(false, Terminal::PIPE), (true, Terminal::PIPE), (false, narrow)] {
        let text = overview::table(report, wide, terminal);
        no_odd_line_ends(&text)?;
        let turned = text.chars().find(|c| matches!(c, '\u{1b}' | '\u{202e}' | '\u{2066}' | '\u{feff}'));
        holds(turned.is_none(), || format!("{turned:?} in {text:?}"))?;
    }
    Ok(())
}

fn same_as_json(report: &Report) -> Result<(), String> {
    let json = serde_json::to_value(report).map_err(|error| error.to_string())?;
    let parsed = yaml(&apply::yaml(report).map_err(|error| error.to_string())?)?;
    let names = |of: &Value| -> Vec<Value> {
        let entries = of["recommendations"].as_array().into_iter().flatten();
        entries
            .flat_map(|entry| {
                ["namespace", "owner", "workload", "container"].map(|field| entry[field].clone())
            })
            .collect()
    };
    holds(names(&json) == names(&parsed), || format!("{:?} {:?}", names(&json), names(&parsed)))
}

#[test]
fn no_name_breaks_an_output() {
    CommandRule::PlainNames.prove(
        &names(),
        |names| is_hostile(names),
        |names| {
            let report = of(names);
            let checks =
                [patch, kustomize, helm, vpa::is_valid, pages::is_safe, csv, markdown, tables, same_as_json];
            checks.into_iter().try_for_each(|check| check(&report))
        },
    );
}

#[test]
fn valid_names_are_patched() {
    let report = of(&[["shop", "Deployment", "web.v2", "app-1"].map(str::to_owned)]);
    assert_eq!(shell::patches(&apply::patch(&report)).unwrap().len(), 1);
    for bad in ["-web", "web-", "we b", "Web", "", "wéb", &"w".repeat(254)] {
        for place in [0, 2, 3] {
            let mut names = ["shop", "Deployment", "web", "app"].map(str::to_owned);
            bad.clone_into(&mut names[place]);
            let script = apply::patch(&of(&[names]));
            assert!(script.lines().all(|line| line.starts_with('#')), "{script}");
        }
    }
}

#[test]
fn units_and_containers_of_a_host_get_commands() {
    let id = "0123456789abcdef".repeat(4);
    let now = Resources { cpu_limit: Some(1000), ..Resources::default() };
    let then = Resources { memory_limit: Some(64 << 20), cpu_limit: Some(255), ..Resources::default() };
    let command = |owner: &str, name: &str, then: Resources| {
        apply::patch(&report(vec![entry(["", owner, name, ""], now, then)]))
    };
    let none = Resources { cpu_limit: None, ..then };
    for (owner, name, then, expected) in [
        (
            "Unit",
            "nginx.service",
            then,
            "systemctl set-property 'nginx.service' 'MemoryMax=67108864' 'CPUQuota=26%'\n",
        ),
        (
            "Unit",
            "nginx.service",
            none,
            "systemctl set-property 'nginx.service' 'MemoryMax=67108864' 'CPUQuota='\n",
        ),
        (
            "Unit",
            r"systemd-fsck@.service",
            none,
            "mkdir -p '/etc/systemd/system/systemd-fsck@.service.d' && printf '%s\\n' '[Service]' 'MemoryMax=67108864' 'CPUQuota=' > \
             '/etc/systemd/system/systemd-fsck@.service.d/50-snug.conf' && systemctl daemon-reload\n",
        ),
        (
            "Unit",
            "101/nginx.service",
            then,
            "# 101/nginx.service: in the guest 101: systemctl set-property 'nginx.service' 'MemoryMax=67108864' 'CPUQuota=26%'\n",
        ),
        (
            "Unit",
            "session.scope",
            then,
            "# session.scope: made by the program that starts it: set the limits there\n",
        ),
        ("Unit", "-x.service", then, "# -x.service: cannot be changed: invalid name\n"),
        (
            "Cgroup",
            "user.slice",
            then,
            "# user.slice: limits of a slice hold for all units in it together; if that is meant: systemctl set-property 'user.slice' \
             'MemoryMax=67108864' 'CPUQuota=26%'\n",
        ),
        (
            "Unit",
            "machine.slice",
            none,
            "# machine.slice: limits of a slice hold for all units in it together; if that is meant: systemctl set-property \
             'machine.slice' 'MemoryMax=67108864' 'CPUQuota='\n",
        ),
        (
            "Cgroup",
            "lxc",
            then,
            "# lxc: cannot be changed: made by the program that starts it (Cgroup): set the limits there\n",
        ),
    ] {
        assert_eq!(command(owner, name, then), expected, "{owner} {name}");
    }
    let update = command("Container", &id, then);
    let expected = format!("docker update --memory 67108864 --memory-swap 134217728 --cpus 0.255 {id}\n");
    assert!(update.starts_with(&expected) && update.contains("# in a compose file: "), "{update}");
}
