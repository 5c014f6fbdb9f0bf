//! Each rule over random pods, LimitRanges, ResourceQuotas, autoscalers and nodes.

mod cases;

use self::cases::{Case, MIB, cases, edited, of_apps, plain, without_ranges_of_pods};

use super::{admission::admitted, advice::ConstraintRule, limit_range::pod_totals, *};
use crate::{pod::PodRequests, workload::Resources};

fn fitted((now, then, limits): &Case) -> (PodSpec, Vec<Finding>) {
    let mut then = then.clone();
    let found = fit(now, &mut then, limits);
    (then, found)
}

fn violations(found: &[Finding]) -> impl Iterator<Item = &Violation> {
    found.iter().filter_map(|finding| match &finding.kind {
        FindingKind::Violation(violation) => Some(violation),
        _ => None,
    })
}

fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what()) }
}

fn ranges_of(limits: &ClusterLimits, limit_type: LimitType) -> impl Iterator<Item = &LimitRange> {
    limits.ranges.iter().filter(move |range| range.limit_type == limit_type)
}

/// Whether a value of a recommended container meets a condition.
fn any_value(pod: &PodSpec, is: impl Fn(usize, Resource, u64) -> bool) -> bool {
    let advised = pod.containers.iter().enumerate().filter(|(_, container)| container.is_advised);
    let mut all = advised.flat_map(|(at, container)| {
        Resource::ALL.map(|resource| {
            let both = [resource.request(&container.values), resource.limit(&container.values)];
            both.into_iter().flatten().any(|value| is(at, resource, value))
        })
    });
    all.any(|found| found)
}

#[test]
fn values_below_the_min_of_a_limit_range_are_raised_to_it() {
    let is_below = |pod: &PodSpec, limits: &ClusterLimits| {
        ranges_of(limits, LimitType::Container).any(|range| {
            any_value(pod, |_, resource, value| range.bounds(resource).min.is_some_and(|min| value < min))
        })
    };
    ConstraintRule::LimitRangeMin.prove(
        &cases(),
        |(_, then, limits)| is_below(then, limits),
        |case| {
            let (then, found) = fitted(case);
            ensure(!is_below(&then, &case.2), || format!("{then:?} {found:?}"))
        },
    );
}

#[test]
fn values_above_the_max_of_a_limit_range_are_lowered_to_it_if_the_container_has_no_more_today() {
    let is_above = |(now, _, limits): &Case, pod: &PodSpec| {
        ranges_of(limits, LimitType::Container).any(|range| {
            any_value(pod, |at, resource, value| {
                let has_no_more =
                    |max| resource.limit(&now.containers[at].values).is_some_and(|limit| limit <= max);
                range
                    .bounds(resource)
                    .max
                    .is_some_and(|max| value > max && (resource == Resource::Cpu || has_no_more(max)))
            })
        })
    };
    ConstraintRule::LimitRangeMax.prove(
        &edited(without_ranges_of_pods),
        |case| is_above(case, &case.1),
        |case| {
            let (then, found) = fitted(case);
            ensure(!is_above(case, &then), || format!("{then:?} {found:?}"))?;
            let named = found
                .iter()
                .any(|finding| matches!(finding.kind, FindingKind::Adjusted(Adjusted::Max { .. })));
            ensure(named, || format!("no finding: {found:?}"))
        },
    );
}

#[test]
fn memory_is_not_lowered_to_a_max_below_what_the_container_has_today() {
    let range = LimitRange {
        memory: LimitBounds { max: Some(100 * MIB), ..LimitBounds::default() },
        ..LimitRange::default()
    };
    let pod = |mib: u64| {
        let values = Resources {
            memory_request: Some(mib * MIB),
            memory_limit: Some(mib * MIB),
            ..Resources::default()
        };
        let container = PodContainer { values, is_advised: true, ..PodContainer::default() };
        PodSpec { containers: vec![container], ..PodSpec::default() }
    };
    let limits = ClusterLimits { ranges: vec![range], ..ClusterLimits::default() };
    let mut then = pod(150);
    let found = fit(&pod(200), &mut then, &limits);
    assert_eq!(then, pod(150));
    assert!(violations(&found).any(|it| matches!(it, Violation::AboveMax { .. })), "{found:?}");
    let found = fit(&pod(80), &mut then, &limits);
    assert_eq!(then, pod(100), "more than today, though less than it needs");
    assert_eq!(violations(&found).count(), 0, "{found:?}");
}

