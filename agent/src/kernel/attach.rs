//! The programs: what each is attached to, which fields of the kernel it cannot do without, and how it is attached.

use std::{collections::HashMap, fs::File, io};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Iter, Program, ProgramError,
        RawTracePoint, SockOps, tp_btf::BtfTracePointLinkId,
    },
    util::KernelVersion,
};

use crate::model::Verdict;

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// An iterator over cgroups, which the agent drives.
    CgroupIterator,
    /// Nothing: the agent runs it.
    Nothing,
    /// A tracepoint whose arguments have types.
    Tracepoint(&'static str),
    /// Packets of all sockets below the root of cgroup v2.
    Packets(CgroupSkbAttachType),
    /// TCP sockets below the root of cgroup v2.
    Sockets,
}

/// A program of the object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    /// Names of fields, as the offsets report them missing, without which it could only be silent.
    needs: &'static [&'static str],
}

const CGROUP: &[&str] = &["cgroup.root", "cgroup_root.hierarchy_id"];
const OF_SOCKET: &[&str] = &["sock.sk_cgrp_data.cgroup", "sock.sk_err", "sock.sk_protocol"];
const OF_TASK: &[&str] = &[
    "css_set.dfl_cgrp",
    "task_struct.cgroups",
    "task_struct.exit_code",
    "task_struct.group_leader",
    "task_struct.real_parent",
    "task_struct.signal",
    "task_struct.start_boottime",
    "task_struct.tgid",
    "signal_struct.group_exit_code",
    "signal_struct.flags",
    "signal_struct.live",
];
const OF_RUNQUEUE: &[&str] = &["css_set.dfl_cgrp", "task_struct.cgroups", "task_struct.pid"];
const OF_OOM: &[&str] = &[
    "cgroup_subsys_state.cgroup",
    "cgroup_subsys_state.parent",
    "css_set.subsys[memory]",
    "mem_cgroup.memory_events_local",
    "task_struct.cgroups",
    "task_struct.tgid",
];

const fn spec(name: &'static str, hook: Hook, needs: &'static [&'static str]) -> Spec {
    Spec { name, hook, needs }
}

/// All programs of the object.
pub(super) const PROGRAMS: [Spec; 19] = [
    spec("snapshot", Hook::CgroupIterator, &[]),
    spec("look", Hook::Nothing, &["cgroup.bstat.cputime.sum_exec_runtime"]),
    spec("revisit", Hook::Nothing, &[]),
    spec("cpus", Hook::CgroupIterator, &["bpf_array.pptrs", "cgroup.rstat_cpu"]),
    spec("cgroup_made", Hook::Tracepoint("cgroup_mkdir"), CGROUP),
    spec("cgroup_emptied", Hook::Tracepoint("cgroup_notify_populated"), CGROUP),
    spec("cgroup_removed", Hook::Tracepoint("cgroup_rmdir"), CGROUP),
    spec("process_started", Hook::Tracepoint("sched_process_exec"), OF_TASK),
    spec("process_exited", Hook::Tracepoint("sched_process_exit"), OF_TASK),
    spec("oom_kill", Hook::Tracepoint("mark_victim"), OF_OOM),
    spec("runqueue_wakeup", Hook::Tracepoint("sched_wakeup"), OF_RUNQUEUE),
    spec("runqueue_wakeup_new", Hook::Tracepoint("sched_wakeup_new"), OF_RUNQUEUE),
    spec("runqueue_switch", Hook::Tracepoint("sched_switch"), OF_RUNQUEUE),
    spec("network_receive", Hook::Packets(CgroupSkbAttachType::Ingress), &[]),
    spec("network_transmit", Hook::Packets(CgroupSkbAttachType::Egress), &[]),
    spec("tcp_connection", Hook::Tracepoint("inet_sock_set_state"), OF_SOCKET),
    spec("tcp_retransmit", Hook::Tracepoint("tcp_retransmit_skb"), OF_SOCKET),
    spec("tcp_retransmit_synack", Hook::Tracepoint("tcp_retransmit_synack"), OF_SOCKET),
    spec("tcp_round_trip", Hook::Sockets, OF_SOCKET),
];

/// Whether tracing of the scheduler is known to be safe. Linux 6.1 stood still once with it, in a virtual machine whose first
/// CPU took no interrupts any more; why is not known. Before 6.1 maps also take memory by locks that the scheduler may hold.
pub(super) fn may_trace_scheduler() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 12, 0))
}

/// Attaches a tracing program that is loaded.
pub(super) fn attach_loaded(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<Option<BtfTracePointLinkId>, ProgramError> {
    match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.attach().map(Some),
        _ => Ok(None),
    }
}

/// Detaches a tracing program, which stays loaded.
pub(super) fn detach(ebpf: &mut Ebpf, name: &str, link: BtfTracePointLinkId) -> Result<(), ProgramError> {
    match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.detach(link),
        _ => Ok(()),
    }
}

