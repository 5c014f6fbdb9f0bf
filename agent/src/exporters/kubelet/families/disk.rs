//! Families about disk I/O.

use super::{Family, Kind::Counter, family};
use crate::{
    exporters::{
        catalogue::Value,
        kubelet::{Emit, Scrape},
    },
    model::CgroupRow,
    values::IoDevice,
};

/// The devices of a row that were resolved to names.
fn named<'a>(
    row: &'a CgroupRow,
    scrape: &'a Scrape<'_>,
) -> impl Iterator<Item = (&'a str, &'a IoDevice)> + Clone {
    let names = &scrape.view.host.devices;
    row.values
        .io
        .iter()
        .flat_map(|io| io.iter())
        .filter_map(|device| Some((names.get(&(device.major, device.minor))?.as_str(), device)))
}

/// Emits one sample for each name. Devices without a name have the same labels, so their values are added up.
fn each(row: &CgroupRow, scrape: &Scrape<'_>, emit: &mut Emit<'_>, value: fn(&IoDevice) -> u64) {
    let devices = named(row, scrape);
    for (index, (name, _)) in devices.clone().enumerate() {
        if devices.clone().take(index).all(|(before, _)| before != name) {
            let same = devices.clone().filter(|(other, _)| *other == name);
            let sum = same.fold(0_u64, |sum, (_, device)| sum.saturating_add(value(device)));
            emit(&[("device", name)], Value::Int(sum));
        }
    }
}

fn by_number(row: &CgroupRow, scrape: &Scrape<'_>, emit: &mut Emit<'_>) {
    for (name, device) in named(row, scrape) {
        let IoDevice { major, minor, read_bytes, write_bytes, .. } = *device;
        let (mut digits, mut more_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (major, minor) = (digits.format(major), more_digits.format(minor));
        for (operation, bytes) in [("Read", read_bytes), ("Write", write_bytes)] {
            let own = [("device", name), ("major", major), ("minor", minor), ("operation", operation)];
            emit(&own, Value::Int(bytes));
        }
    }
}

const OF_CGROUPS: &str =
    "for the root only devices of its cgroup; a kubelet adds mounted file systems with 0";

pub(super) static FAMILIES: &[Family] = &[
    family(
        "container_fs_reads_bytes_total",
        Counter,
        "Bytes read from a block device",
        |row, scrape, emit| {
            each(row, scrape, emit, |device| device.read_bytes);
        },
    ),
    family(
        "container_fs_writes_bytes_total",
        Counter,
        "Bytes written to a block device",
        |row, scrape, emit| {
            each(row, scrape, emit, |device| device.write_bytes);
        },
    ),
    family("container_fs_reads_total", Counter, "Reads from a block device", |row, scrape, emit| {
        each(row, scrape, emit, |device| device.reads);
    })
    .differs(OF_CGROUPS),
    family("container_fs_writes_total", Counter, "Writes to a block device", |row, scrape, emit| {
        each(row, scrape, emit, |device| device.writes);
    })
    .differs(OF_CGROUPS),
    family(
        "container_blkio_device_usage_total",
        Counter,
        "Bytes read from and written to a block device",
        by_number,
    )
    .differs("Read and Write only; the other operations on cgroup v1 count the same bytes again"),
];
