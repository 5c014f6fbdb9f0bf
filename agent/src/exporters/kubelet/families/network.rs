//! Families about network interfaces.

use super::{Family, Kind::Counter, family};
use crate::{
    exporters::{catalogue::Value, kubelet::Emit},
    model::CgroupRow,
    values::Interface,
};

fn each(row: &CgroupRow, emit: &mut Emit<'_>, value: fn(&Interface) -> u64) {
    for interface in row.values.interfaces.iter().flat_map(|all| all.iter()) {
        emit(&[("interface", &*interface.name)], Value::Int(value(interface)));
    }
}

const NOT_THE_HOSTS: &str = "absent for pods on the host network; a kubelet repeats the host's traffic there";

pub(super) static FAMILIES: &[Family] = &[
    family("container_network_receive_bytes_total", Counter, "Bytes received", |row, _, emit| {
        each(row, emit, |interface| interface.receive.bytes);
    })
    .differs(NOT_THE_HOSTS),
    family("container_network_transmit_bytes_total", Counter, "Bytes sent", |row, _, emit| {
        each(row, emit, |interface| interface.transmit.bytes);
    })
    .differs(NOT_THE_HOSTS),
    family("container_network_receive_packets_total", Counter, "Packets received", |row, _, emit| {
        each(row, emit, |interface| interface.receive.packets);
    })
    .differs(NOT_THE_HOSTS),
    family("container_network_transmit_packets_total", Counter, "Packets sent", |row, _, emit| {
        each(row, emit, |interface| interface.transmit.packets);
    })
    .differs(NOT_THE_HOSTS),
    family(
        "container_network_receive_packets_dropped_total",
        Counter,
        "Packets dropped while receiving",
        |row, _, emit| each(row, emit, |interface| interface.receive.dropped),
    )
    .differs(NOT_THE_HOSTS),
    family(
        "container_network_transmit_packets_dropped_total",
        Counter,
        "Packets dropped while sending",
        |row, _, emit| each(row, emit, |interface| interface.transmit.dropped),
    )
    .differs(NOT_THE_HOSTS),
    family("container_network_receive_errors_total", Counter, "Errors while receiving", |row, _, emit| {
        each(row, emit, |interface| interface.receive.errors);
    })
    .differs(NOT_THE_HOSTS),
    family("container_network_transmit_errors_total", Counter, "Errors while sending", |row, _, emit| {
        each(row, emit, |interface| interface.transmit.errors);
    })
    .differs(NOT_THE_HOSTS),
];
