//! The list of eBPF programs with the hook and the required kernel fields of each, and how programs are attached.

use std::{collections::HashMap, fs::File, io};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Iter, Program, ProgramError,
        RawTracePoint, SockOps, tp_btf::BtfTracePointLinkId,
    },
    util::KernelVersion,
};

use super::offsets::MissingField;
use crate::{messages, model::Verdict};

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// The iterator over cgroups; the agent runs it by reading from it.
    CgroupIterator,
    /// Not attached: the agent runs it with `BPF_PROG_TEST_RUN`.
    TestRun,
    /// A tracepoint with BTF (`tp_btf`).
    Tracepoint(&'static str),
    /// `cgroup_skb` on the root of cgroup v2: the packets of all sockets.
    Packets(CgroupSkbAttachType),
    /// `sock_ops` on the root of cgroup v2: all TCP sockets.
    SockOps,
}

/// A program in the object file.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramSpec {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    /// Fields, by the names in [`super::offsets`], without which the program would never report anything.
    required_fields: &'static [&'static str],
}

const CGROUP_FIELDS: &[&str] = &["cgroup.root", "cgroup_root.hierarchy_id"];
const SOCKET_FIELDS: &[&str] = &["sock.sk_cgrp_data.cgroup", "sock.sk_err", "sock.sk_protocol"];
const TASK_FIELDS: &[&str] = &[
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
const RUNQUEUE_FIELDS: &[&str] = &["css_set.dfl_cgrp", "task_struct.cgroups", "task_struct.pid"];
const OOM_FIELDS: &[&str] = &[
    "cgroup_subsys_state.cgroup",
    "cgroup_subsys_state.parent",
    "css_set.subsys[memory]",
    "mem_cgroup.memory_events_local",
    "task_struct.cgroups",
    "task_struct.tgid",
];

const fn spec(name: &'static str, hook: Hook, required_fields: &'static [&'static str]) -> ProgramSpec {
    ProgramSpec { name, hook, required_fields }
}

/// All programs in the object file. The names are values of the label `program`.
pub(super) const PROGRAMS: [ProgramSpec; 19] = [
    spec("snapshot", Hook::CgroupIterator, &[]),
    spec("sample_active", Hook::TestRun, &["cgroup.bstat.cputime.sum_exec_runtime"]),
    spec("resample", Hook::TestRun, &[]),
    spec("cpus", Hook::CgroupIterator, &["bpf_array.pptrs", "cgroup.rstat_cpu"]),
    spec("cgroup_made", Hook::Tracepoint("cgroup_mkdir"), CGROUP_FIELDS),
    spec("cgroup_emptied", Hook::Tracepoint("cgroup_notify_populated"), CGROUP_FIELDS),
    spec("cgroup_removed", Hook::Tracepoint("cgroup_rmdir"), CGROUP_FIELDS),
    spec("process_started", Hook::Tracepoint("sched_process_exec"), TASK_FIELDS),
    spec("process_exited", Hook::Tracepoint("sched_process_exit"), TASK_FIELDS),
    spec("oom_kill", Hook::Tracepoint("mark_victim"), OOM_FIELDS),
    spec("runqueue_wakeup", Hook::Tracepoint("sched_wakeup"), RUNQUEUE_FIELDS),
    spec("runqueue_wakeup_new", Hook::Tracepoint("sched_wakeup_new"), RUNQUEUE_FIELDS),
    spec("runqueue_switch", Hook::Tracepoint("sched_switch"), RUNQUEUE_FIELDS),
    spec("network_receive", Hook::Packets(CgroupSkbAttachType::Ingress), &[]),
    spec("network_transmit", Hook::Packets(CgroupSkbAttachType::Egress), &[]),
    spec("tcp_connection", Hook::Tracepoint("inet_sock_set_state"), SOCKET_FIELDS),
    spec("tcp_retransmit", Hook::Tracepoint("tcp_retransmit_skb"), SOCKET_FIELDS),
    spec("tcp_retransmit_synack", Hook::Tracepoint("tcp_retransmit_synack"), SOCKET_FIELDS),
    spec("tcp_round_trip", Hook::SockOps, SOCKET_FIELDS),
];

/// Whether a map may grow in the scheduler: before Linux 6.1 it allocates memory under locks that the scheduler may hold.
pub(super) fn may_trace_scheduler() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 1, 0))
}

/// Attaches a tracepoint program that is loaded.
pub(super) fn attach_loaded(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<Option<BtfTracePointLinkId>, ProgramError> {
    match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.attach().map(Some),
        _ => Ok(None),
    }
}

/// Detaches a tracepoint program; it stays loaded.
pub(super) fn detach(ebpf: &mut Ebpf, name: &str, link: BtfTracePointLinkId) -> Result<(), ProgramError> {
    match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.detach(link),
        _ => Ok(()),
    }
}

