//! When a previously recommended value, or a current one, is kept.
//!
//! A change of memory restarts pods, so a value that is nearly right is kept. How near is a matter of risk, not of bytes. The asked risk
//! is an average over all workloads, and most current values have less of it: a value is not lowered for a small saving, and history
//! grows. So a current limit is raised when the risk that is expected at it is more than `MAX_RISK` times the asked one, or when usage
//! or an OOM kill was above it. On recorded usage, limits that were raised as soon as they were 3 % too low were raised in six of seven
//! cases after a peak that was higher than those before, and still far below the limit. With the risk as the measure, a third fewer
//! limits changed and footprints were up to 2 % smaller, at the same number of violations at 0.25 %; at 1 % and 5 % it is the same trade
//! as on the curve of risk and footprint, up to 1.5 % worse. Factors of 2, 2.5, 3 and 4 had 0.52, 0.42, 0.40 and 0.36 times the changes
//! of VPA without floors. To wait until usage was above a limit cost 1 to 4 % more memory at the same risk, because all other values had
//! to be higher for it.
//!
//! A value is lowered when the saving is large: at least a quarter of a memory limit and 35 % of a CPU request, and a larger share of small
//! values, of CPU requests up to three quarters. Requests lowered at a quarter changed 1.3 to 1.6 times as often as at 35 %, at the same footprint for
//! the same risk on one cluster, and 1 % less on the other.

use super::reason::Confidence;

/// Smallest share that lowering a memory limit must save, and a CPU request: as history grows, requests fall for days.
const MIN_MEMORY_SHARE: f64 = 0.25;
const MIN_CPU_SHARE: f64 = 0.35;
/// Usage at which lowering must save 30 %. The share falls with the square root of usage, as headroom does.
const MEMORY_SIZE: f64 = 1024.0 * 1024.0 * 1024.0;
const MEMORY_SAVING: f64 = 0.3;
/// Largest share that lowering must save: half of any limit is worth a change, and three quarters of any request.
const MAX_MEMORY_SAVING: f64 = 0.5;
const MAX_CPU_SAVING: f64 = 0.75;
/// A limit is kept while the risk at it is at most so many times the asked one.
const MAX_RISK: f64 = 2.5;
/// The largest share by which a CPU request is raised: what is lowered to a quarter is raised to four times.
const MAX_CPU_RAISE: f64 = 3.0;
/// Smallest share by which a CPU request is raised: the quantile moves by less than this from day to day.
const CPU_RAISE: f64 = 0.1;
/// Smallest change of a request of one core. The share falls with the square root of the request.
const CPU_CHANGE: f64 = 0.12;

/// Whether the previous memory limit `set` is kept instead of `wanted`. All in bytes; `used` is the weighted highest usage,
/// `failed` the lowest limit that OOM kills allow. `risk` is that at `set`, as a part of the asked one.
pub fn keeps_memory(set: f64, wanted: f64, used: f64, failed: f64, risk: f64) -> bool {
    let saving = MEMORY_SAVING * (MEMORY_SIZE / used.max(1.0)).sqrt();
    let lowest = set * (1.0 - saving.clamp(MIN_MEMORY_SHARE, MAX_MEMORY_SAVING));
    let is_enough = wanted < set * (1.0 + MIN_MEMORY_RAISE) || risk <= MAX_RISK;
    set >= used && set >= failed && wanted >= lowest && is_enough
}

/// Whether the previous CPU request `set` is kept instead of `wanted`; millicores.
pub fn keeps_cpu(set: f64, wanted: f64) -> bool {
    let change = CPU_CHANGE * (1000.0 / wanted.max(1.0)).sqrt();
    wanted <= set * (1.0 + change.clamp(CPU_RAISE, MAX_CPU_RAISE))
        && wanted >= set * (1.0 - change.clamp(MIN_CPU_SHARE, MAX_CPU_SAVING))
}

/// The largest share by which a value is lowered at once, with a low, a medium and a high confidence.
const LARGEST_STEPS: [f64; 3] = [0.25, 0.5, 0.75];

/// The largest share by which a value is lowered at once.
pub const fn largest_step(confidence: Confidence) -> f64 {
    let [low, medium, high] = LARGEST_STEPS;
    match confidence {
        Confidence::Low => low,
        Confidence::Medium => medium,
        Confidence::High => high,
    }
}

