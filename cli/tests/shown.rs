//! What people see of recommendations: order and selection of rows, names, explanations, pages, tokens and manuals.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

#[path = "../../tests/src/http.rs"]
pub mod http;
mod server;
mod shop;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use server::Server;
use shop::{MIB, START, error, evidence, hour, on, shop, snapshot, snug, text, written};
use snug_sizing::workload::Resources;

fn json(file: &Path, arguments: &[&str]) -> Value {
    let output = on(file, arguments);
    assert!(output.status.success(), "{}", error(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(report: &Value) -> Vec<String> {
    let all = report["recommendations"].as_array().unwrap().iter();
    all.map(|one| format!("{}/{}", one["workload"].as_str().unwrap(), one["container"].as_str().unwrap()))
        .collect()
}

#[test]
fn rows_are_ordered_and_selected_and_totals_stay() {
    let file = written(&snapshot(&shop()));
    let all = json(file.path(), &["recommend", "-o", "json"]);
    assert_eq!(names(&all), ["ledger/db", "web/app", "web/proxy", "young/app"]);
    let by_savings = json(file.path(), &["recommend", "-o", "json", "--sort", "savings", "--top", "1"]);
    assert_eq!((names(&by_savings), &by_savings["left_out"]), (vec!["web/app".to_owned()], &3.into()));
    assert_eq!(by_savings["total"], all["total"]);
    let by_risk = json(file.path(), &["recommend", "-o", "json", "--sort", "risk"]);
    assert_eq!(names(&by_risk), ["ledger/db", "young/app", "web/app", "web/proxy"]);
    let issues: Vec<&str> = by_risk["recommendations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["issue"].as_str().unwrap())
        .collect();
    assert_eq!(issues, ["oom_risk", "no_request", "waste", "waste"]);
    let large = json(file.path(), &["recommend", "-o", "json", "--min-change", "cpu=500m,memory=500Mi"]);
    assert_eq!(names(&large), ["ledger/db", "web/app", "young/app"], "new values and danger always count");
    // A patch has all containers of a workload.
    let patch = text(&on(file.path(), &["recommend", "-o", "patch", "--sort", "savings", "--top", "1"]));
    assert!(patch.contains("\"app\"") && patch.contains("\"proxy\"") && !patch.contains("ledger"), "{patch}");
    let table = text(&on(file.path(), &["recommend", "--top", "2"]));
    assert!(table.contains("2 more rows not shown"), "{table}");
    let wrong = on(file.path(), &["recommend", "--group-by", "team"]);
    assert!(error(&wrong).contains("--group-by needs a cluster"), "{}", error(&wrong));
    let wrong = on(file.path(), &["recommend", "--min-change", "much"]);
    assert!(error(&wrong).contains("10%") && wrong.status.code() == Some(1), "{}", error(&wrong));
}

#[test]
fn an_explanation_is_about_the_recommendation() {
    let file = written(&snapshot(&shop()));
    let recommended = json(file.path(), &["recommend", "-o", "json", "--risk", "batch"]);
    let explained =
        json(file.path(), &["explain", "web", "--container", "app", "-o", "json", "--risk", "batch"]);
    let explanation = &explained["explanations"][0];
    let strip = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut().unwrap().remove("cluster");
        entry
    };
    assert_eq!(strip(&explanation["recommendation"]), strip(&recommended["recommendations"][1]));
    assert_eq!(explanation["history"]["memory"]["highest"]["bytes"], 203 * MIB);
    let said = text(&on(file.path(), &["explain", "web", "--container", "app"]));
    assert!(said.contains("203Mi") && said.contains("[waste]") && said.contains("█"), "{said}");
    let ascii = Command::new(env!("CARGO_BIN_EXE_snug"))
        .args(["explain", "ledger", "--file", file.path().to_str().unwrap()])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let ascii = String::from_utf8(ascii.stdout).unwrap();
    let pictures = ascii.split("\nContention").next().unwrap();
    assert!(pictures.is_ascii() && pictures.contains("####"), "{ascii}");
}

#[test]
fn a_wrong_name_gets_the_right_one() {
    let id = "0123456789abcdef".repeat(4);
    let mut all = shop();
    let mut container =
        evidence(&id, "", "Unit", Resources::default(), 30, |at| hour("c", &[(5, 900)], 12, at));
    container.workload.owner = "Container".to_owned();
    all.push(container);
    let file = written(&snapshot(&all));
    for (command, name, hint) in [
        ("explain", "webb", "did you mean shop/web?"),
        ("recommend", "webb", "did you mean shop/web?"),
        ("simulate", "shop/legder", "did you mean shop/ledger?"),
        ("explain", "statefulset/web", "did you mean shop/web?"),
        ("explain", "web-0", "it is a pod of shop/web"),
    ] {
        let more: &[&str] = if command == "simulate" { &["--cpu-limit", "1"] } else { &[] };
        let output = on(file.path(), &[&[command, name], more].concat());
        assert_eq!(output.status.code(), Some(3), "{name}");
        assert!(error(&output).contains(hint), "{name}: {}", error(&output));
    }
    for (name, title) in [
        ("deployment/web", "Deployment shop/web, container app"),
        ("shop/deploy/web", "Deployment shop/web, container app"),
        ("0123456789ab", &format!("Container {id}")),
    ] {
        let output = on(file.path(), &["explain", name]);
        assert!(text(&output).starts_with(title), "{name}: {}{}", text(&output), error(&output));
    }
    let output = on(file.path(), &["explain", "web", "--container", "db"]);
    assert!(
        error(&output).contains("\"web\" has no container \"db\"; it has app, proxy"),
        "{}",
        error(&output)
    );
}

#[test]
fn a_page_has_the_numbers_of_the_json() {
    let file = written(&snapshot(&shop()));
    let page = text(&on(file.path(), &["recommend", "-o", "html", "--price", "cpu=0.03,memory=0.004"]));
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(data.split("</script>").next().unwrap()).unwrap();
    let wanted =
        json(file.path(), &["recommend", "-o", "json", "--sort", "risk", "--price", "cpu=0.03,memory=0.004"]);
    assert_eq!(data["reports"][0], wanted);
    let simulations = data["simulations"].as_array().unwrap();
    assert_eq!(simulations.len(), names(&wanted).len());
    assert_eq!(simulations[0]["kills"], serde_json::json!([128 * MIB]));
    assert!(page.contains("<details class=\"container\" id=\"c0\"") && page.contains("OOM kill at 2027-"));
    assert!(START > 0 && page.len() < 400_000, "{}", page.len());
}

#[test]
fn tokens_are_on_no_command_line() {
    let server = Server::start("200 OK", vec![snapshot(&shop())]);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "abc.def\n").unwrap();
    let token = token.to_str().unwrap();
    let of = |arguments: &[&str], variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snug"));
        command.args(arguments).env("SNUG_TOKEN", variable).output().unwrap()
    };
    let url = server.url();
    assert!(of(&["recommend", "--agent", &url, "--token-file", token], "").status.success());
    assert!(of(&["recommend", "--agent", &url], "from.environment").status.success());
    assert!(of(&["recommend", "--agent", &url], "").status.success());
    let sent: Vec<Option<String>> = server
        .requests()
        .iter()
        .map(|request| {
            let line = request.lines().find(|line| line.to_lowercase().starts_with("authorization"))?;
            Some(line.split_once(": ")?.1.to_owned())
        })
        .collect();
    assert_eq!(sent, [Some("Bearer abc.def".to_owned()), Some("Bearer from.environment".to_owned()), None]);
    for (arguments, variable, why) in [
        (&["--token-file", "/absent"][..], "", "cannot read the token file /absent"),
        (&[], "two words", "$SNUG_TOKEN has no token"),
        (&["--header", "authorization: Basic x"], "a.b", "there are two tokens"),
    ] {
        let output = of(&[&["recommend", "--prometheus", &url], arguments].concat(), variable);
        assert!(error(&output).contains(why), "{}", error(&output));
        assert!(!error(&output).contains("two words"), "the token is not shown");
    }
    let denied = Server::start("401 Unauthorized", vec![String::new()]);
    let output = snug(&["recommend", "--agent", &denied.url()]);
    assert!(error(&output).contains("--token-file or $SNUG_TOKEN"), "{}", error(&output));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let file = written(&snapshot(&shop()));
    let of = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snug"));
        command.args(["recommend", "--file", file.path().to_str().unwrap()]).envs(variables.iter().copied());
        text(&command.output().unwrap())
    };
    assert!(!of(&[]).contains('\u{1b}'), "a pipe is plain");
    let forced = of(&[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains("\u{1b}[1;31mOOM risk\u{1b}[0m"), "{forced}");
    assert!(!of(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\u{1b}'));
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let output = snug(&["man", "--dir", folder.path().to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", error(&output));
    for (page, word) in
        [("snug", "snug\\-top"), ("snug-top", ".TH snug-top 1"), ("snug-explain", "explain shop/web")]
    {
        let text = fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(word), "{page}: {text}");
    }
    assert!(text(&snug(&["man", "top"])).contains(".TH snug-top 1"));
    let wrong = snug(&["man", "tpo"]);
    assert!(error(&wrong).contains("there is no page \"tpo\"") && error(&wrong).contains("snug-top"));
}

#[test]
fn a_plugin_of_kubectl_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-snug");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_snug"), &plugin).unwrap();
    let of = |arguments: &[&str]| Command::new(&plugin).args(arguments).output().unwrap();
    assert!(text(&of(&["recommend", "--help"])).contains("Usage: kubectl snug recommend"));
    assert!(error(&of(&["explain"])).contains("kubectl snug explain"));
    assert!(error(&of(&["recommend", "--file", "/absent"])).starts_with("kubectl snug: cannot open"));
}
