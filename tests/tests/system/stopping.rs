//! Stopping and killing the agent.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::process::ExitStatusExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::programs::{loaded_links, loaded_programs};
use snug_tests::agent::{Agent, Process, Signal, command, eventually};

use crate::cannot_run;

/// Ids of the kernel objects that a process has open, by the name of the line in fdinfo.
fn held(pid: u32, line: &str) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(info) = fs::read_to_string(fd?.path()) else { continue };
        let found = info.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        ids.extend(found.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// The programs and links that are still in the kernel.
fn left(programs: &BTreeSet<u32>, links: &BTreeSet<u32>) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut left = (Vec::new(), Vec::new());
    for program in loaded_programs() {
        left.0.extend(Some(program?.id()).filter(|id| programs.contains(id)));
    }
    for link in loaded_links() {
        left.1.extend(Some(link?.id()).filter(|id| links.contains(id)));
    }
    Ok(left)
}

#[test]
fn no_program_or_link_remains_after_the_agent_stops_or_is_killed() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let agent = Agent::start::<&str>([])?;
        let (programs, links) = (held(agent.id(), "prog_id")?, held(agent.id(), "link_id")?);
        if programs.is_empty() {
            return cannot_run(format!("no kernel program runs: {}", agent.log()));
        }
        assert_eq!(left(&programs, &links)?.0.len(), programs.len());
        // Open connections do not delay stopping.
        let mut idle = TcpStream::connect(agent.address())?;
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        idle.read_exact(&mut [0; 12])?;

        let ended = agent.end_by(signal)?;
        assert!(ended.took < Duration::from_secs(2), "{signal:?}: {:?}", ended.took);
        if signal == Signal::KILL {
            assert_eq!(ended.status.signal(), Some(signal.as_raw()));
        } else {
            assert_eq!(ended.status.code(), Some(0), "{signal:?}: {}", ended.log);
        }
        // The kernel frees programs once no CPU runs them.
        eventually(Duration::from_secs(5), "the kernel has freed programs and links", || {
            Ok((left(&programs, &links)? == (Vec::new(), Vec::new())).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_signal_during_the_start_stops_the_agent_in_order() -> Result<()> {
    let mut agent = Process::spawn(&mut command(["--listen", "127.0.0.1:0"])?)?;
    eventually(Duration::from_secs(20), "SIGTERM is handled", || {
        Ok(handles(agent.id(), Signal::TERM)?.then_some(()))
    })?;
    assert!(!agent.log().contains("running"), "before anything else: {}", agent.log());
    agent.signal(Signal::TERM)?;
    let status = agent.wait(Duration::from_secs(30))?;
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", agent.log());
    assert!(agent.log().contains("SIGTERM"), "{}", agent.log());
    Ok(())
}

/// Whether a process has a handler for a signal.
fn handles(pid: u32, signal: Signal) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
    Ok(u64::from_str_radix(caught.trim(), 16)? & (1 << (signal.as_raw() - 1)) != 0)
}

#[test]
fn a_hangup_reads_the_configuration_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    fs::write(&file, "log = \"info\"\n")?;
    let path = file.to_str().context("the folder's name is UTF-8")?;
    let agent = Agent::start(["--source", "files", "--config", path])?;
    let until_logged = |what: &str| {
        eventually(Duration::from_secs(10), what, || Ok(agent.log().contains(what).then_some(())))
    };
    fs::write(&file, "log = \"debug\"\nmax-series = 7\n")?;
    agent.signal(Signal::HUP)?;
    until_logged("the log has new directives")?;
    until_logged("max-series")?;
    fs::write(&file, "max-series = \"many\"\n")?;
    agent.signal(Signal::HUP)?;
    until_logged("the current one stays")?;
    assert_eq!(agent.request("/readyz", &[])?.status(), 200);
    Ok(())
}

#[test]
fn the_next_agent_reports_the_downtime() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let arguments = ["--data-dir", data.to_str().context("the folder's name is UTF-8")?];
    let first = Agent::start(arguments)?;
    let page = first.scrape("/metrics")?;
    assert_eq!(page.value("snug_agent_downtime_seconds", &[])?, 0.0);
    assert_eq!(page.value("snug_agent_starts_total", &[])?, 1.0);

    // The agent writes its last heartbeat between the signal and its end, which takes as long as the kernel needs.
    let (signalled, pause) = (Instant::now(), Duration::from_secs(2));
    assert!(first.end_by(Signal::TERM)?.status.success());
    thread::sleep(pause);
    let second = Agent::start(arguments)?;
    let most = signalled.elapsed().as_secs_f64() + 0.5;
    let page = second.scrape("/metrics")?;
    let away = page.value("snug_agent_downtime_seconds", &[])?;
    assert!((pause.as_secs_f64()..most).contains(&away), "away {away} s, really {pause:?} to {most} s");
    assert_eq!(page.value("snug_agent_starts_total", &[])?, 2.0);

    // A killed agent leaves its last heartbeat, at most five seconds old, and a third agent reads it.
    assert!(!second.end_by(Signal::KILL)?.status.success());
    let killed = Instant::now();
    let third = Agent::start(arguments)?;
    let page = third.scrape("/metrics")?;
    let away = page.value("snug_agent_downtime_seconds", &[])?;
    let most = killed.elapsed().as_secs_f64() + 6.0;
    assert!(away > 0.0 && away < most, "away {away} s, at most {most} s");
    assert_eq!(page.value("snug_agent_starts_total", &[])?, 3.0);
    Ok(())
}
