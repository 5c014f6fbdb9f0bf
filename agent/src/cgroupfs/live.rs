//! Tests with cgroups of this machine. They require root, and create and remove cgroups of their own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Measurements,
    flush::Flusher,
    list::{MAX_DEPTH, list_cgroups},
    mounts::{Hierarchies, Hierarchy, Version},
    reader::{CgroupReader, ReadError, Reading},
};
use crate::values::Measurement;

/// A cgroup with the same path in several hierarchies. It and its descendants are removed when dropped.
struct TestCgroup {
    path: String,
    directories: Vec<PathBuf>,
}

impl TestCgroup {
    /// Creates the cgroup. `None`: the test cannot run here, which is a failure under CI.
    fn new(name: &str, hierarchies: &[Option<&Hierarchy>]) -> Option<Self> {
        let path = format!("/snug-test-{}-{name}", process::id());
        let mut own = Self { path, directories: Vec::new() };
        for hierarchy in hierarchies {
            let Some(hierarchy) = hierarchy else {
                return cannot_run("this host lacks a hierarchy that the test needs");
            };
            let directory = hierarchy.mount.join(&own.path[1..]);
            if own.directories.contains(&directory) {
                continue;
            }
            if let Err(error) = fs::create_dir(&directory) {
                return cannot_run(&format!("cannot make {}: {error}", directory.display()));
            }
            own.directories.push(directory);
        }
        Some(own)
    }

    /// The file with this name, in the hierarchy that has it.
    fn file(&self, name: &str) -> PathBuf {
        let files = self.directories.iter().map(|directory| directory.join(name));
        files
            .clone()
            .find(|file| file.exists())
            .unwrap_or_else(|| panic!("{name} in none of {:?}", self.directories))
    }