/// Loads a program and attaches it; programs that other processes attached stay. `missing`: fields that the kernel's BTF
/// lacks. `unified`: the open root of cgroup v2. `links`: gets the links of tracepoint programs.
///
/// Iterators are linked later, for each hierarchy; programs for [`Hook::TestRun`] are only loaded.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    spec: &ProgramSpec,
    types: &Btf,
    missing: &[MissingField],
    unified: Option<&File>,
    links: &mut HashMap<&'static str, BtfTracePointLinkId>,
) -> Verdict {
    if let Some(field) =
        missing.iter().map(|field| field.name).find(|field| spec.required_fields.contains(field))
    {
        return Verdict::Unsupported(format!("the kernel's BTF has no {field}"));
    }
    let Some(program) = ebpf.program_mut(spec.name) else {
        return Verdict::Failed("the object file has no such program".to_owned());
    };
    let no_unified =
        || Verdict::Unsupported("this host has no cgroup v2, which sockets are attributed to".to_owned());
    let (result, required) = match (spec.hook, program) {
        (Hook::CgroupIterator, Program::Iter(program)) => {
            (Iter::load(program, "cgroup", types), TRACING_CAPABILITIES)
        }
        (Hook::TestRun, Program::RawTracePoint(program)) => {
            (RawTracePoint::load(program), TRACING_CAPABILITIES)
        }
        (Hook::Tracepoint(name), Program::BtfTracePoint(program)) => {
            let loaded = BtfTracePoint::load(program, name, types);
            let attached = loaded.and_then(|()| program.attach());
            let linked = attached.map(|link| {
                links.insert(spec.name, link);
            });
            (linked, TRACING_CAPABILITIES)
        }
        (Hook::Packets(direction), Program::CgroupSkb(program)) => {
            let Some(root) = unified else { return no_unified() };
            let loaded = CgroupSkb::load(program);
            let attach = |()| program.attach(root, direction, CgroupAttachMode::Single);
            (loaded.and_then(attach).map(drop), SOCKET_CAPABILITIES)
        }
        (Hook::SockOps, Program::SockOps(program)) => {
            let Some(root) = unified else { return no_unified() };
            let loaded = SockOps::load(program);
            let attach = |()| program.attach(root, CgroupAttachMode::Single);
            (loaded.and_then(attach).map(drop), SOCKET_CAPABILITIES)
        }
        _ => return Verdict::Failed("the program has another type in the object file".to_owned()),
    };
    match (result, spec.hook) {
        (Ok(()), _) => Verdict::Running,
        (Err(ProgramError::Btf(_)), Hook::CgroupIterator) => Verdict::Unsupported(format!(
            "the kernel has no cgroup iterator (Linux 6.1 and later have one; this is {})",
            kernel_release()
        )),
        (Err(ProgramError::Btf(_)), Hook::Tracepoint(name)) => {
            Verdict::Unsupported(format!("the kernel has no tracepoint {name} with BTF"))
        }
        (Err(error), _) => Verdict::Failed(describe(&error, required)),
    }
}

/// Major and minor version of the running kernel, for messages.
fn kernel_release() -> String {
    KernelVersion::current().map_or_else(
        |_| "unknown".to_owned(),
        |version| {
            let code = version.code();
            format!("{}.{}", code >> 16, (code >> 8) & 0xff)
        },
    )
}

/// An error with its causes and, if known, the remedy.
fn describe(error: &ProgramError, required: &[Capability]) -> String {
    format!("{}{}", error_chain(error), remedy(error, required))
}

/// An error and its causes in one line. If it is too long, the start is cut off, because the verifier's log has the reason at
/// its end.
pub(super) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    const MAX_CHARS: usize = 600;
    let text = messages::whole_chain(error);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(" Verifier output:").trim_end_matches('.').to_owned();
    match line.char_indices().rev().nth(MAX_CHARS) {
        Some((start, _)) => format!("… {}", &line[start..]),
        None => line,
    }
}

/// The remedy for an error, if the cause is clear, else an empty string. Missing capabilities are named for any error,
/// because the verifier reports them as a forbidden helper.
pub(super) fn remedy(error: &(dyn std::error::Error + 'static), required: &[Capability]) -> String {
    let missing = missing_capabilities(required);
    if !missing.is_empty() {
        return format!("; the agent lacks {}", names(missing.into_iter()));
    }
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let is_forbidden = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    if causes.any(|cause| cause.downcast_ref().is_some_and(is_forbidden)) {
        let has = names(required.iter());
        return format!("; the agent has {has}: a security policy (seccomp, lockdown, LSM) forbids it");
    }
    String::new()
}

/// A capability's name and its bit in `CapEff` of /proc/PID/status.
pub(super) type Capability = (&'static str, u64);

/// Capabilities for tracepoint and iterator programs.
pub(super) const TRACING_CAPABILITIES: &[Capability] = &[("CAP_BPF", 1 << 39), ("CAP_PERFMON", 1 << 38)];

/// Capabilities for programs attached to cgroups.
const SOCKET_CAPABILITIES: &[Capability] =
    &[("CAP_BPF", 1 << 39), ("CAP_PERFMON", 1 << 38), ("CAP_NET_ADMIN", 1 << 12)];

/// The required capabilities that this process lacks. `CAP_SYS_ADMIN` includes all of them.
fn missing_capabilities(required: &[Capability]) -> Vec<&Capability> {
    const SYS_ADMIN: u64 = 1 << 21;
    let effective = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map_or(u64::MAX, |status| status.capeff);
    required.iter().filter(|(_, bit)| effective & (bit | SYS_ADMIN) == 0).collect()
}

fn names<'a>(capabilities: impl Iterator<Item = &'a Capability>) -> String {
    capabilities.map(|(name, _)| *name).collect::<Vec<_>>().join(" and ")
}
