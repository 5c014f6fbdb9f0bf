//! What the agent reports of the kernels that `cargo xtask kernels` boots, and the page about them, `docs/kernels.md`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

/// Name of the kernel in a guest: a key of [`recorded`].
pub const KERNEL_VARIABLE: &str = "SNUG_TEST_KERNEL";
/// What a line of a guest's output with the report begins with.
pub const REPORT: &str = "@@SNUG-KERNEL ";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReport {
    /// As `uname -r`.
    pub release: String,
    /// `v2`, `v1` or `hybrid`.
    pub cgroups: String,
    /// As `uname -m`.
    pub machine: String,
    pub page_bytes: usize,
    /// The source of each measurement, by name.
    pub measurements: BTreeMap<String, SourceReport>,
    /// Values that no source has here.
    pub absent_values: Vec<String>,
    /// The eBPF programs, by name.
    pub programs: BTreeMap<String, ProgramReport>,
}

/// The source of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// `kernel`, `files` or `none`.
    pub source: String,
    /// Why not a better one; empty for the preferred source.
    pub reason: String,
}

/// An eBPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// `running`, `unsupported` or `failed`.
    pub verdict: String,
    /// Why it does not run.
    pub reason: String,
    /// Instructions that the verifier followed; `None` before Linux 5.16.
    pub instructions: Option<u32>,
}

impl KernelReport {
    /// The report without what changes from one build of a kernel to the next.
    #[must_use]
    pub fn of_series(&self) -> Self {
        let mut report = Self { release: String::new(), ..self.clone() };
        report.programs.values_mut().for_each(|program| program.instructions = None);
        report
    }

    /// Programs that exceed their [budget](PROGRAMS), and programs without one.
    pub fn over_budget(&self) -> Vec<String> {
        let over = |(name, program): (&String, &ProgramReport)| {
            let instructions = program.instructions?;
            let budget = PROGRAMS.iter().find(|(own, ..)| own == name).map(|(_, budget, _)| *budget);
            match budget {
                Some(budget) if instructions <= budget => None,
                Some(budget) => Some(format!("{name}: {instructions} instructions, the budget is {budget}")),
                None => Some(format!("{name} has no budget")),
            }
        };
        self.programs.iter().filter_map(over).collect()
    }
}

/// The eBPF programs with the budget of instructions that the verifier may follow, and what is lost without the program. The verifier
/// gives up at a million; what it follows is the time to load, and grows when a loop or branches are added by mistake.
pub const PROGRAMS: [(&str, u32, &str); 19] = [
    ("snapshot", 3_000, "all measurements come from files, once a second: CPU windows last a second"),
    ("sample_active", 60_000, "CPU time is sampled by walks, which take longer"),
    ("resample", 80_000, "each pass is a walk"),
    ("cpus", 1_000, "final records lack CPU time that was not flushed yet"),
    ("cgroup_made", 12_000, "new cgroups are found by listing directories, within a second"),
    ("cgroup_emptied", 6_000, "CPU time of the last moments of a container may be missing"),
    ("cgroup_removed", 60_000, "removals are found by listing directories; no final record"),
    ("process_started", 3_000, "no exit codes and run times but those of pod statuses"),
    ("process_exited", 2_000, "no exit codes and run times but those of pod statuses"),
    ("oom_kill", 60_000, "OOM kills are counters: who was killed, and by whose limit, is not known"),
    ("runqueue_wakeup", 500, "no run queue latency"),
    ("runqueue_wakeup_new", 500, "no run queue latency"),
    ("runqueue_switch", 2_000, "no run queue latency"),
    ("network_receive", 1_000, "no received packets and bytes by container"),
    ("network_transmit", 1_000, "no sent packets and bytes by container"),
    ("tcp_connection", 1_000, "no TCP connections by outcome"),
    ("tcp_retransmit", 500, "no retransmits"),
    ("tcp_retransmit_synack", 500, "no retransmits of SYN-ACKs"),
    ("tcp_round_trip", 2_000, "no round-trip times"),
];

/// The measurements and what is lost if they come from files.
pub const MEASUREMENTS: [(&str, &str); 10] = [
    (
        "cpu",
        "windows of a second instead of 100 ms; of a removed container, what it used since it was last read",
    ),
    ("throttling", "what happened since the container was last read, when it is removed"),
    ("pressure", "as throttling"),
    ("memory", "a peak between the last reading and the removal"),
    ("working_set", "values between two readings"),
    ("memory_events", "events between the last reading and the removal"),
    ("swap", "the peak, before Linux 6.5"),
    ("pids", "values between two readings"),
    ("slow_rows", "nothing: always from files"),
    ("spec", "nothing: always from files"),
];

