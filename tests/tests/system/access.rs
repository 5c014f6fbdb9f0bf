//! Who may read: an agent with the certificates of `snug certificates`, and a real Prometheus.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use snug_tests::{
    agent::{Agent, Process, Signal, eventually},
    tls::{Identity, TlsClient},
};

use crate::{cannot_run, has_program, recommend::run_snug};

const TOKEN: &str = "a-token-of-the-file-0123";
const ANOTHER_TOKEN: &str = "another-token-of-the-file";

/// The results of the last scrape of each job: whether it succeeded, and why not.
fn targets(prometheus: SocketAddr) -> Result<BTreeMap<String, (String, String)>> {
    let url = format!("http://{prometheus}/api/v1/targets");
    let Ok(mut response) = ureq::get(url).call() else { return Ok(BTreeMap::new()) };
    let response: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = response["data"]["activeTargets"].as_array().context("no targets")?.iter();
    let of = |target: &Value| {
        (text(&target["labels"]["job"]), (text(&target["health"]), text(&target["lastError"])))
    };
    Ok(all.map(of).collect())
}

#[test]
fn prometheus_scrapes_with_a_certificate_or_a_token_and_verifies_the_agent() -> Result<()> {
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = run_snug(&["certificates", "--directory", &path("tls")])?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(path("tokens"), TOKEN)?;
    let files = [
        ("--tls-listen", "127.0.0.1:0".to_owned()),
        ("--tls-certificate", path("tls/tls.crt")),
        ("--tls-key", path("tls/tls.key")),
        ("--tls-client-ca", path("tls/ca.crt")),
        ("--bearer-token-file", path("tokens")),
    ];
    let agent = Agent::start(files.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]))?;
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("serving /metrics over TLS")).context("no TLS")?;
    let address: SocketAddr = line.split_once("bound=").context("no address")?.1.trim().parse()?;

    let job = |name: &str, more: Value| {
        let mut job = json!({
            "job_name": name, "scheme": "https", "static_configs": [{ "targets": [address.to_string()] }],
            "tls_config": { "ca_file": path("tls/ca.crt"), "server_name": "snug-agent.snug.svc" },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(fields) if job[key].is_object() => {
                    fields.iter().for_each(|(field, value)| job[key][field] = value.clone());
                }
                _ => job[key] = value.clone(),
            }
        }
        job
    };
    let token = json!({ "credentials_file": path("tokens") });
    let certificate = json!({ "cert_file": path("tls/client.crt"), "key_file": path("tls/client.key") });
    let config = json!({
        "global": { "scrape_interval": "1s" },
        "scrape_configs": [
            job("certificate", json!({ "tls_config": certificate })),
            job("token", json!({ "authorization": token })),
            job("neither", json!({})),
            job("another name", json!({ "authorization": token, "tls_config": { "server_name": "other" } })),
        ],
    });
    fs::write(path("prometheus.yml"), config.to_string())?;
    let prometheus = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", path("prometheus.yml")))
        .arg(format!("--storage.tsdb.path={}", path("data")))
        .arg(format!("--web.listen-address={prometheus}"));
    let _process = Process::spawn(&mut command)?;
    let all = eventually(Duration::from_secs(60), "every job has scraped", || {
        let all = targets(prometheus)?;
        let is_known = |(health, _): &(String, String)| health != "unknown";
        Ok((all.len() == 4 && all.values().all(is_known)).then_some(all))
    })?;
    assert_eq!((all["certificate"].0.as_str(), all["token"].0.as_str()), ("up", "up"), "{all:?}");
    assert!(all["neither"].1.contains("401"), "{all:?}");
    assert!(all["another name"].1.contains("not other"), "an impostor gets no token: {all:?}");

    // Renewed certificates hold without a restart.
    let old = TlsClient {
        authority: path("tls/ca.crt").into(),
        certificate: path("old.crt").into(),
        key: path("old.key").into(),
        server_name: "snug-agent".to_owned(),
    };
    fs::copy(path("tls/client.crt"), path("old.crt"))?;
    fs::copy(path("tls/client.key"), path("old.key"))?;
    assert_eq!(old.get(address, "/metrics", Identity::Certificate)?.0, 200);
    let made = run_snug(&["certificates", "--directory", &path("new")])?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for file in fs::read_dir(path("new"))? {
        let file = file?;
        fs::copy(file.path(), folder.path().join("tls").join(file.file_name()))?;
    }
    eventually(Duration::from_secs(60), "the new certificate is served", || {
        Ok(old.get(address, "/metrics", Identity::None).ok().filter(|(status, _)| *status == 401))
    })?;
    assert!(old.get(address, "/metrics", Identity::Certificate).is_err(), "of the old authority");
    eventually(Duration::from_secs(60), "Prometheus scrapes with the new certificates", || {
        let all = targets(prometheus)?;
        Ok((all["certificate"].0 == "up" && all["token"].0 == "up").then_some(()))
    })?;
    // SIGHUP does not wait for the files to be looked at.
    fs::write(path("tokens"), ANOTHER_TOKEN)?;
    agent.signal(Signal::HUP)?;
    let new = TlsClient { authority: path("tls/ca.crt").into(), ..old };
    let status = |token| Ok::<_, anyhow::Error>(new.get(address, "/metrics", Identity::Token(token))?.0);
    eventually(Duration::from_secs(5), "the new token holds and the old one does not", || {
        Ok((status(ANOTHER_TOKEN)? == 200 && status(TOKEN)? == 401).then_some(()))
    })?;
    let expires =
        agent.scrape("/metrics")?.value("snug_agent_certificate_expiration_timestamp_seconds", &[])?;
    let days = (expires - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64()) / 86_400.0;
    assert!((1_094.0..1_096.0).contains(&days), "`snug certificates` has a default of 1,095 days: {days}");
    assert!(!agent.log().contains(TOKEN) && !agent.log().contains(ANOTHER_TOKEN));
    Ok(())
}
