//! What followed a decision: how many pods needed how much.

use std::collections::BTreeSet;

use super::{DAY, HourPeaks, Kill, PodNumber};
use crate::histogram::Histogram;

/// What followed a decision, in the hours of a day.
///
/// The history has the pod with the highest peak of each hour, and how the usage of all pods was distributed. So these pods are known to
/// have been above a limit: each that had the highest peak of an hour above it, and in the hour with the highest peak of all, as many as
/// the share of usage above it. What a single pod did in another pod's shadow is not known, and not counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<'e> {
    /// The highest known need of each pod, descending, bytes.
    needs: Vec<f64>,
    /// Pod-days observed, and at least one of each pod that is known.
    pub pods: f64,
    /// Pods that OOM kills ended, so that they would have needed more.
    pub killed: f64,
    /// Usage of the hour with the highest peak, and its pods.
    busiest: Option<(&'e Histogram, f64)>,
}

impl<'e> Outcome<'e> {
    /// From the hours of a day and the OOM kills in them.
    pub(super) fn new(day: &[HourPeaks<'e>], kills: &[Kill]) -> Self {
        let mut of_pods: Vec<(PodNumber, f64)> = Vec::new();
        let mut add = |pod: PodNumber, bytes: f64| match of_pods.iter_mut().find(|(known, _)| *known == pod) {
            Some((_, highest)) => *highest = highest.max(bytes),
            None => of_pods.push((pod, bytes)),
        };
        day.iter().flat_map(HourPeaks::needs).for_each(|need| add(need.pod, need.bytes as f64));
        // More than the limit that was hit.
        kills.iter().for_each(|kill| add(kill.pod, kill.limit as f64 + 1.0));
        let killed: BTreeSet<PodNumber> = kills.iter().map(|kill| kill.pod).collect();
        let known = of_pods.len() as f64;
        let mut needs: Vec<f64> = of_pods.into_iter().map(|(_, bytes)| bytes).collect();
        needs.sort_by(|a, b| b.total_cmp(a));
        let busiest = day.iter().max_by(|a, b| a.highest().total_cmp(&b.highest()));
        // Where page cache was left out of the peak, it is part of the distribution.
        let busiest = busiest.filter(|hour| hour.is_whole());
        Self {
            needs,
            pods: (day.iter().map(|hour| hour.pods).sum::<f64>() / DAY as f64).max(known),
            killed: killed.len() as f64,
            busiest: busiest.map(|hour| (&hour.record.working_set, hour.pods)),
        }
    }

    /// The highest need, bytes.
    pub fn need(&self) -> f64 {
        self.needs.first().copied().unwrap_or(0.0)
    }

    /// Pods that are known to have needed more than a limit in bytes; at least one if any did.
    pub fn pods_above(&self, limit: f64) -> f64 {
        let known = self.needs.partition_point(|need| *need > limit) as f64;
        if known <= 0.0 {
            return 0.0;
        }
        let together = self.busiest.map_or(0.0, |(usage, pods)| usage.share_above(limit) * pods);
        known.max(together).min(self.pods)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        engine::memory::PeakHistory,
        evidence::{Evidence, HOUR, Hour, OomKill, Peak},
        workload::tests::{container, workload},
    };

    /// A day of so many pods. Of each hour: the pod with the highest peak, and the usage of all.
    fn day(pods: u64, hours: &[(u64, &[u64])]) -> Evidence {
        let mut evidence = Evidence::new(workload("web"), container("app"), 100);
        for (hour, (highest, usage)) in hours.iter().enumerate() {
            let record = evidence.hour(Hour(hour as u32));
            record.observed = pods * HOUR;
            for bytes in *usage {
                record.working_set.record(*bytes as f64, HOUR);
            }
            let bytes = usage.iter().max().copied().unwrap_or(0);
            record.peak = Some(Peak { bytes, at: hour as u64 * HOUR, pod: format!("web-{highest}") });
        }
        evidence
    }

    fn above(evidence: &Evidence, limit: f64) -> f64 {
        PeakHistory::new(evidence).outcome(Hour(0)).unwrap().pods_above(limit)
    }

    #[test]
    fn pods_that_took_turns_count_each() {
        let evidence = day(4, &[(1, &[300, 90]), (2, &[250, 90]), (1, &[280, 90]), (3, &[100, 90])]);
        // In the first hour half of the usage is high: two pods, of no more than three that are known to have run.
        let found = [99.0, 200.0, 260.0, 300.0].map(|limit| above(&evidence, limit));
        assert_eq!(found, [3.0, 2.0, 2.0, 0.0]);
    }

    #[test]
    fn pods_that_are_high_together_count_each() {
        // In the first hour three of four pods are far above 200.
        let mut hours: [(u64, &[u64]); 24] = [(1, &[100]); 24];
        hours[7] = (1, &[300, 300, 300, 100]);
        let together = day(4, &hours);
        assert!((above(&together, 200.0) - 3.0).abs() < 1e-9);
        // An hour is a day for short jobs: no more pods than ran.
        let one = day(1, &[(1, &[300, 300])]);
        assert_eq!(above(&one, 200.0), 1.0);
    }

    #[test]
    fn a_killed_pod_needed_more_than_its_limit() {
        let mut evidence = day(1, &[(1, &[200])]);
        let kill = |limit, pod: &str| OomKill { at: 0, limit, pod: pod.to_owned() };
        evidence.hour(Hour(0)).kills = vec![kill(200, "web-1"), kill(200, "web-2"), kill(150, "web-2")];
        let history = PeakHistory::new(&evidence);
        let outcome = history.outcome(Hour(0)).unwrap();
        assert_eq!((outcome.killed, outcome.pods, outcome.need()), (2.0, 2.0, 201.0));
        assert_eq!([200.0, 201.0].map(|limit| outcome.pods_above(limit)), [2.0, 0.0]);
    }

    proptest! {
        #[test]
        fn fewer_pods_are_above_a_higher_limit(
            pods in 1..9_u64,
            hours in prop::collection::vec((0..8_u64, prop::collection::vec(1..1000_u64, 1..9)), 1..24),
            limit in 0.0..1100.0_f64,
            more in 0.0..300.0_f64,
        ) {
            let hours: Vec<(u64, &[u64])> = hours.iter().map(|(highest, usage)| (*highest, usage.as_slice())).collect();
            let evidence = day(pods, &hours);
            let history = PeakHistory::new(&evidence);
            let outcome = history.outcome(Hour(0)).unwrap();
            let (low, high) = (outcome.pods_above(limit), outcome.pods_above(limit + more));
            prop_assert!(high <= low + 1e-9 && low <= outcome.pods);
            prop_assert_eq!(low >= 1.0, outcome.need() > limit);
            prop_assert_eq!(low > 0.0, low >= 1.0);
        }
    }
}
