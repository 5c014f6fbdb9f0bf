//! CPU usage of a node's workloads over the last hours, minute by minute, from the agent's history.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use snug_sizing::minutes::{MINUTE, Minute, MinuteRecord, Minutes};

use super::rows::ContainerRow;
use crate::evidence::Snapshot;

/// Highest number of columns in a plot.
const MAX_COLUMNS: u64 = 30;

/// Minutes by container of a workload, over all its pods on the node.
#[derive(Debug, Default)]
pub(crate) struct UsageHistory {
    /// Keys are namespace, kind and name of the workload, and name of the container.
    by_container: BTreeMap<[String; 4], Minutes>,
    /// The first minute of the plot.
    first: Minute,
    minutes_per_column: u32,
    columns: u32,
}

impl UsageHistory {
    /// The path of the history of the last `last`, at a time in seconds.
    pub(crate) fn path(now: u64, last: Duration) -> String {
        format!("/api/v1/evidence?since={}&minutes=true", now.saturating_sub(last.as_secs()))
    }

    /// Reads the response for [`Self::path`].
    pub(crate) fn read(body: &[u8], now: u64, last: Duration) -> Result<Self> {
        let snapshot = Snapshot::from_reader("the agent's response", body)?;
        let evidence = snapshot.evidence().map(|evidence| {
            let workload = &evidence.workload;
            let names = [&workload.namespace, &workload.owner, &workload.name, &evidence.container.name];
            (names.map(Clone::clone), evidence.minutes.clone())
        });
        Ok(Self::new(evidence.collect(), now, last))
    }

    /// A history without any usage.
    pub(crate) fn empty(now: u64, last: Duration) -> Self {
        Self::new(BTreeMap::new(), now, last)
    }

    fn new(by_container: BTreeMap<[String; 4], Minutes>, now: u64, last: Duration) -> Self {
        let minutes = last.as_secs() / MINUTE;
        let minutes_per_column = minutes.div_ceil(MAX_COLUMNS).max(1);
        let columns = minutes.div_ceil(minutes_per_column).max(1);
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        // The current minute is the last one of the last column.
        let first = Minute::from_seconds(now)
            .0
            .saturating_add(1)
            .saturating_sub(narrow(columns * minutes_per_column));
        Self {
            by_container,
            first: Minute(first),
            minutes_per_column: narrow(minutes_per_column),
            columns: narrow(columns),
        }
    }

    /// Mean cores per replica of a row's container, by column; `None` if no replica was observed.
    pub(crate) fn cores(&self, row: &ContainerRow) -> Vec<Option<f64>> {
        let names = [&row.namespace, &row.workload_kind, &row.workload, &row.container].map(Clone::clone);
        let minutes = self.by_container.get(&names);
        let column = |number: u32| {
            let begin = self.first.0.saturating_add(number * self.minutes_per_column);
            let mut sum = MinuteRecord::default();
            let column = Minute(begin)..Minute(begin.saturating_add(self.minutes_per_column));
            minutes?.range(column).for_each(|(_, minute)| sum.merge(minute));
            sum.cores()
        };
        (0..self.columns).map(column).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_history(minutes: &[(u32, u64)], now: u64, last: Duration) -> UsageHistory {
        let record = |(minute, cpu_millis): &(u32, u64)| {
            let record =
                MinuteRecord { observed_millis: 60_000, cpu_millis: *cpu_millis, ..MinuteRecord::default() };
            (Minute(*minute), record)
        };
        let names = ["shop", "Deployment", "web", "app"].map(str::to_owned);
        UsageHistory::new([(names, minutes.iter().map(record).collect())].into(), now, last)
    }

    fn row(container: &str) -> ContainerRow {
        ContainerRow {
            namespace: "shop".to_owned(),
            workload_kind: "Deployment".to_owned(),
            workload: "web".to_owned(),
            container: container.to_owned(),
            ..ContainerRow::default()
        }
    }

    #[test]
    fn a_column_is_a_minute_or_more() {
        let hour = usage_history(
            &[(941, 6_000), (942, 18_000), (1000, 60_000)],
            1000 * 60 + 5,
            Duration::from_secs(3600),
        );
        let cores = hour.cores(&row("app"));
        assert_eq!((cores.len(), cores[0], cores[1], cores[29]), (30, Some(0.2), None, Some(1.0)));
        let short = usage_history(&[(999, 6_000), (1000, 3_000)], 1000 * 60, Duration::from_secs(180));
        assert_eq!(short.cores(&row("app")), [None, Some(0.1), Some(0.05)]);
        assert_eq!(short.cores(&row("other")), [None; 3]);
    }
}
