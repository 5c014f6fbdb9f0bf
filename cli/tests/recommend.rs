//! `snug recommend`, `explain`, `simulate` and `snapshot` as processes, on snapshots and on a small HTTP server.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

#[path = "../../tests/src/http.rs"]
pub mod http;
mod server;
mod shop;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use server::Server;
use shop::{MIB, START, error, evidence, hour, on, shop, snapshot, snug, text, written};
use snug::evidence::Snapshot;
use snug_sizing::{
    evidence::{Evidence, HourRecord, OomKill},
    workload::Resources,
};

/// Compares with a golden file, which `SNUG_BLESS=1` writes.
fn assert_golden(name: &str, output: &str) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name);
    if std::env::var_os("SNUG_BLESS").is_some_and(|bless| bless == "1") {
        fs::write(&path, output).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(
        committed == output,
        "{name} is another: run with SNUG_BLESS=1 and look at what changes\n{output}"
    );
}

#[test]
fn every_output_equals_its_golden_file() {
    let file = written(&snapshot(&shop()));
    for (name, arguments) in [
        ("table.txt", &["recommend"][..]),
        ("wide.txt", &["recommend", "-o", "wide", "--cpu-limit", "by-risk"]),
        ("recommendations.json", &["recommend", "web", "-o", "json"]),
        ("table-priced.txt", &["recommend", "--price", "cpu=0.03,memory=0.004"]),
        ("backtest.txt", &["backtest", "--history"]),
        ("table.csv", &["recommend", "-o", "csv"]),
        ("table.md", &["recommend", "-o", "markdown"]),
        ("patch.sh", &["recommend", "-o", "patch", "--risk", "critical"]),
        ("recommendations.yaml", &["recommend", "web", "-o", "yaml"]),
        ("kustomize.yaml", &["recommend", "-o", "kustomize"]),
        ("values.yaml", &["recommend", "-o", "helm"]),
        ("vpa.yaml", &["recommend", "-o", "vpa"]),
        ("explain.txt", &["explain", "shop/web", "--container", "app"]),
        (
            "simulate.txt",
            &[
                "simulate",
                "shop/web",
                "--cpu-limit",
                "300m",
                "--memory-limit",
                "100Mi",
                "--cpu-request",
                "50m",
            ],
        ),
        ("simulate-killed.txt", &["simulate", "ledger", "--memory-limit", "120Mi", "--cpu-limit", "10"]),
        ("explain-killed.txt", &["explain", "ledger"]),
    ] {
        let output = on(file.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", error(&output));
        assert_golden(name, &text(&output));
    }
}

#[test]
fn containers_without_a_recommendation_have_a_line_for_each_reason() {
    let observed = |name: &str, seconds: u64, mib: u64| {
        evidence(name, "", "Unit", Resources::default(), 1, |at| HourRecord {
            observed: seconds,
            ..if mib > 0 { hour(name, &[(5, seconds * 10)], mib, at) } else { HourRecord::default() }
        })
    };
    let mut all = vec![shop().swap_remove(0)];
    all.extend((0..1000).map(|number| observed(&format!("mount-{number:03}"), 3600, 0)));
    all.extend((0..3).map(|number| observed(&format!("timer-{number}"), 10 + number, 12)));
    let file = written(&snapshot(&all));
    let table = |arguments: &[&str]| text(&on(file.path(), &[&["recommend"], arguments].concat()));
    assert_golden("table-skipped.txt", &table(&[]));
    let wide = table(&["-o", "wide"]);
    let (_, each) = wide.split_once("\nNo recommendation:\n").unwrap();
    assert_eq!(each.lines().count(), 1003, "{each}");
    assert!(each.contains("  mount-999: no CPU or memory usage observed\n"), "{each}");
    assert!(each.contains("  timer-2: only 12 s observed; at least 60 s are needed\n"), "{each}");
}

#[test]
fn warnings_of_the_same_kind_share_a_line() {
    let proxy = |number: u64| {
        let name = format!("web-{number}");
        evidence(&name, "istio-proxy", "Deployment", Resources::default(), 1, |at| {
            hour(&name, &[(5, 36_000)], 40 * number, at)
        })
    };
    let file = written(&snapshot(&(1..7).map(proxy).collect::<Vec<_>>()));
    let table = |arguments: &[&str]| text(&on(file.path(), &[&["recommend"], arguments].concat()));
    assert_golden("table-warnings.txt", &table(&[]));
    let wide = table(&["-o", "wide"]);
    let (_, each) = wide.split_once("\nWarnings:\n").unwrap();
    let (each, _) = each.split_once("\n\n").unwrap();
    assert_eq!(each.lines().count(), 6, "{each}");
    let json: serde_json::Value = serde_json::from_str(&table(&["-o", "json"])).unwrap();
    let all = json["recommendations"].as_array().unwrap().iter();
    let texts: Vec<&str> = all.map(|it| it["warnings"][0]["text"].as_str().unwrap()).collect();
    assert!(texts.iter().all(|text| each.contains(text)), "{texts:?}\n{each}");
}

#[test]
fn patches_are_valid_and_quoted() {
    let file = written(&snapshot(&shop()));
    let patch = text(&on(file.path(), &["recommend", "-o", "patch"]));
    let web = patch.lines().find(|line| line.contains("deployment/web")).unwrap();
    let json = web.split('\'').nth(1).unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let containers = value["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let names: Vec<_> = containers.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app", "proxy"]);
    for container in containers {
        let quantity = container["resources"]["limits"]["memory"].as_str().unwrap();
        assert!(quantity.parse::<snug_sizing::quantity::Quantity>().is_ok(), "{quantity}");
    }
    let mut hostile = shop();
    hostile[0].workload.name = "web'; reboot; '".to_owned();
    let file = written(&snapshot(&hostile));
    let patch = text(&on(file.path(), &["recommend", "-o", "patch"]));
    assert!(!patch.lines().any(|line| !line.starts_with('#') && line.contains("reboot")), "{patch}");
}

