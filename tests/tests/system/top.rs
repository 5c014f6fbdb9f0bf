//! `snug top` in a real terminal.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use snug_tests::{
    agent::{self, Agent},
    fake_agent::{FakeAgent, NODE},
    tmux::Terminal,
};

use crate::{
    cannot_run, container,
    container::pod_list,
    has_program,
    recommend::{cli, snug},
};

const SIZES: [(u16, u16); 2] = [(80, 24), (160, 50)];
/// Rows of the screen that are not containers: title, headings and keys.
const FRAME: usize = 3;

/// Starts `snug top` in a terminal, after a line that must be there again at the end.
fn top(terminal: &Terminal, options: &str) -> Result<()> {
    terminal.run("echo before; export HISTFILE=");
    terminal.until("a line", |text| text.lines().any(|line| line == "before"));
    terminal.run(&format!("{} top {options}", cli()?.display()));
    terminal.until("rates", |text| text.contains("snug top") && text.contains("  over "));
    Ok(())
}

/// The rows on the screen: cells by heading. Names in these tests have no spaces.
fn rows(screen: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let lines: Vec<&str> = screen.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("  NAME ")).context("no headings")?;
    let headings = lines[at].replace("CPU LIM", "CPU_LIM").replace("MEM LIM", "MEM_LIM");
    let headings: Vec<&str> = headings.split_whitespace().collect();
    let keys = lines.iter().rposition(|line| !line.is_empty()).context("no keys")?;
    let row = |line: &&str| -> Result<BTreeMap<String, String>> {
        let cells: Vec<&str> = line.get(2..).unwrap_or_default().split_whitespace().collect();
        ensure!(cells.len() == headings.len(), "{line:?} does not fit {headings:?}");
        let cells = headings.iter().zip(&cells);
        let mut row: BTreeMap<String, String> =
            cells.map(|(heading, cell)| ((*heading).to_owned(), (*cell).to_owned())).collect();
        row.insert("sign".to_owned(), line.get(..1).unwrap_or_default().to_owned());
        Ok(row)
    };
    lines[at + 1..keys].iter().filter(|line| !line.is_empty()).map(row).collect()
}

/// A number on the screen, and by how much it may differ from the exact value because it is rounded.
fn number(cell: &str) -> Result<(f64, f64)> {
    let end = cell.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(cell.len());
    let (digits, unit) = cell.split_at(end);
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let unit = match unit {
        "" => 1.0,
        "%" => 0.01,
        "m" => 0.001,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        other => anyhow::bail!("unknown unit {other:?} in {cell:?}"),
    };
    let value: f64 = digits.parse()?;
    let step = match value {
        _ if unit < 1024.0 => 10_f64.powi(-i32::try_from(decimals)?),
        // Three digits; zeros at the end of a fraction are left out.
        value if value < 9.995 => 0.01,
        value if value < 99.95 => 0.1,
        _ => 1.0,
    };
    Ok((value * unit, unit * step * 0.500_000_1))
}

/// Compares a row with the JSON of its container.
fn agrees(row: &BTreeMap<String, String>, json: &Value) -> Result<()> {
    for (heading, field) in [
        ("CPU", "cpu_cores"),
        ("CPU_LIM", "cpu_limit_cores"),
        ("THROT", "throttled_share"),
        ("MEMORY", "memory_working_set_bytes"),
        ("PEAK", "memory_peak_bytes"),
        ("MEM_LIM", "memory_limit_bytes"),
        ("OOM", "oom_kills"),
        ("RX/s", "network_receive_bytes_per_second"),
        ("TX/s", "network_transmit_bytes_per_second"),
    ] {
        let Some(cell) = row.get(heading) else { continue };
        match json[field].as_f64() {
            None => ensure!(cell == "-", "{heading} is {cell}, but {field} is not known: {json}"),
            Some(exact) => {
                let (shown, rounding) = number(cell)?;
                ensure!(
                    (shown - exact).abs() <= rounding,
                    "{heading} is {cell}, but {field} is {exact}: {json}"
                );
            }
        }
    }
    for (heading, field) in [("NAMESPACE", "namespace"), ("NODE", "node")] {
        if let Some(cell) = row.get(heading) {
            ensure!(json[field] == cell.as_str(), "{heading} is {cell}: {json}");
        }
    }
    Ok(())
}

/// The containers of `-o json` by short name.
fn json(address: &str) -> Result<BTreeMap<String, Value>> {
    let (code, text) = snug(&["top", "--agent", address, "--once", "-o", "json", "--interval", "1s"])?;
    ensure!(code == Some(0), "{text}");
    let report: Value = serde_json::from_str(&text)?;
    let rows = report["containers"].as_array().context("no rows")?.iter();
    Ok(rows.map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), row.clone())).collect())
}

