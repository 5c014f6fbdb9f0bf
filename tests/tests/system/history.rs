//! The usage history across restarts and kills of the agent.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use snug_agent::{
    history::{Batch, History, Retention, Store},
    identity::Names,
    model::WorkloadKey,
};
use snug_sizing::{
    evidence::{Evidence, Header, Hour, SCHEMA},
    workload::{Container, Workload},
};
use snug_tests::{
    agent::{Agent, Signal, body, eventually},
    worker::{Respawned, answer},
};

use crate::{cannot_run, container, container::pod_list, recommend::snug};

const EVIDENCE: &str = "/api/v1/evidence";
/// Longer than the interval in which the agent writes its usage history.
const HANDED_OVER: Duration = Duration::from_secs(45);

/// The usage history of the container `app` in the namespace `shop`, from an agent.
fn evidence(agent: &Agent) -> Result<Option<Evidence>> {
    evidence_at(agent, EVIDENCE)
}

fn evidence_at(agent: &Agent, path: &str) -> Result<Option<Evidence>> {
    let text = agent.text(path)?;
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next().context("no header")?)?;
    assert_eq!(header.schema, SCHEMA);
    let all: Vec<Evidence> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(all.into_iter().find(|one| one.title() == "shop/web/app"))
}

#[test]
fn usage_history_survives_restarts_and_matches_the_cgroup() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    let mut pod = container.pod("shop", "web", "app");
    pod["spec"]["containers"][0]["resources"] = serde_json::json!({"requests": {"cpu": "250m"}});
    fs::write(&pods, pod_list(&[pod]))?;
    let data = folder.path().join("data");
    let options = ["--pods-file", &*pods.to_string_lossy(), "--data-dir", &*data.to_string_lossy()];
    let begin = || Agent::start(options);

    let agent = begin()?;
    container.run("x=$(head -c 8000000 /dev/zero | tr '\\0' a); while :; do :; done")?;
    std::thread::sleep(Duration::from_secs(3));
    // How long the agent takes to stop must not matter.
    container.signal(Signal::STOP)?;
    std::thread::sleep(Duration::from_secs(1));
    let used = container.cpu_seconds()?;
    agent.end_by(Signal::TERM)?;
    assert_eq!(container.cpu_seconds()?, used, "the container is stopped");
    let agent = begin()?;
    let before = eventually(Duration::from_secs(5), "what the last agent saw is there", || evidence(&agent))?;
    container.signal(Signal::CONT)?;
    // Two records if an hour ended meanwhile.
    let mut records = before.hours.values();
    let mut record = records.next().context("no hour")?.clone();
    records.for_each(|other| record.merge(other));
    // The container is younger than the start-up phase.
    let (windows, work) = (record.cpu_start.count(), record.cpu_start.sum() / 10.0);
    let (pod, totals) = before.pods.first_key_value().context("no pod")?;
    println!("{used} s used; {windows} windows with {work} s of work; {totals:?}");
    assert!(windows.abs_diff(10 * totals.observed) <= 15, "ten windows a second: {windows} in {totals:?}");
    assert!((work / (totals.cpu_millis as f64 / 1000.0) - 1.0).abs() < 0.06, "half a bucket: {work} s");
    // Fractions of a millisecond are not recorded.
    let missing = used - totals.cpu_millis as f64 / 1000.0;
    assert!((0.0..0.002).contains(&missing), "{missing} s of {used} s");
    assert!(pod.starts_with("web-") && before.container.current.cpu_request == Some(250), "{before:?}");
    let peak = record.highest().context("no peak")?.bytes;
    let most: u64 = container.read("memory.peak", "memory.max_usage_in_bytes")?.trim().parse()?;
    assert!(peak >= 8_000_000 && peak <= most, "{peak} of {most}");

    assert!(before.minutes.is_empty(), "nobody asked for them: {before:?}");
    let with_minutes = evidence_at(&agent, &format!("{EVIDENCE}?minutes=true"))?.context("no evidence")?;
    minutes_are_those_of(&with_minutes, peak)?;
    let address = format!("http://{}", agent.address());
    let (code, text) =
        snug(&["top", "--agent", &address, "--once", "--interval", "1s", "--last", "10m", "-o", "json"])?;
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let row =
        report["containers"].as_array().context("no rows")?.iter().find(|row| row["container"] == "app");
    let history = row.context("no row")?["cpu_history_cores"].as_array().context("nothing to plot")?;
    let most = history.iter().filter_map(serde_json::Value::as_f64).fold(0.0, f64::max);
    // The highest minute is not below the mean of all seconds; other loads of this machine decide what that is.
    let mean = totals.cpu_millis as f64 / 1000.0 / (totals.observed + 1) as f64;
    assert!(history.len() == 10 && most > 0.9 * mean, "not {mean}: {history:?}");

    // A killed agent loses only the usage that it had not written yet.
    let later = eventually(HANDED_OVER, "more is handed over", || {
        Ok(evidence(&agent)?.filter(|now| now.pods[pod].observed >= totals.observed + 5))
    })?;
    agent.end_by(Signal::KILL)?;
    let agent = begin()?;
    let after = eventually(Duration::from_secs(5), "it is still there", || evidence(&agent))?;
    assert!(after.pods[pod].observed >= later.pods[pod].observed, "{after:?} {later:?}");
    Ok(())
}

