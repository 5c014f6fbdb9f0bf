//! Samples of a container's row, by subject.

use snug_sizing::cpu_quota::QuotaOutcome;

use crate::{
    exporters::catalogue::{Emit, Value, seconds},
    model::{CgroupRow, Qos},
    values::{IoDevice, IpTraffic, MemoryStat, Stall, Throttling},
};

/// Emits a counter of CFS bandwidth control. The counter stays after a limit is removed, and is absent if there never was one.
pub(super) fn throttled(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&Throttling) -> Value<'static>) {
    if let Some(t) = &row.values.throttling
        && (t.quota_ns.is_some() || t.periods > 0)
    {
        emit(&[], value(t));
    }
}

pub(super) fn pressure(row: &CgroupRow, emit: &mut Emit<'_>) {
    let Some(p) = row.values.pressure else { return };
    for (resource, Stall { some_ns, full_ns }) in [("cpu", p.cpu), ("memory", p.memory), ("io", p.io)] {
        emit(&[resource, "some"], seconds(some_ns));
        emit(&[resource, "full"], seconds(full_ns));
    }
}

pub(super) fn memory_stat(row: &CgroupRow, emit: &mut Emit<'_>) {
    let Some(stat) = row.values.memory_stat.as_deref() else { return };
    let MemoryStat {
        anon_bytes,
        file_bytes,
        kernel_bytes,
        shmem_bytes,
        file_mapped_bytes,
        file_dirty_bytes,
        file_writeback_bytes,
        active_file_bytes,
        inactive_file_bytes,
        active_anon_bytes,
        inactive_anon_bytes,
        slab_reclaimable_bytes,
        slab_unreclaimable_bytes,
        unevictable_bytes,
        page_faults: _,
        major_page_faults: _,
        page_scans: _,
        page_steals: _,
        refaults_anon: _,
        refaults_file: _,
    } = *stat;
    let rows = [
        ("anon", Some(anon_bytes)),
        ("file", Some(file_bytes)),
        ("kernel", kernel_bytes),
        ("shmem", Some(shmem_bytes)),
        ("file_mapped", Some(file_mapped_bytes)),
        ("file_dirty", Some(file_dirty_bytes)),
        ("file_writeback", Some(file_writeback_bytes)),
        ("active_file", Some(active_file_bytes)),
        ("inactive_file", Some(inactive_file_bytes)),
        ("active_anon", Some(active_anon_bytes)),
        ("inactive_anon", Some(inactive_anon_bytes)),
        ("slab_reclaimable", slab_reclaimable_bytes),
        ("slab_unreclaimable", slab_unreclaimable_bytes),
        ("unevictable", Some(unevictable_bytes)),
    ];
    for (name, bytes) in rows {
        if let Some(bytes) = bytes {
            emit(&[name], Value::Int(bytes));
        }
    }
}

pub(super) fn io(row: &CgroupRow, emit: &mut Emit<'_>, values: fn(&IoDevice) -> (u64, u64)) {
    for device in row.values.io.iter().flat_map(|devices| devices.iter()) {
        let number = format!("{}:{}", device.major, device.minor);
        let (read, write) = values(device);
        emit(&[&number, "read"], Value::Int(read));
        emit(&[&number, "write"], Value::Int(write));
    }
}

pub(super) fn info(row: &CgroupRow, emit: &mut Emit<'_>) {
    let path = &row.identity.of_path;
    let image = row.identity.names.as_ref().map_or("", |n| &n.image);
    let qos = path.qos.map_or("", Qos::as_str);
    let pod_uid = path.pod_uid.as_deref().unwrap_or("");
    emit(&[image, path.runtime.as_str(), qos, pod_uid, &path.id], Value::Int(1));
}

pub(super) fn network(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&IpTraffic) -> u64) {
    if let Some(network) = &row.values.network {
        emit(&["4"], Value::Int(value(&network.ipv4)));
        emit(&["6"], Value::Int(value(&network.ipv6)));
    }
}

/// Emits a result of the quota simulation for each quota.
pub(super) fn quotas(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&QuotaOutcome) -> Value<'static>) {
    for (millicores, outcome) in row.values.quota_what_if.iter().flat_map(|simulation| simulation.iter()) {
        emit(&[&(millicores as f64 / 1000.0).to_string()], value(&outcome));
    }
}
