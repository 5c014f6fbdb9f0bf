//! Checks the exposition with Prometheus's own tools.

use std::fs;

use anyhow::Result;
use snug_tests::agent::{Agent, body};

use crate::{cannot_run, container, container::pod_list, has_program, promtool};

/// The expected complaints of promtool, by endpoint: about names that must equal those of the kubelet.
const EXPECTED_COMPLAINTS: [(&str, &[&str]); 2] = [
    ("/metrics", &[]),
    ("/metrics/cadvisor", &["container_memory_failcnt counter metrics should have \"_total\" suffix"]),
];

#[test]
fn promtool_accepts_both_endpoints() -> Result<()> {
    if !has_program("promtool") {
        return cannot_run("there is no promtool");
    }
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.run("sleep 60")?;
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[container.pod("shop", "web", "app")]))?;
    let agent = Agent::start(["--pods-file", &pods.to_string_lossy()])?;
    for (path, expected) in EXPECTED_COMPLAINTS {
        let text = agent.text(path)?;
        assert!(text.contains(&container.id), "{path} has the container");
        assert_eq!(promtool(&text)?, expected, "{path}");
    }
    Ok(())
}

#[test]
fn content_types_are_the_formats_own() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let wants_open_metrics = ("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    for (path, accept, expected) in [
        ("/metrics", ("Accept", "*/*"), text),
        ("/metrics", wants_open_metrics, open_metrics),
        ("/metrics/cadvisor", wants_open_metrics, text),
    ] {
        let mut response = agent.request(path, &[accept])?;
        assert_eq!(
            response.headers().get("content-type").and_then(|v| v.to_str().ok()),
            Some(expected),
            "{path}"
        );
        let body = body(&mut response)?;
        assert_eq!(body.ends_with("# EOF\n"), expected == open_metrics, "{path}");
    }
    Ok(())
}