/// Checks the minutes of the only pod.
fn minutes_are_those_of(evidence: &Evidence, peak: u64) -> Result<()> {
    let all = evidence.minutes.values();
    let (observed, cpu) =
        all.clone().fold((0, 0), |sum, minute| (sum.0 + minute.observed_millis, sum.1 + minute.cpu_millis));
    let totals: Vec<_> = evidence.pods.values().collect();
    let [totals] = totals[..] else { bail!("more than one pod: {evidence:?}") };
    // Fractions of a second, or of a millisecond, are carried over to the next record.
    assert!((totals.observed..=totals.observed + 1).contains(&(observed / 1000)), "{observed} {totals:?}");
    assert!(cpu.abs_diff(totals.cpu_millis) <= 2, "{cpu} {totals:?}");
    assert_eq!(all.map(|minute| minute.memory_peak).max(), Some(peak));
    Ok(())
}

#[test]
fn an_unusable_data_directory_is_logged_and_the_agent_measures() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "no directory")?;
    let agent = Agent::start(["--data-dir", &*file.to_string_lossy()])?;
    assert!(agent.log().contains("kept in memory"), "{}", agent.log());
    assert!(agent.text(EVIDENCE)?.starts_with("{\"schema\":"));
    assert_eq!(agent.text("/healthz")?, "ok\n");
    Ok(())
}

#[test]
fn invalid_queries_are_refused() -> Result<()> {
    let agent = Agent::start::<&str>([])?;
    for (query, why) in [("since=yesterday", "invalid digit"), ("from=3", "unknown field `from`")] {
        let mut response = agent.request(&format!("{EVIDENCE}?{query}"), &[])?;
        assert_eq!(response.status(), 400);
        let text = body(&mut response)?;
        assert!(text.contains(why), "{text}");
    }
    Ok(())
}

/// The database of version 0.1, with 30 hours of four containers.
const OF_0_1: &[u8] = include_bytes!("../../../agent/src/history/migration/fixtures/closed.redb.gz");

/// A data directory with the database of version 0.1, with one page zeroed.
fn old_history(zeroed: Option<usize>) -> Result<tempfile::TempDir> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(OF_0_1).read_to_end(&mut bytes)?;
    if let Some(page) = zeroed {
        bytes[page * 4096..(page + 1) * 4096].fill(0);
    }
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("history.redb"), bytes)?;
    Ok(folder)
}

