//! CPU usage of `snug top` for a node with 500 containers.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use snug_tests::{fake_agent::FakeAgent, tmux::Terminal};

use crate::{
    interrupt,
    measure::{Budget, Section},
};

const CONTAINERS: u64 = 500;
const SIZE: (u16, u16) = (160, 50);
const INTERVAL: &str = "500ms";
const MEASURED: Duration = Duration::from_secs(20);

/// Measures the CPU time of the command in a terminal, by refresh. The agent is a fake one in the process of the bench.
pub(crate) fn run(binary: &Path) -> Result<Section> {
    let agent = FakeAgent::start(CONTAINERS);
    let terminal = Terminal::start(SIZE.0, SIZE.1);
    terminal.run(&format!("{} top --agent {} --interval {INTERVAL}", binary.display(), agent.url()));
    terminal.until("rates", |text| text.contains("  over "));
    let pid = terminal.child();
    let (before, first) = (cpu_seconds(pid)?, agent.answers());
    interrupt::sleep(MEASURED)?;
    let (after, last) = (cpu_seconds(pid)?, agent.answers());
    ensure!(last > first + 10, "only {} refreshes", last - first);
    let millis = (after - before) * 1000.0 / (last - first) as f64;
    terminal.press("q");
    let mut section = Section::new("top");
    section.paragraph(&format!(
        "CPU time of `snug top` for each refresh of a screen of {} × {} with {CONTAINERS} containers: requesting, sorting and drawing. \
         Mean of {} refreshes, in user and kernel mode.",
        SIZE.0,
        SIZE.1,
        last - first,
    ));
    section.budgets = vec![Budget::at_most("CPU time per refresh", millis, 10.0, "ms", 1)];
    Ok(section.finish())
}

/// CPU time of all threads of a process, by the scheduler.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanos = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(nanos as f64 / 1e9)
}