/// Smallest change of a current value, as a share of it. A smaller one is not worth a restart.
const MIN_CHANGE: f64 = 0.1;
/// Smallest raise of a memory limit. Smaller than a reduction, because a limit that is too low kills.
const MIN_MEMORY_RAISE: f64 = 0.03;
/// Smallest reductions of current values: millicores and bytes.
const MIN_CPU_SAVING: u64 = 5;
const MIN_MEMORY_SAVING: u64 = 4 << 20;

/// Whether a current CPU request or limit stays, because `wanted` differs too little; millicores.
pub fn is_small_cpu_change(current: u64, wanted: u64) -> bool {
    is_small(current, wanted, MIN_CHANGE, MIN_CPU_SAVING)
}

/// Whether a current memory request or limit stays, because `wanted` differs too little; bytes.
pub fn is_small_memory_change(current: u64, wanted: u64) -> bool {
    is_small(current, wanted, MIN_MEMORY_RAISE, MIN_MEMORY_SAVING)
}

fn is_small(current: u64, wanted: u64, raise: f64, saving: u64) -> bool {
    let change = current.abs_diff(wanted);
    let share = if wanted > current { raise } else { MIN_CHANGE };
    (change as f64) < share * current as f64 || wanted < current && change < saving
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;

    #[test]
    fn memory_is_raised_when_it_is_too_low() {
        let keeps = |wanted: f64, used: f64, failed: f64, risk: f64| {
            keeps_memory(100.0 * MIB, wanted * MIB, used * MIB, failed * MIB, risk)
        };
        assert!(keeps(102.0, 99.0, 0.0, 9.0) && !keeps(103.5, 99.0, 0.0, 9.0));
        assert!(keeps(140.0, 99.0, 0.0, 2.4) && !keeps(140.0, 99.0, 0.0, 2.6));
        // Whatever the risk: usage was above it, or a kill was at it.
        assert!(!keeps(102.0, 101.0, 0.0, 0.0) && !keeps(102.0, 50.0, 101.0, 0.0));
    }

    #[test]
    fn small_values_need_a_larger_saving() {
        // 30 % of a gibibyte, a quarter of eight, half of 64 mebibytes.
        for (used, kept, lowered) in [(1024.0, 0.71, 0.69), (8192.0, 0.76, 0.74), (64.0, 0.51, 0.49)] {
            let set = 1.5 * used * MIB;
            assert!(keeps_memory(set, kept * set, used * MIB, 0.0, 1.0), "{used}");
            assert!(!keeps_memory(set, lowered * set, used * MIB, 0.0, 1.0), "{used}");
        }
    }

    #[test]
    fn cpu_is_kept_within_a_band() {
        assert!(keeps_cpu(1000.0, 1110.0) && keeps_cpu(1000.0, 660.0));
        assert!(!keeps_cpu(1000.0, 1130.0) && !keeps_cpu(1000.0, 640.0));
        // Ten millicores: the double is a change, and a fifth.
        assert!(
            keeps_cpu(10.0, 17.0) && !keeps_cpu(10.0, 21.0) && keeps_cpu(10.0, 3.0) && !keeps_cpu(10.0, 2.0)
        );
    }

    #[test]
    fn small_changes_of_current_values() {
        let mib = |mib: u64| mib << 20;
        assert!(
            is_small_cpu_change(1000, 1090) && is_small_cpu_change(1000, 910) && is_small_cpu_change(5, 1)
        );
        assert!(
            !is_small_cpu_change(1000, 1100) && !is_small_cpu_change(1000, 900) && !is_small_cpu_change(1, 5)
        );
        assert!(is_small_memory_change(mib(1024), mib(1040)) && is_small_memory_change(mib(1024), mib(928)));
        assert!(
            !is_small_memory_change(mib(1024), mib(1056)) && !is_small_memory_change(mib(1024), mib(896))
        );
        assert!(is_small_memory_change(mib(12), mib(10)) && !is_small_memory_change(mib(10), mib(12)));
        assert!(is_small_cpu_change(7, 7) && !is_small_cpu_change(0, 5));
    }
}
