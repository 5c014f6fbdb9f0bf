//! Events by all exporters: the API, lines of JSON, OTLP log records.

mod stores;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;
use snug_tests::agent::{Agent, command, eventually};

use crate::{
    cannot_run, container,
    container::{Container, pod_list},
    otlp::receiver::{Receiver, prepared},
};

/// How long an event may take. Throttling is detected over ten seconds.
const EVENT_TIMEOUT: Duration = Duration::from_secs(45);

/// The events of a pod, from the API.
fn events(agent: &Agent, pod: &str) -> Result<Vec<Value>> {
    let answer: Value = serde_json::from_str(&agent.text(&format!("/api/v1/events?pod={pod}"))?)?;
    Ok(answer["events"].as_array().context("no events")?.clone())
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["kind"].as_str()).collect()
}

/// Waits until a pod has this number of events. Returns them.
fn awaited(agent: &Agent, pod: &str, number: usize) -> Result<Vec<Value>> {
    eventually(EVENT_TIMEOUT, &format!("{number} events of {pod}"), || {
        let events = events(agent, pod)?;
        Ok((events.len() >= number).then_some(events))
    })
    .with_context(|| format!("{:?}", events(agent, pod)))
}

fn pod_name(name: &str) -> String {
    format!("{name}-5d4f8c7b9c-x7k2p")
}

#[test]
fn every_exporter_reports_each_event_once() -> Result<()> {
    if !prepared() {
        return Ok(());
    }
    let made: Result<Vec<Container>, String> = (0..3).map(|_| container()).collect();
    let mut containers = match made {
        Ok(containers) => containers,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let (pods, file) = (folder.path().join("pods.json"), folder.path().join("events.jsonl"));
    let names = ["busy", "greedy", "short"];
    let list: Vec<Value> =
        containers.iter().zip(names).map(|(container, name)| container.pod("shop", name, "app")).collect();
    fs::write(&pods, pod_list(&list))?;
    let receiver = Receiver::start("http", &[])?;
    let mut command: Command = command(["--listen", "127.0.0.1:0", "--event-log", "stdout"])?;
    command
        .args(["--pods-file", &pods.to_string_lossy()])
        .env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", format!("{}/v1/logs", receiver.endpoint("http")))
        .env("SNUG_OTLP_LOG", "on")
        .stdout(fs::File::create(&file)?);
    let agent = Agent::launch_writing_to(&mut command)?;

    let [busy, greedy, short] = containers.as_mut_slice() else { unreachable!("three were made") };
    short.run("exec sh -c 'exit 3'")?;
    greedy.set(("memory.max", "16777216"), ("memory.limit_in_bytes", "16777216"))?;
    greedy.run("exec tail /dev/zero")?;
    busy.set(("cpu.max", "10000 100000"), ("cpu.cfs_quota_us", "10000"))?;
    busy.be_busy()?;

    let [killed, ended] = &*awaited(&agent, &pod_name("greedy"), 2)? else {
        panic!("{:?}", events(&agent, &pod_name("greedy")))
    };
    assert_eq!((&killed["kind"], &killed["severity"]), (&"oom_kill".into(), &"ERROR".into()));
    let kill = &killed["oom_kill"];
    assert_eq!((&kill["limit"], &kill["limit_bytes"]), (&"container".into(), &16_777_216.into()), "{kill}");
    assert_eq!(kill["victim"], "tail");
    assert_eq!((&ended["kind"], &ended["reason"]), (&"termination".into(), &"OOMKilled".into()));
    assert_eq!(ended["termination"]["exit_code"], 137);
    let short_ended = awaited(&agent, &pod_name("short"), 1)?;
    assert_eq!(short_ended[0]["termination"]["exit_code"], 3, "{short_ended:?}");
    assert_eq!((&short_ended[0]["reason"], &short_ended[0]["workload"]), (&"Error".into(), &"short".into()));
    let throttled = awaited(&agent, &pod_name("busy"), 1)?;
    assert_eq!(kinds(&throttled), ["throttling_start"]);
    let throttling = &throttled[0]["throttling"];
    let count = |name: &str| throttling[name].as_f64().context("no number");
    assert!(count("throttled_periods")? >= 0.25 * count("periods")?, "{throttling}");

    // When the agent stops, it sends the remaining events.
    let reported: Value = serde_json::from_str(&agent.text("/api/v1/events?namespace=shop")?)?;
    let reported = reported["events"].as_array().context("no events")?.clone();
    assert_eq!(reported.len(), 4, "{reported:?}");
    let stopped = agent.end_by(Signal::TERM)?;
    assert!(stopped.status.success(), "{}", stopped.log);
    let written: Vec<Value> = fs::read_to_string(&file)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect::<Result<_>>()?;
    let records = eventually(Duration::from_secs(10), "the last records", || {
        let records = receiver.records()?;
        let of_events = records.iter().filter(|record| !record.event.is_empty()).count();
        Ok((of_events >= written.len()).then_some(records))
    })?;
    // The agent's own log is sent in the same way, up to the last message.
    let own: Vec<_> = records
        .iter()
        .filter(|record| record.resource.get("service.name") == Some(&"snug-agent".into()))
        .collect();
    for (message, scope) in [
        ("serving /metrics", "snug_agent::supervisor"),
        ("SIGTERM: stopping", "snug_agent::supervisor::signals"),
    ] {
        let sent: Vec<_> = own.iter().filter(|record| record.body == message).collect();
        let [record] = sent.as_slice() else { panic!("{message:?} is sent {} times: {own:?}", sent.len()) };
        assert_eq!((&*record.scope, &*record.severity), (scope, "INFO"));
        assert!(record.time > 0 && stopped.log.contains(message), "{record:?}");
    }
    for event in &reported {
        let sequence = &event["sequence"];
        let lines: Vec<&Value> = written.iter().filter(|line| line["event.sequence"] == *sequence).collect();
        let [line] = lines.as_slice() else { panic!("event {sequence} is written {} times", lines.len()) };
        assert_eq!((&line["message"], &line["event.action"]), (&event["message"], &event["kind"]));
        assert_eq!(line["orchestrator.resource.name"], event["pod"]);
        let sent: Vec<_> = records
            .iter()
            .filter(|record| record.attributes.get("snug.event.sequence") == Some(sequence))
            .collect();
        let [record] = sent.as_slice() else { panic!("event {sequence} is sent {} times", sent.len()) };
        assert_eq!(record.body, event["message"].as_str().context("no message")?);
        assert_eq!(record.event, format!("snug.{}", event["kind"].as_str().unwrap_or_default()));
        assert_eq!(record.severity, event["severity"].as_str().unwrap_or_default());
        assert!(record.number.ends_with(&record.severity), "{record:?}");
        assert_eq!((&record.resource["k8s.pod.name"], &record.scope), (&event["pod"], &"snug-agent".into()));
        assert_eq!(record.schema, "https://opentelemetry.io/schemas/1.44.0");
        let at = event["at"].as_f64().context("no time")?;
        assert!((record.time as f64 / 1e9 - at).abs() < 1e-3 && record.observed >= record.time, "{record:?}");
    }
    stores::accept(&file)
}
