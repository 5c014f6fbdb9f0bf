//! Random pods, LimitRanges, ResourceQuotas, autoscalers and nodes.

use proptest::prelude::*;

use super::super::{admission::admitted, *};
use crate::{
    pod::PodRequests,
    workload::{Resources, Role},
};

pub(super) const MIB: u64 = 1 << 20;

/// The current pod, the proposed one, and what the cluster allows.
pub(super) type Case = (PodSpec, PodSpec, ClusterLimits);

fn cpu() -> impl Strategy<Value = u64> {
    1..4000_u64
}

fn memory() -> impl Strategy<Value = u64> {
    (10..2048_u64).prop_map(|mib| mib * MIB)
}

/// Values that the API server accepts: no request is above its limit.
fn current() -> impl Strategy<Value = Resources> {
    let one = |value: BoxedStrategy<u64>| proptest::option::of((value.clone(), proptest::option::of(value)));
    (one(cpu().boxed()), one(memory().boxed())).prop_map(|(cpu, memory)| {
        let limit = |both: Option<(u64, Option<u64>)>| both.and_then(|(one, other)| Some(one.max(other?)));
        Resources {
            cpu_request: cpu.map(|(one, other)| one.min(other.unwrap_or(one))),
            cpu_limit: limit(cpu),
            memory_request: memory.map(|(one, other)| one.min(other.unwrap_or(one))),
            memory_limit: limit(memory),
        }
    })
}

/// Values as the engine proposes them.
fn proposed() -> impl Strategy<Value = Resources> {
    (cpu(), proptest::option::weighted(0.5, cpu()), memory()).prop_map(|(request, limit, memory)| Resources {
        cpu_request: Some(request),
        cpu_limit: limit.map(|limit| limit.max(request)),
        memory_request: Some(memory),
        memory_limit: Some(memory),
    })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![4 => Just(Role::App), 1 => Just(Role::Init), 1 => Just(Role::Sidecar)]
}

fn bounds(value: BoxedStrategy<u64>) -> impl Strategy<Value = LimitBounds> {
    let some = || proptest::option::weighted(0.5, 0..4_usize);
    let values = (value.clone(), value.clone(), value.clone(), value);
    (values, some(), some(), some(), some(), proptest::option::weighted(0.4, 1.0..4.0_f64)).prop_map(
        |((a, b, c, d), min, request, default, max, ratio)| {
            let mut sorted = [a, b, c, d];
            sorted.sort_unstable();
            // `min` ≤ `defaultRequest` ≤ `default` ≤ `max`, as the API server demands.
            LimitBounds {
                min: min.map(|_| sorted[0]),
                default_request: request.map(|_| sorted[1]),
                default: default.map(|_| sorted[2]),
                max: max.map(|_| sorted[3]),
                ratio,
            }
        },
    )
}

fn limit_range(limit_type: LimitType) -> impl Strategy<Value = Option<LimitRange>> {
    let range = (bounds(cpu().boxed()), bounds(memory().boxed())).prop_map(move |(cpu, memory)| {
        let of_pod = |bounds: LimitBounds| match limit_type {
            LimitType::Pod => LimitBounds { default: None, default_request: None, ..bounds },
            LimitType::Container => bounds,
        };
        LimitRange { name: "range".to_owned(), limit_type, cpu: of_pod(cpu), memory: of_pod(memory) }
    });
    proptest::option::weighted(0.7, range)
}

fn quota() -> impl Strategy<Value = Quota> {
    let classes = || vec!["batch".to_owned()];
    let scope = prop_oneof![
        Just(Scope::Terminating),
        Just(Scope::NotTerminating),
        Just(Scope::BestEffort),
        Just(Scope::NotBestEffort),
        Just(Scope::PriorityClass(PriorityClasses::In(classes()))),
        Just(Scope::PriorityClass(PriorityClasses::NotIn(classes()))),
        Just(Scope::PriorityClass(PriorityClasses::Exists)),
    ];
    let field = (any::<bool>(), any::<bool>(), 0..4000_u64).prop_map(|(is_memory, is_limit, left)| {
        let (resource, unit) = if is_memory { (Resource::Memory, MIB) } else { (Resource::Cpu, 1) };
        QuotaField { resource, is_limit, left: Some(left * unit) }
    });
    (prop::collection::vec(scope, 0..2), prop::collection::vec(field, 1..3))
        .prop_map(|(scopes, fields)| Quota { name: "quota".to_owned(), scopes, fields })
}

