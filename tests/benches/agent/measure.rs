//! Times, medians, budgets and tables.

use std::{fmt::Write as _, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Runs `work` and returns the CPU time of this thread, in user and kernel mode.
pub(crate) fn cpu_time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = thread_cpu();
    let result = work();
    (thread_cpu().saturating_sub(before), result)
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of a fixed computation divided by its minimum. A value above 1 means that other work shares the execution units of the
/// core, or that the hypervisor takes the CPU away. Contention of caches is not included.
///
/// The computation uses registers only: on some processors, memory accesses are slower after each sleep.
pub(crate) fn slowdown() -> f64 {
    let times: Vec<f64> = (0..400)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            let (time, _) = cpu_time(|| {
                // The multiplier of Knuth's MMIX generator.
                let mixed = |state: u64, step: u64| (state ^ step).wrapping_mul(6_364_136_223_846_793_005);
                std::hint::black_box((0..200_000_u64).fold(std::hint::black_box(1_u64), mixed))
            });
            time.as_secs_f64()
        })
        .collect();
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    median(times) / fastest
}

/// The median, 0 of no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.get(half) {
        None => 0.0,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => half
            .checked_sub(1)
            .and_then(|lower| values.get(lower))
            .map_or(*upper, |lower| (lower + upper) / 2.0),
    }
}

/// The maximum, 0 of no values.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// A limit and the measured value.
pub(crate) struct Budget {
    pub(crate) name: String,
    pub(crate) allowed: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Budget {
    /// A maximum. `measured` is printed with this number of decimals.
    pub(crate) fn at_most(name: &str, measured: f64, max: f64, unit: &str, decimals: usize) -> Self {
        Self {
            name: name.to_owned(),
            allowed: format!("≤ {max} {unit}"),
            measured: format!("{measured:.decimals$} {unit}"),
            met: measured <= max,
        }
    }

    /// A minimum.
    pub(crate) fn at_least(name: &str, measured: f64, min: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            allowed: format!("≥ {min} {unit}"),
            measured: format!("{measured:.0} {unit}"),
            met: measured >= min,
        }
    }
}

/// Results of a part of the bench, as Markdown.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) budgets: Vec<Budget>,
}

impl Section {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, text: String::new(), budgets: Vec::new() }
    }

    /// Adds a paragraph.
    pub(crate) fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}\n");
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let _ = writeln!(self.text, "| {} |", head.join(" | "));
        let columns: Vec<&str> =
            (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
        let _ = writeln!(self.text, "|{}|", columns.join("|"));
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
        self.text.push('\n');
    }

    /// Adds the table of budgets.
    pub(crate) fn finish(mut self) -> Self {
        let rows: Vec<Vec<String>> = self
            .budgets
            .iter()
            .map(|budget| {
                let verdict = if budget.met { "met" } else { "**NOT MET**" };
                vec![budget.name.clone(), budget.allowed.clone(), budget.measured.clone(), verdict.to_owned()]
            })
            .collect();
        if !rows.is_empty() {
            self.table(&["budget", "allowed", "measured", ""], &rows);
        }
        self
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