#[test]
fn numbers_on_the_screen_are_those_of_the_json() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    for containers in [5, 500] {
        let agent = FakeAgent::start(containers);
        let json = json(&agent.url())?;
        assert_eq!(json.len(), containers as usize);
        for (width, height) in SIZES {
            let terminal = Terminal::start(width, height);
            top(&terminal, &format!("--agent {} --interval 1s --sort name", agent.url()))?;
            let mut seen = BTreeMap::new();
            for page in 0.. {
                let shown = rows(&terminal.text())?;
                let visible = usize::from(height) - FRAME;
                assert_eq!(shown.len(), visible.min(containers as usize), "page {page}");
                for row in &shown {
                    let exact = json.get(&row["NAME"]).with_context(|| format!("unknown: {row:?}"))?;
                    agrees(row, exact)?;
                    let is_serious = exact["throttled_share"].as_f64() >= Some(0.25);
                    assert_eq!(row["sign"] == "!", is_serious, "{row:?}: {exact}");
                    seen.insert(row["NAME"].clone(), row.clone());
                }
                if seen.len() == containers as usize {
                    break;
                }
                assert!(page < 100, "only {} of {containers} rows", seen.len());
                let last = shown.last().context("no rows")?["NAME"].clone();
                terminal.press("PageDown");
                terminal.until("another page", |text| {
                    rows(text).is_ok_and(|rows| rows.last().is_some_and(|row| row["NAME"] != last))
                });
            }
            if width == 160 {
                assert!(seen.values().all(|row| row.contains_key("PEAK") && row.contains_key("RX/s")));
            }
            terminal.press("q");
            terminal.is_restored();
            assert!(terminal.text().lines().any(|line| line == "before"), "{}", terminal.text());
        }
    }
    Ok(())
}

#[test]
fn the_terminal_is_restored_after_signals() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let agent = FakeAgent::start(5);
    let options = format!("--agent {} --interval 1s", agent.url());
    for signal in [Signal::TERM, Signal::INT] {
        let terminal = Terminal::start(80, 24);
        top(&terminal, &options)?;
        assert_eq!(terminal.modes(), (true, false), "the alternate screen without a cursor");
        let pid = i32::try_from(terminal.child())?;
        kill_process(Pid::from_raw(pid).context("no pid")?, signal)?;
        terminal.is_restored();
        assert!(terminal.text().lines().any(|line| line == "before"), "{}", terminal.text());
    }
    Ok(())
}

#[test]
fn a_stopped_view_comes_back_and_follows_the_size() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let agent = FakeAgent::start(500);
    let terminal = Terminal::start(80, 24);
    top(&terminal, &format!("--agent {} --interval 1s", agent.url()))?;
    terminal.press("C-z");
    terminal.until("the shell says so", |text| text.contains("Stopped"));
    terminal.is_restored();
    terminal.resize(120, 30);
    terminal.run("fg");
    let text = terminal.until("the view is back", |text| text.contains("1-27 of 500"));
    assert_eq!(terminal.modes(), (true, false));
    assert_eq!(rows(&text)?.len(), 30 - FRAME);
    for (width, height) in [(40, 10), (200, 60), (81, 25), (20, 5), (80, 24)] {
        terminal.resize(width, height);
        let rows = usize::from(height) - FRAME;
        let text = terminal
            .until("the view fits", |text| text.lines().filter(|line| line.contains("app")).count() == rows);
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{text}");
        assert!(
            text.lines().nth(usize::from(height) - 1).is_some_and(|keys| keys.starts_with("q quit")),
            "{text}"
        );
    }
    terminal.press("C-c");
    terminal.is_restored();
    Ok(())
}

#[test]
fn keys_filter_group_pause_and_open() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let agent = FakeAgent::start(500);
    let terminal = Terminal::start(100, 30);
    top(&terminal, &format!("--agent {} --interval 1s", agent.url()))?;
    for key in ["/", "a", "p", "p", "4", "9", "9", "Enter"] {
        terminal.press(key);
    }
    terminal.until("one row", |text| text.contains("1 of 500 containers") && text.contains("filter app499"));
    terminal.press("Enter");
    let text = terminal.until("details", |text| text.contains("Events    none"));
    for part in
        ["app499-x0499  namespace payments  workload Deployment/app499", "CPU  ", "Memory ", "Restarts "]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    for key in ["Escape", "Escape", "g", "g"] {
        terminal.press(key);
        // A terminal sends Alt with a key as Escape and the key.
        std::thread::sleep(Duration::from_millis(100));
    }
    let text = terminal.until("two namespaces", |text| text.contains("2 groups of 500 containers"));
    let groups = rows(&text)?;
    assert_eq!(groups.iter().map(|row| &*row["COUNT"]).collect::<Vec<_>>(), ["250", "250"]);
    terminal.press("p");
    terminal.until("a pause", |text| text.contains("PAUSED"));
    terminal.press("q");
    terminal.is_restored();
    Ok(())
}

