//! The page of `snug recommend -o html` in a headless Chromium: its numbers, its sliders, and who can use it.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use snug_sizing::{
    cpu_quota::TokenBuckets,
    evidence::{Evidence, HOUR, Header, Hour, HourRecord, OomKill, Peak, PodTotals},
    workload::{Container, Resources, Workload},
};
use snug_tests::{browser::Browser, required};

const MIB: u64 = 1 << 20;
const START: u64 = 1_800_000_000 / HOUR * HOUR;
const HOURS: u64 = 100;
/// A name that would run a script if it were markup.
const HOSTILE: &str = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'&amp;";

fn evidence(namespace: &str, name: &str, set: [u64; 4], mib: u64, kills: &[u64]) -> Evidence {
    let workload = Workload {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        owner: "Deployment".to_owned(),
        replicas: 3,
        ..Workload::default()
    };
    let [cpu_request, cpu_limit, memory_request, memory_limit] = set;
    let some = |value: u64| (value > 0).then_some(value);
    let current = Resources {
        cpu_request: some(cpu_request),
        cpu_limit: some(cpu_limit),
        memory_request: some(memory_request * MIB),
        memory_limit: some(memory_limit * MIB),
    };
    let container = Container { name: "app".to_owned(), seen: START, current, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    for at in 0..HOURS {
        let begin = START + at * HOUR;
        let mut buckets = TokenBuckets::default();
        let mut record = HourRecord { observed: 3 * HOUR, ..HourRecord::default() };
        for (used, times) in [(3, 20_000), (12, 4000), (40, 600), (90, 60)] {
            record.cpu.record(used as f64 / 100.0, times);
            record.minutes.record(used as f64 / 200.0, times / 600);
            (0..times / 20).for_each(|_| buckets.feed(used * 1_000_000, 100_000_000));
        }
        record.quota_what_if = buckets.take();
        let bytes = (mib + (at * 7) % 40) * MIB;
        record.peak = Some(Peak { bytes, at: begin + 60, pod: format!("{name}-a") });
        if kills.contains(&at) {
            let pod = format!("{name}-a");
            record.kills = vec![OomKill { at: begin + 100, limit: memory_limit * MIB, pod }];
            (record.starts, record.exits) = (1, [(137, 1)].into());
        }
        (record.periods, record.throttled) = (10_000, if cpu_limit == 100 { 2500 } else { 0 });
        evidence.hours.insert(Hour::from_seconds(begin), record);
    }
    evidence.pods.insert(format!("{name}-a"), PodTotals::default());
    evidence
}

fn snapshot() -> Result<tempfile::NamedTempFile> {
    let all = [
        evidence("shop", "web", [1000, 0, 1024, 1024], 180, &[]),
        evidence("shop", "ledger", [250, 250, 128, 128], 88, &[20, 47, 91]),
        evidence("ops", "worker", [100, 100, 256, 256], 60, &[]),
        evidence("data", "young", [0; 4], 40, &[]),
        evidence("ops", HOSTILE, [500, 0, 512, 512], 300, &[]),
    ];
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "{}", serde_json::to_string(&Header::new("node-1", START + HOURS * HOUR + 600))?)?;
    for one in all {
        writeln!(file, "{}", serde_json::to_string(&one)?)?;
    }
    Ok(file)
}

fn snug(file: &Path, arguments: &[&str]) -> Result<String> {
    let program = env::var_os("SNUG_CLI_BIN")
        .context("SNUG_CLI_BIN is not set; run `cargo xtask test --only browser`")?;
    let (command, rest) = arguments.split_first().context("no command")?;
    let output = Command::new(program).arg(command).arg("--file").arg(file).args(rest).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Where pictures are kept for people to look at.
fn pictures() -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/test/browser");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The page in a browser, its file, and the same recommendations as JSON.
struct OpenPage {
    browser: Browser,
    snapshot: tempfile::NamedTempFile,
    json: Value,
    _page: tempfile::TempDir,
}

fn opened() -> Result<Option<OpenPage>> {
    let Some(mut browser) = required(Browser::start()) else { return Ok(None) };
    let (snapshot, folder) = (snapshot()?, tempfile::tempdir()?);
    let file = folder.path().join("snug.html");
    let price = ["--price", "cpu=0.03,memory=0.004"];
    fs::write(&file, snug(snapshot.path(), &[&["recommend", "-o", "html"][..], &price].concat())?)?;
    fs::copy(&file, pictures()?.join("snug.html"))?;
    let json = snug(snapshot.path(), &[&["recommend", "-o", "json", "--sort", "risk"][..], &price].concat())?;
    browser.show((1280, 900), "light", "screen")?;
    browser.open(&file)?;
    Ok(Some(OpenPage { browser, snapshot, json: serde_json::from_str(&json)?, _page: folder }))
}

/// JavaScript writes whole numbers without a point.
fn as_floats(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.into_iter().map(as_floats).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, one)| (name, as_floats(one))).collect(),
        other => other,
    }
}

