//! Kruize as a policy.

use crate::{
    backtest::{
        policy::{Policy, PolicyInput, Values},
        trace::Series,
    },
    baselines::kruize::{INTERVAL, WINDOW_DAYS, cpu, memory},
};

/// A model of Kruize.
#[derive(Debug)]
pub(super) struct Kruize {
    /// CPU percentile, as a share.
    pub(super) share: f64,
}

/// The lowest and highest usage of each interval of the last days, or of all time if these have no usage.
fn intervals<'s>(series: &(impl Iterator<Item = &'s Series> + Clone), now: usize) -> Vec<(f64, f64)> {
    let since = |first: usize| {
        let mut intervals = vec![None; (now - first).div_ceil(INTERVAL)];
        for (minute, usage) in series.clone().flat_map(|series| series.range(first, now)) {
            let Some(interval) = intervals.get_mut((minute - first) / INTERVAL) else { continue };
            let (lowest, highest) = interval.unwrap_or((usage, usage));
            *interval = Some((usage.min(lowest), usage.max(highest)));
        }
        intervals.into_iter().flatten().collect::<Vec<_>>()
    };
    let recent = since(now.saturating_sub(WINDOW_DAYS * 1440));
    if recent.is_empty() { since(0) } else { recent }
}

impl Policy for Kruize {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let highest = intervals(&view.rows.iter().map(|row| &row.cpu), view.now);
        Some(Values {
            cpu: cpu(highest.into_iter().map(|(_, highest)| highest).collect(), self.share)?,
            memory: memory(&intervals(&view.memory.iter(), view.now))?,
        })
    }
}
