//! One report of several clusters.

use super::report::{OfCluster, Report, Window};

impl Report {
    /// One report of several clusters, each with its name. Rows keep their cluster, and nothing of one is counted for another; the
    /// cost is that of all.
    pub fn join(reports: Vec<(String, Self)>) -> Option<Self> {
        let mut all = reports.into_iter().map(|(name, mut report)| {
            let (window, cost, delivered) = (report.window.clone(), report.cost, report.delivered);
            report.recommendations.iter_mut().for_each(|entry| entry.cluster.clone_from(&name));
            report.totals.iter_mut().for_each(|total| total.cluster.clone_from(&name));
            report.skipped.iter_mut().for_each(|skipped| skipped.cluster.clone_from(&name));
            report.clusters = vec![OfCluster { cluster: name, window, cost, delivered }];
            report
        });
        let first = all.next()?;
        Some(all.fold(first, |mut joined, other| {
            joined.window.join(other.window);
            joined.clusters.extend(other.clusters);
            joined.recommendations.extend(other.recommendations);
            joined.skipped.extend(other.skipped);
            joined.totals.extend(other.totals);
            joined.total = joined.total.plus(&other.total);
            joined.left_out += other.left_out;
            joined.cost = joined.cost.zip(other.cost).map(|(one, other)| one.plus(other));
            joined
        }))
    }
}

impl Window {
    /// Extends it by the window of another cluster.
    fn join(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.from = self.from.into_iter().chain(other.from).min();
        self.to = self.to.max(other.to);
        self.container_days += other.container_days;
    }
}
