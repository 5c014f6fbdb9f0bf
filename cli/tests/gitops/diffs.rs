//! `snug diff` on plain manifests.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    Repository, code, error,
    history::{Used, snapshot, used},
    text,
};

fn shop() -> Vec<Used> {
    vec![
        used("shop Deployment/web app", 0.2, 200),
        used("shop Deployment/web proxy", 0.01, 20),
        used("shop StatefulSet/ledger db", 0.1, 300),
        used("shop CronJob/report report", 0.5, 700),
        used("shop DaemonSet/logs agent", 0.02, 40),
        used("shop Rollout/canary app", 0.1, 100),
    ]
}

#[test]
fn plain_manifests_keep_their_style() {
    let repository = Repository::new("plain");
    let history = snapshot(&shop());
    let shown = repository.snug(history.path(), &["diff"]);
    assert_eq!(code(&shown), 0, "{}", error(&shown));
    let diff = text(&shown);
    println!("{diff}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plain.diff");
    if std::env::var_os("SNUG_BLESS").is_some_and(|bless| bless == "1") {
        fs::write(&golden, &diff).unwrap();
    }
    assert_eq!(diff, fs::read_to_string(golden).unwrap(), "run with SNUG_BLESS=1 and look at what changes");
}

#[test]
fn what_is_not_changed_is_named() {
    let repository = Repository::new("plain");
    let history = snapshot(&shop());
    let remarks = error(&repository.snug(history.path(), &["diff"]));
    for remark in [
        "other.yaml:1: encrypted by Sealed Secrets",
        "secret.sops.yaml:1: encrypted by SOPS",
        "Prometheus main sets spec.resources, but only its operator knows",
        "shop/web proxy: not changed: ",
        "shop/web logs: no usage history",
        "shop/web migrate: no usage history",
    ] {
        assert!(remarks.contains(remark), "{remark}: {remarks}");
    }
}

#[test]
fn standard_input_is_written_to_standard_output() {
    let repository = Repository::new("plain");
    let history = snapshot(&shop());
    let run = |input: &str| {
        let mut snug = Command::new(env!("CARGO_BIN_EXE_snug"))
            .args(["diff", "-f", "-", "--write", "--file", history.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        snug.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        String::from_utf8(snug.wait_with_output().unwrap().stdout).unwrap()
    };
    let old = repository.read("report.yaml");
    let new = run(&old);
    assert!(new.contains("resources:\r\n") && new.contains("memory: "), "{new}");
    assert_eq!(new.matches('\n').count(), new.matches("\r\n").count());
    assert_eq!(run(&new), new);
    let file = repository.snug(history.path(), &["diff", "--write"]);
    assert_eq!(code(&file), 0);
    assert_eq!(repository.read("report.yaml"), new);
}

#[test]
fn a_namespace_that_no_manifest_names_is_found_or_asked_for() {
    let repository = Repository::new("plain");
    fs::remove_file(repository.path().join("shop.yaml")).unwrap();
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n";
    repository.write("web.yaml", deployment);
    let one = snapshot(&[used("shop Deployment/web app", 0.2, 200)]);
    let shown = repository.snug(one.path(), &["diff"]);
    assert!(text(&shown).contains("+        resources:"), "{}", error(&shown));
    let two =
        snapshot(&[used("shop Deployment/web app", 0.2, 200), used("test Deployment/web app", 0.9, 900)]);
    let shown = repository.snug(two.path(), &["diff"]);
    assert_eq!((code(&shown), text(&shown).as_str()), (3, ""));
    assert!(
        error(&shown)
            .contains("web app: ambiguous: in the namespaces shop and test; set --default-namespace")
    );
    let shown = repository.snug(two.path(), &["diff", "--default-namespace", "test", "--exit-code"]);
    assert_eq!(code(&shown), 2);
    assert!(text(&shown).contains("test/web app"), "{}", text(&shown));
}

#[test]
fn a_table_for_a_pull_request() {
    let repository = Repository::new("plain");
    let history = snapshot(&shop());
    let shown = repository.snug(history.path(), &["diff", "-o", "markdown"]);
    let table = text(&shown);
    assert!(
        table.starts_with(
            "### Requests and limits of 5 workloads by their usage\n\n| container | change | reason |\n"
        ),
        "{table}"
    );
    assert!(table.contains("| shop/web app | CPU request 1 → "), "{table}");
    assert!(table.contains("\nNot changed:\n\n- "), "{table}");
    assert_eq!(error(&shown), "");
}

#[test]
fn a_wrong_path_is_an_error_that_names_it() {
    let repository = Repository::new("plain");
    let history = snapshot(&shop());
    let shown = repository.snug(history.path(), &["diff", "-f", "absent"]);
    assert_eq!(code(&shown), 1);
    assert!(error(&shown).contains("cannot read absent; check its path"), "{}", error(&shown));
}
