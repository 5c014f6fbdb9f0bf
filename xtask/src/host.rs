//! Facts about this machine, from /proc and the kernel log.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::version::Version;

/// Capabilities that the agent and its tests need: name and bit number.
pub(crate) const CAPABILITIES: &[(&str, u32)] =
    &[("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    // Uid: real, effective, saved, file system.
    status_field("Uid").and_then(|ids| ids.split_whitespace().nth(1).map(|id| id == "0")).unwrap_or(false)
}

/// The [`CAPABILITIES`] that this process lacks.
pub(crate) fn missing_capabilities() -> Vec<&'static str> {
    missing_in(&status_field("CapEff").unwrap_or_default())
}

fn missing_in(effective: &str) -> Vec<&'static str> {
    let set = u64::from_str_radix(effective.trim(), 16).unwrap_or(0);
    CAPABILITIES.iter().filter(|(_, bit)| set & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

/// CPU time of children that is accounted separately, in nanoseconds.
static EXCLUDED: AtomicU64 = AtomicU64::new(0);

/// CPU time of all descendants that were waited for, minus the excluded time. Resolution: 10 ms.
pub(crate) fn cpu_time_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let excluded = Duration::from_nanos(EXCLUDED.load(Ordering::Relaxed));
    cpu_time_in(&stat).unwrap_or_default().saturating_sub(excluded)
}

/// Excludes the CPU time of a child from [`cpu_time_of_children`].
pub(crate) fn exclude_cpu_time(of_child: Duration) {
    EXCLUDED.fetch_add(u64::try_from(of_child.as_nanos()).unwrap_or(0), Ordering::Relaxed);
}

/// `cutime` and `cstime`: fields 16 and 17 of `/proc/PID/stat`, in units of 10 ms (proc_pid_stat(5)).
fn cpu_time_in(stat: &str) -> Option<Duration> {
    // The name is in parentheses and may contain any character.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(13)? + ticks(14)?)))
}

/// Start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat`. `None` if it has exited.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    field(&status, name).map(str::to_owned)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Release of the running kernel, such as `6.1.0-56-amd64`.
pub(crate) fn kernel_release() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned())
}

/// Version of the running kernel.
pub(crate) fn kernel_version() -> Option<Version> {
    Version::find(&kernel_release()?)
}

/// Which cgroup versions are mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CgroupLayout {
    /// cgroup v2 only.
    Unified { root: String },
    /// Controllers on v1, and a v2 hierarchy next to them.
    Hybrid { v2_root: String },
    /// cgroup v1 only.
    Legacy,
    /// No cgroup file system is mounted.
    Absent,
}

/// The cgroup layout in the mount namespace of this process.
pub(crate) fn cgroup_layout() -> CgroupLayout {
    layout_of(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn layout_of(mounts: &str) -> CgroupLayout {
    // device, mount point, type, options, …
    let mounts = || {
        mounts.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.next()?))
        })
    };
    let v1 = mounts().any(|(_, kind)| kind == "cgroup");
    let v2 = mounts().find(|(_, kind)| *kind == "cgroup2").map(|(path, _)| path.to_owned());
    match (v1, v2) {
        (false, Some(root)) => CgroupLayout::Unified { root },
        (true, Some(v2_root)) => CgroupLayout::Hybrid { v2_root },
        (true, None) => CgroupLayout::Legacy,
        (false, None) => CgroupLayout::Absent,
    }
}

/// Frequency of the time-stamp counter in kHz: from the kernel log, or from `/proc/cpuinfo`, because the log keeps the first lines
/// only until it has many others.
pub(crate) fn tsc_khz() -> Option<u64> {
    let of_log = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().ok()?;
        tsc_of(&String::from_utf8_lossy(&output.stdout))
    };
    of_log("dmesg", &[])
        .or_else(|| of_log("journalctl", &["--dmesg", "--boot", "--output=cat"]))
        .or_else(|| tsc_of_cpu(&fs::read_to_string("/proc/cpuinfo").ok()?))
}

/// From `/proc/cpuinfo` of a machine that does not measure at which frequency a CPU runs: there it shows the counter's. So do most
/// virtual machines.
fn tsc_of_cpu(cpuinfo: &str) -> Option<u64> {
    let row = |name: &str| {
        let (_, value) =
            cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|row| row.0.trim() == name)?;
        Some(value.trim())
    };
    let flags: Vec<&str> = row("flags")?.split(' ').collect();
    (flags.contains(&"constant_tsc") && !flags.contains(&"aperfmperf")).then(|| khz(row("cpu MHz")?))?
}

