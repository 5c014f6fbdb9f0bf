//! The alert about a leak. Growth of memory is known after ten minutes, so `cargo xtask soak` runs the test.

use std::{env, fs, time::Duration};

use anyhow::Result;
use snug_tests::agent::{Agent, eventually};

use super::{LARGE, SOON, alert, await_firing, is_of_this_test, prometheus};
use crate::{cannot_run, container, container::pod_list, has_program};

/// Set where the test may take ten minutes.
const VARIABLE: &str = "SNUG_TEST_LEAK";
/// Longer than growth takes to be known.
const LONG: Duration = Duration::from_secs(20 * 60);

#[test]
fn a_leak_fires_before_the_limit_is_reached_and_steady_memory_does_not() -> Result<()> {
    if env::var_os(VARIABLE).is_none() {
        println!("not run: takes ten minutes; cargo xtask soak runs it");
        return Ok(());
    }
    if !has_program("prometheus") {
        return cannot_run("there is no prometheus");
    }
    let (mut leaking, mut steady) = match container().and_then(|one| Ok((one, container()?))) {
        Ok(containers) => containers,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(
        &pods,
        pod_list(&[leaking.pod("shop", "leaking", "app"), steady.pod("shop", "steady", "app")]),
    )?;
    let limit = LARGE.to_string();
    let held = LARGE * 5 / 8;
    let hold = |then: &str| format!("(head -c {held} /dev/zero; {then}) | tail -c {limit} > /dev/null");
    // 100 KiB a second: it reaches the limit within an hour.
    for (container, then) in
        [(&mut leaking, "while sleep 1; do head -c 102400 /dev/zero; done"), (&mut steady, "exec sleep 2000")]
    {
        container.set(("memory.max", &limit), ("memory.limit_in_bytes", &limit))?;
        container.run(&hold(then))?;
        // Growth in the first hour of a container does not count.
        container.make_older(Duration::from_secs(2 * 3600))?;
        eventually(SOON, "it holds its memory", || {
            let used: u64 = container.read("memory.current", "memory.usage_in_bytes")?.trim().parse()?;
            Ok((used >= held).then_some(()))
        })?;
    }
    let agent = Agent::start(["--pods-file", &pods.to_string_lossy()])?;
    let prometheus = prometheus(&agent)?;
    let expected = [alert("SnugMemoryLeak", "leaking")];
    await_firing(&prometheus, LONG, &expected, is_of_this_test)
}