fn target() -> impl Strategy<Value = UtilizationTarget> {
    (proptest::option::of(Just("c0".to_owned())), any::<bool>(), 10..=90_u32).prop_map(
        |(container, is_cpu, percent)| UtilizationTarget {
            autoscaler: "web".to_owned(),
            container,
            resource: if is_cpu { Resource::Cpu } else { Resource::Memory },
            percent,
        },
    )
}

/// Requests and limits of a pod that its containers fit in.
fn own(now: &PodSpec, share: (u64, u64)) -> Resources {
    let mut own = Resources::default();
    let stored = admitted(now, &[]);
    for (resource, more) in [(Resource::Cpu, share.0), (Resource::Memory, share.1 * MIB)] {
        let request = stored.sum(|values| resource.request(values)) + more;
        let limits = stored.containers.iter().filter_map(|container| resource.limit(&container.values));
        *resource.request_mut(&mut own) = Some(request);
        *resource.limit_mut(&mut own) = Some(limits.max().unwrap_or(0).max(request));
    }
    own
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let container = (role(), current(), proposed(), proptest::bool::weighted(0.9));
    let pod = (
        prop::collection::vec(container, 1..4),
        proptest::option::weighted(0.3, (0..2000_u64, 0..2000_u64)),
        prop_oneof![Just(""), Just("batch"), Just("high")],
        any::<bool>(),
    );
    let node = (1..8000_u64, 1..8192_u64).prop_map(|(cpu, mib)| PodRequests { cpu, memory: mib * MIB });
    let limits = (
        limit_range(LimitType::Container),
        limit_range(LimitType::Pod),
        prop::collection::vec(quota(), 0..3),
        prop::collection::vec(target(), 0..3),
        (prop::collection::vec(node.clone(), 0..4), prop::collection::vec(node, 0..4)),
        (1..5_u64, 0..3_u64, 0..2_u64, any::<bool>()),
    );
    (pod, limits).prop_map(|((containers, share, class, has_deadline), limits)| {
        let (of_containers, of_pods, quotas, targets, (nodes, room), rollout) = limits;
        let (replicas, surge, unavailable, on_every_node) = rollout;
        let rollout = Rollout { surge, unavailable, on_every_node };
        let spec = |pick: fn(&(Role, Resources, Resources, bool)) -> Resources| PodSpec {
            containers: containers
                .iter()
                .enumerate()
                .map(|(at, container)| PodContainer {
                    name: format!("c{at}"),
                    role: container.0,
                    values: pick(container),
                    is_advised: container.3,
                })
                .collect(),
            priority_class: class.to_owned(),
            has_deadline,
            ..PodSpec::default()
        };
        let mut now = spec(|container| container.1);
        let mut then = spec(|container| if container.3 { container.2 } else { container.1 });
        now.pod = share.map(|share| own(&now, share));
        then.pod = now.pod;
        let ranges = of_containers.into_iter().chain(of_pods).collect();
        let limits = ClusterLimits {
            ranges,
            quotas,
            targets,
            nodes,
            exhausted_budgets: Vec::new(),
            replicas,
            rollout,
            room,
        };
        (now, then, limits)
    })
}

pub(super) fn edited(edit: fn(&mut Case)) -> impl Strategy<Value = Case> {
    cases().prop_map(move |mut case| {
        edit(&mut case);
        case
    })
}

/// Makes all containers app containers that have a recommendation.
pub(super) fn of_apps((now, then, _): &mut Case) {
    for container in now.containers.iter_mut().chain(&mut then.containers) {
        (container.role, container.is_advised) = (Role::App, true);
    }
}

/// Also leaves out LimitRanges, scopes and resources of pods.
pub(super) fn plain(case: &mut Case) {
    of_apps(case);
    case.2.ranges.clear();
    case.2.quotas.iter_mut().for_each(|quota| quota.scopes.clear());
    (case.0.pod, case.1.pod) = (None, None);
}

pub(super) fn without_ranges_of_pods((_, _, limits): &mut Case) {
    limits.ranges.retain(|range| range.limit_type == LimitType::Container);
}
