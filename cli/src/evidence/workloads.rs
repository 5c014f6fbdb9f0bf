//! One history for each container of a workload, whatever the sources called it and however they measured it.

use std::collections::BTreeMap;

use snug_sizing::{
    evidence::{Evidence, HOUR},
    histogram::Histogram,
    workload::{Resources, Role, WorkloadKind, names},
};

use super::Snapshot;
use crate::advice::CommandRule;

/// Windows of a minute have the usage that shorter windows keep as minutes.
const MINUTE_MILLIS: u64 = 60_000;

/// Namespace, kind and name of the owner, and name of the container.
pub(super) type Subject = [String; 4];

pub(super) fn subject(evidence: &Evidence) -> Subject {
    let workload = &evidence.workload;
    [&workload.namespace, &workload.owner, &workload.name, &evidence.container.name].map(Clone::clone)
}

/// When a container was last seen, seconds: when its requests were read, or the end of the last hour with usage.
pub fn last_seen(evidence: &Evidence) -> u64 {
    let observed = evidence.hours.iter().rev().find(|(_, record)| record.observed > 0);
    let used = observed.map_or(0, |(hour, _)| (u64::from(hour.0) + 1).saturating_mul(HOUR));
    if evidence.container.seen > 0 { evidence.container.seen } else { used }
}

impl Snapshot {
    /// Makes one history of all that belongs to a container: runs of a CronJob, and CPU windows of several lengths. Pods that
    /// ended are not counted as replicas, and limits that limit nothing are none.
    #[must_use]
    pub fn unified(mut self) -> Self {
        for mut evidence in std::mem::take(&mut self.evidence).into_values() {
            if CommandRule::RunsOfACronJob.is_on() {
                join_run(&mut evidence);
            }
            if CommandRule::Unlimited.is_on() {
                let container = &mut evidence.container;
                container.current = container.current.effective();
                container.pod_resources = container.pod_resources.map(Resources::effective);
            }
            self.insert(evidence);
        }
        if CommandRule::OneRow.is_on() {
            self.join_windows();
        }
        if CommandRule::LivingReplicas.is_on() {
            for evidence in self.evidence.values_mut().filter(|evidence| !evidence.pods.is_empty()) {
                let pods = evidence.pods.len() as u64;
                evidence.workload.replicas = evidence.workload.replicas.min(pods);
            }
        }
        self
    }

    /// Remembers when any container was last seen, before some are selected.
    pub fn remember_last_seen(&mut self) {
        let newest = self.evidence.values().map(last_seen).max().unwrap_or(0);
        self.last_seen = self.last_seen.max(newest);
    }

    /// The lengths of CPU windows, milliseconds, that the history of a container does not have, although they were recorded;
    /// empty for most. The container is named by namespace, kind and name of the owner, and its own name.
    pub fn other_windows_of(&self, names: [&str; 4]) -> &[u64] {
        self.other_windows.get(&names.map(str::to_owned)).map_or(&[], Vec::as_slice)
    }

    fn join_windows(&mut self) {
        let mut by_subject: BTreeMap<Subject, Vec<Evidence>> = BTreeMap::new();
        for evidence in std::mem::take(&mut self.evidence).into_values() {
            by_subject.entry(subject(&evidence)).or_default().push(evidence);
        }
        for (subject, histories) in by_subject {
            let mut lengths: Vec<u64> = histories.iter().map(|one| one.window_millis).collect();
            let Some(evidence) = join(histories) else { continue };
            lengths.retain(|length| *length != evidence.window_millis);
            if !lengths.is_empty() {
                self.other_windows.insert(subject, lengths);
            }
            self.insert(evidence);
        }
    }
}

