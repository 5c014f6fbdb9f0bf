//! `snug check`.

use std::{path::Path, process::Command};

use serde_json::Value;

use super::{
    Repository, code, error,
    history::{Used, snapshot, used},
    text,
};

const MIB: u64 = 1 << 20;

/// A memory limit that is too small, a CPU limit that throttles, a large request, and one that fits.
fn manifest() -> Repository {
    let repository = Repository::new("plain");
    for file in ["shop.yaml", "report.yaml", "list.json", "other.yaml", "secret.sops.yaml"] {
        std::fs::remove_file(repository.path().join(file)).unwrap();
    }
    let of = |name: &str, resources: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        resources: {resources}\n---\n"
        )
    };
    let text = of("killed", "{requests: {cpu: 200m, memory: 100Mi}, limits: {memory: 100Mi}}")
        + &of("slow", "{requests: {cpu: 600m, memory: 300Mi}, limits: {cpu: 500m}}")
        + &of("large", "{requests: {cpu: 4, memory: 4Gi}}")
        + &of("unknown", "{requests: {cpu: 4}}");
    repository.write("shop.yaml", &text);
    repository
}

fn shop() -> Vec<Used> {
    vec![
        used("shop Deployment/killed app", 0.1, 120),
        used("shop Deployment/slow app", 0.4, 200),
        used("shop Deployment/large app", 0.1, 100),
    ]
}

