//! Which cgroups there are: paths of new ones, from events or by listing directories, and those that are gone.
//!
//! Files: the directories of each hierarchy, if its cgroups come from files or a pass found one without a known path.
//! Metrics: `snug_agent_skipped_total` (`cgroup_names_not_utf8`, `cgroups_too_deep`, `cgroups_inside_containers`, `listings`).

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::{Round, hierarchy::ResolvedCgroup, skipped::Cause};
use crate::{
    cgroupfs::list::{CgroupDir, MAX_DEPTH, list_cgroups},
    clock::unix_now,
    identity::{Level, path},
    kernel::KernelEvent,
    store::Appearance,
};

/// Minimum time between two listings of a hierarchy's directories.
const MIN_LISTING_PAUSE: Duration = Duration::from_secs(1);
/// Maximum time between listings that find no new cgroup, for example only names that are not UTF-8.
const MAX_LISTING_PAUSE: Duration = Duration::from_secs(60);
/// Directories that a listing takes below a container.
const MAX_LISTED_IN_CONTAINER: usize = 256;
/// Directories that a listing takes below a systemd unit, which may contain containers.
const MAX_LISTED_IN_UNIT: usize = 4096;

/// A systemd unit, which may contain containers, gets at most this part of the records for what is below it.
const UNIT_SHARE: u32 = 4;

impl Round {
    /// Whether the eBPF programs sample the hierarchy.
    pub(super) fn is_walked(&self, index: usize) -> bool {
        !self.sources.kernel_measurements(index).is_empty()
    }

    /// Lists a hierarchy's directories, to find the paths of new kernfs ids; at most once per [`MIN_LISTING_PAUSE`].
    pub(super) fn list_directories(&mut self, index: usize) {
        let (now, walked) = (self.now, self.is_walked(index));
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        let pause = match tracked.listing {
            Some((due, _)) if now < due => return,
            Some((_, pause)) => pause,
            None => MIN_LISTING_PAUSE,
        };
        let nested_nodes = &self.nested_nodes;
        // Inside a container only so many directories are listed, for the counters of their sockets.
        let room_below = |path: &str| match path::parse_with(path, nested_nodes).map(|of_path| of_path.level)
        {
            _ if nested_nodes.is_around(path) => None,
            Some(Level::Container | Level::Sandbox) => Some(MAX_LISTED_IN_CONTAINER),
            Some(Level::Unit) => Some(MAX_LISTED_IN_UNIT),
            _ => None,
        };
        let listing = match list_cgroups(&tracked.hierarchy, MAX_DEPTH, room_below) {
            Ok(listing) => listing,
            Err(error) => {
                if let Some(error) = tracked.outage.new_cause(&error) {
                    tracing::warn!(error, "cannot list cgroups; will retry");
                }
                self.skipped[Cause::Listings] += 1;
                return;
            }
        };
        self.skipped[Cause::CgroupNames] += listing.skipped_names;
        self.skipped[Cause::DeepCgroups] += listing.too_deep;
        self.skipped[Cause::InnerCgroups] += listing.too_many;
        tracked.outage.end();
        tracked.begin_pass();
        let mut new = listing.cgroups;
        new.retain(|directory| tracked.visit(directory.inode).is_none());
        let pause =
            if walked && new.is_empty() { (pause * 2).min(MAX_LISTING_PAUSE) } else { MIN_LISTING_PAUSE };
        tracked.listing = Some((now + pause, pause));
        for CgroupDir { path, inode: id, created } in &new {
            let created_unix = created.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
            self.add_cgroup(index, *id, path, created_unix, self.is_first);
        }
        if listing.unreadable == 0 {
            self.end_pass(index, false);
        }
        if index == 0 {
            self.refresh_flush_points();
        }
    }

    /// Adds the cgroup of an event, unless a listing or an earlier event has found it.
    pub(super) fn add_from_event(&mut self, index: usize, event: &KernelEvent, path: Option<&str>) {
        if self.resolve(index, event.id).is_some() {
            return;
        }
        let Some(path) = self.path_of(index, path) else { return };
        self.add_cgroup(index, event.id, &path, unix_of(event.at_ns), false);
        if index == 0 && path.rfind('/') == Some(0) {
            self.refresh_flush_points();
        }
    }

    /// An event's path, relative to the root of the hierarchy's mount.
    pub(super) fn path_of(&self, index: usize, path: Option<&str>) -> Option<String> {
        let root = self.hierarchies.get(index)?.hierarchy.root_in_hierarchy.trim_end_matches('/');
        let path = path?.strip_prefix(root)?;
        path.starts_with('/').then(|| path.to_owned())
    }

    fn add_cgroup(&mut self, index: usize, id: u64, path: &str, created_unix: f64, present_at_start: bool) {
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        let Some(of_path) = path::parse_with(path, &self.nested_nodes) else {
            return tracked.insert(id, ResolvedCgroup::Inner(self.store.enclosing(path)));
        };
        self.naming.appeared(&of_path);
        let level = of_path.level;
        let appearance = Appearance { path: path.into(), of_path, created_unix, present_at_start };
        let key = self.store.appear(appearance, index, self.now);
        tracked.insert(id, ResolvedCgroup::Cgroup(key));
        self.limit_subtree(index, id, path, level);
    }

    /// Limits the records below a new container or unit: what it makes below itself must not take the room of others.
    fn limit_subtree(&mut self, index: usize, id: u64, path: &str, level: Level) {
        let room = match level {
            Level::Container | Level::Sandbox => 0,
            Level::Unit => self.config.max_cgroups / UNIT_SHARE,
            _ => return,
        };
        let (Some(kernel), Some(tracked)) = (&mut self.kernel, self.hierarchies.get_mut(index)) else {
            return;
        };
        if !self.nested_nodes.is_around(path) && kernel.subtrees.limit(index, id, room).is_ok() {
            tracked.add_subtree(id);
        }
    }

    fn refresh_flush_points(&mut self) {
        let living = self.store.living().map(|(_, identity)| identity.path.clone());
        let tops: Vec<Arc<str>> =
            living.filter(|path| path.rfind('/') == Some(0) && path.len() > 1).collect();
        self.files.refresh_flush_points(&tops);
    }

    /// Ends a complete pass or listing: cgroups that were not visited are gone.
    pub(super) fn end_pass(&mut self, index: usize, is_walk: bool) {
        let expects_final_records = self.is_running("cgroup_removed");
        let Some(tracked) = self.hierarchies.get_mut(index) else { return };
        let gone = tracked.end_pass(expects_final_records, is_walk);
        if let (false, Some(kernel)) = (gone.is_empty(), &mut self.kernel) {
            for id in tracked.take_gone_subtrees() {
                kernel.subtrees.remove(index, id);
            }
        }
        for key in gone {
            self.store.depart(key, index, index == 0, expects_final_records, self.now);
        }
    }
}

/// Converts a time of `CLOCK_MONOTONIC` to seconds since the Unix epoch.
pub(super) fn unix_of(monotonic_ns: u64) -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
    unix_now() - now.saturating_sub(Duration::from_nanos(monotonic_ns)).as_secs_f64()
}