#[test]
fn requests_are_raised_until_the_ratio_of_a_limit_range_holds() {
    let is_apart = |pod: &PodSpec, limits: &ClusterLimits| {
        limits.ranges.iter().any(|range| {
            let of_container = |container: &PodContainer| {
                Resource::ALL.into_iter().any(|resource| {
                    let both = resource.limit(&container.values).zip(resource.request(&container.values));
                    both.zip(range.bounds(resource).ratio)
                        .is_some_and(|((limit, request), ratio)| limit as f64 / request as f64 > ratio)
                })
            };
            pod.containers.iter().any(|container| container.is_advised && of_container(container))
        })
    };
    ConstraintRule::LimitRangeRatio.prove(
        &cases(),
        |(_, then, limits)| is_apart(then, limits),
        |case| {
            let (then, found) = fitted(case);
            ensure(!is_apart(&then, &case.2), || format!("{then:?} {found:?}"))
        },
    );
}

#[test]
fn a_cpu_limit_stays_where_the_cluster_would_set_another_or_refuse_the_pod() {
    let demands = |pod: &PodSpec, limits: &ClusterLimits| {
        let by_range = ranges_of(limits, LimitType::Container).any(|range| {
            let bounds = range.bounds(Resource::Cpu);
            bounds.default.is_some() || bounds.ratio.is_some()
        });
        by_range || limits.quotas.iter().any(|quota| quota.demands_cpu_limit(pod))
    };
    let removed = |(now, then, _): &Case| {
        let both = now.containers.iter().zip(&then.containers).zip(0_usize..);
        let removed = both.filter(|((now, then), _)| {
            then.is_advised && now.values.cpu_limit.is_some() && then.values.cpu_limit.is_none()
        });
        removed.map(|(_, at)| at).collect::<Vec<_>>()
    };
    ConstraintRule::CpuLimitDemanded.prove(
        &cases(),
        |case| demands(&case.1, &case.2) && !removed(case).is_empty(),
        |case| {
            let (then, found) = fitted(case);
            for at in removed(case) {
                let values = then.containers[at].values;
                let is_kept = values.cpu_limit.is_some_and(|limit| limit >= values.cpu_request.unwrap_or(0));
                ensure(is_kept, || format!("{values:?} {found:?}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn sums_below_the_min_of_a_limit_range_for_pods_are_raised_to_it() {
    let is_below = |pod: &PodSpec, limits: &ClusterLimits| {
        ranges_of(limits, LimitType::Pod).any(|range| {
            Resource::ALL.into_iter().any(|resource| {
                let (request, limit) = pod_totals(&admitted(pod, &[]), resource);
                let lowest = request.into_iter().chain(limit).min();
                lowest.zip(range.bounds(resource).min).is_some_and(|(value, min)| value < min)
            })
        })
    };
    ConstraintRule::PodLimitRangeMin.prove(
        &edited(of_apps),
        |(_, then, limits)| is_below(then, limits),
        |case| {
            let (then, found) = fitted(case);
            ensure(!is_below(&then, &case.2), || format!("{then:?} {found:?}"))
        },
    );
}

#[test]
fn no_request_is_above_its_limit() {
    let is_above = |pod: &PodSpec| {
        let mut advised = pod.containers.iter().filter(|container| container.is_advised);
        advised.any(|container| {
            Resource::ALL.into_iter().any(|resource| {
                let values = &container.values;
                resource.request(values).zip(resource.limit(values)).is_some_and(|(one, other)| one > other)
            })
        })
    };
    ConstraintRule::RequestWithinLimit.prove(
        &cases(),
        |(_, _, limits)| !limits.targets.is_empty() || !limits.ranges.is_empty(),
        |case| {
            let (then, found) = fitted(case);
            ensure(!is_above(&then), || format!("{then:?} {found:?}"))
        },
    );
}

#[test]
fn the_containers_of_a_pod_fit_its_own_requests_and_limits() {
    ConstraintRule::PodResourcesFit.prove(
        &cases(),
        |(_, then, _)| then.pod.is_some(),
        |case| {
            let (then, found) = fitted(case);
            let (before, own) = (case.1.pod.unwrap_or_default(), then.pod.unwrap_or_default());
            for resource in Resource::ALL {
                let sum = then.sum(|values| resource.request(values));
                let (request, limit) = (resource.request(&own), resource.limit(&own));
                ensure(request >= Some(sum) && request <= limit, || format!("{own:?} {then:?} {found:?}"))?;
                ensure(request >= resource.request(&before), || "it is never lowered".to_owned())?;
                let fits = then.containers.iter().all(|it| resource.limit(&it.values) <= limit);
                ensure(fits, || format!("{own:?} {then:?} {found:?}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn targets_of_autoscalers_stay_at_or_below_90_percent() {
    let is_lowered = |(now, then, limits): &Case| {
        let request = |pod: &PodSpec, target: &UtilizationTarget| pod.request(target.resource);
        limits.targets.iter().any(|target| request(then, target) < request(now, target))
    };
    ConstraintRule::AutoscalerTarget.prove(&edited(plain), is_lowered, |case| {
        let (_, found) = fitted(case);
        let targets = found.iter().filter_map(|finding| match &finding.kind {
            FindingKind::Scaled(scaled) => Some(scaled.target),
            _ => None,
        });
        ensure(targets.clone().all(|target| target <= 90), || format!("{found:?}"))
    });
}

#[test]
fn a_quota_counts_only_the_pods_in_its_scopes() {
    let counts = |pod: &PodSpec, scope: &Scope| match scope {
        Scope::Terminating => pod.has_deadline,
        Scope::NotTerminating => !pod.has_deadline,
        // Every proposal has requests.
        Scope::BestEffort => false,
        Scope::PriorityClass(PriorityClasses::In(_)) => pod.priority_class == "batch",
        Scope::PriorityClass(PriorityClasses::NotIn(_)) => pod.priority_class != "batch",
        Scope::PriorityClass(_) => !pod.priority_class.is_empty(),
        _ => true,
    };
    let is_foreign = |(_, then, limits): &Case| {
        let advised = then.containers.iter().any(|container| container.is_advised);
        let mut quotas = limits.quotas.iter();
        let is_foreign = |quota: &Quota| quota.scopes.iter().any(|scope| !counts(then, scope));
        advised && !limits.quotas.is_empty() && quotas.all(is_foreign)
    };
    ConstraintRule::QuotaScope.prove(&cases(), is_foreign, |case| {
        let (_, found) = fitted(case);
        let of_quota =
            |it: &Violation| matches!(it, Violation::Quota { .. } | Violation::QuotaDemands { .. });
        ensure(!violations(&found).any(of_quota), || format!("{found:?}"))
    });
}

#[test]
fn a_quota_is_compared_with_requests_and_with_limits() {
    let exceeded = |(now, _, limits): &Case, then: &PodSpec| {
        let quota = limits.quotas.first()?;
        let usage = |pod: &PodSpec, field: &QuotaField| {
            let of_container = |it: &PodContainer| {
                let (request, limit) = (field.resource.request(&it.values), field.resource.limit(&it.values));
                if field.is_limit { limit.unwrap_or(0) } else { request.or(limit).unwrap_or(0) }
            };
            pod.containers.iter().map(of_container).sum::<u64>()
        };
        let field = quota.fields.iter().find(|field| {
            let more = usage(then, field).saturating_sub(usage(now, field)) * limits.replicas;
            field.left.is_some_and(|left| more > left)
        })?;
        Some(field.name())
    };
    ConstraintRule::QuotaHeadroom.prove(
        &edited(plain),
        |case| exceeded(case, &case.1).is_some(),
        |case| {
            let (then, found) = fitted(case);
            let Some(field) = exceeded(case, &then) else { return Ok(()) };
            let is_named =
                violations(&found).any(|it| matches!(it, Violation::Quota { field: of, .. } if *of == field));
            ensure(is_named, || format!("{field} {found:?}"))
        },
    );
}

#[test]
fn a_pod_fits_one_node_with_both_its_cpu_and_its_memory() {
    let fits = |pod: &PodSpec, nodes: &[PodRequests]| {
        let (cpu, memory) = (pod.request(Resource::Cpu), pod.request(Resource::Memory));
        nodes.iter().any(|node| node.cpu >= cpu && node.memory >= memory)
    };
    ConstraintRule::NodeFits.prove(
        &cases(),
        |(_, _, limits)| limits.nodes.len() > 1,
        |case| {
            let (then, found) = fitted(case);
            let created = admitted(&then, &case.2.ranges);
            let of_node =
                |it: &Violation| matches!(it, Violation::NoNode { .. } | Violation::NoNodeForBoth { .. });
            ensure(fits(&created, &case.2.nodes) != violations(&found).any(of_node), || format!("{found:?}"))
        },
    );
}

/// A rollout pod by pod: whether each step finds what it needs, with at most one new pod beside the old ones.
fn is_stuck((now, then, limits): &Case, usage: impl Fn(&PodSpec) -> u64, left: u64) -> bool {
    let (before, after) = (u128::from(usage(now)), u128::from(usage(then)));
    let replicas = u128::from(limits.replicas);
    let room = replicas * before + u128::from(left);
    // Steps with this many old pods gone.
    let is_full = |gone: u128| (replicas - gone) * before + (gone + 1) * after > room;
    replicas * after <= room && (0..replicas).any(is_full)
}

#[test]
fn a_pod_that_a_rollout_adds_counts_against_quotas() {
    let usage = |field: &QuotaField, pod: &PodSpec| {
        let of_container = |it: &PodContainer| {
            let (request, limit) = (field.resource.request(&it.values), field.resource.limit(&it.values));
            if field.is_limit { limit.unwrap_or(0) } else { request.or(limit).unwrap_or(0) }
        };
        pod.containers.iter().map(of_container).sum::<u64>()
    };
    let stuck = |case: &Case, then: &PodSpec| {
        let case = (case.0.clone(), then.clone(), case.2.clone());
        let fields = case.2.quotas.iter().flat_map(|quota| &quota.fields);
        let stuck =
            fields.filter(|field| is_stuck(&case, |pod| usage(field, pod), field.left.unwrap_or(u64::MAX)));
        stuck.map(QuotaField::name).collect::<std::collections::BTreeSet<_>>()
    };
    let needs_surge = |(now, then, limits): &Case| {
        limits.rollout.surge > 0 && limits.rollout.unavailable == 0 && now != then
    };
    ConstraintRule::SurgeQuota.prove(
        &edited(plain),
        |case| needs_surge(case) && !stuck(case, &case.1).is_empty(),
        |case| {
            let (then, found) = fitted(case);
            let named: std::collections::BTreeSet<_> = violations(&found)
                .filter_map(|it| match it {
                    Violation::SurgeQuota { field, .. } => Some(*field),
                    _ => None,
                })
                .collect();
            let wanted = stuck(case, &then);
            ensure(named == wanted, || format!("{named:?} instead of {wanted:?}: {found:?}"))
        },
    );
}

#[test]
fn a_pod_that_a_rollout_adds_needs_room_beside_all_pods() {
    let fits = |pod: &PodSpec, room: &PodRequests| {
        pod.request(Resource::Cpu) <= room.cpu && pod.request(Resource::Memory) <= room.memory
    };
    let is_full = |then: &PodSpec, limits: &ClusterLimits| {
        let created = admitted(then, &limits.ranges);
        let has_room = if limits.rollout.on_every_node {
            limits.room.iter().all(|room| fits(&created, room))
        } else {
            limits.room.iter().any(|room| fits(&created, room))
        };
        let node = limits.nodes.is_empty() || limits.nodes.iter().any(|node| fits(&created, node));
        node && !limits.room.is_empty() && !has_room
    };
    ConstraintRule::SurgeRoom.prove(
        &cases(),
        |(now, then, limits)| limits.rollout.surge > 0 && limits.rollout.unavailable == 0 && now != then,
        |case| {
            let (then, found) = fitted(case);
            let is_said = violations(&found).any(|it| matches!(it, Violation::SurgeRoom { .. }));
            let is_changed = admitted(&case.0, &[]) != admitted(&then, &case.2.ranges);
            ensure(is_said == (is_changed && is_full(&then, &case.2)), || format!("{then:?} {found:?}"))
        },
    );
}

#[test]
fn what_a_cluster_demands_neither_pins_cores_nor_ends_pinning() {
    use crate::workload::{QosClass, Role};
    // Guaranteed pods with whole and other cores, as the engine proposes them: what is whole stays whole, what is not stays apart.
    fn guaranteed((now, then, limits): &mut Case) {
        (now.pod, then.pod) = (None, None);
        for (before, after) in now.containers.iter_mut().zip(&mut then.containers) {
            let (memory, cpu) = (after.values.memory_request, before.values.cpu_request.unwrap_or(700));
            let is_whole = cpu.is_multiple_of(2);
            let shaped = |cpu: u64| {
                let cpu = if is_whole { cpu.next_multiple_of(1000).max(1000) } else { cpu | 1 };
                Resources {
                    cpu_request: Some(cpu),
                    cpu_limit: Some(cpu),
                    memory_request: memory,
                    memory_limit: memory,
                }
            };
            before.values = shaped(cpu);
            after.values =
                if after.is_advised { shaped(after.values.cpu_request.unwrap_or(1)) } else { before.values };
        }
        limits.ranges.iter_mut().for_each(|range| {
            // Bounds that people choose are often whole cores.
            let whole = |bound: Option<u64>| bound.map(|bound| bound.next_multiple_of(500));
            range.cpu = LimitBounds { min: whole(range.cpu.min), max: whole(range.cpu.max), ..range.cpu };
        });
    }
    let is_whole = |container: &PodContainer| container.values.cpu_limit.is_some_and(|cpu| cpu % 1000 == 0);
    let has_choice = |limits: &ClusterLimits, cpu: u64| {
        ranges_of(limits, LimitType::Container).all(|range| {
            range.cpu.min.is_none_or(|min| min < cpu) && range.cpu.max.is_none_or(|max| cpu + 1000 <= max)
        })
    };
    ConstraintRule::PinnedStays.prove(
        &edited(guaranteed),
        |(_, then, limits)| !limits.ranges.is_empty() && then.qos() == QosClass::Guaranteed,
        |case| {
            let (then, found) = fitted(case);
            if then.qos() != QosClass::Guaranteed {
                return Ok(());
            }
            let both = case.0.containers.iter().zip(&then.containers);
            for (before, after) in both.filter(|(_, after)| after.is_advised && after.role != Role::Init) {
                let cpu = after.values.cpu_limit.unwrap_or(0);
                let is_kept = is_whole(before) == is_whole(after) || !has_choice(&case.2, cpu);
                ensure(is_kept, || format!("{before:?} {after:?} {found:?}"))?;
            }
            Ok(())
        },
    );
}
