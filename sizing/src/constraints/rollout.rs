//! The pods that a rollout starts before it ends old ones. They count against quotas and need room on a node, beside all others.

use crate::pod::PodRequests;

use super::{
    advice::ConstraintRule, pod_spec::PodSpec, quota::Quota, resource::Resource, violation::Violation,
};

/// How the pods of a workload are replaced, in pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// New pods beside all old ones (`maxSurge`).
    pub surge: u64,
    /// Old pods that may end before new ones run (`maxUnavailable`).
    pub unavailable: u64,
    /// Whether the new pod runs on the node of the old one, as with DaemonSets.
    pub on_every_node: bool,
}

impl Rollout {
    /// Whether a rollout waits until a new pod runs beside all old ones.
    const fn needs_surge(self) -> bool {
        self.surge > 0 && self.unavailable == 0
    }
}

/// What a rollout from one admitted pod to another needs for a while and does not get. `room` is what each node that the pod
/// may run on has beside all pods.
pub(super) fn violations(
    now: &PodSpec,
    then: &PodSpec,
    (replicas, rollout): (u64, Rollout),
    quotas: &[Quota],
    room: &[PodRequests],
) -> Vec<Violation> {
    // Without a change there is no rollout.
    if now == then || replicas == 0 || !rollout.needs_surge() {
        return Vec::new();
    }
    let mut found = of_quotas(now, then, replicas, quotas);
    if ConstraintRule::SurgeRoom.is_on() {
        found.extend(no_room(then, rollout, room));
    }
    found
}

/// With one new pod beside the old ones. The last step needs most if pods become larger: all others are new, and one is old. If
/// they become smaller, the first step does.
fn of_quotas(now: &PodSpec, then: &PodSpec, replicas: u64, quotas: &[Quota]) -> Vec<Violation> {
    let mut found = Vec::new();
    for quota in quotas.iter().filter(|quota| quota.counts(then) && ConstraintRule::SurgeQuota.is_on()) {
        let was_counted = quota.counts(now);
        for field in &quota.fields {
            let (before, after) = (if was_counted { field.usage(now) } else { 0 }, field.usage(then));
            let at_the_end = after.saturating_sub(before).saturating_mul(replicas);
            let more = if after > before { at_the_end.saturating_add(before) } else { after };
            // What does not fit at the end either is a violation of its own.
            let is_exceeded = |left: &u64| more > *left && at_the_end <= *left;
            if let Some(left) = field.left.filter(is_exceeded) {
                let (resource, name, quota) = (field.resource, field.name(), quota.name.clone());
                found.push(Violation::SurgeQuota { resource, more, left, field: name, quota });
            }
        }
    }
    found
}

fn no_room(then: &PodSpec, rollout: Rollout, room: &[PodRequests]) -> Option<Violation> {
    let (cpu, memory) = (then.request(Resource::Cpu), then.request(Resource::Memory));
    let fits = |room: &PodRequests| cpu <= room.cpu && memory <= room.memory;
    let has_room = if rollout.on_every_node { room.iter().all(fits) } else { room.iter().any(fits) };
    (!room.is_empty() && !has_room).then_some(Violation::SurgeRoom { cpu, memory })
}
