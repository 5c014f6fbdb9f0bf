//! CPU time and memory of `snug recommend` for the usage history of a large cluster.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use snug_sizing::evidence::{Evidence, HOUR, Header};
use wait4::Wait4 as _;

use crate::{
    history::{Random, half_a_minute},
    interrupt,
    measure::{Budget, Section, median, mib},
};

const WORKLOADS: u64 = 1000;
const HOURS: u32 = 14 * 24;
const FIRST_HOUR: u32 = 500_000;
const RUNS: usize = 5;

/// Path of the command under test, from `SNUG_CLI_BIN`.
pub(crate) fn cli_binary() -> Result<PathBuf> {
    std::env::var_os("SNUG_CLI_BIN")
        .map(PathBuf::from)
        .context("SNUG_CLI_BIN is not set: run `cargo xtask bench`")
}

/// Measures the command on a snapshot.
pub(crate) fn run(binary: &Path) -> Result<Section> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder for the snapshot")?;
    let file = folder.path().join("snapshot.jsonl");
    write(&file)?;
    let bytes = file.metadata()?.len();
    let (mut times, mut cpu_times, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        interrupt::sleep(std::time::Duration::ZERO)?;
        let begun = Instant::now();
        let mut snug = Command::new(binary);
        snug.arg("recommend").arg("--file").arg(&file).stdout(Stdio::null());
        let end = snug.spawn().context("cannot start snug")?.wait4().context("cannot wait for snug")?;
        ensure!(end.status.success(), "`snug recommend` failed");
        times.push(begun.elapsed().as_secs_f64());
        cpu_times.push((end.rusage.utime + end.rusage.stime).as_secs_f64());
        peaks.push(mib(end.rusage.maxrss));
    }
    let mut section = Section::new("recommend");
    section.paragraph(&format!(
        "`snug recommend` on a snapshot of {WORKLOADS} workloads over {} days ({:.0} MiB of JSON in the page cache), as medians of {RUNS} runs. The CPU \
         time is that of all threads, in user and kernel mode; a run took {:.2} s.",
        HOURS / 24,
        mib(bytes),
        median(times),
    ));
    section.budgets = vec![
        Budget::at_most("CPU time", median(cpu_times), 2.0, "s", 2),
        Budget::at_most("peak resident memory", median(peaks), 512.0, "MiB", 0),
    ];
    Ok(section.finish())
}

fn write(file: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut random = Random(1);
    serde_json::to_writer(&mut out, &Header::new("node", u64::from(FIRST_HOUR + HOURS) * HOUR))?;
    for number in 0..WORKLOADS {
        let mut evidence: Option<Evidence> = None;
        for hour in 0..HOURS {
            let one = half_a_minute(number, FIRST_HOUR + hour, &mut random);
            match &mut evidence {
                Some(evidence) => evidence.merge(&one)?,
                None => evidence = Some(one),
            }
        }
        let mut evidence = evidence.context("no hours")?;
        // The hour has only half a minute of usage.
        evidence.hours.values_mut().for_each(|record| record.observed = HOUR);
        out.write_all(b"\n")?;
        serde_json::to_writer(&mut out, &evidence)?;
    }
    Ok(out.flush()?)
}