/// The recorded reports, by name of the kernel.
///
/// # Panics
/// When the file is damaged.
pub fn recorded() -> BTreeMap<String, KernelReport> {
    serde_json::from_str(include_str!("../fixtures/kernels.json")).unwrap()
}

/// What the names of tests of the agent as a process begin with that do not run in guests, and what they need.
///
/// # Panics
/// When the file is damaged.
pub fn not_in_guests() -> BTreeMap<String, String> {
    serde_json::from_str(include_str!("../fixtures/not-in-guests.json")).unwrap()
}

/// The page. Columns are kernels, in the order of their versions.
pub fn page(reports: &BTreeMap<String, KernelReport>) -> String {
    let mut kernels: Vec<(&String, &KernelReport)> = reports.iter().collect();
    kernels.sort_by_key(|(name, report)| (version(&report.release), report.machine != "x86_64", *name));
    let mut notes = Notes::default();
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n| kernel | release | machine | page size | cgroups |\n|---|---|---|---|---|\n");
    for (name, report) in &kernels {
        let KernelReport { release, machine, page_bytes, cgroups, .. } = report;
        let _ = writeln!(page, "| {name} | {release} | {machine} | {} KiB | {cgroups} |", page_bytes / 1024);
    }

    page.push_str("\n## Measurements\n\n");
    page.push_str("`eBPF`: by the programs; `files`: from cgroup files, once a second or less often; `none`: nothing has it. Numbers refer to the reasons below.\n\n");
    heading(&mut page, "measurement", &kernels, &["lost with files"]);
    for (measurement, lost) in MEASUREMENTS {
        let cells = kernels.iter().map(|(_, report)| match report.measurements.get(measurement) {
            Some(SourceReport { source, reason }) => {
                format!("{}{}", if source == "kernel" { "eBPF" } else { source }, notes.refer(reason))
            }
            None => "?".to_owned(),
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(page, "| `{measurement}` | {} | {lost} |", cells.join(" | "));
    }
    page.push_str("\nValues that no source has:\n\n");
    for (name, report) in &kernels {
        let absent =
            if report.absent_values.is_empty() { "none".to_owned() } else { report.absent_values.join(", ") };
        let _ = writeln!(page, "- {name}: {absent}");
    }

    page.push_str("\n## eBPF programs\n\n");
    page.push_str("Instructions that the verifier followed, or `runs` where the kernel does not report them (before 5.16); `–`: does not run. A program above its budget fails the\nkernel tests.\n\n");
    heading(&mut page, "program", &kernels, &["budget", "lost without"]);
    for (program, budget, lost) in PROGRAMS {
        let cells = kernels.iter().map(|(_, report)| match report.programs.get(program) {
            Some(ProgramReport { verdict, instructions, .. }) if verdict == "running" => {
                instructions.map_or_else(|| "runs".to_owned(), |number| number.to_string())
            }
            Some(ProgramReport { reason, .. }) => format!("–{}", notes.refer(reason)),
            None => "?".to_owned(),
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(page, "| `{program}` | {} | {budget} | {lost} |", cells.join(" | "));
    }

    page.push_str(
        "\n## Reasons\n\nAs the agent reports them in its log, `/api/v1/node` and `snug_agent_*`:\n\n",
    );
    for (number, reason) in (1..).zip(&notes.reasons) {
        let _ = writeln!(page, "{number}. {reason}");
    }
    page.push_str(NOT_IN_GUESTS);
    for (tests, needed) in not_in_guests() {
        let _ = writeln!(page, "| `{tests}…` | {needed} |");
    }
    page
}

const INTRODUCTION: &str = "# Kernels

What the agent reports on stock kernels of Debian, in virtual machines. `cargo xtask kernels --write` boots them and writes this page; in each run of all checks the
kernels 6.1 and 6.12 are compared with it, and a difference is a failure. Kernels without BTF (`/sys/kernel/btf/vmlinux`) have no programs at all: everything comes from files.

Before Linux 6.1 no program can walk the cgroups, so all values of cgroups come from files. The other programs work: creations and removals are seen at once, as are exits of init processes,
OOM kills with victim and limit, and traffic and TCP connections by container, which need cgroup v2. Final records are not used there, because nothing has verified the fields that they are read from: a container that lives between two readings has its start and end there, and no usage.

Most of these guests have cgroup v2 alone, as most nodes do. In each run of all checks, all kernel tests run on 6.1 and 6.12, with containers of runc, as they do on the host. The
tests of the agent as a process run there by `cargo xtask kernels --system`, but for [some](#tests-on-hosts-alone); what they wait for may take six times as long. Times and costs are measured on hosts, too: the processor of a guest is emulated.

With a thread for each CPU, the emulator (qemu 7.2) may go on to run a breakpoint that the kernel has removed, after the kernel has patched its code. Linux 6.12 then stops with an oops, and Linux 6.1 stands still.
No eBPF program is needed for that: while `kernel.sched_schedstats` was switched on and off, 6.1 stood still after 18 and after 329 times, and 6.12 stopped after 24; with one thread for all CPUs nothing happened in
432 times. So guests run with one thread, and one that stands still ends after three minutes. A guest reads the time-stamp counter of the host. Where the frequency was not known, because the log of the host's
kernel had lost it, the guest measured it while it waited for a CPU: its clock showed 870 s after 96 s, and it ended as one that stands still. Guests have the frequency from the command line now. A guest with 6.1 once stood still while the
run queue was traced, most likely for one of these reasons. It has been traced there since for 13 minutes in one go, over 310,000 context switches and 2,974 cgroups that came and went.

With multi-generational LRU, which Debian's kernels from 6.12 on have on, Linux 7.3 counts newly read file pages of a cgroup as active once an OOM kill has emptied the oldest generations, until the cgroup reaches its limit
again. The working set, which is usage without inactive file cache, includes them until then. Linux 6.12 counts them as inactive, as does 7.3 without it (`echo n >/sys/kernel/mm/lru_gen/enabled`).
";

const NOT_IN_GUESTS: &str = "
## Tests on hosts alone

Tests of the agent as a process that need what a guest does not have. What they test depends on the agent's output, not on the kernel or on the hierarchies of cgroups, which the other tests compare
with that output. Tests on a Kubernetes node run on the host, too: its programs have time limits that an emulated processor does not keep.

| tests | need |
|---|---|
";

#[derive(Default)]
struct Notes {
    reasons: Vec<String>,
}

impl Notes {
    /// The number of a reason, as a reference; empty without a reason.
    fn refer(&mut self, reason: &str) -> String {
        if reason.is_empty() {
            return String::new();
        }
        let known = self.reasons.iter().position(|own| own == reason);
        let index = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        format!(" ({})", index + 1)
    }
}

fn heading(page: &mut String, first: &str, kernels: &[(&String, &KernelReport)], last: &[&str]) {
    let names = kernels.iter().map(|(name, _)| name.as_str()).chain(last.iter().copied());
    let names: Vec<&str> = names.collect();
    let _ = writeln!(page, "| {first} | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
}

/// Numbers of a release, to order by.
fn version(release: &str) -> Vec<u32> {
    let digits = release.split(|c: char| !c.is_ascii_digit()).take(3);
    digits.map(|number| number.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_program_has_a_budget_and_keeps_it() {
        let reports = recorded();
        for (name, report) in &reports {
            assert_eq!(report.over_budget(), [] as [String; 0], "{name}");
            let known: Vec<&str> = PROGRAMS.iter().map(|(name, ..)| *name).collect();
            assert!(report.programs.keys().all(|own| known.contains(&own.as_str())), "{name}");
            assert_eq!(report.programs.len(), known.len(), "{name}");
            assert!(MEASUREMENTS.iter().all(|(own, _)| report.measurements.contains_key(*own)), "{name}");
        }
        for checked in ["6.1", "6.12"] {
            assert!(reports.contains_key(checked), "{checked} is in every run of all checks");
        }
    }

    #[test]
    fn a_program_above_its_budget_is_named() {
        let mut report = recorded().remove("6.12").unwrap();
        let program = report.programs.get_mut("snapshot").unwrap();
        program.instructions = Some(999_999);
        let over = report.over_budget();
        assert!(over.len() == 1 && over[0].starts_with("snapshot: 999999"), "{over:?}");
    }

    #[test]
    fn kernels_are_ordered_by_version() {
        assert!(version("5.10.0-46-cloud-amd64") < version("6.1.0-57-cloud-amd64"));
        assert!(version("6.12.117+deb12") > version("6.1.0-57-cloud-amd64"));
    }
}
