//! OOM kills and restarts. The kubelet's counter of OOM events is 0 where the cgroup goes with its container, so kills are read
//! from kube-state-metrics too: a restart whose last termination has the reason `OOMKilled`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    error::PrometheusError,
    matcher::{Comparison, Matcher, Selection},
    query::{Aggregate, At, ContainerKey, Function, KEY, Points, Query, by_container, containers},
    reader::{Period, Reader},
};
use crate::advice::CommandRule;

/// Restarts are counted in steps of this many seconds.
pub(super) const STEP: u64 = 300;
const RESTARTS: [&str; 2] =
    ["kube_pod_container_status_restarts_total", "kube_pod_init_container_status_restarts_total"];
const LAST_REASON: [&str; 2] = [
    "kube_pod_container_status_last_terminated_reason",
    "kube_pod_init_container_status_last_terminated_reason",
];
const REASON: [&str; 2] =
    ["kube_pod_container_status_terminated_reason", "kube_pod_init_container_status_terminated_reason"];
const OOM_KILLED: &str = "OOMKilled";

/// What happened in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restarts {
    /// The end of the step, seconds.
    pub(super) at: u64,
    pub(super) restarts: u64,
    /// Of these, and of terminations without a restart, OOM kills.
    pub(super) kills: u64,
}

/// States of one container at the ends of steps.
#[derive(Debug, Default)]
pub(super) struct States {
    /// The restart count before the first step; `None` if the metrics begin later.
    pub(super) before: Option<u64>,
    /// The restart count, where it is above 0.
    pub(super) restarts: Points,
    /// Whether the last termination was an OOM kill.
    pub(super) last_reason: BTreeMap<u64, bool>,
    /// When the container was terminated by an OOM kill, and not yet started again.
    pub(super) terminated: BTreeSet<u64>,
}

/// Reads the states of all containers that ever restarted or were killed.
///
/// # Errors
/// When a query fails.
pub(super) fn read(
    reader: &Reader<'_>,
    selection: &Selection,
    period: Period,
) -> Result<BTreeMap<ContainerKey, States>, PrometheusError> {
    reader.begin("restarts and OOM kills");
    let mut all = BTreeMap::<ContainerKey, States>::new();
    if !CommandRule::KillsFromState.is_on() {
        return Ok(all);
    }
    let span = (period.from, period.end / STEP * STEP);
    let highest = |metrics| Query::new(metrics, selection).over(Function::MaxOverTime, STEP).above(0.0);
    reader.steps(&highest(&RESTARTS).by(Aggregate::Max, &KEY), span, STEP, |series| {
        for (key, points) in by_container(series) {
            all.entry(key).or_default().restarts.extend(points);
        }
    })?;
    if !all.is_empty() {
        let before = Query::new(&RESTARTS, selection).by(Aggregate::Max, &KEY);
        let before = reader.values(&before, At::Time(period.from))?;
        let before: BTreeMap<ContainerKey, u64> =
            containers(before).map(|(key, _, count)| (key, count as u64)).collect();
        if !before.is_empty() {
            // What did not exist then had no restarts.
            all.iter_mut()
                .for_each(|(key, states)| states.before = Some(before.get(key).copied().unwrap_or(0)));
        }
    }
    let by: Vec<&str> = KEY.into_iter().chain(["reason"]).collect();
    // The value at the end of a step: within a step, the last reason counts.
    let last = Query::new(&LAST_REASON, selection).above(0.0).by(Aggregate::Max, &by);
    reader.steps(&last, span, STEP, |series| {
        for (key, labels, points) in containers(series) {
            let is_kill = labels.get("reason").is_some_and(|reason| reason == OOM_KILLED);
            let reasons = &mut all.entry(key).or_default().last_reason;
            for (at, _) in points {
                *reasons.entry(at).or_default() |= is_kill;
            }
        }
    })?;
    let killed = highest(&REASON).matching(Matcher::new("reason", Comparison::Equal, OOM_KILLED));
    reader.steps(&killed.by(Aggregate::Max, &KEY), span, STEP, |series| {
        for (key, points) in by_container(series) {
            all.entry(key).or_default().terminated.extend(points.into_iter().map(|(at, _)| at));
        }
    })?;
    Ok(all)
}

