//! Traffic and TCP connections by cgroup, summed over CPUs.

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
};
use snug_ebpf::abi::network::{IPV4, IPV6, NetworkRecord};

use super::{counters::CgroupCounters, runqueue::ProgramCosts};
use crate::values::{IpTraffic, Network, Tcp};

/// The programs that count packets.
pub const PROGRAMS: [&str; 2] = ["network_receive", "network_transmit"];

/// [`NetworkRecord`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct NetworkValue(NetworkRecord);
// SAFETY: integers without padding.
unsafe impl Pod for NetworkValue {}

/// The map of network counters by cgroup.
pub(super) type NetworkCounters = CgroupCounters<NetworkValue>;

impl NetworkCounters {
    /// Traffic and TCP connections of the sockets created in a cgroup, without its descendants; `None` if the map has no such
    /// cgroup.
    pub fn get(&self, id: u64) -> Option<(Network, Tcp)> {
        let per_cpu = self.per_cpu(id)?;
        let mut sum = (Network::default(), Tcp::default());
        for NetworkValue(record) in per_cpu.iter() {
            sum.0.add(&Network { ipv4: traffic(record, IPV4), ipv6: traffic(record, IPV6) });
            sum.1.add(&tcp(record));
        }
        Some(sum)
    }
}

/// The counting of packets, which can be paused: the programs stay attached.
pub struct PacketCounting {
    costs: ProgramCosts,
    paused: Array<MapData, u32>,
}

impl PacketCounting {
    pub(super) fn new(costs: Map, paused: Map) -> Result<Self, MapError> {
        Ok(Self { costs: ProgramCosts::new(costs)?, paused: Array::try_from(paused)? })
    }

    /// Run time of the programs so far, summed over CPUs, nanoseconds.
    pub fn cost_ns(&self) -> u64 {
        self.costs.nanoseconds()
    }

    /// Counts packets from now on, or does not.
    pub fn count(&mut self, on: bool) {
        if let Err(error) = self.paused.set(0, u32::from(!on), 0) {
            tracing::warn!(%error, on, "cannot switch the counting of packets");
        }
    }
}

fn traffic(record: &NetworkRecord, version: usize) -> IpTraffic {
    let [receive_bytes, receive_packets, transmit_bytes, transmit_packets] =
        [&record.receive_bytes, &record.receive_packets, &record.transmit_bytes, &record.transmit_packets]
            .map(|pair| pair.get(version).copied().unwrap_or(0));
    IpTraffic { receive_bytes, receive_packets, transmit_bytes, transmit_packets }
}

fn tcp(record: &NetworkRecord) -> Tcp {
    Tcp {
        retransmits: record.retransmits,
        opened: record.opened,
        accepted: record.accepted,
        refused: record.refused,
        reset: record.reset,
        timed_out: record.timed_out,
        failed: record.failed,
    }
}