    fn take_in(&self, child: &Shell) {
        for directory in &self.directories {
            fs::write(directory.join("cgroup.procs"), child.0.id().to_string()).unwrap();
        }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        for directory in &self.directories {
            while !remove(directory) && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn remove(directory: &Path) -> bool {
    let children = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&child.path());
    }
    fs::remove_dir(directory).is_ok() || !directory.exists()
}

/// A shell that runs a script, killed when dropped.
struct Shell(Child);

impl Shell {
    /// Starts the shell; the script begins at [`Self::go`].
    fn waiting(script: &str) -> Self {
        let script = format!("read go; {script}");
        let mut command = Command::new("sh");
        Self(command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn wait_for_line(&mut self) {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cannot_run<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "cannot run under CI: {why}");
    eprintln!("skipped: {why}");
    None
}

fn hierarchies() -> Option<Hierarchies> {
    match Hierarchies::find(Path::new("/proc"), None) {
        Ok(found) => Some(found),
        Err(error) => cannot_run(&error.to_string()),
    }
}

fn read(reader: &mut CgroupReader, path: &str, which: &[Measurement]) -> Reading {
    let reading = reader.read(path, Measurements::new(which)).unwrap();
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    reading
}

#[test]
fn a_given_root_has_the_same_hierarchies_as_the_mount_table() {
    let Some(found) = hierarchies() else { return };
    let Some(one) = found.unified.as_ref().or(found.v1.first()) else { return };
    let parent = match one.mount.parent() {
        Some(parent) if !found.v1.is_empty() => parent,
        _ => &one.mount,
    };
    assert_eq!(Hierarchies::find(Path::new("/proc"), Some(parent)).unwrap(), found);
    // Without the mount table the names of the directories are used.
    assert_eq!(Hierarchies::find(Path::new("/nonexistent"), Some(parent)).unwrap(), found);
    if let Some(unified) = &found.unified {
        let alone = Hierarchies::find(Path::new("/proc"), Some(&unified.mount)).unwrap();
        assert_eq!(alone, Hierarchies { unified: found.unified.clone(), v1: Vec::new() });
    }
    if let Some(v1) = found.v1.first() {
        let error = Hierarchies::find(Path::new("/proc"), Some(&v1.mount)).unwrap_err();
        assert!(
            error.to_string().contains("give --cgroup-root the directory that holds all of them"),
            "{error}"
        );
    }
}

#[test]
fn every_cgroup_can_be_read() {
    let Some(found) = hierarchies() else { return };
    let mut reader = CgroupReader::new(&found).unwrap();
    for hierarchy in found.unified.iter().chain(&found.v1) {
        for cgroup in list_cgroups(hierarchy, MAX_DEPTH, |_| None).unwrap().cgroups {
            match reader.read(&cgroup.path, Measurements::ALL) {
                Ok(reading) => {
                    assert!(reading.problems.is_empty(), "{}: {:?}", cgroup.path, reading.problems);
                }
                Err(ReadError::Gone { .. }) => {}
                Err(error) => panic!("{}: {error}", cgroup.path),
            }
        }
    }
}

#[test]
fn cpu_time_of_a_busy_loop() {
    let Some(found) = hierarchies() else { return };
    let Some(own) = TestCgroup::new("busy", &[found.cpu_time()]) else { return };
    let mut reader = CgroupReader::new(&found).unwrap();
    let which = [Measurement::Cpu, Measurement::SlowRows];
    assert_eq!(read(&mut reader, &own.path, &which).values.cpu.unwrap().usage_ns, 0);

    let mut shell = Shell::waiting("while :; do :; done");
    own.take_in(&shell);
    let started = Instant::now();
    shell.go();
    thread::sleep(Duration::from_millis(500));
    let values = read(&mut reader, &own.path, &which).values;
    let upper = started.elapsed() + Duration::from_millis(20);
    let (usage, split) = (values.cpu.unwrap().usage_ns, values.cpu_split.unwrap());
    assert!(usage > 50_000_000 && u128::from(usage) <= upper.as_nanos(), "{usage} ns in {upper:?}");
    let both = split.user_ns + split.system_ns;
    assert!(usage.abs_diff(both) < 30_000_000, "{usage} against {split:?}");
    let later = read(&mut reader, &own.path, &which).values.cpu.unwrap().usage_ns;
    assert!(later >= usage);
}

#[test]
fn a_quota_throttles() {
    let Some(found) = hierarchies() else { return };
    let Some(own) = TestCgroup::new("quota", &[found.bandwidth()]) else { return };
    if found.bandwidth().unwrap().version == Version::V2 {
        fs::write(own.file("cpu.max"), "10000 100000").unwrap();
    } else {
        fs::write(own.file("cpu.cfs_quota_us"), "10000").unwrap();
    }
    let mut reader = CgroupReader::new(&found).unwrap();
    let before = read(&mut reader, &own.path, &[Measurement::Throttling]).values.throttling.unwrap();
    assert_eq!((before.quota_ns, before.period_ns, before.throttled_ns), (Some(10_000_000), 100_000_000, 0));

    let mut shell = Shell::waiting("while :; do :; done");
    own.take_in(&shell);
    shell.go();
    thread::sleep(Duration::from_secs(1));
    let after = read(&mut reader, &own.path, &[Measurement::Throttling]).values.throttling.unwrap();
    assert!(after.periods >= 3 && after.throttled_periods >= 2, "{after:?}");
    assert!(after.throttled_periods <= after.periods, "{after:?}");
    // One task is throttled for at most the 90 ms that a period has beside the quota.
    assert!((100_000_000..1_500_000_000).contains(&after.throttled_ns), "{after:?}");
}

#[test]
fn memory_and_tasks_of_a_shell() {
    const SIZE: u64 = 32 << 20;
    const LIMIT: u64 = 256 << 20;
    let Some(found) = hierarchies() else { return };
    let Some(own) = TestCgroup::new("memory", &[found.memory(), found.pids()]) else { return };
    let v2 = found.memory().unwrap().version == Version::V2;
    fs::write(own.file(if v2 { "memory.max" } else { "memory.limit_in_bytes" }), LIMIT.to_string()).unwrap();
    fs::write(own.file("pids.max"), "77").unwrap();

    let mut shell =
        Shell::waiting(&format!("x=$(head -c {SIZE} /dev/zero | tr '\\0' x); echo ready; read end"));
    own.take_in(&shell);
    shell.go();
    shell.wait_for_line();
    let mut reader = CgroupReader::new(&found).unwrap();
    let values = read(&mut reader, &own.path, &Measurement::ALL).values;
    let memory = values.memory.unwrap();
    assert!(memory.usage_bytes >= SIZE && memory.usage_bytes <= LIMIT, "{memory:?}");
    assert!(memory.peak_bytes.is_none_or(|peak| peak >= memory.usage_bytes), "{memory:?}");
    assert_eq!(memory.limit_bytes, Some(LIMIT));
    let working_set = values.working_set.unwrap();
    assert_eq!(working_set.bytes + working_set.inactive_file_bytes, memory.usage_bytes);
    let stat = values.memory_stat.unwrap();
    assert!(stat.anon_bytes >= SIZE && stat.page_faults >= SIZE / 65536, "{stat:?}");
    assert_eq!(values.memory_events.unwrap().oom_kill, 0);
    let pids = values.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (1, Some(77)));
}

#[test]
fn a_removed_cgroup_is_gone() {
    let Some(found) = hierarchies() else { return };
    let Some(own) = TestCgroup::new("gone", &[found.cpu_time(), found.memory()]) else { return };
    let mut reader = CgroupReader::new(&found).unwrap();
    let which = [Measurement::Cpu, Measurement::Memory, Measurement::Pids];
    assert!(read(&mut reader, &own.path, &which).values.memory.is_some());
    let path = own.path.clone();
    drop(own);
    let error = reader.read(&path, Measurements::new(&which)).unwrap_err();
    assert!(matches!(error, ReadError::Gone { .. }), "{error}");
}

#[test]
fn flushing_survives_children_that_vanish() {
    let Some(found) = hierarchies() else { return };
    let Some(first) = TestCgroup::new("flush1", &[found.unified.as_ref()]) else { return };
    let Some(second) = TestCgroup::new("flush2", &[found.unified.as_ref()]) else { return };
    let mut flusher = Flusher::new(&found).unwrap();
    flusher.refresh([first.path.as_str(), &second.path, "/snug-test-never"].into_iter()).unwrap();
    assert_eq!(flusher.flush_cpu().unwrap(), 2);
    assert_eq!(flusher.flush_memory().unwrap(), found.memory().is_some());

    let (path, directory) = (first.path.clone(), first.directories[0].clone());
    drop(first);
    assert_eq!(flusher.flush_cpu().unwrap(), 1);
    // A cgroup created again under the same name is another cgroup, also if its removal was not noticed.
    let again = TestCgroup { path: path.clone(), directories: vec![directory.clone()] };
    fs::create_dir(&directory).unwrap();
    flusher.refresh([path.as_str(), &second.path].into_iter()).unwrap();
    assert_eq!(flusher.flush_cpu().unwrap(), 2);
    assert!(remove(&directory));
    fs::create_dir(&directory).unwrap();
    flusher.refresh([path.as_str(), &second.path].into_iter()).unwrap();
    assert_eq!(flusher.flush_cpu().unwrap(), 2);
    drop(again);
}

#[test]
fn a_walk_finds_own_cgroups() {
    let Some(found) = hierarchies() else { return };
    let Some(own) = TestCgroup::new("walk", &[found.memory()]) else { return };
    for child in ["a", "a/b", "a/b/c", "d"] {
        fs::create_dir(own.directories[0].join(child)).unwrap();
    }
    let listing = list_cgroups(found.memory().unwrap(), MAX_DEPTH, |_| None).unwrap();
    let mine: Vec<_> = listing.cgroups.iter().filter(|cgroup| cgroup.path.starts_with(&own.path)).collect();
    let mut paths: Vec<&str> = mine.iter().map(|cgroup| &cgroup.path[own.path.len()..]).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["", "/a", "/a/b", "/a/b/c", "/d"]);
    for cgroup in mine {
        let age = SystemTime::now().duration_since(cgroup.created).unwrap();
        assert!(age < Duration::from_secs(60), "{cgroup:?}");
    }
}
