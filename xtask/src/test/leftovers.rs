//! Cgroups of runs and tests that were cut off: they would count for the tests of this run, and their processes would use its CPU.

use std::{collections::BTreeSet, fs};

use anyhow::Result;

use super::idle;
use crate::{demo::cgroups, host};

/// Names of the cgroups begin with one of these; the id of the process that made it follows.
const PREFIXES: [&str; 3] = ["snug-test-", "snug-system-", idle::PREFIX];

/// Removes the cgroups whose makers do not run any more, with their processes. This run must not have made any yet.
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
    // An earlier process had the id of this one.
    maker(name).is_some_and(|maker| maker == std::process::id() || host::start_time(maker).is_none())
}

/// Id of the process that made the cgroup of this name.
fn maker(name: &str) -> Option<u32> {
    let number = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)?.split('-').next());
    number.and_then(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::parent_id;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_cgroups_whose_makers_have_ended_are_left() {
        let (me, parent) = (std::process::id(), parent_id());
        // The kernel's maximum of process ids is 2^22.
        for (name, expected) in [
            ("snug-test-4194305-soak", true),
            ("snug-system-4194305-0", true),
            ("snug-idle-4194305", true),
            (&*format!("snug-idle-{me}"), true),
            (&*format!("snug-idle-{parent}"), false),
            (&*format!("snug-test-{parent}-soak"), false),
            ("snug-test-x-soak", false),
            ("kubepods", false),
        ] {
            assert_eq!(is_left(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_has_its_maker(
            prefix in prop::sample::select(&PREFIXES[..]), pid in any::<u32>(), rest in "(-[a-z0-9-]{0,20})?",
            other in "[a-z0-9-]{0,20}",
        ) {
            prop_assert_eq!(maker(&format!("{prefix}{pid}{rest}")), Some(pid));
            prop_assert_eq!(maker(&other), None);
        }
    }
}
