//! The HTTP server as its clients meet it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use snug_tests::{
    agent::{Agent, Signal},
    exposition,
};

#[test]
fn health_and_unknown_paths() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    assert_eq!(agent.text("/healthz")?, "ok\n");
    assert_eq!(agent.text("/readyz")?, "ready\n");
    assert!(agent.text("/")?.contains("/metrics/cadvisor"));
    let mut unknown = agent.request("/metrics/", &[])?;
    assert_eq!(unknown.status(), 404);
    assert!(unknown.body_mut().read_to_string()?.contains("/metrics/cadvisor"), "says what there is");

    let without = Agent::start(["--kubelet-metrics", "off"])?;
    let mut off = without.request("/metrics/cadvisor", &[])?;
    assert_eq!(off.status(), 404);
    assert!(off.body_mut().read_to_string()?.contains("switched off"), "and what is not");
    Ok(())
}

#[test]
fn a_head_has_the_headers_only() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    for path in ["/metrics", "/metrics/cadvisor", "/healthz"] {
        let mut stream = TcpStream::connect(agent.address())?;
        write!(stream, "HEAD {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("\r\ncontent-type: text/plain"), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("# HELP"), "{path}: {answer}");
    }
    Ok(())
}

#[test]
fn gzip_holds_the_same_series() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    let mut response = agent.request("/metrics", &[("Accept-Encoding", "gzip")])?;
    assert_eq!(response.headers().get("content-encoding").and_then(|v| v.to_str().ok()), Some("gzip"));
    let packed = response.body_mut().read_to_vec()?;
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text)?;
    assert!(packed.len() * 3 < text.len(), "{} bytes of {}", packed.len(), text.len());
    let unpacked = exposition::parse(&text)?;
    let plain = agent.scrape("/metrics")?;
    // The agent's own series differ by what was scraped before, and cgroups come and go: the families stay.
    let families = |page: &exposition::Page| -> std::collections::BTreeSet<String> {
        page.0.iter().map(|sample| sample.name.clone()).collect()
    };
    assert_eq!(families(&unpacked), families(&plain));
    Ok(())
}

#[test]
fn many_scrapes_at_once_are_all_answered_and_bounded() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    agent.text("/metrics")?;
    let before = threads(&agent)?;
    let begun = Instant::now();
    let most = thread::scope(|scope| -> Result<usize> {
        let scrapes: Vec<_> = (0..100)
            .map(|number| {
                let agent = &agent;
                scope.spawn(move || agent.scrape(["/metrics", "/metrics/cadvisor"][number % 2]))
            })
            .collect();
        let mut most = 0;
        while !scrapes.iter().all(|scrape| scrape.is_finished()) {
            most = most.max(threads(&agent)?);
            thread::sleep(Duration::from_millis(2));
        }
        for scrape in scrapes {
            let page = scrape.join().ok().context("a scrape panicked")??;
            assert!(!page.0.is_empty());
        }
        Ok(most)
    })?;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Two expositions are written at a time; more would show as more threads.
    assert!(most <= before + 4, "{most} threads at most, {before} before");
    assert!(agent.request("/healthz", &[])?.status().is_success());
    Ok(())
}

fn threads(agent: &Agent) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/task", agent.id()))?.count())
}

#[test]
fn slow_clients_do_not_keep_others_waiting() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    let mut slow = Vec::new();
    for number in 0..20 {
        let mut stream = TcpStream::connect(agent.address())?;
        match number % 2 {
            // Half a request, and an answer that is never read.
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ")?,
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")?,
        }
        slow.push(stream);
    }
    let begun = Instant::now();
    for path in ["/healthz", "/metrics", "/metrics/cadvisor"] {
        agent.text(path)?;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Nor do they keep the agent.
    let ended = agent.end_by(Signal::TERM)?;
    assert!(ended.status.success() && ended.took < Duration::from_secs(5), "{:?}: {}", ended.took, ended.log);
    Ok(())
}