#[test]
fn its_numbers_are_those_of_the_json_and_names_are_text() -> Result<()> {
    let Some(OpenPage { mut browser, json, .. }) = opened()? else { return Ok(()) };
    let data = browser.evaluate("data.reports[0]")?;
    assert!(as_floats(data) == as_floats(json.clone()), "the page has other numbers than -o json");
    let rows = browser.evaluate(
        "[...document.querySelectorAll('details.container')].map(one => [one.querySelector('.title').textContent, one.dataset.issue,
           ...[...one.querySelector('tbody').querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent))])",
    )?;
    let entries = json["recommendations"].as_array().unwrap();
    assert_eq!(rows.as_array().unwrap().len(), entries.len());
    for (row, entry) in rows.as_array().unwrap().iter().zip(entries) {
        let title =
            format!("{}/{} app", entry["namespace"].as_str().unwrap(), entry["workload"].as_str().unwrap());
        assert_eq!((&row[0], &row[1]), (&json!(title), &entry["issue"]), "{row}");
        let then = |kind: &str, resource: &str| match &entry["quantities"][kind][resource] {
            Value::Null => json!("-"),
            quantity => quantity.clone(),
        };
        let shown: Vec<&Value> = row.as_array().unwrap()[2..].iter().map(|cells| &cells[2]).collect();
        let wanted = [
            then("requests", "cpu"),
            then("limits", "cpu"),
            then("requests", "memory"),
            then("limits", "memory"),
        ];
        assert_eq!(shown, wanted.iter().collect::<Vec<_>>());
    }
    // Nothing ran that is not the page's, nothing was loaded, and nothing failed.
    assert_eq!(browser.evaluate("window.pwned ?? null")?, Value::Null);
    assert_eq!(browser.evaluate("document.images.length")?, 0);
    for event in ["Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Log.entryAdded"] {
        assert!(browser.events(event).is_empty(), "{:?}", browser.events(event));
    }
    let requests = browser.events("Network.requestWillBeSent");
    assert!(
        requests.len() == 1 && requests[0]["request"]["url"].as_str().unwrap().starts_with("file://"),
        "{requests:?}"
    );
    Ok(())
}

