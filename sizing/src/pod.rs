//! The effective requests of a pod, as the scheduler counts them.

use crate::workload::{Resources, Role};

/// Requested CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodRequests {
    /// Millicores.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

impl From<&Resources> for PodRequests {
    /// A container's requests. A missing request defaults to the limit, as in the API server, else to zero.
    fn from(resources: &Resources) -> Self {
        let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = resources;
        Self {
            cpu: cpu_request.or(*cpu_limit).unwrap_or(0),
            memory: memory_request.or(*memory_limit).unwrap_or(0),
        }
    }
}

impl PodRequests {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    /// The difference, at least zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }

    /// The maximum of each resource.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

/// The effective requests of a pod. Init containers run one after the other, each beside the sidecars started before it; then
/// sidecars and app containers run together
/// ([Kubernetes' rule](https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers)).
/// `containers` are in the order of the pod spec, init containers first.
pub fn effective_requests(containers: &[(Role, Resources)]) -> PodRequests {
    let requests = containers.iter().map(|(role, resources)| (*role, PodRequests::from(resources)));
    PodRequests {
        cpu: effective(requests.clone().map(|(role, requests)| (role, requests.cpu))),
        memory: effective(requests.map(|(role, requests)| (role, requests.memory))),
    }
}

/// The effective sum of one value over the containers of a pod, in the same order.
pub(crate) fn effective(containers: impl Iterator<Item = (Role, u64)>) -> u64 {
    let (mut starting, mut sidecars, mut apps) = (0_u64, 0_u64, 0_u64);
    for (role, value) in containers {
        match role {
            Role::Init => starting = starting.max(sidecars.saturating_add(value)),
            Role::Sidecar => sidecars = sidecars.saturating_add(value),
            Role::App => apps = apps.saturating_add(value),
        }
    }
    starting.max(sidecars.saturating_add(apps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(role: Role, cpu: u64) -> (Role, Resources) {
        (role, Resources { cpu_request: Some(cpu), memory_limit: Some(10 * cpu), ..Resources::default() })
    }

    #[test]
    fn init_containers_do_not_add_up() {
        let pod = [
            asking(Role::Init, 500),
            asking(Role::Init, 700),
            asking(Role::App, 200),
            asking(Role::App, 300),
        ];
        assert_eq!(effective_requests(&pod), PodRequests { cpu: 700, memory: 7000 });
    }

    #[test]
    fn sidecars_add_to_later_containers() {
        let before = [asking(Role::Sidecar, 100), asking(Role::Init, 700), asking(Role::App, 500)];
        let after = [asking(Role::Init, 700), asking(Role::Sidecar, 100), asking(Role::App, 500)];
        assert_eq!((effective_requests(&before).cpu, effective_requests(&after).cpu), (800, 700));
        assert_eq!(effective_requests(&[]), PodRequests::default());
    }
}
