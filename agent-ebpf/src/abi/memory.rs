//! Fields of `mem_cgroup` in the records of cgroups: one table gives the record, the offsets, and the names in BTF.

use super::field::{ABSENT, Path};

macro_rules! memory_fields {
    ($($(#[$about:meta])+ $field:ident: $type:ty = $path:literal $(for $($measurement:ident)+)?,)+) => {
        /// Values of a memory cgroup, in the kernel's units: memory in pages.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct MemoryRecord {
            $($(#[$about])+ pub $field: $type,)+
        }

        impl MemoryRecord {
            /// Calls `read` for each field: with its address, its size in bytes, and where its offset is.
            #[inline(always)]
            pub fn each(&mut self, offsets: &MemoryOffsets, mut read: impl FnMut(*mut u8, u32, *const u32)) {
                $(read((&raw mut self.$field).cast(), size_of::<$type>() as u32, &raw const offsets.$field);)+
            }
        }

        /// Offsets of the fields in `mem_cgroup`, bytes; [`ABSENT`]: this kernel has no such field.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct MemoryOffsets {
            $($(#[$about])+ pub $field: u32,)+
        }

        impl MemoryOffsets {
            /// No field is known.
            pub const ALL_ABSENT: Self = Self { $($field: ABSENT,)+ };

            /// The names of the fields.
            pub const PATHS: &[Path<Self>] = &[
                $($crate::path_of!(Self, $field: mem_cgroup $path $(for $($measurement)+)?),)+
            ];
        }
    };
}

memory_fields! {
    /// Charged memory.
    usage_pages: u64 = "memory.usage" for memory working_set swap,
    /// Highest charged memory since the cgroup was created.
    peak_pages: u64 = "memory.watermark" for memory,
    /// Memory limit; `LONG_MAX` / page size: none.
    limit_pages: u64 = "memory.max" for memory,
    /// Memory above which tasks are slowed down and reclaim; `LONG_MAX` / page size: none. cgroup v2 only.
    high_pages: u64 = "memory.high" for memory,
    /// Charges that failed at the limit.
    failcnt: u64 = "memory.failcnt" for memory_events,
    /// Charged swap; cgroup v1: memory and swap together, in a union.
    swap_usage_pages: u64 = "swap.usage" for swap,
    /// Highest charged swap since the cgroup was created; cgroup v1: of memory and swap together.
    swap_peak_pages: u64 = "swap.watermark" for swap,
    /// Swap limit; cgroup v1: limit of memory and swap together.
    swap_limit_pages: u64 = "swap.max" for swap,
    /// By `enum memcg_memory_event`: low, high, max, oom, oom_kill.
    events: [u64; MEMORY_EVENTS] = "memory_events" for memory_events,
}

/// Length of [`MemoryRecord::events`].
pub const MEMORY_EVENTS: usize = 5;
