//! What was asked, and what past decisions for a cluster delivered: the same decisions made again with what was known then, each
//! judged when its day was over.

use std::fmt;

use serde::Serialize;

use super::{calibration::Pool, risk::Risk, text::percent};

/// Pod-days times the risk from which on a cluster's own past decides.
pub(super) const KNOWN: f64 = 20.0;

/// Asked and delivered, of memory and CPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SoFar {
    /// Pod-days with usage above the memory limit, as a share of all.
    pub memory: DeliveredShare,
    /// CPU time above the request, as a share of all: the mean over workloads.
    pub cpu: DeliveredShare,
}

/// Asked and delivered, of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DeliveredShare {
    /// The asked risk.
    pub asked: f64,
    /// The delivered share, at the asked risk or at one near it; `None` before any day was judged.
    pub delivered: Option<f64>,
    /// Pod-days judged.
    pub pod_days: f64,
    /// Pod-days from which on the cluster's own past decides: 20 ÷ the asked risk. With fewer, what other clusters showed (the prior)
    /// decides more or less.
    pub needed: f64,
}

impl DeliveredShare {
    /// Of a share and the pod-days that it was judged on.
    pub(super) fn new(asked: f64, delivered: Option<(f64, f64)>) -> Self {
        let (share, pod_days) = delivered.unzip();
        Self { asked, delivered: share, pod_days: pod_days.unwrap_or(0.0), needed: KNOWN / asked }
    }

    /// Whether there are too few pod-days for the cluster's own past to decide.
    pub fn is_prior(&self) -> bool {
        self.pod_days < self.needed
    }
}

impl Pool {
    /// What past decisions at a risk delivered.
    pub fn so_far(&self, risk: Risk) -> SoFar {
        let memory = self.memory.delivered(risk.oom_kills);
        let pod_days = self.memory.pod_days();
        let memory = memory.filter(|_| pod_days > 0.0).map(|(_, it)| (it.seen / pod_days, pod_days));
        SoFar {
            memory: DeliveredShare::new(risk.oom_kills, memory),
            cpu: DeliveredShare::new(risk.cpu_work, self.cpu.replay.delivered(risk.cpu_work)),
        }
    }
}

impl fmt::Display for SoFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, cpu } = self;
        f.write_str("delivered on this cluster so far: ")?;
        match (memory.delivered, cpu.delivered) {
            (None, None) => f.write_str("no day is judged yet")?,
            _ => {
                if let Some(share) = memory.delivered {
                    let days = memory.pod_days;
                    write!(f, "{:.1} of {days:.0} pod-days above the memory limit", share * days)?;
                }
                if let Some(share) = cpu.delivered {
                    let gap = if memory.delivered.is_some() { ", " } else { "" };
                    let days = cpu.pod_days;
                    write!(
                        f,
                        "{gap}{} of CPU time above the request over {days:.0} pod-days",
                        percent(share)
                    )?;
                }
            }
        }
        let few: Vec<String> = [("memory", memory), ("CPU", cpu)]
            .into_iter()
            .filter(|(_, it)| it.is_prior())
            .map(|(name, it)| format!("{:.0} for {name}", it.needed))
            .collect();
        if few.is_empty() {
            return Ok(());
        }
        write!(f, "; until there are {}, the prior from other clusters decides in part", few.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn so_far(memory: Option<(f64, f64)>, cpu: Option<(f64, f64)>) -> SoFar {
        SoFar { memory: DeliveredShare::new(0.0025, memory), cpu: DeliveredShare::new(0.01, cpu) }
    }

    #[test]
    fn sentences() {
        assert_eq!(
            so_far(None, None).to_string(),
            "delivered on this cluster so far: no day is judged yet; until there are 8000 for memory and 2000 for CPU, the prior from \
             other clusters decides in part"
        );
        assert_eq!(
            so_far(Some((0.002, 3000.0)), Some((0.0084, 2800.0))).to_string(),
            "delivered on this cluster so far: 6.0 of 3000 pod-days above the memory limit, 0.84 % of CPU time above the request over 2800 \
             pod-days; until there are 8000 for memory, the prior from other clusters decides in part"
        );
        assert_eq!(
            so_far(Some((0.0, 9000.0)), Some((0.0, 9000.0))).to_string(),
            "delivered on this cluster so far: 0.0 of 9000 pod-days above the memory limit, 0.00 % of CPU time above the request over 9000 \
             pod-days"
        );
    }

    #[test]
    fn a_cluster_without_any_past_has_the_prior() {
        let found = Pool::default().so_far(super::super::Profile::Standard.risk());
        assert_eq!((found.memory.delivered, found.cpu.delivered), (None, None));
        assert!(found.memory.is_prior() && found.cpu.is_prior());
        assert_eq!((found.memory.needed, found.cpu.needed), (8000.0, 2000.0));
    }
}
