//! Processes of cgroups and their file descriptors, if `process-metrics` is on; a few cgroups per round.
//!
//! Files: `cgroup.procs`, `/proc/PID/fd/*`, `/proc/PID/limits`. Metrics of `/metrics/cadvisor`: `container_processes`,
//! `container_file_descriptors`, `container_sockets`, `container_ulimits_soft`.

use std::{fs, io, path::Path};

use procfs::{
    FromRead as _,
    process::{LimitValue, Limits},
};

use super::{
    Component, Round,
    round_robin::RoundRobin,
    skipped::{Cause, Skipped},
};
use crate::{
    identity::Level,
    store::Key,
    values::{Descriptors, Processes, Ulimit, Values},
};

/// Descriptors are counted in cgroups with at most this many processes.
const MAX_PROCESSES: usize = 2048;
/// Descriptors are counted up to this number per cgroup; with more, their number is not known.
const MAX_DESCRIPTORS: u64 = 65_536;

#[derive(Default)]
pub(super) struct ProcessSampler {
    queue: RoundRobin<Key>,
}

impl Component for ProcessSampler {
    /// Reads the cgroups that are due, so that each is read once per `slow-interval`.
    fn round(&mut self, round: &mut Round) {
        let Round { store, files, config, skipped, now, .. } = round;
        let due = self.queue.due(*now, config.slow_interval, || {
            let shown = store.living().filter(|(_, identity)| identity.of_path.level != Level::Cgroup);
            shown.map(|(key, _)| key).collect()
        });
        for key in due {
            let Some(path) = store.identity(key).map(|identity| identity.path.clone()) else { continue };
            let Some(pids) = files.processes(&path, skipped) else { continue };
            let processes = Some(inspect(&config.proc_root, &pids, skipped));
            store.update(key, Values { processes, ..Values::default() });
        }
    }
}

fn inspect(proc_root: &Path, pids: &[u32], skipped: &mut Skipped) -> Processes {
    let first = pids.iter().copied().filter(|pid| *pid != 0).min();
    Processes {
        count: pids.len() as u64,
        descriptors: descriptors(proc_root, pids).map_err(|why| skipped[why] += 1).ok(),
        open_files_limit: first.and_then(|pid| open_files_limit(proc_root, pid)),
    }
}

/// Counts the descriptors of all processes.
fn descriptors(proc_root: &Path, pids: &[u32]) -> Result<Descriptors, Cause> {
    if pids.len() > MAX_PROCESSES {
        return Err(Cause::DescriptorsOfMany);
    }
    let mut sum = Descriptors::default();
    for pid in pids {
        if *pid == 0 {
            return Err(Cause::DescriptorsOutOfSight);
        }
        let open = match fs::read_dir(proc_root.join(pid.to_string()).join("fd")) {
            Ok(open) => open,
            Err(error) if gone(&error) => continue,
            Err(_) => return Err(Cause::DescriptorsNotShown),
        };
        for descriptor in open.map_while(Result::ok) {
            let target = match fs::read_link(descriptor.path()) {
                Ok(target) => target,
                // The descriptor was closed meanwhile.
                Err(error) if gone(&error) => continue,
                Err(_) => return Err(Cause::DescriptorsNotShown),
            };
            sum.all += 1;
            sum.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            if sum.all > MAX_DESCRIPTORS {
                return Err(Cause::ManyDescriptors);
            }
        }
    }
    Ok(sum)
}

/// Whether an error means that the process has exited.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn open_files_limit(proc_root: &Path, pid: u32) -> Option<Ulimit> {
    let limits = Limits::from_file(proc_root.join(pid.to_string()).join("limits")).ok()?;
    Some(match limits.max_open_files.soft_limit {
        LimitValue::Unlimited => Ulimit::Unlimited,
        LimitValue::Value(value) => Ulimit::At(value),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixStream, process};

    use super::*;

    #[test]
    fn this_process_and_its_descriptors() {
        let mut skipped = Skipped::default();
        let own = [process::id()];
        let before = inspect(Path::new("/proc"), &own, &mut skipped);
        let files: Vec<_> = (0..50).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let sockets: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
        let after = inspect(Path::new("/proc"), &own, &mut skipped);
        let (before_of, after_of) = (before.descriptors.unwrap(), after.descriptors.unwrap());
        // Other tests of this process open and close descriptors meanwhile.
        assert!(after_of.sockets.abs_diff(before_of.sockets + 100) < 40, "{before:?} {after:?}");
        assert!(after_of.all.abs_diff(before_of.all + 150) < 60, "{before:?} {after:?}");
        drop((files, sockets));
        let (soft, _) = limits();
        assert_eq!((after.count, after.open_files_limit), (1, Some(soft)));
        assert_eq!(skipped, Skipped::default());
    }

    fn limits() -> (Ulimit, Ulimit) {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let of = |value: Option<u64>| value.map_or(Ulimit::Unlimited, Ulimit::At);
        (of(limit.current), of(limit.maximum))
    }

    #[test]
    fn descriptors_are_unknown_if_those_of_one_process_are() {
        let folder = tempfile::tempdir().unwrap();
        let fd = folder.path().join("7/fd");
        fs::create_dir_all(&fd).unwrap();
        for (number, target) in [("0", "/dev/null"), ("1", "socket:[5]"), ("2", "pipe:[6]")] {
            std::os::unix::fs::symlink(target, fd.join(number)).unwrap();
        }
        fs::write(folder.path().join("7/limits"), "Limit  Soft Limit  Hard Limit  Units\n").unwrap();
        let mut skipped = Skipped::default();
        let known = inspect(folder.path(), &[7, 8], &mut skipped);
        let descriptors = Some(Descriptors { all: 3, sockets: 1 });
        assert_eq!(known, Processes { count: 2, descriptors, open_files_limit: None });
        assert_eq!(skipped, Skipped::default());
        // What cannot be tracked is not shown: without the right to trace it, a descriptor's target is not.
        fs::create_dir_all(folder.path().join("10/fd")).unwrap();
        fs::write(folder.path().join("10/fd/0"), "").unwrap();
        fs::create_dir(folder.path().join("9")).unwrap();
        fs::write(folder.path().join("9/fd"), "").unwrap();
        for (pids, why) in [
            (vec![0, 7], Cause::DescriptorsOutOfSight),
            (vec![7; MAX_PROCESSES + 1], Cause::DescriptorsOfMany),
            (vec![7, 9], Cause::DescriptorsNotShown),
            (vec![7, 10], Cause::DescriptorsNotShown),
        ] {
            let unknown = inspect(folder.path(), &pids, &mut skipped);
            assert_eq!((unknown.count, unknown.descriptors), (pids.len() as u64, None), "{why:?}");
            assert_eq!(std::mem::take(&mut skipped[why]), 1, "{why:?}");
        }
        assert_eq!(inspect(folder.path(), &[], &mut skipped).descriptors, Some(Descriptors::default()));
    }
}