#[test]
fn sliders_simulate_as_the_command_does() -> Result<()> {
    let Some(OpenPage { mut browser, snapshot, json, .. }) = opened()? else { return Ok(()) };
    let entries = json["recommendations"].as_array().unwrap();
    for (number, entry) in entries.iter().enumerate() {
        let name = entry["workload"].as_str().unwrap();
        if name == HOSTILE {
            continue;
        }
        let workload = format!("{}/{name}", entry["namespace"].as_str().unwrap());
        for value in [0, 60, 100, 140, 200] {
            let moved = browser.evaluate(&format!(
                "(() => {{ const one = document.getElementById('tm{number}'); one.value = {value}; one.dispatchEvent(new Event('input'));
                   return [one.dataset.limit, document.getElementById('tm{number}-out').textContent, one.getAttribute('aria-valuetext'),
                     memoryOutcome(data.simulations[{number}], Number(one.dataset.limit))]; }})()"
            ))?;
            let limit = moved[0].as_str().context("no limit")?;
            let simulated =
                snug(snapshot.path(), &["simulate", &workload, "--memory-limit", limit, "-o", "json"])?;
            let simulated: Value = serde_json::from_str(&simulated)?;
            let found = &simulated["simulations"][0]["memory_limit"];
            let outcome = &moved[3];
            assert_eq!(
                (&outcome["hours"], &outcome["above"], &outcome["kills"]),
                (&found["hours"], &found["hours_above"], &found["kills_seen"]),
                "{workload} {limit}"
            );
            let above = found["hours_above"].as_u64().unwrap();
            let words = moved[1].as_str().unwrap();
            assert!(
                words.contains(&if above > 0 {
                    format!("at least {above} OOM kill")
                } else {
                    "never above it".to_owned()
                }),
                "{words}"
            );
            assert_eq!(moved[1], moved[2], "what a screen reader says");
        }
        for value in [0, 3, 7, 15] {
            let moved = browser.evaluate(&format!(
                "(() => {{ const one = document.getElementById('tc{number}'); one.value = {value}; one.dispatchEvent(new Event('input'));
                   return [Number(one.dataset.limit), data.simulations[{number}].quotas[{value}].periods, document.getElementById('tc{number}-out').textContent]; }})()"
            ))?;
            let limit = format!("{}m", moved[0]);
            let simulated =
                snug(snapshot.path(), &["simulate", &workload, "--cpu-limit", &limit, "-o", "json"])?;
            let simulated: Value = serde_json::from_str(&simulated)?;
            assert_eq!(
                moved[1].as_f64(),
                simulated["simulations"][0]["cpu_limit"]["at_most"]["periods"].as_f64(),
                "{workload} {limit}"
            );
            assert!(moved[2].as_str().unwrap().contains("of CFS periods throttled"), "{}", moved[2]);
        }
    }
    // With the keyboard alone.
    browser.evaluate("document.querySelector('input[data-try]').focus()")?;
    let text = "document.querySelector('input[data-try] + output').textContent";
    let before = browser.evaluate(text)?;
    browser.press("ArrowLeft", 37)?;
    assert_ne!(browser.evaluate(text)?, before);
    browser.evaluate("document.querySelector('details.container:not([open]) summary').focus()")?;
    let open = "document.querySelectorAll('details.container[open]').length";
    let before = browser.evaluate(open)?.as_u64();
    browser.press("Enter", 13)?;
    assert_eq!(browser.evaluate(open)?.as_u64(), before.map(|count| count + 1));
    // And a filter.
    browser.evaluate("(() => { const it = document.getElementById('filter'); it.value = 'LEDGER'; it.dispatchEvent(new Event('input')); })()")?;
    assert_eq!(browser.evaluate("document.querySelectorAll('details.container:not([hidden])').length")?, 1);
    assert_eq!(browser.evaluate("document.getElementById('shown').textContent")?, "1 container shown");
    Ok(())
}

#[test]
fn everyone_can_use_and_print_it() -> Result<()> {
    let Some(axe) = required(env::var("SNUG_TEST_AXE").context("SNUG_TEST_AXE is not set")) else {
        return Ok(());
    };
    let Some(OpenPage { mut browser, .. }) = opened()? else { return Ok(()) };
    let (axe, folder) = (fs::read_to_string(axe)?, pictures()?);
    browser.evaluate(&axe)?;
    browser.picture(&folder.join("light.png"))?;
    browser
        .evaluate("document.querySelectorAll('details.container').forEach(one => { one.open = true; })")?;
    for (name, size, colors) in
        [("wide", (1280, 900), "light"), ("wide", (1280, 900), "dark"), ("narrow", (390, 844), "light")]
    {
        browser.show(size, colors, "screen")?;
        let found = browser.evaluate(
            "axe.run().then(found => found.violations.map(one => [one.id, one.impact, one.nodes.map(node => node.html.slice(0, 200))]))",
        )?;
        assert_eq!(found, json!([]), "{name} {colors}");
        let overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")?;
        assert!(overflow.as_i64() <= Some(0), "{name}: {overflow} pixels too wide");
        browser.evaluate("document.querySelector('details.container').scrollIntoView()")?;
        browser.picture(&folder.join(format!("{name}-{colors}.png")))?;
    }
    browser.show((800, 1100), "dark", "print")?;
    browser
        .evaluate("document.querySelectorAll('details.container').forEach(one => { one.open = false; })")?;
    let shown = browser.evaluate("getComputedStyle(document.querySelector('.what-if')).display")?;
    assert_eq!(shown, "none");
    let height = browser.evaluate(
        "document.querySelector('details.container:not([open]) > div').getBoundingClientRect().height",
    )?;
    assert!(height.as_f64() > Some(50.0), "a closed part is printed as well: {height}");
    assert_eq!(browser.evaluate("getComputedStyle(document.body).backgroundColor")?, "rgb(255, 255, 255)");
    browser.picture(&folder.join("print.png"))?;
    let printed = browser.printed()?;
    ensure!(printed.starts_with(b"%PDF") && printed.len() > 20_000, "{} bytes", printed.len());
    Ok(())
}
