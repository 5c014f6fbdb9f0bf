//! What a walk leaves out: the descendants of containers, and those of units above a number.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap},
};
use snug_ebpf::abi::subtree::SubtreeKey;

use crate::read::{field, offset, pointer};

/// Descendants that get a record, by cgroup. The agent sets the size, and adds and deletes the entries.
#[map]
static SUBTREES: HashMap<SubtreeKey, u32> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Where the walk is: one entry.
#[map]
static WALK_STATE: Array<WalkState> = Array::with_max_entries(1, 0);

/// At most this many cgroups above one are checked. Containers are not deeper.
const MAX_ANCESTORS: u32 = 12;

/// Not in such a subtree: no level is as large.
const NOWHERE: u32 = u32::MAX;

/// The subtrees that the walk is in. A walk visits a cgroup before its descendants (pre-order).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct WalkState {
    /// Level of the container around the cgroup that the walk visits.
    container: u32,
    /// Level of the unit around it.
    unit: u32,
    /// Descendants of the unit that may still have a record.
    room: u32,
    reserved: u32,
}

fn room_of(id: u64, hierarchy: u32) -> Option<u32> {
    // SAFETY: the value is copied at once; the agent may replace it, which is no tear of 32 bits.
    unsafe { SUBTREES.get(&SubtreeKey { id, hierarchy, reserved: 0 }) }.copied()
}

impl WalkState {
    /// The state of the walk; `first`: it visits its first cgroup.
    #[inline(always)]
    pub(crate) fn of_walk(first: bool) -> Option<&'static mut Self> {
        // SAFETY: the entry lives as long as the map, and walks exclude each other by `cgroup_mutex`.
        let state = unsafe { &mut *WALK_STATE.get_ptr_mut(0)? };
        if first {
            *state = Self { container: NOWHERE, unit: NOWHERE, room: 0, reserved: 0 };
        }
        Some(state)
    }

    /// Whether the cgroup at this level, which the walk visits now, gets a record.
    #[inline(always)]
    pub(crate) fn admits(&mut self, level: u32) -> bool {
        if self.container != NOWHERE && level > self.container {
            return false;
        }
        self.container = NOWHERE;
        if self.unit != NOWHERE && level > self.unit {
            if self.room == 0 {
                return false;
            }
            self.room -= 1;
        } else {
            self.unit = NOWHERE;
        }
        true
    }

    /// The walk goes on below this cgroup.
    #[inline(always)]
    pub(crate) fn enter(&mut self, id: u64, level: u32, hierarchy: u32) {
        match room_of(id, hierarchy) {
            Some(0) => self.container = level,
            Some(room) if self.unit == NOWHERE => (self.unit, self.room) = (level, room),
            _ => {}
        }
    }
}

/// Whether a cgroup is below a container.
#[inline(always)]
pub(crate) fn is_enclosed(cgroup: *const u8, hierarchy: u32) -> bool {
    // `cgroup.self`, the state of no controller, is the first field of a cgroup.
    let Some(parent) = pointer(cgroup, offset!(css_parent)) else { return false };
    container_around(parent, hierarchy).is_some()
}

/// kernfs id of the container that a controller's state of a cgroup belongs to: the cgroup itself, or one above it.
#[inline(always)]
pub(crate) fn container_around(css: *const u8, hierarchy: u32) -> Option<u64> {
    let mut css = css;
    for _ in 0..MAX_ANCESTORS {
        let kn = pointer(pointer(css, offset!(css_cgroup))?, offset!(cgroup_kn))?;
        let id = field::<u64>(kn, offset!(kernfs_id))?;
        if room_of(id, hierarchy) == Some(0) {
            return Some(id);
        }
        css = pointer(css, offset!(css_parent))?;
    }
    None
}