/// From the last line `tsc: Detected 2500.014 MHz …` or `tsc: Refined TSC clocksource calibration: 2499.998 MHz`.
fn tsc_of(log: &str) -> Option<u64> {
    let line = log.lines().rfind(|line| {
        line.contains("tsc: Refined TSC clocksource calibration:")
            || line.contains("tsc: Detected") && line.contains("MHz processor")
    })?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "MHz")?;
    khz(words.get(unit.checked_sub(1)?)?)
}

/// `2499.998` MHz.
fn khz(text: &str) -> Option<u64> {
    let (mhz, thousandths) = text.split_once('.')?;
    let khz: u64 = format!("{thousandths:0<3}").get(..3)?.parse().ok()?;
    mhz.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(khz)
}

/// Environment variable of processes whose cgroup gets only idle CPU time: path of the cgroup's `cpu.idle`.
pub(crate) const CPU_IDLE_VARIABLE: &str = "SNUG_CPU_IDLE_FILE";

/// Waits until this process may use the CPU as any other.
pub(crate) fn wait_for_cpu() {
    if let Some(file) = std::env::var_os(CPU_IDLE_VARIABLE) {
        wait_while_idle(Path::new(&file));
    }
}

fn wait_while_idle(file: &Path) {
    // Without the file there is no such cgroup any more.
    while fs::read_to_string(file).is_ok_and(|text| text.trim() == "1") {
        thread::sleep(Duration::from_millis(200));
    }
}

/// Whether this process can open the file for reading.
pub(crate) fn is_readable(path: &Path) -> bool {
    fs::File::open(path).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn capabilities_are_bits_of_the_effective_set() {
        assert!(missing_in("000001fffeffffff").is_empty());
        assert_eq!(missing_in("0000000000201000"), ["CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing_in("0").len(), CAPABILITIES.len());
        assert_eq!(missing_in("not hex").len(), CAPABILITIES.len());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tx\nUid:\t1000\t0\t0\t0\nCapEffective:\t1\nCapEff:\t00ff\n";
        assert_eq!(field(status, "CapEff"), Some("00ff"));
        assert_eq!(field(status, "Cap"), None);
    }

    #[test]
    fn all_cgroup_layouts_are_recognized() {
        let v1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let root = "/sys/fs/cgroup/unified".to_owned();
        assert_eq!(layout_of(v2), CgroupLayout::Unified { root: root.clone() });
        assert_eq!(layout_of(&format!("{v1}{v2}")), CgroupLayout::Hybrid { v2_root: root });
        assert_eq!(layout_of(v1), CgroupLayout::Legacy);
        assert_eq!(layout_of("proc /proc proc rw 0 0\n"), CgroupLayout::Absent);
    }

    #[test]
    fn the_last_measured_tsc_frequency_is_used() {
        let log =
            "[    0.000025] tsc: Detected 2500.014 MHz processor\n[    1.2] TSC deadline timer available\n";
        assert_eq!(tsc_of(log), Some(2_500_014));
        let refined = format!("{log}[    2.0] tsc: Refined TSC clocksource calibration: 2499.99 MHz\n");
        assert_eq!(tsc_of(&refined), Some(2_499_990));
        assert_eq!(tsc_of("nothing"), None);
    }

    #[test]
    fn a_cpu_whose_frequency_is_measured_does_not_show_that_of_its_tsc() {
        let cpu =
            |flags: &str| format!("flags\t\t: fpu tsc {flags}\ncpu MHz\t\t: 2596.134\n\nflags\t: fpu\n");
        assert_eq!(tsc_of_cpu(&cpu("constant_tsc hypervisor")), Some(2_596_134));
        for other in [&*cpu("constant_tsc aperfmperf"), &*cpu(""), "flags : constant_tsc\n", ""] {
            assert_eq!(tsc_of_cpu(other), None, "{other}");
        }
    }

    #[test]
    fn the_wait_for_the_cpu_ends_with_the_setting_or_its_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cpu.idle");
        wait_while_idle(&file);
        for end in
            [|file: &Path| fs::write(file, "0\n").unwrap(), |file: &Path| fs::remove_file(file).unwrap()]
        {
            fs::write(&file, "1\n").unwrap();
            thread::scope(|scope| {
                let waiting = scope.spawn(|| wait_while_idle(&file));
                thread::sleep(Duration::from_millis(20));
                assert!(!waiting.is_finished());
                end(&file);
            });
        }
    }

    proptest! {
        #[test]
        fn no_log_panics(log in "(tsc: (Detected|Refined TSC clocksource calibration:) ?.{0,20} ?MHz processor\n?){0,3}") {
            let _ = tsc_of(&log);
        }
    }
}