/// Loads a program and attaches it beside those that others have attached (a link never excludes them), as far as it is attached by itself. `unified` is the root of cgroup v2.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    spec: &Spec,
    types: &Btf,
    missing: &[&str],
    unified: Option<&File>,
    links: &mut HashMap<&'static str, BtfTracePointLinkId>,
) -> Verdict {
    if let Some(field) = missing.iter().find(|field| spec.needs.contains(field)) {
        return Verdict::Unsupported(format!("this kernel's types have no {field}"));
    }
    let Some(program) = ebpf.program_mut(spec.name) else {
        return Verdict::Failed("it is not in the object".to_owned());
    };
    let no_unified =
        || Verdict::Unsupported("this host has no cgroup v2, to which sockets belong".to_owned());
    let (result, needed) = match (spec.hook, program) {
        (Hook::CgroupIterator, Program::Iter(program)) => (Iter::load(program, "cgroup", types), TO_TRACE),
        (Hook::Nothing, Program::RawTracePoint(program)) => (RawTracePoint::load(program), TO_TRACE),
        (Hook::Tracepoint(name), Program::BtfTracePoint(program)) => {
            let loaded = BtfTracePoint::load(program, name, types);
            let attached = loaded.and_then(|()| program.attach());
            let kept = attached.map(|link| {
                links.insert(spec.name, link);
            });
            (kept, TO_TRACE)
        }
        (Hook::Packets(direction), Program::CgroupSkb(program)) => {
            let Some(root) = unified else { return no_unified() };
            let loaded = CgroupSkb::load(program);
            let attach = |()| program.attach(root, direction, CgroupAttachMode::Single);
            (loaded.and_then(attach).map(drop), TO_SEE_PACKETS)
        }
        (Hook::Sockets, Program::SockOps(program)) => {
            let Some(root) = unified else { return no_unified() };
            let loaded = SockOps::load(program);
            let attach = |()| program.attach(root, CgroupAttachMode::Single);
            (loaded.and_then(attach).map(drop), TO_SEE_PACKETS)
        }
        _ => return Verdict::Failed("it is of another kind in the object".to_owned()),
    };
    match (result, spec.hook) {
        (Ok(()), _) => Verdict::Running,
        (Err(ProgramError::Btf(_)), Hook::CgroupIterator) => Verdict::Unsupported(format!(
            "the kernel has no cgroup iterator (Linux 6.1 and later do; this is {})",
            kernel_release()
        )),
        (Err(ProgramError::Btf(_)), Hook::Tracepoint(name)) => {
            Verdict::Unsupported(format!("the kernel has no tracepoint {name} with types"))
        }
        (Err(error), _) => Verdict::Failed(explained(&error, needed)),
    }
}

/// The running kernel, for messages only.
fn kernel_release() -> String {
    KernelVersion::current().map_or_else(
        |_| "unknown".to_owned(),
        |version| {
            let code = version.code();
            format!("{}.{}", code >> 16, (code >> 8) & 0xff)
        },
    )
}

/// An error, its causes and, where there is one, the remedy.
fn explained(error: &ProgramError, needed: &[Capability]) -> String {
    format!("{}{}", chain(error), remedy(error, needed))
}

/// An error and its causes in one line; the verifier's log only with its end, where the reason is.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    const LONGEST: usize = 600;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(" Verifier output:").trim_end_matches('.').to_owned();
    match line.char_indices().rev().nth(LONGEST) {
        Some((start, _)) => format!("… {}", &line[start..]),
        None => line,
    }
}

/// What to do about an error, where the cause is clear. A capability that is missing is said whatever the error: the
/// verifier reports the lack of one as a helper that may not be used.
pub(super) fn remedy(error: &(dyn std::error::Error + 'static), needed: &[Capability]) -> String {
    let missing = missing_capabilities(needed);
    if !missing.is_empty() {
        return format!("; the agent lacks {}", names(missing.into_iter()));
    }
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES))
        {
            let has = names(needed.iter());
            return format!("; the agent has {has}: a security policy (seccomp, lockdown, LSM) forbids it");
        }
        source = cause.source();
    }
    String::new()
}

/// A capability's name and its bit in `CapEff` of /proc/PID/status.
pub(super) type Capability = (&'static str, u64);

/// What tracing programs need.
pub(super) const TO_TRACE: &[Capability] = &[("CAP_BPF", 1 << 39), ("CAP_PERFMON", 1 << 38)];

/// What programs on cgroups and sockets need.
const TO_SEE_PACKETS: &[Capability] =
    &[("CAP_BPF", 1 << 39), ("CAP_PERFMON", 1 << 38), ("CAP_NET_ADMIN", 1 << 12)];

/// Which of the needed capabilities this process lacks. `CAP_SYS_ADMIN` includes all of them.
fn missing_capabilities(needed: &[Capability]) -> Vec<&Capability> {
    const SYS_ADMIN: u64 = 1 << 21;
    let effective = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map_or(u64::MAX, |status| status.capeff);
    needed.iter().filter(|(_, bit)| effective & (bit | SYS_ADMIN) == 0).collect()
}

fn names<'a>(capabilities: impl Iterator<Item = &'a Capability>) -> String {
    capabilities.map(|(name, _)| *name).collect::<Vec<_>>().join(" and ")
}
