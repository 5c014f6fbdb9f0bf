//! What the sampling thread could not read or use, counted by cause.
//!
//! Metrics: `snug_agent_skipped_total`.

use std::ops::{Index, IndexMut};

macro_rules! causes {
    ($($(#[$about:meta])+ $cause:ident = $name:literal,)+) => {
        /// Why something is skipped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Cause {
            $($(#[$about])+ $cause,)+
        }

        impl Cause {
            const ALL: &[Self] = &[$(Self::$cause,)+];

            /// The value of the label `what`.
            const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$cause => $name,)+
                }
            }
        }

        /// How often each cause occurred.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(super) struct Skipped([u64; [$($name,)+].len()]);
    };
}

causes! {
    /// A cgroup file that cannot be read, or has another form than the kernel's documentation says.
    CgroupFiles = "cgroup_files",
    /// A line of `io.stat` without a device number.
    IoLines = "io_lines_without_device",
    /// A cgroup whose name is not UTF-8.
    CgroupNames = "cgroup_names_not_utf8",
    /// A cgroup below the deepest level that is listed.
    DeepCgroups = "cgroups_too_deep",
    /// A cgroup that a container made, beyond the room for these.
    InnerCgroups = "cgroups_inside_containers",
    /// A listing of a hierarchy that failed.
    Listings = "listings",
    /// A cgroup for which the eBPF programs had no room; files are read instead.
    RecordsWithoutRoom = "cgroup_records_without_room",
    /// A cgroup whose id the eBPF programs could not read.
    RecordsUnreadable = "cgroup_records_unreadable",
    /// An event of the eBPF programs that is none of those they send.
    Events = "events_undecodable",
    /// An OOM kill in a cgroup that is not known.
    OomKills = "oom_kills_of_unknown_cgroups",
    /// Counters of packets and connections of a cgroup that is not known.
    Network = "network_of_unknown_cgroups",
    /// Run-queue waits of a cgroup that is not known.
    Runqueue = "runqueue_of_unknown_cgroups",
    /// A file of network interfaces that cannot be read.
    Interfaces = "interfaces",
    /// A line of network interfaces that is not one.
    InterfaceLines = "interface_lines",
    /// Interfaces of pods, because the host's own network namespace is not known.
    InterfacesWithoutHost = "interfaces_without_the_hosts",
    /// Interfaces of processes in another PID namespace than the agent's.
    InterfacesOutOfSight = "interfaces_of_processes_out_of_sight",
    /// Open files of processes in another PID namespace than the agent's.
    DescriptorsOutOfSight = "descriptors_of_processes_out_of_sight",
    /// Open files of a cgroup with more processes than are looked at.
    DescriptorsOfMany = "descriptors_of_too_many_processes",
    /// Open files that the kernel does not show to the agent.
    DescriptorsNotShown = "descriptors_not_shown_to_the_agent",
    /// Open files of a cgroup that has more of them than are counted.
    ManyDescriptors = "too_many_descriptors",
}

impl Skipped {
    /// The names of the causes that occurred, and how often.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::ALL.iter().map(|cause| (cause.as_str(), self[*cause])).filter(|(_, count)| *count > 0)
    }
}

#[expect(clippy::indexing_slicing, reason = "the array has one element for each cause")]
impl Index<Cause> for Skipped {
    type Output = u64;

    fn index(&self, cause: Cause) -> &u64 {
        &self.0[cause as usize]
    }
}

#[expect(clippy::indexing_slicing, reason = "the array has one element for each cause")]
impl IndexMut<Cause> for Skipped {
    fn index_mut(&mut self, cause: Cause) -> &mut u64 {
        &mut self.0[cause as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_counted_under_its_own_name() {
        let mut skipped = Skipped::default();
        for (times, cause) in Cause::ALL.iter().enumerate() {
            skipped[*cause] += times as u64;
        }
        let rows: Vec<_> = skipped.rows().collect();
        let expected: Vec<_> = Cause::ALL
            .iter()
            .enumerate()
            .skip(1)
            .map(|(times, cause)| (cause.as_str(), times as u64))
            .collect();
        assert_eq!(rows, expected);
        let mut names: Vec<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Cause::ALL.len());
    }
}
