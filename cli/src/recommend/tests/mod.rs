//! Random clusters and names, and what the outputs make of them.

mod cases;
mod cluster;
mod names;
mod pages;
mod resize;
mod shell;
mod vpa;

use proptest::prelude::*;
use snug_sizing::{
    engine::{Confidence, Pool, Profile},
    workload::{Resources, Role},
};

use super::report::{Entry, InTemplate, Issue, Quantities, Report, SCHEMA, Savings, Total, Window};
use crate::cluster::WorkloadObjects;

const MIB: u64 = 1 << 20;

/// The recommendation for the container of a workload: namespace, owner, name, container.
pub(super) fn entry(names: [&str; 4], current: Resources, recommended: Resources) -> Entry {
    let [namespace, owner, workload, container] = names.map(str::to_owned);
    Entry {
        cluster: String::new(),
        namespace,
        owner,
        workload,
        container,
        role: Role::App,
        group: None,
        replicas: 1,
        issue: Issue::default(),
        savings: Savings::default(),
        current,
        recommended,
        quantities: Quantities::from(recommended),
        pod_resources: None,
        oom_kills_per_pod_day: None,
        cpu_work_above_request: None,
        throttled_periods: None,
        risk: Profile::Standard.risk(),
        asked_risk: Profile::Standard.risk(),
        delivered: Pool::default().so_far(Profile::Standard.risk()),
        expected_oom_kills_per_pod_day: None,
        expected_cpu_work_above: None,
        start_up: None,
        confidence: Confidence::High,
        container_days: 1.0,
        reasons: Vec::new(),
        bounds: None,
        memory: None,
        in_template: InTemplate::default(),
        warnings: Vec::new(),
    }
}

pub(super) fn report(recommendations: Vec<Entry>) -> Report {
    Report {
        schema: SCHEMA,
        clusters: Vec::new(),
        window: Window::default(),
        risk: Profile::Standard.risk(),
        delivered: Pool::default().so_far(Profile::Standard.risk()),
        horizon_days: 7.0,
        recommendations,
        skipped: Vec::new(),
        totals: Vec::new(),
        total: Total::default(),
        group_by: None,
        left_out: 0,
        cost: None,
        emptied: None,
        objects: WorkloadObjects::default(),
    }
}

/// Requests and limits as people and the engine set them: a limit is at least its request.
pub(super) fn resources() -> impl Strategy<Value = Resources> {
    let amount = || prop::option::weighted(0.7, 1..40_u64);
    let limit = || prop::option::weighted(0.6, prop_oneof![Just(0), 0..20_u64]);
    (amount(), limit(), amount(), limit()).prop_map(|(cpu, more_cpu, memory, more_memory)| Resources {
        cpu_request: cpu.map(|cpu| cpu * 50),
        cpu_limit: more_cpu.map(|more| (cpu.unwrap_or(1) + more) * 50),
        memory_request: memory.map(|memory| memory * 16 * MIB),
        memory_limit: more_memory.map(|more| (memory.unwrap_or(1) + more) * 16 * MIB),
    })
}

/// What the engine recommends always has requests.
pub(super) fn recommended() -> impl Strategy<Value = Resources> {
    resources().prop_map(|it| Resources {
        cpu_request: it.cpu_request.or(it.cpu_limit).or(Some(50)),
        memory_request: it.memory_request.or(it.memory_limit).or(Some(16 * MIB)),
        ..it
    })
}

fn holds(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}
