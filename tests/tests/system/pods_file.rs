//! Names from a pods file: an invalid file, an invalid pod, hostile names.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use serde_json::json;
use snug_tests::{
    agent::{Agent, body, eventually},
    exposition,
};

use crate::{cannot_run, container, container::pod_list, has_program, promtool};

/// How long the agent may take to show a change of the file.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

fn start(file: &Path) -> Result<Agent> {
    Agent::start(["--pods-file", &file.to_string_lossy()])
}

/// Waits until a counter of skipped inputs has this value.
fn skipped(agent: &Agent, what: &str, times: f64) -> Result<()> {
    eventually(CHANGE_TIMEOUT, &format!("{what} skipped {times} times"), || {
        let page = agent.scrape("/metrics")?;
        Ok((page.value("snug_agent_skipped_total", &[("what", what)])? == times).then_some(()))
    })
}

#[test]
fn an_invalid_file_is_logged_and_counted_and_names_stay() -> Result<()> {
    let container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pods.json");
    fs::write(&file, "{\"kind\": \"List\", \"items\": [")?;
    let agent = start(&file)?;
    skipped(&agent, "pods_file_reloads", 1.0)?;
    let named = |name: &str| {
        eventually(CHANGE_TIMEOUT, &format!("the container is called {name:?}"), || {
            let page = agent.scrape("/metrics")?;
            let labels = [("id", container.path.as_str()), ("container", name)];
            Ok((page.all("snug_container_tasks", &labels).len() == 1).then_some(()))
        })
    };
    named("")?;
    let log = agent.log();
    assert!(log.contains(&*file.to_string_lossy()), "the file is named: {log}");
    assert!(log.contains("EOF while parsing"), "and what is wrong with it: {log}");

    fs::write(&file, pod_list(&[container.pod("shop", "web", "app")]))?;
    named("app")?;

    fs::write(&file, "no JSON at all")?;
    skipped(&agent, "pods_file_reloads", 2.0)?;
    named("app")?;

    fs::remove_file(&file)?;
    skipped(&agent, "pods_file_reloads", 3.0)?;
    named("app")?;
    assert!(agent.request("/healthz", &[])?.status().is_success());
    Ok(())
}

#[test]
fn only_the_invalid_pod_is_skipped() -> Result<()> {
    let container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pods.json");
    let bad = [
        json!({"metadata": {"name": "spec-is-a-text", "namespace": "shop", "uid": "1"}, "spec": "text"}),
        json!({"metadata": {"name": "without-uid"}}),
        json!(7),
    ];
    let mut pods = bad.to_vec();
    pods.insert(1, container.pod("shop", "web", "app"));
    fs::write(&file, pod_list(&pods))?;
    let agent = start(&file)?;
    skipped(&agent, "pods", 3.0)?;
    let page = agent.scrape("/metrics")?;
    assert_eq!(page.all("snug_container_tasks", &[("id", &container.path), ("container", "app")]).len(), 1);
    let log = agent.log();
    assert!(log.contains("shop/spec-is-a-text") && log.contains("without-uid"), "they are named: {log}");
    Ok(())
}

#[test]
fn hostile_names_cannot_break_the_exposition() -> Result<()> {
    let container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pods.json");
    let names = [
        "quote\"} 1\nsnug_forged{a=\"b",
        "back\\slash\\n and \\",
        "tab\tnul\0cr\rdel\u{7f}",
        "ünï🦀\u{202e}\u{feff}\u{2028}",
        "# HELP snug_container_tasks forged",
        " ",
    ];
    let agent = start(&file)?;
    for name in names {
        let mut pod = container.pod(name, "web", name);
        for field in
            ["/metadata/name", "/metadata/ownerReferences/0/name", "/metadata/labels/pod-template-hash"]
        {
            if let Some(value) = pod.pointer_mut(field) {
                *value = json!(name);
            }
        }
        for field in ["/spec/containers/0/image", "/status/containerStatuses/0/image"] {
            if let Some(value) = pod.pointer_mut(field) {
                *value = json!(name);
            }
        }
        fs::write(&file, pod_list(&[pod]))?;
        eventually(CHANGE_TIMEOUT, &format!("the container is called {name:?}"), || {
            let page = agent.scrape("/metrics")?;
            let labels = [("namespace", name), ("pod", name), ("container", name), ("id", &container.path)];
            Ok((page.all("snug_container_tasks", &labels).len() == 1).then_some(()))
        })?;
        for path in ["/metrics", "/metrics/cadvisor"] {
            // The parser is strict about lines, escapes and duplicates.
            let page = agent.scrape(path)?;
            assert!(!page.has("snug_forged"), "{name:?}");
        }
        let open_metrics = [("Accept", "application/openmetrics-text")];
        let text = body(&mut agent.request("/metrics", &open_metrics)?)?;
        assert_eq!(
            exposition::parse(&text)?.all("snug_container_tasks", &[("pod", name)]).len(),
            1,
            "{name:?}"
        );
        let kubelet = agent.scrape("/metrics/cadvisor")?;
        let labels = [("namespace", name), ("container", name), ("image", name), ("name", &container.id)];
        assert_eq!(kubelet.all("container_memory_usage_bytes", &labels).len(), 1, "{name:?}");
        if has_program("promtool") {
            assert_eq!(promtool(&agent.text("/metrics")?)?, [""; 0], "{name:?}");
            assert_eq!(promtool(&agent.text("/metrics/cadvisor")?)?.len(), 1, "{name:?}");
        }
    }
    Ok(())
}
