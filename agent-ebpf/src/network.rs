//! What the sockets of each cgroup send and receive, and how their TCP connections fare.
//!
//! A socket belongs to the cgroup in which it was made, however its process moves and whatever network namespace it is
//! in: pods in the host's namespace and the containers of one pod are told apart.

use core::arch::asm;

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
    },
    helpers::{bpf_skb_cgroup_id, bpf_skc_to_tcp_sock},
    macros::{btf_tracepoint, cgroup_skb, map, sock_ops},
    maps::PerCpuHashMap,
    programs::{BtfTracePointContext, SkBuffContext, SockOpsContext},
};
use snug_ebpf::abi::{
    events::LOST_NETWORK,
    histogram::{BUCKETS, HistogramRecord, bucket},
    network::{IPV4, IPV6, NetworkRecord},
};

use crate::{
    counters,
    read::{cgroup_id, load, load_pointer, offset},
};

/// Counters by the cgroup's id; the agent sets the size, and removes them when the cgroup has gone.
#[map]
static NETWORK: PerCpuHashMap<u64, NetworkRecord> = PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Round-trip times by the cgroup's id, likewise.
#[map]
static ROUND_TRIPS: PerCpuHashMap<u64, HistogramRecord> =
    PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

// Temporaries would be written byte by byte for each packet, where they are needed for the first one only.
static NOTHING: NetworkRecord = NetworkRecord::NONE;
static NO_ROUND_TRIPS: HistogramRecord = HistogramRecord::NONE;

/// `include/uapi/linux/if_ether.h`, as they are in a packet.
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

#[cgroup_skb(ingress)]
fn network_receive(context: SkBuffContext) -> i32 {
    if let Some((record, version)) = packet(&context) {
        // SAFETY: the record is this CPU's own and lives as long as the program runs.
        unsafe {
            add(&raw mut (*record).receive_bytes[version], context.len().into());
            add(&raw mut (*record).receive_packets[version], 1);
        }
    }
    1
}

#[cgroup_skb(egress)]
fn network_transmit(context: SkBuffContext) -> i32 {
    if let Some((record, version)) = packet(&context) {
        // SAFETY: the record is this CPU's own and lives as long as the program runs.
        unsafe {
            add(&raw mut (*record).transmit_bytes[version], context.len().into());
            add(&raw mut (*record).transmit_packets[version], 1);
        }
    }
    1
}

/// TCP connections that are opened, accepted or come to nothing.
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

/// TCP segments that are sent again.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit(context: BtfTracePointContext) -> i32 {
    sent_again(&context)
}

/// Answers to attempts to connect that are sent again: their connection has no socket yet but the listener's.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(context: BtfTracePointContext) -> i32 {
    sent_again(&context)
}

#[inline(always)]
fn sent_again(context: &BtfTracePointContext) -> i32 {
    if let Some(record) = record_of_socket(context.arg(0)) {
        // SAFETY: the record is this CPU's own and lives as long as the program runs.
        unsafe { add(&raw mut (*record).retransmits, 1) };
    }
    0
}

/// Round-trip times. The kernel calls it when a connection is made, which is when it is asked to call again after each
/// measured round trip.
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
        // The kernel keeps eighths.
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
    let record = counters::record_of(&ROUND_TRIPS, id, &NO_ROUND_TRIPS, LOST_NETWORK)?;
    // SAFETY: the record is this CPU's own and lives as long as the program runs.
    unsafe {
        add(&raw mut (*record).sum_ns, nanoseconds);
        match bucket(nanoseconds) {
            Some(index) if index < BUCKETS => add_short(&raw mut (*record).counts[index], 1),
            _ => add_short(&raw mut (*record).zero, 1),
        }
    }
    Some(())
}

/// The record that a packet is counted in, and the version of its IP. `None`: no socket here has to do with it.
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

/// The record of the cgroup in which a socket was made, whose type the verifier knows.
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
    counters::record_of(&NETWORK, id, &NOTHING, LOST_NETWORK)
}

/// Adds to a counter of this CPU. A softirq may come in between and add to the same.
///
/// # Safety
/// `counter` must be valid and aligned.
#[inline(always)]
unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise. The library has no atomic additions for this target, whose compare-and-swap is newer.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

/// As [`add`], to 32 bits.
///
/// # Safety
/// As of [`add`].
#[inline(always)]
unsafe fn add_short(counter: *mut u32, value: u32) {
    // SAFETY: as in `add`.
    unsafe {
        asm!("lock *(u32 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) u64::from(value));
    }
}
