//! Faults of what is around the agent: it measures on, says what is wrong, and recovers.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use snug_tests::agent::{Agent, Signal, eventually};

use crate::{cannot_run, container, has_program, otlp::receiver};

const LONG: Duration = Duration::from_secs(30);

/// Waits until the newest values are at most two seconds old.
fn measures_on(agent: &Agent) -> Result<()> {
    eventually(LONG, "new measurements", || {
        let page = agent.scrape("/metrics")?;
        let ages = page.all("snug_agent_sample_age_seconds", &[]);
        Ok(ages.iter().any(|age| age.value < 2.0).then_some(()))
    })?;
    ensure!(agent.text("/healthz")?.trim() == "ok");
    Ok(())
}

#[test]
fn of_two_agents_with_one_data_directory_both_measure_and_the_second_says_that_it_keeps_its_history_in_memory()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().to_str().context("the folder's name is UTF-8")?;
    let first = Agent::start(["--data-dir", data])?;
    let second = Agent::start(["--data-dir", data])?;
    let log = second.log();
    assert_eq!(log.matches("is in use by another agent").count(), 1, "{log}");
    measures_on(&first)?;
    measures_on(&second)?;
    // The directory is free once the first has ended.
    ensure!(first.end_by(Signal::KILL)?.status.code().is_none());
    let third = Agent::start(["--data-dir", data])?;
    assert!(!third.log().contains("in use by another agent"), "{}", third.log());
    Ok(())
}

#[test]
fn a_stopped_agent_makes_no_burst_in_the_windows() -> Result<()> {
    // `cargo xtask soak` stops it for a minute.
    let seconds: u32 = match env::var("SNUG_TEST_STOP_SECONDS") {
        Ok(value) => value.parse().context("SNUG_TEST_STOP_SECONDS is no number")?,
        Err(_) => 4,
    };
    // From files windows last a second.
    for (source, stopped) in [("auto", f64::from(seconds) * 10.0), ("files", f64::from(seconds))] {
        let mut container = match container() {
            Ok(container) => container,
            Err(why) => return cannot_run(why),
        };
        // One thread: no window of 100 ms has more than one core.
        container.be_busy()?;
        let agent = Agent::start(["--source", source, "--classic-histograms", "on"])?;
        let of = |le: &str| -> Result<f64> {
            let labels = [("id", &*container.path), ("le", le)];
            let page = agent.scrape("/metrics")?;
            Ok(page.one("snug_container_cpu_window_cores_bucket", &labels)?.unwrap_or(0.0))
        };
        eventually(LONG, "windows of the container", || Ok((of("+Inf")? > 5.0).then_some(())))?;
        let before = of("+Inf")?;
        agent.signal(Signal::STOP)?;
        thread::sleep(Duration::from_secs(seconds.into()));
        agent.signal(Signal::CONT)?;
        // The time that it did not measure counts as windows of mean usage, up to 600.
        let stopped = f64::min(stopped, 600.0);
        eventually(LONG, "the windows of the stop", || Ok((of("+Inf")? >= before + stopped).then_some(())))?;
        let page = agent.scrape("/metrics")?;
        let all = page.all("snug_container_cpu_window_cores_bucket", &[("id", &container.path)]);
        let bound = |le: &str| le.parse::<f64>().unwrap_or(f64::INFINITY);
        let usual: Vec<_> = all.iter().filter(|bucket| bound(bucket.label("le")) >= 2.0).collect();
        ensure!(usual.len() > 1, "there are buckets from two cores up: {all:?}");
        let lowest = usual.iter().map(|bucket| bucket.value).fold(f64::INFINITY, f64::min);
        let highest = usual.iter().map(|bucket| bucket.value).fold(0.0, f64::max);
        assert_eq!(lowest, highest, "{source}: no window has more than two cores");
    }
    Ok(())
}

#[test]
fn without_free_descriptors_the_agent_measures_on_and_serves_again_when_there_are_some() -> Result<()> {
    if !has_program("prlimit") {
        return cannot_run("there is no prlimit");
    }
    let agent = Agent::start(["--source", "files"])?;
    let open = fs::read_dir(format!("/proc/{}/fd", agent.id()))?.count();
    let limit = |number: usize| -> Result<()> {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &agent.id().to_string(), &format!("--nofile={number}:")]);
        ensure!(prlimit.status()?.success(), "prlimit failed");
        Ok(())
    };
    limit(open + 2)?;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(agent.address())?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\n")?;
        waiting.push(stream);
    }
    eventually(LONG, "the log names the cause", || {
        Ok(agent.log().contains("cannot accept a connection").then_some(()))
    })?;
    thread::sleep(Duration::from_secs(3));
    drop(waiting);
    limit(1024)?;
    measures_on(&agent)?;
    // Each place in the code logs at most 30 lines at once.
    let lines = agent.log().matches("cannot accept a connection").count();
    assert!(lines <= 32, "{lines} lines");
    Ok(())
}

/// How long the agent waits for a receiver.
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A receiver that gives the next of these answers to each connection. Returns its address.
fn broken_receiver(connections: &'static AtomicUsize) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let number = connections.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let _ = stream.read(&mut [0; 4096]);
                // The agent may have gone: that is no failure of the receiver.
                let _ = match number % 6 {
                    // It hangs, and then closes without an answer.
                    0 => {
                        thread::sleep(3 * RECEIVER_TIMEOUT);
                        Ok(())
                    }
                    5 => Ok(()),
                    1 => stream.write_all(&[0xff; 100_000]),
                    2 => stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                        .and_then(|()| stream.shutdown(Shutdown::Write)),
                    3 => stream.write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
                    ),
                    // A body without end.
                    _ => stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").and_then(|()| {
                        let until = Instant::now() + Duration::from_secs(2);
                        while Instant::now() < until {
                            stream.write_all(&[0; 65_536])?;
                        }
                        Ok(())
                    }),
                };
            });
        }
    });
    Ok(address)
}

#[test]
fn receivers_that_answer_garbage_or_half_cost_no_measurement() -> Result<()> {
    static CONNECTIONS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    for (protocol, connections) in ["http/protobuf", "grpc"].into_iter().zip(&CONNECTIONS) {
        let address = broken_receiver(connections)?;
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", &*RECEIVER_TIMEOUT.as_millis().to_string()),
        ];
        let agent = receiver::agent(&variables, &["--source", "files"])?;
        let failures =
            || agent.scrape("/metrics")?.value("snug_agent_otlp_failures_total", &[("signal", "metrics")]);
        eventually(Duration::from_secs(60), "failed requests", || Ok((failures()? >= 3.0).then_some(())))?;
        measures_on(&agent)?;
        let log = agent.log();
        assert!(log.contains(&address.to_string()), "{protocol}: the log names the receiver: {log}");
        // Each problem once, not each attempt.
        assert!(log.matches("otlp:").count() <= 30, "{protocol}: {log}");
        let ended = agent.end_by(Signal::TERM)?;
        assert_eq!(ended.status.code(), Some(0), "{protocol}: {}", ended.log);
    }
    Ok(())
}
