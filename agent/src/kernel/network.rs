//! What sockets did, by cgroup, summed over CPUs.

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuHashMap},
};
use snug_ebpf::abi::network::{IPV4, IPV6, NetworkRecord};

use crate::values::{IpTraffic, Network, Tcp};

/// [`NetworkRecord`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Record(NetworkRecord);
// SAFETY: integers without padding.
unsafe impl Pod for Record {}

/// The counters in the kernel.
pub struct NetworkCounters {
    map: PerCpuHashMap<MapData, u64, Record>,
    entries: u64,
}

impl NetworkCounters {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: PerCpuHashMap::try_from(map)?, entries: 0 })
    }

    /// Ids of all cgroups v2 whose sockets did anything, ended ones included until [`Self::remove`].
    pub fn ids(&mut self) -> Vec<u64> {
        // A key that vanishes under the walk ends it early at worst; the next second has the rest.
        let ids: Vec<u64> = self.map.keys().map_while(Result::ok).collect();
        self.entries = ids.len() as u64;
        ids
    }

    /// What the sockets made in this very cgroup did; `None` if nothing was counted.
    pub fn of(&self, id: u64) -> Option<(Network, Tcp)> {
        let of_cpus = self.map.get(&id, 0).ok()?;
        let mut sum = (Network::default(), Tcp::default());
        for Record(record) in of_cpus.iter() {
            sum.0.add(&Network { ipv4: traffic(record, IPV4), ipv6: traffic(record, IPV6) });
            sum.1.add(&tcp(record));
        }
        Some(sum)
    }

    /// Forgets a cgroup.
    pub fn remove(&mut self, id: u64) {
        // Nothing may have been counted.
        let _ = self.map.remove(&id);
    }

    /// Cgroups in the map when it was last listed.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
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
        round_trips: record.round_trips,
        round_trip_us: record.round_trip_us,
    }
}
