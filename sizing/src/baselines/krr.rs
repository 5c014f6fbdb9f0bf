//! [Robusta KRR](https://github.com/robusta-dev/krr) at d6baa745: the strategies `simple` and `simple_limit`.
//!
//! CPU is in millicores, memory in bytes.

/// `--cpu-min`: millicores.
pub const CPU_FLOOR: f64 = 10.0;
/// `--mem-min`: 100 MB.
pub const MEMORY_FLOOR: f64 = 1e8;
/// `--cpu_percentile`, as a share.
pub const CPU_SHARE: f64 = 0.95;
/// `simple_limit`'s request, as a share.
pub const LIMIT_REQUEST_SHARE: f64 = 0.66;
/// `simple_limit`'s limit, as a share.
pub const LIMIT_LIMIT_SHARE: f64 = 0.96;
/// `--points_required`, summed over pods.
pub const POINTS: usize = 100;
/// `--memory_buffer_percentage`, as a factor.
pub const MEMORY_BUFFER: f64 = 1.15;
/// `--oom_memory_buffer_percentage`, with `--use-oomkill-data`.
const OOM_BUFFER: f64 = 1.25;
const MIB: f64 = 1024.0 * 1024.0;

/// A quantile of sorted values, as computed by numpy and by Prometheus `quantile_over_time`: linear between the two nearest
/// ranks. `None` without values.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = last as f64 * share.clamp(0.0, 1.0);
    let below = *sorted.get(at as usize)?;
    let above = *sorted.get((at as usize + 1).min(last))?;
    let part = at - at.floor();
    // numpy has the same two branches; they differ in the last bit.
    Some(if part < 0.5 { below + (above - below) * part } else { above - (above - below) * (1.0 - part) })
}

/// CPU request of `simple`: the highest quantile of any pod, in whole millicores; `floor` is [`CPU_FLOOR`] or 0.
pub fn cpu_request(pods: &[Vec<f64>], floor: f64) -> Option<f64> {
    let highest = pods.iter().filter_map(|sorted| percentile(sorted, CPU_SHARE)).reduce(f64::max)?;
    Some(highest.ceil().max(floor))
}

/// CPU request and limit of `simple_limit`: quantiles of the samples of all pods together, in whole millicores.
pub fn cpu_request_and_limit(sorted: &[f64], floor: f64) -> Option<(f64, f64)> {
    let whole = |share| percentile(sorted, share).map(|value| value.ceil().max(floor));
    whole(LIMIT_REQUEST_SHARE).zip(whole(LIMIT_LIMIT_SHARE))
}

/// Memory request and limit of both: the highest sample plus 15 %, in whole MiB. `failed` is the highest limit with an OOM kill,
/// for `--use-oomkill-data`; `floor` is [`MEMORY_FLOOR`] or 0.
pub fn memory(highest: f64, failed: Option<f64>, floor: f64) -> f64 {
    let wanted = (highest * MEMORY_BUFFER).max(failed.unwrap_or(0.0) * OOM_BUFFER);
    ((wanted / MIB).ceil() * MIB).max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_hand() {
        let values: Vec<f64> = (1..=5).map(f64::from).collect();
        // Rank (5 − 1) · 0.95 = 3.8: between 4 and 5.
        assert!((percentile(&values, 0.95).unwrap() - 4.8).abs() < 1e-12);
        assert_eq!(
            (percentile(&values, 0.0), percentile(&values, 1.0), percentile(&[], 0.5)),
            (Some(1.0), Some(5.0), None)
        );
    }

    #[test]
    fn the_worst_pod_decides() {
        let quiet = vec![1.0; 20];
        let busy: Vec<f64> = (1..=21).map(f64::from).collect();
        // Rank 20 · 0.95 = 19, that is 20; the pooled one would be lower.
        assert_eq!(cpu_request(&[quiet, busy], CPU_FLOOR), Some(20.0));
        assert_eq!(cpu_request(&[vec![1.2; 9]], CPU_FLOOR), Some(10.0));
        assert_eq!(cpu_request(&[vec![1.2; 9]], 0.0), Some(2.0));
        assert_eq!(cpu_request(&[], CPU_FLOOR), None);
    }

    #[test]
    fn the_pooled_strategy() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(cpu_request_and_limit(&values, CPU_FLOOR), Some((66.0, 96.0)));
    }

    #[test]
    fn memory_by_hand() {
        // 200 MiB and 15 % are 230 MiB; 200 MiB and one byte more are rounded up.
        assert_eq!(memory(200.0 * MIB, None, MEMORY_FLOOR), 230.0 * MIB);
        assert_eq!(memory(200.0 * MIB + 1.0, None, MEMORY_FLOOR), 231.0 * MIB);
        assert_eq!(memory(10.0 * MIB, None, MEMORY_FLOOR), 1e8);
        assert_eq!(memory(10.0 * MIB, None, 0.0), 12.0 * MIB);
        assert_eq!(memory(200.0 * MIB, Some(240.0 * MIB), MEMORY_FLOOR), 300.0 * MIB);
    }
}