#[test]
fn the_history_of_an_older_agent_is_converted() -> Result<()> {
    let folder = old_history(None)?;
    let options = ["--data-dir", &*folder.path().to_string_lossy()];
    for _ in 0..2 {
        let agent = Agent::start(options)?;
        let text = agent.text(&format!("{EVIDENCE}?minutes=true"))?;
        let all: Vec<Evidence> = text.lines().skip(1).map(serde_json::from_str).collect::<Result<_, _>>()?;
        let all: Vec<_> = all.iter().filter(|one| one.workload.name.starts_with("web-")).collect();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|one| one.hours.len() == 30 && one.minutes.len() == 30 * 60));
        assert!(!folder.path().join("history.redb").exists());
        agent.end_by(Signal::KILL)?;
    }
    Ok(())
}

#[test]
fn a_damaged_history_of_an_older_agent_is_moved_aside_and_the_agent_runs() -> Result<()> {
    for page in [0, 4, 20] {
        let folder = old_history(Some(page))?;
        let agent = Agent::start(["--data-dir", &*folder.path().to_string_lossy()])?;
        assert!(!agent.text(EVIDENCE)?.contains("web-0"));
        let metrics = agent.text("/metrics")?;
        for sample in
            ["snug_agent_history_damaged_records_total 1\n", "snug_agent_history_files_moved_aside_total 1\n"]
        {
            assert!(metrics.contains(sample), "page {page}: no {sample}");
        }
        assert!(agent.log().contains("was moved aside"), "{}", agent.log());
        let names = fs::read_dir(folder.path())?.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        assert!(
            names.iter().any(|name| name.to_string_lossy().starts_with("history.redb.unusable-")),
            "{names:?}"
        );
    }
    Ok(())
}

#[test]
fn a_damaged_file_costs_its_records_and_not_the_agent() -> Result<()> {
    let folder = old_history(None)?;
    let options = ["--data-dir", &*folder.path().to_string_lossy()];
    Agent::start(options)?.end_by(Signal::TERM)?;
    // The first of the two days of that history. There may be one of today, with containers of this host.
    let day = folder.path().join("history/day-20833");
    let mut bytes = fs::read(&day)?;
    bytes[20_000..24_096].fill(0);
    fs::write(&day, bytes)?;
    let agent = Agent::start(options)?;
    let text = agent.text(EVIDENCE)?;
    let all: Vec<Evidence> = text.lines().skip(1).map(serde_json::from_str).collect::<Result<_, _>>()?;
    let hours: usize =
        all.iter().filter(|one| one.workload.name.starts_with("web-")).map(|one| one.hours.len()).sum();
    assert!((100..120).contains(&hours), "{hours} hours are left of 120");
    eventually(Duration::from_secs(5), "the damage is counted", || {
        let metrics = agent.text("/metrics")?;
        let value =
            metrics.lines().find_map(|line| line.strip_prefix("snug_agent_history_damaged_records_total "));
        Ok(value
            .and_then(|value| value.parse::<f64>().ok())
            .filter(|damaged| *damaged >= (120 - hours) as f64))
    })?;
    assert!(agent.log().contains("fail their checksum"), "{}", agent.log());
    Ok(())
}

