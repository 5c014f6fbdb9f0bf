//! Counters of the `network` programs: one record per cgroup and CPU.

/// Index of IPv4 in the arrays of [`NetworkRecord`].
pub const IPV4: usize = 0;
/// Index of IPv6 in the arrays of [`NetworkRecord`].
pub const IPV6: usize = 1;

/// Traffic and TCP connections of the sockets created in one cgroup, counted by one CPU.
///
/// Bytes and packets are counted at the IP layer: with IP headers, without link headers, before segmentation (GSO) and
/// fragmentation of sent packets, after reassembly (GRO) of received packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Bytes received by [`IPV4`] and [`IPV6`].
    pub receive_bytes: [u64; 2],
    /// Packets received.
    pub receive_packets: [u64; 2],
    /// Bytes sent.
    pub transmit_bytes: [u64; 2],
    /// Packets sent.
    pub transmit_packets: [u64; 2],
    /// TCP segments retransmitted, SYN-ACKs included.
    pub retransmits: u64,
    /// TCP connections established by `connect`.
    pub opened: u64,
    /// TCP connections established by a listening socket.
    pub accepted: u64,
    /// `connect` calls that failed with `ECONNREFUSED`.
    pub refused: u64,
    /// Connections that ended with `ECONNRESET` or `EPIPE`.
    pub reset: u64,
    /// `connect` calls and connections that ended with `ETIMEDOUT`.
    pub timed_out: u64,
    /// `connect` calls that failed with another error, or whose socket was closed before.
    pub failed: u64,
}

impl NetworkRecord {
    /// All counters 0.
    pub const EMPTY: Self = Self {
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
