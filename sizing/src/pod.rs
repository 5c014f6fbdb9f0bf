//! What a pod asks for in all, as the scheduler counts it.

use crate::workload::{Resources, Role};

/// CPU in millicores and memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Millicores.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

impl Asked {
    /// A container's requests; a missing one is its limit, as the API server has it, else nothing.
    pub fn of(resources: &Resources) -> Self {
        let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = resources;
        Self {
            cpu: cpu_request.or(*cpu_limit).unwrap_or(0),
            memory: memory_request.or(*memory_limit).unwrap_or(0),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    /// What is left of it without another; not below nothing.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }

    /// The greater of both, of each resource on its own.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

/// The pod's effective request: init containers run one after the other, each beside the sidecars that were started before it; then
/// all others run together
/// ([Kubernetes' rule](https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers)).
/// Containers are in the order of the pod's specification, init containers first.
pub fn effective(containers: &[(Role, Resources)]) -> Asked {
    let mut starting = Asked::default();
    let mut sidecars = Asked::default();
    let mut apps = Asked::default();
    for (role, resources) in containers {
        let asked = Asked::of(resources);
        match role {
            Role::Init => starting = starting.at_least(sidecars.plus(asked)),
            Role::Sidecar => sidecars = sidecars.plus(asked),
            Role::App => apps = apps.plus(asked),
        }
    }
    starting.at_least(sidecars.plus(apps))
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
        assert_eq!(effective(&pod), Asked { cpu: 700, memory: 7000 });
    }

    #[test]
    fn sidecars_run_beside_what_comes_after_them() {
        let before = [asking(Role::Sidecar, 100), asking(Role::Init, 700), asking(Role::App, 500)];
        let after = [asking(Role::Init, 700), asking(Role::Sidecar, 100), asking(Role::App, 500)];
        assert_eq!((effective(&before).cpu, effective(&after).cpu), (800, 700));
        assert_eq!(effective(&[]), Asked::default());
    }
}