/// A small file system, unmounted when the guard is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(folder.path());
        anyhow::ensure!(mount.status().context("cannot start mount")?.success(), "no tmpfs can be mounted");
        Ok(Self(folder))
    }

    fn fill(&self) -> Result<()> {
        let mut filler = fs::File::create(self.0.path().join("filler"))?;
        let page = [0; 4096];
        loop {
            match filler.write_all(&page) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.path().join("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn records_that_a_full_disk_refuses_are_written_when_there_is_space() -> Result<()> {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(why) => return cannot_run(format!("{why:#}")),
    };
    let retention = Retention { hours: u32::MAX, hours_by_minute: u32::MAX, bytes: u64::MAX };
    let history = History::start(Some(disk.0.path().to_owned()), retention)?;
    let (store, sink) = (history.store(), history.sink());
    let batch = |workloads: std::ops::Range<u32>| -> Batch {
        let one = |number: u32| {
            let name = format!("web-{number}");
            let names = Names { workload: name.clone(), container: "app".to_owned(), ..Names::default() };
            let mut evidence = one_more();
            evidence.workload.name = name;
            ((Hour(7), WorkloadKey::from_names(&names)), evidence)
        };
        workloads.map(one).collect()
    };
    let hand_over = |workloads| sink.take(batch(workloads)).map_err(|_| anyhow::anyhow!("nothing is taken"));
    let subjects = || store.hours().subjects(Hour(0)).map(|subjects| subjects.len());
    hand_over(0..10)?;
    eventually(Duration::from_secs(10), "the first are there", || Ok((subjects()? == 10).then_some(())))?;
    disk.fill()?;
    for workloads in [10..2000, 2000..2001] {
        let before = sink.row().failed_writes;
        hand_over(workloads)?;
        eventually(Duration::from_secs(10), "it fails", || {
            Ok((sink.row().failed_writes > before).then_some(()))
        })?;
    }
    disk.free()?;
    hand_over(2001..2002)?;
    eventually(Duration::from_secs(10), "all are there", || Ok((subjects()? == 2002).then_some(())))?;
    assert_eq!((sink.row().failed_writes, sink.row().lost), (2, 0));
    drop(sink);
    Ok(())
}

const WRITER: &str = "SNUG_TEST_HISTORY_WRITER";

/// How often the writer is killed.
const KILLS: u64 = 200;

fn one_more() -> Evidence {
    let workload = Workload { namespace: "shop".to_owned(), name: "web".to_owned(), ..Workload::default() };
    let container = Container { name: "app".to_owned(), ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    evidence.hour(Hour(7)).cpu.record(0.5, 1);
    evidence
}

fn counted(store: &Store) -> Result<u64> {
    let hours = store.hours();
    let mut count = 0;
    for records in hours.subjects(Hour(0))?.values() {
        let (evidence, skipped) = hours.evidence(records)?;
        assert_eq!(skipped, 0);
        count += evidence.context("no evidence")?.hours[&Hour(7)].cpu.count();
    }
    Ok(count)
}

/// Not a test: the process that [`a_kill_at_any_moment_loses_no_written_record`] kills.
#[test]
fn history_writer() -> Result<()> {
    let Some(folder) = std::env::var_os(WRITER) else { return Ok(()) };
    let (store, aside) = Store::open(folder.as_ref())?;
    assert!(aside.is_empty(), "{aside:?}");
    let mut count = counted(&store)?;
    loop {
        answer(count);
        store.add(&[one_more()])?;
        count += 1;
    }
}

#[test]
fn a_kill_at_any_moment_loses_no_written_record() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut written = 0;
    for kill in 0..KILLS {
        let mut writer =
            Respawned::start("history::history_writer", WRITER, folder.path().to_str().context("path")?);
        let first: u64 = writer.answer().context("the writer has ended")?.parse()?;
        assert!(
            first == written || first == written + 1,
            "{written} were written, {first} are there after kill {kill}"
        );
        written = first;
        // Kill after 0 to 9 more writes.
        for _ in 0..kill % 10 {
            written = writer.answer().context("the writer has ended")?.parse()?;
        }
        std::thread::sleep(Duration::from_micros(kill * 37 % 3000));
        writer.kill();
        while let Some(answer) = writer.answer() {
            written = answer.parse()?;
        }
    }
    let (store, aside) = Store::open(folder.path())?;
    let count = counted(&store)?;
    println!("{count} records after {KILLS} kills");
    assert!(
        aside.is_empty() && count >= written && count <= written + 1 && count > KILLS,
        "{written} {count}"
    );
    Ok(())
}
