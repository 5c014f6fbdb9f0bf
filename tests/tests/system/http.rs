//! The HTTP server.

use std::{
    fs,
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

use crate::{cannot_run, container, container::pod_list};

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
        write!(stream, "HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
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
    let packed = response.body_mut().with_config().limit(256 << 20).read_to_vec()?;
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text)?;
    assert!(packed.len() * 3 < text.len(), "{} bytes of {}", packed.len(), text.len());
    let unpacked = exposition::parse(&text)?;
    let plain = agent.scrape("/metrics")?;
    // The agent's own series depend on previous scrapes, and cgroups are created and removed, but the families are the same.
    let families = |page: &exposition::Page| -> std::collections::BTreeSet<String> {
        page.0.iter().map(|sample| sample.name.clone()).collect()
    };
    assert_eq!(families(&unpacked), families(&plain));
    Ok(())
}

#[test]
fn many_scrapes_at_once_are_all_answered_and_bounded() -> Result<()> {
    // For any number of cgroups on the host.
    let agent = Agent::start(["--max-series", "2000"])?;
    agent.text("/metrics")?;
    let (before, peak) = (threads(&agent)?, memory_peak(&agent)?);
    let most = thread::scope(|scope| -> Result<usize> {
        let scrapes: Vec<_> = (0..100)
            .map(|number| {
                let agent = &agent;
                scope.spawn(move || agent.text(["/metrics", "/metrics/cadvisor"][number % 2]))
            })
            .collect();
        let mut most = 0;
        while !scrapes.iter().all(thread::ScopedJoinHandle::is_finished) {
            most = most.max(threads(&agent)?);
            thread::sleep(Duration::from_millis(2));
        }
        for scrape in scrapes {
            let text = scrape.join().ok().context("a scrape panicked")??;
            assert!(text.contains("\n# TYPE ") && text.ends_with('\n'));
        }
        Ok(most)
    })?;
    // Each exposition uses a thread while it is written. The limit of connections also limits these threads.
    assert!(most <= before + 64, "{most} threads at most, {before} before");
    let grown = memory_peak(&agent)?.saturating_sub(peak);
    assert!(grown < 64 << 20, "{grown} bytes for 100 scrapes");
    assert!(agent.request("/healthz", &[])?.status().is_success());
    Ok(())
}

fn threads(agent: &Agent) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/task", agent.id()))?.count())
}

/// The peak resident memory of the agent, in bytes.
fn memory_peak(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let row = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(row.context("no VmHWM")?.parse::<u64>()? << 10)
}

#[test]
fn slow_clients_do_not_block_others() -> Result<()> {
    let container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    // With such a long name in each series, an exposition exceeds the socket buffers of a client that does not read.
    let long = "n".repeat(200_000);
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[container.pod(&long, "web", "app")]))?;
    let families = "snug_*,container_last_seen";
    let agent = Agent::start(["--pods-file", &pods.to_string_lossy(), "--metrics-allow", families])?;
    assert!(agent.text("/metrics")?.len() > 6_000_000);
    let mut slow = Vec::new();
    for number in 0..20 {
        let mut stream = TcpStream::connect(agent.address())?;
        match number % 2 {
            // An incomplete request, and a response that is never read.
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ")?,
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?,
        }
        slow.push(stream);
    }
    let begun = Instant::now();
    for path in ["/healthz", "/metrics/cadvisor"] {
        agent.text(path)?;
    }
    // A client that does not read is disconnected after ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Slow clients do not delay stopping the agent either.
    let ended = agent.end_by(Signal::TERM)?;
    assert!(ended.status.success() && ended.took < Duration::from_secs(5), "{:?}: {}", ended.took, ended.log);
    Ok(())
}
