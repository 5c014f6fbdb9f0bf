//! Counters of the `network` programs: one record per cgroup and CPU.

/// Place of IPv4 in a record's pairs.
pub const IPV4: usize = 0;
/// Place of IPv6 in a record's pairs.
pub const IPV6: usize = 1;

/// What the sockets made in one cgroup did, counted by one CPU.
///
/// Bytes are those of the network layer, headers of IP included and of the link excluded, as the socket layer hands them
/// over: before a packet is segmented or fragmented on its way out, after it was put together on its way in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Bytes received, IPv4 and IPv6.
    pub receive_bytes: [u64; 2],
    /// Packets received.
    pub receive_packets: [u64; 2],
    /// Bytes sent.
    pub transmit_bytes: [u64; 2],
    /// Packets sent.
    pub transmit_packets: [u64; 2],
    /// TCP segments sent again.
    pub retransmits: u64,
    /// TCP connections opened from here.
    pub opened: u64,
    /// TCP connections accepted here.
    pub accepted: u64,
    /// Attempts to connect that the other side refused.
    pub refused: u64,
    /// Connections that the other side reset.
    pub reset: u64,
    /// Attempts and connections given up because nothing came back.
    pub timed_out: u64,
    /// Attempts that failed otherwise: unreachable, or given up by the program.
    pub failed: u64,
}

impl NetworkRecord {
    /// Nothing counted.
    pub const NONE: Self = Self {
        receive_bytes: [0; 2],
        receive_packets: [0; 2],
        transmit_bytes: [0; 2],
        transmit_packets: [0; 2],
        retransmits: 0,
        opened: 0,
        accepted: 0,
        refused: 0,
        reset: 0,
        timed_out: 0,
        failed: 0,
    };
}