impl States {
    /// Restarts and kills, step by step. `known_since` is when the container was first known: if nothing is known of the time
    /// before, what the counter of restarts shows then happened before.
    pub(super) fn restarts(&self, known_since: u64) -> Vec<Restarts> {
        let mut found = Vec::new();
        let mut before = self.before;
        for (at, count) in &self.restarts {
            // `as` saturates.
            let count = *count as u64;
            let is_first = before.is_none() && *at <= known_since.saturating_add(STEP);
            let restarts = match before {
                _ if is_first => 0,
                // A pod of the same name starts at 0.
                Some(before) if count < before => count,
                before => count - before.unwrap_or(0),
            };
            before = Some(count);
            if restarts > 0 {
                let kills = if self.is_kill(*at) { restarts } else { 0 };
                found.push(Restarts { at: *at, restarts, kills });
            }
        }
        for begun in self.terminated.iter().filter(|at| !self.terminated.contains(&(*at - STEP.min(**at)))) {
            let mut end = *begun;
            while self.terminated.contains(&(end + STEP)) {
                end += STEP;
            }
            // It may have been counted as a restart, before or after.
            let around = begun.saturating_sub(STEP)..=end + 2 * STEP;
            if !found.iter().any(|it| it.kills > 0 && around.contains(&it.at)) {
                found.push(Restarts { at: *begun, restarts: 0, kills: 1 });
            }
        }
        found.sort_by_key(|it| it.at);
        found
    }

    /// Whether the last termination before a time was an OOM kill; where nothing is known then, one step before or after.
    fn is_kill(&self, at: u64) -> bool {
        let reason = |at: u64| self.last_reason.get(&at).copied();
        reason(at).or_else(|| reason(at + STEP)).or_else(|| reason(at.saturating_sub(STEP))).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(restarts: &[(u64, u64)], kills: &[u64], others: &[u64], terminated: &[u64]) -> States {
        let reasons = kills.iter().map(|at| (*at, true)).chain(others.iter().map(|at| (*at, false)));
        States {
            before: None,
            restarts: restarts.iter().map(|(step, count)| (step * STEP, *count as f64)).collect(),
            last_reason: reasons.map(|(step, kill)| (step * STEP, kill)).collect(),
            terminated: terminated.iter().map(|step| step * STEP).collect(),
        }
    }

    fn found(states: &States, known_since: u64) -> Vec<(u64, u64, u64)> {
        let all = states.restarts(known_since * STEP);
        all.into_iter().map(|it| (it.at / STEP, it.restarts, it.kills)).collect()
    }

    #[test]
    fn a_restart_after_an_oom_kill_is_a_kill() {
        // Two kills, then a restart for another reason.
        let several = states(&[(5, 1), (6, 1), (9, 2), (12, 3)], &[5, 6, 9], &[12], &[]);
        assert_eq!(found(&several, 0), [(5, 1, 1), (9, 1, 1), (12, 1, 0)]);
        assert_eq!(found(&several, 4), [(9, 1, 1), (12, 1, 0)], "the first was before");
        let known = States { before: Some(0), ..states(&[(5, 1)], &[5], &[], &[]) };
        assert_eq!(found(&known, 4), [(5, 1, 1)]);
        // A pod of the same name, and one whose reason is known a step later only.
        let again = states(&[(5, 4), (9, 1)], &[10], &[5], &[]);
        assert_eq!(found(&again, 1), [(5, 4, 0), (9, 1, 1)]);
    }

    #[test]
    fn a_termination_without_a_restart_is_a_kill_too() {
        assert_eq!(found(&states(&[], &[], &[], &[7, 8, 9, 20]), 0), [(7, 0, 1), (20, 0, 1)]);
        // It was restarted afterwards.
        assert_eq!(found(&states(&[(8, 1)], &[8], &[], &[7]), 0), [(8, 1, 1)]);
    }
}
