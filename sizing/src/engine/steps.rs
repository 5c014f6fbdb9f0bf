//! The steps of recommended values: amounts that a person would choose. Values are rounded up, so that a small change of usage
//! changes no value.

use super::advice::AdviceRule;

/// CPU steps by the highest amount that they are for, millicores.
const CPU: [(u64, u64); 6] = [(10, 1), (100, 5), (1_000, 10), (4_000, 50), (16_000, 100), (u64::MAX, 1_000)];
/// The smallest step of memory, bytes.
const MEBIBYTE: u64 = 1 << 20;
/// Steps of memory between a power of two and the next one: 1.6 to 3.1 % of the amount each.
const MEMORY_STEPS: u64 = 32;

/// Rounds millicores up to a step. At least one: a request of zero would change the pod's QoS class.
pub fn cpu(millicores: f64) -> u64 {
    // `as` saturates, and takes NaN for 0.
    let exact = (millicores.ceil() as u64).max(1);
    if !AdviceRule::Steps.is_on() {
        return exact;
    }
    up(exact, cpu_step(exact))
}

/// The highest step below an amount, millicores; at least one.
pub fn cpu_below(millicores: u64) -> u64 {
    let exact = millicores.saturating_sub(1).max(1);
    exact / cpu_step(exact) * cpu_step(exact)
}

fn cpu_step(millicores: u64) -> u64 {
    CPU.iter().find(|(to, _)| millicores <= *to).map_or(1, |(_, step)| *step)
}

/// Rounds bytes up to a step, at least one mebibyte.
pub fn memory(bytes: f64) -> u64 {
    // `as` saturates, and takes NaN for 0.
    let exact = (bytes.ceil() as u64).max(1);
    if !AdviceRule::Steps.is_on() {
        return up(exact, MEBIBYTE);
    }
    let power = 1_u64 << (u64::BITS - 1).saturating_sub(exact.leading_zeros());
    up(exact, (power / MEMORY_STEPS).max(MEBIBYTE))
}

/// Rounds up to a multiple; the highest multiple where the next one is too large.
const fn up(amount: u64, step: u64) -> u64 {
    match amount.checked_next_multiple_of(step) {
        Some(rounded) => rounded,
        None => amount / step * step,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;

    #[test]
    fn steps_by_hand() {
        let millicores =
            [(0.0, 1), (0.2, 1), (7.1, 8), (10.1, 15), (96.0, 100), (101.0, 110), (1001.0, 1050)];
        for (exact, step) in millicores.into_iter().chain([(4001.0, 4100), (16_001.0, 17_000)]) {
            assert_eq!(cpu(exact), step, "{exact}");
        }
        for (exact, step) in
            [(0.0, 1), (1.5, 2), (63.1, 64), (64.1, 66), (129.0, 132), (1000.0, 1008), (2049.0, 2112)]
        {
            assert_eq!(memory(exact * MIB), step << 20, "{exact}");
        }
        assert_eq!([1, 2, 11, 300, 1000, 1001].map(cpu_below), [1, 1, 10, 290, 990, 1000]);
        assert!(memory(f64::INFINITY) > u64::MAX / 2 && cpu(f64::INFINITY) > u64::MAX / 2);
    }

    proptest! {
        #[test]
        fn rounding_never_lowers_a_value_and_is_done_after_once(amount in 0.0..1e15_f64, more in 0.0..1e12_f64) {
            for round in [cpu, memory] {
                let rounded = round(amount);
                prop_assert!(rounded as f64 >= amount);
                prop_assert_eq!(round(rounded as f64), rounded);
                prop_assert!(round(amount + more) >= rounded);
            }
        }

        #[test]
        fn a_step_is_a_small_share_of_large_amounts(amount in 32.0..1e9_f64) {
            prop_assert!((memory(amount * MIB) as f64) < amount * MIB * (1.0 + 1.0 / 32.0) + 1.0);
            prop_assert!((cpu(amount * 10.0) as f64) < amount * 10.0 * 1.1 + 1.0);
        }
    }

    #[test]
    fn values_are_on_steps() {
        AdviceRule::Steps.prove(
            &(0.0..64_000.0_f64, 0.0..65_536.0_f64),
            |(millicores, mebibytes)| *millicores > 10.0 && *mebibytes > 64.0,
            |(millicores, mebibytes)| {
                let (millicores, bytes) = (cpu(*millicores), memory(mebibytes * MIB));
                // Two or three digits, as in 45m, 250m, 1350m and 12 cores; and six binary ones.
                let digits = millicores.is_multiple_of(if millicores <= 100 {
                    5
                } else if millicores <= 1000 {
                    10
                } else {
                    50
                });
                let binary = u64::BITS - bytes.leading_zeros() - bytes.trailing_zeros() <= 6;
                if digits && binary { Ok(()) } else { Err(format!("{millicores}m, {bytes} bytes")) }
            },
        );
    }
}
