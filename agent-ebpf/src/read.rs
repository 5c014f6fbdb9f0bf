//! Reading kernel structures at the offsets that the agent takes from BTF.

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as probe_read_kernel};
use snug_ebpf::abi::{
    field::ABSENT,
    offsets::Offsets,
    snapshot::{
        HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, HAS_WORKING_SET, PRESSURE_TOTALS,
        SnapshotRecord,
    },
};

/// Set by the agent before loading, frozen by the kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::ALL_ABSENT;

/// One field of [`OFFSETS`]. The read is volatile, because the agent replaces the value that the compiler sees.
macro_rules! offset {
    ($($field:ident).+) => {
        // SAFETY: a reference to a static is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const $crate::read::offsets().$($field).+) }
    };
}
pub(crate) use offset;

pub(crate) fn offsets() -> &'static Offsets {
    &OFFSETS
}

/// Reads a `T` at `base + offset` with a helper; `None` if this kernel has no such field or the address cannot be read.
#[inline(always)]
pub(crate) fn field<T: Copy>(base: *const u8, offset: u32) -> Option<T> {
    if offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// Reads a `T` at `base + offset` into `target`; 0 if this kernel has no such field or the address cannot be read.
#[inline(always)]
fn read_into<T: Default>(target: &mut T, base: *const u8, offset: u32) {
    if offset == ABSENT {
        *target = T::default();
        return;
    }
    // SAFETY: `target` is as long as its type.
    unsafe { read_bytes(core::ptr::from_mut(target).cast(), size_of::<T>() as u32, base, offset) };
}

/// As [`field`], but 0 if it cannot be read. Without a branch, after which the verifier would check what follows twice.
#[inline(always)]
pub(crate) fn value<T: Default>(base: *const u8, offset: u32) -> T {
    let mut value = T::default();
    read_into(&mut value, base, offset);
    value
}

/// As [`read_into`], for `size` bytes. Bytes of a field that this kernel does not have stay as they are.
///
/// # Safety
/// `target` must be valid for writes of `size` bytes.
#[inline(always)]
unsafe fn read_bytes(target: *mut u8, size: u32, base: *const u8, offset: u32) {
    if offset != ABSENT {
        // SAFETY: the caller's promise; the helper checks the source and writes zeros if it cannot be read.
        unsafe { probe_read_kernel(target.cast(), size, base.wrapping_add(offset as usize).cast()) };
    }
}

/// A value in a map. The verifier knows nothing about it, and so does not check what follows once for each value.
#[derive(Clone, Copy)]
pub(crate) struct Hidden<T>(*mut T);

impl<T: Copy> Hidden<T> {
    /// # Safety
    /// `place` must be in a value of a map, or stay valid as long as this does.
    #[inline(always)]
    pub(crate) const unsafe fn new(place: *mut T) -> Self {
        Self(place)
    }

    #[inline(always)]
    pub(crate) fn get(self) -> T {
        // SAFETY: the promise of `new`; volatile, so that the compiler does not keep the value in a register.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set(self, value: T) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(value) };
    }
}

/// As [`field`], for a pointer; `None` also if it is null.
#[inline(always)]
pub(crate) fn pointer(base: *const u8, offset: u32) -> Option<*const u8> {
    field::<*const u8>(base, offset).filter(|pointer| !pointer.is_null())
}

/// Reads a `T` at `base + offset` with a load instruction, which is faster than a helper call; 0 if the address cannot be
/// read. The verifier must know the type of `base`: an argument of the program, or a pointer loaded from such a structure.
#[inline(always)]
pub(crate) fn load<T: Copy>(base: *const u8, offset: u32) -> Option<T> {
    if offset == ABSENT {
        return None;
    }
    // SAFETY: the verifier admits only fields of the structure, and the kernel catches the fault of a bad address.
    Some(unsafe { core::ptr::read_volatile(base.wrapping_add(offset as usize).cast::<T>()) })
}

/// As [`load`], for a pointer; `None` also if it is null.
#[inline(always)]
pub(crate) fn load_pointer(base: *const u8, offset: u32) -> Option<*const u8> {
    load::<*const u8>(base, offset).filter(|pointer| !pointer.is_null())
}

/// kernfs id of a cgroup whose type the verifier knows.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: *const u8) -> Option<u64> {
    load(load_pointer(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id)).filter(|id| *id != 0)
}

/// Sets id, level and serial number of a cgroup's record; `None` if the id cannot be read. The verifier must know the type
/// of `cgroup`.
///
/// If the record is of the same cgroup in an earlier pass, the id is kept: reading the `kernfs_node` is a cache miss.
#[inline(always)]
pub(crate) fn identify(record: &mut SnapshotRecord, cgroup: *const u8) -> Option<()> {
    let serial = load(cgroup, offset!(cgroup_serial)).unwrap_or(0);
    if serial == 0 || record.serial != serial {
        record.serial = 0;
        record.id = cgroup_id(cgroup)?;
        record.level = load(cgroup, offset!(cgroup_level)).unwrap_or(0);
        record.serial = serial;
    }
    Some(())
}