#[test]
fn a_crash_loop_of_seconds_exceeds_the_threshold() {
    let limit = Resources { memory_limit: Some(256 * MIB), ..Resources::default() };
    let looping = evidence("batcher", "app", "Deployment", limit, 1, |_| {
        let kill = |at| OomKill { at: START + at, limit: 256 * MIB, pod: "batcher-0".to_owned() };
        HourRecord { observed: 36, kills: (0..12).map(kill).collect(), ..HourRecord::default() }
    });
    let file = written(&snapshot(&[looping]));
    let output = on(file.path(), &["recommend", "--fail-on", "0.5", "--horizon", "3d", "-o", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", error(&output));
    let said: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    let batcher = &said["recommendations"][0];
    assert!(batcher["recommended"]["memory_limit"].as_u64() > Some(300 * MIB), "{batcher}");
    assert_eq!((&batcher["confidence"], &said["horizon_days"]), (&"low".into(), &3.0.into()));
}

#[test]
fn exit_codes() {
    let file = written(&snapshot(&shop()));
    let code = |arguments: &[&str]| on(file.path(), arguments).status.code();
    assert_eq!(code(&["recommend"]), Some(0));
    assert_eq!(code(&["recommend", "--fail-on", "0.5"]), Some(2), "the ledger is killed at its limit");
    assert_eq!(code(&["recommend", "--fail-on", "1"]), Some(0));
    assert_eq!(code(&["recommend", "cron"]), Some(3));
    assert_eq!(code(&["recommend", "nobody"]), Some(3));
    assert_eq!(code(&["explain", "nobody"]), Some(3));
    assert_eq!(code(&["simulate", "nobody", "--cpu-limit", "1"]), Some(3));
    assert_eq!(code(&["simulate", "web"]), Some(1), "nothing to try");
    assert_eq!(code(&["simulate", "web", "--memory-limit", "0"]), Some(1));
    assert_eq!(code(&["recommend", "--risk", "none"]), Some(1));
    assert_eq!(snug(&["--help"]).status.code(), Some(0));
    assert!(
        error(&on(file.path(), &["recommend", "nobody"]))
            .contains("none of 5 containers belongs to a workload \"nobody\"")
    );
}

#[test]
fn invalid_snapshots_are_errors_with_line() {
    let good = snapshot(&shop());
    let packed = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let cut = packed(&good);
    let huge = good.replacen("\"first\":", "\"first\":-2000000000,\"was\":", 1);
    for (bytes, why) in [
        (b"".to_vec(), "is empty"),
        (b"hello\n".to_vec(), "is not a snapshot"),
        (good.replacen("evidence/1", "evidence/9", 1).into_bytes(), "\"snug.evidence/9\""),
        ((good.clone() + "{\"workload\": 3}\n").into_bytes(), "line 7 of"),
        (good.as_bytes()[..good.len() - 9].to_vec(), "line 6 of"),
        (cut[..cut.len() / 2].to_vec(), "cut off"),
        (huge.into_bytes(), "must lie in"),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let output = on(file.path(), &["recommend"]);
        assert_eq!(output.status.code(), Some(1), "{why}");
        assert!(
            error(&output).contains(why) && error(&output).contains(file.path().to_str().unwrap()),
            "{}",
            error(&output)
        );
    }
    let missing = on(Path::new("/nowhere/at/all"), &["recommend"]);
    assert!(error(&missing).contains("cannot open /nowhere/at/all"), "{}", error(&missing));
}

#[test]
fn several_agents_are_merged_and_a_missing_one_is_reported() {
    let all = shop();
    let first = Server::start("200 OK", vec![snapshot(&all[..2])]);
    let second = Server::start("200 OK", vec![snapshot(&all[2..])]);
    let file = written(&snapshot(&all));
    let expected = text(&on(file.path(), &["recommend", "-o", "csv"]));
    let both = snug(&["recommend", "-o", "csv", "--agent", &first.url(), "--agent", &second.url()]);
    assert_eq!(text(&both), expected, "{}", error(&both));
    assert!(first.requests()[0].starts_with("GET /api/v1/evidence HTTP"));

    let nobody = "http://127.0.0.1:1";
    let output = snug(&["recommend", "--agent", &first.url(), "--agent", nobody]);
    assert!(
        output.status.success() && error(&output).contains("the containers of this agent are missing"),
        "{}",
        error(&output)
    );
    let output = snug(&["recommend", "--agent", nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("is snug-agent running there"), "{}", error(&output));
    let old = Server::start("404 Not Found", vec![String::new()]);
    assert!(error(&snug(&["recommend", "--agent", &old.url()])).contains("at least as new as this command"));
}

#[test]
fn a_snapshot_gives_equal_results_and_equal_bytes() {
    let file = written(&snapshot(&shop()));
    let folder = tempfile::tempdir().unwrap();
    let [plain, packed] = ["a.jsonl", "a.jsonl.gz"].map(|name| folder.path().join(name));
    for path in [&plain, &packed] {
        let output = on(file.path(), &["snapshot", "-o", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}", error(&output));
    }
    let before = fs::read(&packed).unwrap();
    assert!(before.starts_with(&[0x1f, 0x8b]) && before.len() < fs::read(&plain).unwrap().len());
    on(&plain, &["snapshot", "-o", packed.to_str().unwrap()]);
    assert!(fs::read(&packed).unwrap() == before, "from the file itself");
    let said = |path: &Path| text(&on(path, &["recommend", "-o", "json"]));
    assert_eq!(said(&packed), said(file.path()));
    let recent = text(&on(&packed, &["recommend", "-o", "json", "--since", "1d"]));
    assert!(recent != said(&packed) && !recent.contains("ledger"), "{recent}");
    let other = text(&on(&packed, &["recommend", "-o", "csv", "-n", "elsewhere,shop"]));
    assert!(!other.contains("cron") && other.contains("ledger"));
}

#[test]
fn a_policy_file_overrides_settings() {
    let file = written(&snapshot(&shop()));
    let policy = written(
        "policies:\n- match: {workload: web, container: app}\n  min: {memory: 1Gi}\n- match: {workload: ledger}\n  exclude: true\n",
    );
    let path = policy.path().to_str().unwrap();
    let output = on(file.path(), &["recommend", "--policy", path, "-o", "json"]);
    let said: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    let entries = said["recommendations"].as_array().unwrap();
    let memory = |name: &str| {
        let entry = entries.iter().find(|entry| entry["container"] == name).unwrap();
        entry["quantities"]["limits"]["memory"].as_str().unwrap().to_owned()
    };
    assert_eq!((memory("app"), memory("proxy")), ("1Gi".to_owned(), "76Mi".to_owned()));
    let ledger =
        said["skipped"].as_array().unwrap().iter().find(|entry| entry["workload"] == "ledger").unwrap();
    assert_eq!(said["withheld"], said["skipped"], "the old name, for one version");
    assert_eq!(ledger["why"], "excluded by a policy");
    let output = on(file.path(), &["recommend", "--policy", "/absent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("cannot read the policy file /absent"), "{}", error(&output));
}

#[test]
fn the_qos_class_is_that_of_the_whole_pod() {
    let same = |amount| Resources {
        cpu_request: Some(amount),
        cpu_limit: Some(amount),
        memory_request: Some(amount * MIB),
        memory_limit: Some(amount * MIB),
    };
    let db = |at| hour("ledger-0", &[(10, 36_000)], 100, at);
    let beside = |owner, container, current| evidence("ledger", container, owner, current, 30, db);
    let limit = |all: &[Evidence]| {
        let file = written(&snapshot(all));
        let said = on(file.path(), &["recommend", "-o", "json"]);
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        let of_db =
            |entry: &&serde_json::Value| entry["container"] == "db" && entry["owner"] == "StatefulSet";
        let entry = said["recommendations"].as_array().unwrap().iter().find(of_db).unwrap();
        assert_eq!(entry["recommended"]["memory_request"], entry["recommended"]["memory_limit"]);
        (entry["recommended"]["cpu_limit"].is_u64(), entry["reasons"].to_string().contains("Guaranteed"))
    };
    let guaranteed = beside("StatefulSet", "db", same(250));
    let metrics = |current| beside("StatefulSet", "metrics", current);
    let alike = beside("Deployment", "metrics", Resources::default());
    assert_eq!(limit(&[guaranteed.clone(), metrics(same(20)), alike]), (true, true));
    let only_requests = Resources { cpu_limit: None, ..same(20) };
    assert_eq!(limit(&[guaranteed, metrics(only_requests)]), (false, false));
}

#[test]
fn many_workloads_each_get_a_recommendation() {
    let mut all = shop();
    let web = all.remove(0);
    all.clear();
    for number in 0..200 {
        let mut evidence = web.clone();
        evidence.workload.name = format!("web-{number}");
        all.push(evidence);
    }
    let file = written(&snapshot(&all));
    let output = on(file.path(), &["recommend", "-o", "csv"]);
    assert_eq!(text(&output).lines().count(), 201, "{}", error(&output));
}

fn read(bytes: &[u8]) -> Result<Snapshot, snug::evidence::SnapshotError> {
    let mut snapshot = Snapshot::default();
    snapshot.read("a test", bytes)?;
    Ok(snapshot)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_input_never_panics(cut in 0..20_000_usize, at in 0..20_000_usize, byte in any::<u8>()) {
        let mut all = shop();
        all.iter_mut().for_each(|one| one.hours = std::mem::take(&mut one.hours).into_iter().take(2).collect());
        let mut bytes = snapshot(&all).into_bytes();
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        bytes[at] = byte;
        if let Ok(snapshot) = read(&bytes) {
            // The numbers in the input are arbitrary here.
            let policy = snug_sizing::engine::Policy::new(snug_sizing::engine::Profile::Standard.risk());
            let policies = snug::policy::Policies::new(policy);
            snug::recommend::report::Report::make(&snapshot, &snapshot.pools(snug_sizing::engine::LikesScope::Namespace), &policies, |_| true);
        }
        let _ = read(&bytes[..cut]);
    }

    #[test]
    fn the_order_of_lines_does_not_matter(order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let all = shop();
        let shuffled: Vec<Evidence> = order.into_iter().map(|at| all[at].clone()).collect();
        let written = |all: &[Evidence]| {
            let mut out = Vec::new();
            read(snapshot(all).as_bytes()).unwrap().write(&mut out).unwrap();
            out
        };
        prop_assert!(written(&all) == written(&shuffled));
    }
}

#[test]
fn completions_and_manual_have_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = snug(&["completions", shell]);
        let text = text(&output);
        for command in ["top", "recommend", "explain", "snapshot", "backtest"] {
            assert!(output.status.success() && text.contains(command), "{shell} {command}");
        }
    }
    let bash = Command::new("bash").args(["-n", "-c", &text(&snug(&["completions", "bash"]))]).status();
    assert!(bash.is_ok_and(|status| status.success()), "bash takes it");
    let manual = text(&snug(&["man"]));
    for word in [".TH snug 1", ".TH snug-recommend 1", "snug\\-recommend", "fail\\-on"] {
        assert!(manual.contains(word), "{word}: {manual}");
    }
}

#[test]
fn the_fixture_simulates_every_quota() {
    let outcomes = shop()[0].hours.values().next().unwrap().quota_what_if.clone().unwrap();
    assert_eq!(outcomes.iter().count(), snug_sizing::cpu_quota::QUOTAS.len());
}

#[test]
fn a_short_history_is_an_error() {
    let young = written(&snapshot(&shop()[3..]));
    let output = on(young.path(), &["backtest", "--history"]);
    let said = error(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("none of 2 containers over 1 hours has a day of history"), "{said}");
    let output = snug(&["backtest"]);
    assert!(output.status.code() == Some(1) && error(&output).contains("--traces"), "{}", error(&output));
    let output = on(young.path(), &["backtest", "--history", "--policy", "vpa"]);
    assert!(error(&output).contains("use all, snug, as-is, oracle"), "{}", error(&output));
}

#[test]
fn a_hundred_thousand_containers_are_processed() {
    const CONTAINERS: usize = 100_000;
    let mut file = GzEncoder::new(tempfile::NamedTempFile::new().unwrap(), Compression::fast());
    file.write_all(snapshot(&[]).as_bytes()).unwrap();
    let one = evidence("web-NUMBER", "app", "Deployment", Resources::default(), 2, |at| HourRecord {
        quota_what_if: None,
        ..hour("web-0", &[(5, 900)], 12, at)
    });
    let line = serde_json::to_string(&one).unwrap() + "\n";
    for number in 0..CONTAINERS {
        file.write_all(line.replace("web-NUMBER", &format!("web-{number}")).as_bytes()).unwrap();
    }
    let file = file.finish().unwrap();
    let output = on(file.path(), &["recommend", "-o", "csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let text = text(&output);
    assert_eq!(text.lines().count(), 1 + CONTAINERS);
    let (first, last) = (text.lines().nth(1).unwrap(), text.lines().last().unwrap());
    assert!(first.contains("web-0,") && last.contains("web-99999,"), "{first}\n{last}");
    let output = on(file.path(), &["recommend", "web-77777", "-o", "csv"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).lines().count() == 2);
}
