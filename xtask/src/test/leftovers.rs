//! Cgroups of tests that were cut off: they would count for the tests of this run.

use std::{collections::BTreeSet, fs};

use anyhow::Result;

use crate::{demo::cgroups, host};

/// Names of the tests' cgroups begin with one of these; the id of the process that made it follows.
const PREFIXES: [&str; 2] = ["snug-test-", "snug-system-"];

/// Removes the cgroups whose makers do not run any more. One that still has processes stays.
pub(super) fn remove() -> Result<()> {
    let mounts = cgroups::mounts()?;
    let entries = mounts.iter().filter_map(|mount| fs::read_dir(mount).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let left: BTreeSet<String> = names.filter(|name| is_left(name)).collect();
    for name in left {
        println!("test: removing the cgroup {name} of an earlier run");
        if let Err(error) = cgroups::remove(&mounts, &name) {
            println!("test: {error:#}");
        }
    }
    Ok(())
}

fn is_left(name: &str) -> bool {
    let number = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)?.split('-').next());
    let maker = number.and_then(|number| number.parse::<u32>().ok());
    maker.is_some_and(|maker| host::start_time(maker).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroups_of_tests_that_have_ended_are_left() {
        let me = std::process::id();
        // The kernel's maximum of process ids is 2^22.
        for (name, expected) in [
            ("snug-test-4194305-soak", true),
            ("snug-system-4194305-0", true),
            (&*format!("snug-test-{me}-soak"), false),
            ("snug-test-x-soak", false),
            ("snug-idle-4194305-1", false),
            ("kubepods", false),
        ] {
            assert_eq!(is_left(name), expected, "{name}");
        }
    }
}