/// How the fields of a `struct cgroup` are read.
pub(crate) trait FieldAccess {
    /// Reads a `T`; `None` if this kernel has no such field or the address cannot be read.
    fn read<T: Copy>(cgroup: *const u8, offset: u32) -> Option<T>;

    /// Reads a pointer; `None` also if it is null.
    #[inline(always)]
    fn pointer(cgroup: *const u8, offset: u32) -> Option<*const u8> {
        Self::read::<*const u8>(cgroup, offset).filter(|pointer| !pointer.is_null())
    }
}

/// The verifier knows the type of the pointer: fields are read by [`load`].
pub(crate) struct TypedPointer;

/// The pointer is a number to the verifier: fields are read by [`field`].
pub(crate) struct RawAddress;

impl FieldAccess for TypedPointer {
    #[inline(always)]
    fn read<T: Copy>(cgroup: *const u8, offset: u32) -> Option<T> {
        load(cgroup, offset)
    }
}

impl FieldAccess for RawAddress {
    #[inline(always)]
    fn read<T: Copy>(cgroup: *const u8, offset: u32) -> Option<T> {
        field(cgroup, offset)
    }
}

/// Fills groups of fields (`HAS_*`) of a cgroup's record and adds them to `has`; other fields stay as they are.
///
/// Only the requested groups are read, because each structure of the kernel that is read is a cache miss.
#[inline(always)]
pub(crate) fn fill<R: FieldAccess>(record: &mut SnapshotRecord, cgroup: *const u8, groups: u32) {
    let mut has = 0;
    if groups & HAS_CPU != 0
        && let Some(runtime) = R::read(cgroup, offset!(cgroup_cpu_runtime))
    {
        record.cpu_usage_ns = runtime;
        has |= HAS_CPU;
    }
    if groups & HAS_THROTTLING != 0
        && let Some(group) = R::pointer(cgroup, offset!(cgroup_cpu))
    {
        throttling(record, group);
        has |= HAS_THROTTLING;
    }
    if groups & (HAS_MEMORY | HAS_WORKING_SET) != 0
        && let Some(memcg) = R::pointer(cgroup, offset!(cgroup_memory))
    {
        record.memory.each(&offsets().memory, |target, size, offset| {
            // SAFETY: `each` passes its own fields, and a field of the offsets: volatile as in `offset!`.
            unsafe { read_bytes(target, size, memcg, core::ptr::read_volatile(offset)) }
        });
        has |= HAS_MEMORY;
        if groups & HAS_WORKING_SET != 0 {
            record.memory_inactive_file_pages = 0;
            if let Some(vmstats) = pointer(memcg, offset!(memory_vmstats)) {
                let inactive_file = &mut record.memory_inactive_file_pages;
                read_into(inactive_file, vmstats, offset!(vmstats_inactive_file));
            }
            has |= HAS_WORKING_SET;
        }
    }
    if groups & HAS_PRESSURE != 0
        && let Some(psi) = R::pointer(cgroup, offset!(cgroup_psi))
        && let Some(totals) = field::<[u64; PRESSURE_TOTALS]>(psi, offset!(psi_total))
    {
        record.pressure_ns = totals;
        has |= HAS_PRESSURE;
    }
    if groups & HAS_PIDS != 0
        && let Some(pids) = R::pointer(cgroup, offset!(cgroup_pids))
    {
        read_into(&mut record.pids_current, pids, offset!(pids_counter));
        read_into(&mut record.pids_limit, pids, offset!(pids_limit));
        has |= HAS_PIDS;
    }
    record.has |= has;
}

#[inline(always)]
fn throttling(record: &mut SnapshotRecord, group: *const u8) {
    read_into(&mut record.cfs_period_ns, group, offset!(cfs_period));
    read_into(&mut record.cfs_quota_ns, group, offset!(cfs_quota));
    read_into(&mut record.cfs_burst_limit_ns, group, offset!(cfs_burst));
    read_into(&mut record.cfs_throttled_ns, group, offset!(cfs_throttled_time));
    read_into(&mut record.cfs_burst_ns, group, offset!(cfs_burst_time));
    read_into(&mut record.cfs_periods, group, offset!(cfs_periods));
    read_into(&mut record.cfs_throttled_periods, group, offset!(cfs_throttled_periods));
    read_into(&mut record.cfs_burst_periods, group, offset!(cfs_burst_periods));
}
