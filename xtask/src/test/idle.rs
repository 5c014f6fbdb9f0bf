//! A cgroup whose processes use only CPU time that nothing else wants.
//!
//! With `cpu.idle`, the kernel's scheduler lets a process of another cgroup preempt them as soon as it wakes up. Nice values and
//! `SCHED_IDLE` would not do: with `sched_autogroup` they act between the processes of one session only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, demo::cgroups, host};

/// Start of the cgroup's name; the id of the process that made it follows.
pub(super) const PREFIX: &str = "snug-idle-";

/// The cgroup. It is removed, and processes that are left in it are killed, when this value is dropped.
#[derive(Debug)]
pub(super) struct IdleGroup {
    directory: PathBuf,
}

impl IdleGroup {
    /// Makes the cgroup.
    ///
    /// # Errors
    /// Where this host has no such cgroups, or allows none: the reason.
    pub(super) fn make() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let root = hierarchy(&mounts).context("no cgroup hierarchy with the cpu controller is mounted")?;
        Self::make_in(&root, &format!("{PREFIX}{}", std::process::id()))
    }

    fn make_in(root: &Path, name: &str) -> Result<Self> {
        // Only cgroup v2 has this file. The controller may be on already, or not allowed.
        let children = root.join("cgroup.subtree_control");
        if children.exists() {
            let _ = fs::write(children, "+cpu");
        }
        let directory = root.join(name);
        fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let group = Self { directory };
        let file = group.switch();
        fs::write(&file, "1").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(group)
    }

    /// Lets its processes use the CPU as any others.
    pub(super) fn stop_yielding(&self) -> Result<()> {
        let file = self.switch();
        fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))
    }

    fn switch(&self) -> PathBuf {
        self.directory.join("cpu.idle")
    }

    /// The command as a process of this cgroup.
    pub(super) fn enclose(&self, inner: &Command) -> Command {
        let mut outer = command::new("sh");
        outer.env(host::CPU_IDLE_VARIABLE, self.switch());
        outer.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        outer.arg(self.directory.join("cgroup.procs")).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }
}

impl Drop for IdleGroup {
    fn drop(&mut self) {
        if let Err(error) = cgroups::remove_one(&self.directory) {
            eprintln!("test: {error:#}");
        }
    }
}

/// Mount point of the hierarchy with the cpu controller: of v1, if the controller is there, else of v2.
fn hierarchy(mounts: &str) -> Option<PathBuf> {
    let mounts = || {
        mounts.lines().filter_map(|line| {
            // device, mount point, type, options, …
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.next()?, words.next()?))
        })
    };
    let v1 = mounts().find(|(_, kind, options)| *kind == "cgroup" && options.split(',').any(|o| o == "cpu"));
    let v2 = || mounts().find(|(_, kind, _)| *kind == "cgroup2");
    v1.or_else(v2).map(|(path, _, _)| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Stdio},
        thread,
        time::Duration,
    };

    use super::*;

    /// A group of its own name, so that tests do not remove each other's.
    fn group(name: &str) -> Option<IdleGroup> {
        let root = hierarchy(&fs::read_to_string("/proc/self/mounts").unwrap())?;
        let name = format!("snug-test-{}-{name}", std::process::id());
        IdleGroup::make_in(&root, &name).inspect_err(|why| eprintln!("skipped: {why:#}")).ok()
    }

    #[test]
    fn the_hierarchy_is_that_with_the_controller() {
        let v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let others = "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n";
        let both = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
        let of = |mounts: &[&str]| hierarchy(&mounts.concat()).map(|path| path.display().to_string());
        assert_eq!(of(&[others, v2]).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(of(&[v2, others, both]).as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(of(&["proc /proc proc rw 0 0\n", others]), None);
    }

    #[test]
    fn a_process_inside_leaves_the_cpu_to_one_outside() {
        let Some(group) = group("share") else { return };
        // These tests may run in such a cgroup themselves, so what is outside has one without `cpu.idle`.
        let Some(other) = self::group("other") else { return };
        other.stop_yielding().unwrap();
        // Nanoseconds on a CPU, from Documentation/scheduler/sched-stats.rst.
        let used = |pid: u32| -> u64 {
            let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let wait_for = |process: &Child, nanoseconds: u64| {
            while used(process.id()) < nanoseconds {
                thread::sleep(Duration::from_millis(5));
            }
        };
        let start_busy = |group: &IdleGroup| {
            let mut command = command::new("taskset");
            command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
            let process = group.enclose(&command).spawn().unwrap();
            while fs::read_to_string(group.directory.join("cgroup.procs")).unwrap().is_empty() {
                thread::sleep(Duration::from_millis(5));
            }
            process
        };
        // On a busy machine it may never get the CPU.
        let mut inside = start_busy(&group);
        let mut outside = start_busy(&other);
        // Until it is on its CPU.
        wait_for(&outside, used(outside.id()) + 20_000_000);
        let before = (used(inside.id()), used(outside.id()));
        wait_for(&outside, before.1 + 50_000_000);
        let (inside_used, outside_used) = (used(inside.id()) - before.0, used(outside.id()) - before.1);
        for process in [&mut inside, &mut outside] {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        println!("inside {inside_used} ns, outside {outside_used} ns");
        assert!(inside_used * 3 < outside_used, "inside {inside_used} ns, outside {outside_used} ns");
        let directory = group.directory.clone();
        drop(group);
        assert!(!directory.exists());
    }

    #[test]
    fn a_command_keeps_its_arguments_and_variables_and_its_processes_end_with_the_group() {
        let Some(group) = group("end") else { return };
        let mut command = command::new("sh");
        command
            .args(["-c", "echo \"$1 $VARIABLE\"; cat /proc/self/cgroup", "sh", "a b"])
            .env("VARIABLE", "it's");
        let printed = command::capture(&mut group.enclose(&command)).unwrap();
        let name = group.directory.file_name().unwrap().to_string_lossy().into_owned();
        assert!(printed.starts_with("a b it's\n") && printed.contains(&format!("/{name}\n")), "{printed}");
        let mut sleep = command::new("sleep");
        sleep.arg("1000").stdin(Stdio::null());
        let mut left = group.enclose(&sleep).spawn().unwrap();
        while fs::read_to_string(group.directory.join("cgroup.procs")).unwrap().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        drop(group);
        assert!(!left.wait().unwrap().success());
    }
}