/// Joins the histories of one container in windows of several lengths. CPU windows come from the history that observed the
/// most, because windows of other lengths are not comparable; all else is of both.
fn join(mut histories: Vec<Evidence>) -> Option<Evidence> {
    let observed = |one: &Evidence| one.hours.values().map(|hour| hour.observed).fold(0, u64::saturating_add);
    histories.sort_by_key(|one| (observed(one), one.container.seen, std::cmp::Reverse(one.window_millis)));
    let mut longest = histories.pop()?;
    for mut other in histories {
        let has_minutes =
            longest.hours.values().any(|hour| !hour.minutes.is_empty() || !hour.minutes_start.is_empty());
        for hour in other.hours.values_mut() {
            let [windows, of_start] = [&mut hour.cpu, &mut hour.cpu_start].map(std::mem::take);
            if !has_minutes {
                (hour.minutes, hour.minutes_start) = (Histogram::default(), Histogram::default());
            } else if other.window_millis == MINUTE_MILLIS {
                (hour.minutes, hour.minutes_start) = (windows, of_start);
            }
        }
        other.window_millis = longest.window_millis;
        // Both count the same pods.
        let replicas = match longest.container.seen.cmp(&other.container.seen) {
            std::cmp::Ordering::Less => other.workload.replicas,
            std::cmp::Ordering::Equal => longest.workload.replicas.max(other.workload.replicas),
            std::cmp::Ordering::Greater => longest.workload.replicas,
        };
        // Merging fails only for other containers and windows.
        drop(longest.merge(&other));
        longest.workload.replicas = replicas;
    }
    Some(longest)
}

/// Gives the run of a CronJob, known by its Job alone, to the CronJob.
fn join_run(evidence: &mut Evidence) {
    let Some((first, last)) = evidence.span().filter(|_| evidence.workload.owner == "Job") else { return };
    let [first, last] =
        [u64::from(first.0), u64::from(last.0).saturating_add(1)].map(|hour| hour.saturating_mul(HOUR));
    // The first hour may have begun before the run did.
    if let Some(name) = names::cron_job_of_job(&evidence.workload.name, first, last) {
        evidence.workload.name = name.to_owned();
        "CronJob".clone_into(&mut evidence.workload.owner);
        evidence.workload.kind = WorkloadKind::Job;
    }
}

/// Why a container gets no advice because it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneFor {
    /// The workload had no pod for this time, seconds.
    Workload(u64),
    /// The workload ran on without this container for this time, seconds.
    Container(u64),
}

/// Which workloads and containers are gone.
#[derive(Debug, Default)]
pub struct Gone {
    /// When the newest container of the workload was seen, by namespace, kind and name.
    workloads: BTreeMap<[String; 3], u64>,
    /// When anything was seen.
    newest: u64,
}

/// Seconds without a pod after which a workload is gone: a day, because many are scaled to zero at night. Units of timers and
/// Jobs run rarely: they get a week and a month, and a day.
fn gone_after(evidence: &Evidence) -> u64 {
    const DAY: u64 = 24 * HOUR;
    match (evidence.workload.kind, evidence.workload.owner.as_str()) {
        (WorkloadKind::Job, _) => 32 * DAY,
        (_, "Unit") => 8 * DAY,
        _ => DAY,
    }
}

impl Gone {
    /// By the times at which containers of a snapshot were last seen.
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut gone = Self { newest: snapshot.last_seen, ..Self::default() };
        for evidence in snapshot.evidence() {
            let seen = last_seen(evidence);
            let newest = gone.workloads.entry(workload(evidence)).or_default();
            *newest = seen.max(*newest);
            gone.newest = gone.newest.max(seen);
        }
        gone
    }

    /// Whether and for how long the container, or all of its workload, is gone. Init containers run at the start of a pod only,
    /// so they are gone with their workload.
    pub fn since(&self, evidence: &Evidence) -> Option<GoneFor> {
        if !CommandRule::Gone.is_on() {
            return None;
        }
        let of_workload = *self.workloads.get(&workload(evidence))?;
        let without_pods = self.newest.saturating_sub(of_workload);
        if without_pods > gone_after(evidence) {
            return Some(GoneFor::Workload(without_pods));
        }
        let behind = of_workload.saturating_sub(last_seen(evidence));
        let runs_on = evidence.container.role != Role::Init && evidence.workload.kind != WorkloadKind::Job;
        (runs_on && behind > HOUR).then_some(GoneFor::Container(behind))
    }
}

fn workload(evidence: &Evidence) -> [String; 3] {
    let [namespace, owner, name, _] = subject(evidence);
    [namespace, owner, name]
}

#[cfg(test)]
mod tests;
