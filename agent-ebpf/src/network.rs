//! Traffic, TCP connections and round-trip times by cgroup.
//!
//! A socket belongs to the cgroup in which it was created, even if its process moves to another cgroup, and in any network
//! namespace. So pods with `hostNetwork` and the containers of one pod have counters of their own.
//!
//! Hooks: `cgroup_skb` ingress and egress and `sock_ops` on the root of cgroup v2; tracepoints `inet_sock_set_state`,
//! `tcp_retransmit_skb` and `tcp_retransmit_synack`.

use core::arch::asm;

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
    },
    helpers::{bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_skc_to_tcp_sock},
    macros::{btf_tracepoint, cgroup_skb, map, sock_ops},
    maps::{Array, PerCpuArray, PerCpuHashMap},
    programs::{BtfTracePointContext, SkBuffContext, SockOpsContext},
};
use snug_ebpf::abi::{
    cost::{ProgramCost, TIMING_INTERVAL},
    events::LOST_NETWORK,
    histogram::{BUCKETS, HistogramRecord, bucket},
    network::{IPV4, IPV6, NetworkRecord},
};

use crate::{
    counters,
    read::{cgroup_id, load, load_pointer, offset},
};

/// Counters by the cgroup's kernfs id. The agent sets the size and deletes the entries of removed cgroups.
#[map]
static NETWORK: PerCpuHashMap<u64, NetworkRecord> = PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Smoothed round-trip times by the cgroup's kernfs id; size and deletion likewise.
#[map]
static ROUND_TRIPS: PerCpuHashMap<u64, HistogramRecord> =
    PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Whether there are counters of a cgroup.
#[inline(always)]
pub(crate) fn has_sockets(id: u64) -> bool {
    NETWORK.get_ptr(&id).is_some() || ROUND_TRIPS.get_ptr(&id).is_some()
}

// Statics, not temporaries: a temporary would be initialised for each packet, but is needed for the first one only.
static EMPTY_NETWORK: NetworkRecord = NetworkRecord::EMPTY;
static EMPTY_HISTOGRAM: HistogramRecord = HistogramRecord::EMPTY;

/// `include/uapi/linux/if_ether.h`, in network byte order.
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// `include/uapi/linux/in.h`
const IPPROTO_TCP: u16 = 6;

/// `include/net/tcp_states.h`
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// `include/uapi/asm-generic/errno.h`
const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;
const ECONNREFUSED: i32 = 111;

/// Run time of the programs that count packets.
#[map]
static PACKET_COST: PerCpuArray<ProgramCost> = PerCpuArray::with_max_entries(1, 0);

/// 1: packets are not counted. Set by the agent: one entry.
#[map]
static PAUSED: Array<u32> = Array::with_max_entries(1, 0);

/// Times one run in [`TIMING_INTERVAL`].
struct RunTimer {
    cost: *mut ProgramCost,
    /// 0: this run is not timed.
    began: u64,
}

impl RunTimer {
    /// `None`: counting is paused.
    #[inline(always)]
    fn start() -> Option<Self> {
        if PAUSED.get(0).copied() == Some(1) {
            return None;
        }
        let cost = PACKET_COST.get_ptr_mut(0)?;
        // SAFETY: the entry is this CPU's own. A packet in an interrupt may update it in between and be lost.
        let is_timed = unsafe {
            (*cost).runs += 1;
            (*cost).runs % TIMING_INTERVAL == 0
        };
        // SAFETY: the helper has no precondition.
        let began = if is_timed { unsafe { bpf_ktime_get_ns() } } else { 0 };
        Some(Self { cost, began })
    }

    #[inline(always)]
    fn stop(self) {
        if self.began != 0 {
            // SAFETY: as in `start`.
            unsafe { (*self.cost).timed_ns += bpf_ktime_get_ns().wrapping_sub(self.began) };
        }
    }
}

#[cgroup_skb(ingress)]
fn network_receive(context: SkBuffContext) -> i32 {
    let Some(timer) = RunTimer::start() else { return 1 };
    if let Some((record, version)) = packet(&context) {
        // SAFETY: the record is this CPU's own and lives as long as the program runs.
        unsafe {
            add(&raw mut (*record).receive_bytes[version], context.len().into());
            add(&raw mut (*record).receive_packets[version], 1);
        }
    }
    timer.stop();
    1
}

#[cgroup_skb(egress)]
fn network_transmit(context: SkBuffContext) -> i32 {
    let Some(timer) = RunTimer::start() else { return 1 };
    if let Some((record, version)) = packet(&context) {
        // SAFETY: the record is this CPU's own and lives as long as the program runs.
        unsafe {
            add(&raw mut (*record).transmit_bytes[version], context.len().into());
            add(&raw mut (*record).transmit_packets[version], 1);
        }
    }
    timer.stop();
    1
}