#[test]
fn the_exit_code_is_that_of_the_worst_problem() {
    let repository = manifest();
    let history = |names: &[&str]| {
        snapshot(&shop().into_iter().filter(|it| names.contains(&&*it.workload)).collect::<Vec<_>>())
    };
    for (names, expected) in
        [(&["killed", "slow", "large"][..], 6), (&["slow", "large"], 5), (&["large"], 4), (&[], 3)]
    {
        let output = repository.snug(history(names).path(), &["check"]);
        assert_eq!(code(&output), expected, "{names:?} {} {}", text(&output), error(&output));
    }
    let large = history(&["large"]);
    assert_eq!(code(&repository.snug(large.path(), &["check", "--fail-on", "throttling"])), 0);
    // What diff writes, check accepts.
    let all = snapshot(&shop());
    assert_eq!(code(&repository.snug(all.path(), &["diff", "--write"])), 0);
    let output = repository.snug(all.path(), &["check"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
}

#[test]
fn every_format_has_every_finding() {
    let repository = manifest();
    let history = snapshot(&shop());
    let run = |format: &str| text(&repository.snug(history.path(), &["check", "-o", format]));
    let table = run("table");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check.txt");
    if std::env::var_os("SNUG_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&golden, &table).unwrap();
    }
    assert_eq!(
        table,
        std::fs::read_to_string(golden).unwrap(),
        "run with SNUG_BLESS=1 and look at what changes"
    );
    for part in [
        "oom-risk    shop/killed app  shop.yaml:9",
        "throttling  shop/slow app",
        "waste       shop/large app",
    ] {
        assert!(table.contains(part), "{table}");
    }
    assert!(table.contains("shop/unknown app: no usage history"), "{table}");
    let json: Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!(json["schema"], "snug.check/1");
    let found: Vec<&str> = json["containers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|container| container["findings"].as_array().unwrap())
        .map(|finding| finding["problem"].as_str().unwrap())
        .collect();
    let count = |problem: &str| found.iter().filter(|it| **it == problem).count();
    assert_eq!((count("oom-risk"), count("throttling"), count("waste")), (1, 1, 2), "{found:?}");
    let sarif: Value = serde_json::from_str(&run("sarif")).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), found.len());
    let location = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(
        (&location["artifactLocation"]["uri"], &location["region"]["startLine"]),
        (&"shop.yaml".into(), &9.into())
    );
    let junit = run("junit");
    println!("{junit}");
    for part in [
        "tests=\"4\" failures=\"3\" skipped=\"1\"",
        "<failure type=\"oom-risk\"",
        "<skipped message=\"no usage history\"",
    ] {
        assert!(junit.contains(part), "{part}: {junit}");
    }
    let markdown = run("markdown");
    assert!(markdown.contains("| oom-risk | shop/killed app | shop.yaml:9 | "), "{markdown}");
}

#[test]
fn sarif_is_valid() {
    let repository = manifest();
    let history = snapshot(&shop());
    let sarif: Value =
        serde_json::from_str(&text(&repository.snug(history.path(), &["check", "-o", "sarif"]))).unwrap();
    let schema: Value = serde_json::from_str(include_str!("../fixtures/sarif-schema-2.1.0.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&sarif).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // The check must be able to fail.
    let mut wrong = sarif;
    wrong["runs"][0]["results"][0]["level"] = "bad".into();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn thresholds_come_from_the_policy_file() {
    let repository = manifest();
    let history = snapshot(&shop());
    let check = |policy: &str| {
        repository.write("policy.txt", policy);
        repository.snug(history.path(), &["check", "--policy", "policy.txt"])
    };
    let all = "oomKillsPerPodDay: 1, throttled: 1, cpuTimeAboveRequest: 1, cpuWaste: 1, memoryWaste: 1";
    let output = check(&format!("policies:\n- thresholds: {{{all}}}\n"));
    assert_eq!(code(&output), 0, "{} {}", text(&output), error(&output));
    let output = check(&format!("policies:\n- match: {{workload: killed}}\n  thresholds: {{{all}}}\n"));
    assert_eq!(code(&output), 5, "{}", text(&output));
}

#[test]
fn a_policy_that_cannot_apply_is_an_error() {
    let repository = manifest();
    let history = snapshot(&shop());
    for (policy, message) in [
        (
            "- match: {workload: wbe}\n  risk: critical\n",
            "policy 1 of the policy file (workload: wbe) matches no container",
        ),
        ("- min: {cpu: 2}\n  max: {cpu: 1}\n", "a CPU minimum of 2 above its maximum of 1"),
        (
            "- match: {namespace: shop}\n  min: {memory: 2Gi}\n- match: {workload: large}\n  max: {memory: 1Gi}\n",
            "the policy of large app, from several entries, has a memory minimum of 2Gi above its maximum of 1Gi",
        ),
    ] {
        repository.write("policy.txt", &format!("policies:\n{policy}"));
        for command in ["check", "diff"] {
            let output = repository.snug(history.path(), &[command, "--policy", "policy.txt"]);
            assert_eq!(code(&output), 1, "{policy}");
            assert!(error(&output).contains(message), "{}", error(&output));
        }
    }
    // A container of the manifests without history is one, too.
    repository.write("policy.txt", "policies:\n- match: {workload: unknown}\n  risk: critical\n");
    assert_eq!(code(&repository.snug(history.path(), &["check", "--policy", "policy.txt"])), 6);
}

#[test]
fn a_recorded_oom_kill_at_the_limit_is_a_risk() {
    let repository = manifest();
    let mut killed = used("shop Deployment/killed app", 0.1, 90);
    killed.is_killed = true;
    killed.current.memory_limit = Some(90 * MIB);
    let output = repository.snug(snapshot(&[killed]).path(), &["check"]);
    assert!(matches!(code(&output), 0 | 6), "{}", text(&output));
}

/// The commands of an example for CI, by the key that they are below.
fn script(file: &str, is_script: impl Fn(&Value) -> Option<String>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci").join(file);
    let value: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    is_script(&value).unwrap()
}

fn github(value: &Value) -> Option<String> {
    let steps = value["jobs"]["check"]["steps"].as_array()?;
    Some(steps.iter().find_map(|step| step["run"].as_str())?.to_owned())
}

fn gitlab(value: &Value) -> Option<String> {
    let lines = value["requests-and-limits"]["script"].as_array()?;
    Some(lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}

/// Runs the script of an example as its runner does, on recorded history instead of a Prometheus.
fn run_example(shell: &[&str], script: &str, history: &[Used]) -> (i32, Repository) {
    let repository = manifest();
    let deploy = repository.path().join("deploy");
    std::fs::create_dir(&deploy).unwrap();
    std::fs::rename(repository.path().join("shop.yaml"), deploy.join("shop.yaml")).unwrap();
    let recorded = snapshot(history);
    let snug = format!("\"{}\"", env!("CARGO_BIN_EXE_snug"));
    let source = "--prometheus \"$PROMETHEUS\"";
    assert!(script.contains(source), "{script}");
    let script = script
        .replace(
            &format!("{source} ${{TOKEN:+--header \"Authorization: Bearer $TOKEN\"}}"),
            "--file \"$RECORDED\"",
        )
        .replace(source, "--file \"$RECORDED\"")
        .replace("snug snapshot", &format!("{snug} snapshot"))
        .replace("snug check", &format!("{snug} check"))
        .replace("snug diff", &format!("{snug} diff"));
    let (program, arguments) = shell.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .arg(script)
        .current_dir(repository.path())
        .env("RECORDED", recorded.path())
        .env("GITHUB_STEP_SUMMARY", repository.path().join("summary.md"))
        .output()
        .unwrap();
    println!("{}{}", text(&output), error(&output));
    (code(&output), repository)
}

#[test]
fn the_example_for_github_actions_fails_for_throttling_and_kills() {
    let script = script("github-actions.yaml", github);
    let shell = ["bash", "-eo", "pipefail", "-c"];
    let of =
        |names: &[&str]| shop().into_iter().filter(|it| names.contains(&&*it.workload)).collect::<Vec<_>>();
    for (names, expected) in [(&["killed", "large"][..], 6), (&["slow"], 5), (&["large"], 0), (&[], 0)] {
        let (code, repository) = run_example(&shell, &script, &of(names));
        assert_eq!(code, expected, "{names:?}");
        let sarif: Value = serde_json::from_str(&repository.read("snug.sarif")).unwrap();
        assert_eq!(sarif["version"], "2.1.0");
        assert!(repository.read("summary.md").contains("### Requests and limits"));
    }
}

#[test]
fn the_example_for_gitlab_ends_with_the_code_of_the_check() {
    let script = script("gitlab-ci.yaml", gitlab);
    let shell = ["sh", "-ec"];
    let (code, repository) = run_example(&shell, &script, &shop());
    assert_eq!(code, 6);
    assert!(repository.read("snug.xml").contains("<testsuites"));
    assert!(repository.read("snug.md").contains("| container | change | reason |"));
    let large: Vec<Used> = shop().into_iter().filter(|it| it.workload == "large").collect();
    assert_eq!(run_example(&shell, &script, &large).0, 4);
}

/// Blocks of code in a page, those that begin with this text.
fn blocks(page: &str, begin: &str) -> Vec<String> {
    let parts: Vec<&str> = page.split("\n```").collect();
    let inside = parts.iter().skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    inside.map(|(_, code)| format!("{code}\n")).filter(|code| code.starts_with(begin)).collect()
}

#[test]
fn the_documentation_shows_real_output() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (diff, check) = (read("tests/golden/plain.diff"), read("tests/golden/check.txt"));
    for (page, begin, real) in [
        ("../docs/gitops.md", "# shop/web app", &diff),
        ("../docs/gitops.md", "PROBLEM", &check),
        ("../README.md", "# shop/web app", &diff),
    ] {
        let found = blocks(&read(page), begin);
        let [block] = found.as_slice() else { panic!("{page} {begin}: {found:?}") };
        // A part of the diff without its last context is one, too.
        assert!(real.contains(block.as_str()), "{page} does not have what is printed:\n{real}");
    }
}