#[test]
fn an_agent_that_goes_away_and_comes_back_is_shown_as_such() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let agent = FakeAgent::start(5);
    let terminal = Terminal::start(100, 24);
    top(&terminal, &format!("--agent {} --interval 1s", agent.url()))?;
    agent.silence(true);
    let text = terminal.until("it is away", |text| text.contains(&format!("? {NODE} does not respond for ")));
    assert_eq!(rows(&text)?.iter().filter(|row| row["sign"] == "?").count(), 5, "{text}");
    agent.silence(false);
    let text = terminal.until("it is back", |text| text.contains(&format!("{NODE} is back after ")));
    assert!(rows(&text)?.iter().all(|row| row["sign"] != "?"), "{text}");
    Ok(())
}

#[test]
fn a_dumb_terminal_gets_a_table() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let agent = FakeAgent::start(5);
    let terminal = Terminal::start(80, 24);
    let cli = cli()?;
    terminal.run(&format!("TERM=dumb {} top --agent {} --interval 1s", cli.display(), agent.url()));
    let text = terminal
        .until("a table", |text| text.matches("app").count() >= 5 && text.trim_end().ends_with("READY>"));
    assert!(!terminal.modes().0 && text.contains("  NAME "), "{text}");
    Ok(())
}

#[test]
fn colour_can_be_switched_off_and_signs_stay() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let agent = FakeAgent::start(5);
    for (variable, has_color) in [("A=1", true), ("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let terminal = Terminal::start(80, 24);
        terminal.run(&format!("export {variable}"));
        top(&terminal, &format!("--agent {} --interval 1s", agent.url()))?;
        let text = rows(&terminal.text())?;
        assert!(
            text.iter().any(|row| row["sign"] == "!") && text.iter().any(|row| row["sign"] == "*"),
            "{text:?}"
        );
        let styles = terminal.styled();
        assert_eq!(
            styles.contains("38;5;1m") && styles.contains("38;5;3m"),
            has_color,
            "{variable}: {styles:?}"
        );
    }
    Ok(())
}

#[test]
fn real_containers_are_shown_with_their_numbers() -> Result<()> {
    if !has_program("tmux") {
        return cannot_run("tmux is not installed");
    }
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[container.pod("shop", "web", "app")]))?;
    let agent = Agent::start(["--pods-file", &*pods.to_string_lossy()])?;
    container.run("x=$(head -c 8000000 /dev/zero | tr '\\0' a); while :; do sleep 1000; done")?;
    let address = format!("http://{}", agent.address());
    // Until the container rests: its memory does not change any more.
    let at_rest = || -> Result<Option<Value>> {
        let rows = json(&address)?;
        let row = rows.into_values().find(|row| row["container"] == "app");
        Ok(row.filter(|row| row["cpu_cores"] == 0.0 && row["memory_working_set_bytes"].as_f64() > Some(8e6)))
    };
    let row = agent::eventually(Duration::from_secs(20), "the container rests", at_rest)?;
    let name = row["name"].as_str().context("no name")?;
    assert!(name.starts_with("web-") && name.ends_with("/app"), "{row}");
    for (width, height) in SIZES {
        let terminal = Terminal::start(width, height);
        top(&terminal, &format!("--agent {address} --interval 1s -n shop"))?;
        let text = terminal.until("the container rests", |text| text.contains(" 0m "));
        assert_eq!(rows(&text)?.len(), 1, "{text}");
        // The kernel adds up memory in batches, so even an idle container's changes from one moment to another.
        let mut last = String::new();
        agent::eventually(Duration::from_secs(20), "the screen and the JSON of one moment agree", || {
            let Some(exact) = at_rest()? else { return Ok(None) };
            let shown = rows(&terminal.text())?;
            let result = agrees(shown.first().context("no row")?, &exact);
            last = format!("{result:?}");
            Ok(result.ok())
        })
        .with_context(|| last)?;
        terminal.press("Enter");
        let text =
            terminal.until("its history", |text| text.contains("windows of") || text.contains("Events  "));
        assert!(text.contains("namespace shop") && text.contains("pod web-"), "{text}");
        terminal.press("q");
        terminal.is_restored();
    }
    Ok(())
}