/// TCP connections: established, or closed with an error.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tcp_connection(context: BtfTracePointContext) -> i32 {
    let socket: *const u8 = context.arg(0);
    let (old, new): (i32, i32) = (context.arg(1), context.arg(2));
    if (new != ESTABLISHED && new != CLOSE) || old == LISTEN || old == CLOSE {
        return 0;
    }
    if load(socket, offset!(sock_protocol)) != Some(IPPROTO_TCP) {
        return 0;
    }
    let error: i32 = load(socket, offset!(sock_error)).unwrap_or(0);
    let Some(record) = record_of_socket(socket) else { return 0 };
    // SAFETY: the record is this CPU's own and lives as long as the program runs.
    unsafe {
        let outcome = match (old, new, error) {
            (SYN_SENT, ESTABLISHED, _) => &raw mut (*record).opened,
            (SYN_RECV, ESTABLISHED, _) => &raw mut (*record).accepted,
            (SYN_SENT, CLOSE, ECONNREFUSED) => &raw mut (*record).refused,
            (_, CLOSE, ETIMEDOUT) => &raw mut (*record).timed_out,
            (SYN_SENT, CLOSE, _) => &raw mut (*record).failed,
            (_, CLOSE, ECONNRESET | EPIPE) => &raw mut (*record).reset,
            _ => return 0,
        };
        add(outcome, 1);
    }
    0
}

/// Retransmitted TCP segments.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit(context: BtfTracePointContext) -> i32 {
    count_retransmit(&context)
}

/// Retransmitted SYN-ACKs: the connection has no socket yet, so the listening socket's cgroup is counted.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(context: BtfTracePointContext) -> i32 {
    count_retransmit(&context)
}

#[inline(always)]
fn count_retransmit(context: &BtfTracePointContext) -> i32 {
    if let Some(record) = record_of_socket(context.arg(0)) {
        // SAFETY: the record is this CPU's own and lives as long as the program runs.
        unsafe { add(&raw mut (*record).retransmits, 1) };
    }
    0
}

/// Round-trip times. The kernel calls the program when a connection is established; the program then requests a call for
/// each new round-trip time measurement.
#[sock_ops]
fn tcp_round_trip(context: SockOpsContext) -> u32 {
    let operation = context.op();
    if operation == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || operation == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        let flags = context.cb_flags() | BPF_SOCK_OPS_RTT_CB_FLAG;
        let _ = context.set_cb_flags(flags as i32);
    } else if operation != BPF_SOCK_OPS_RTT_CB {
        return 1;
    }
    // SAFETY: the kernel hands the program a valid context; the verifier knows both fields.
    let (socket, smoothed) = unsafe { ((*context.ops).__bindgen_anon_2.sk, (*context.ops).srtt_us) };
    if socket.is_null() || smoothed == 0 {
        return 1;
    }
    // SAFETY: the helper takes a socket that is not null, which the verifier checks.
    let socket: *const u8 = unsafe { bpf_skc_to_tcp_sock(socket.cast()) }.cast();
    if !socket.is_null() {
        // srtt_us is in units of 1/8 microsecond.
        let _ = count_round_trip(socket, u64::from(smoothed >> 3) * 1_000);
    }
    1
}

#[inline(always)]
fn count_round_trip(socket: *const u8, nanoseconds: u64) -> Option<()> {
    let id = cgroup_id(load_pointer(socket, offset!(sock_cgroup))?)?;
    if id == 0 {
        return None;
    }
    let record = counters::record_of(&ROUND_TRIPS, id, &EMPTY_HISTOGRAM, LOST_NETWORK)?;
    // SAFETY: the record is this CPU's own and lives as long as the program runs.
    unsafe {
        add(&raw mut (*record).sum_ns, nanoseconds);
        match bucket(nanoseconds) {
            Some(index) if index < BUCKETS => add_u32(&raw mut (*record).counts[index], 1),
            _ => add_u32(&raw mut (*record).zero, 1),
        }
    }
    Some(())
}

/// The record that counts a packet, and the packet's IP version. `None`: not IP, or no socket of this host.
#[inline(always)]
fn packet(context: &SkBuffContext) -> Option<(*mut NetworkRecord, usize)> {
    // SAFETY: the kernel hands the program a valid context.
    let version = match unsafe { (*context.skb.skb).protocol } {
        ETH_P_IP => IPV4,
        ETH_P_IPV6 => IPV6,
        _ => return None,
    };
    // SAFETY: as above.
    let id = unsafe { bpf_skb_cgroup_id(context.skb.skb) };
    Some((record_of(id)?, version))
}

/// The record of the cgroup in which a socket was created. The verifier must know `socket` as a `struct sock`.
#[inline(always)]
fn record_of_socket(socket: *const u8) -> Option<*mut NetworkRecord> {
    record_of(cgroup_id(load_pointer(socket, offset!(sock_cgroup))?)?)
}

/// This CPU's record of a cgroup.
#[inline(always)]
fn record_of(id: u64) -> Option<*mut NetworkRecord> {
    if id == 0 {
        return None;
    }
    counters::record_of(&NETWORK, id, &EMPTY_NETWORK, LOST_NETWORK)
}

/// Adds to a counter of this CPU, atomically: a softirq may interrupt and add to the same counter.
///
/// # Safety
/// `counter` must be valid and aligned.
#[inline(always)]
unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise. `core` has no atomic additions for this BPF target.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

/// As [`add`], for 32 bits.
///
/// # Safety
/// As of [`add`].
#[inline(always)]
unsafe fn add_u32(counter: *mut u32, value: u32) {
    // SAFETY: as in `add`.
    unsafe {
        asm!("lock *(u32 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) u64::from(value));
    }
}
