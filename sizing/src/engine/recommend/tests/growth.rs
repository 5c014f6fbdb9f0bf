//! Growth of memory, over random histories.

use super::{
    memory::{advised, at_least},
    *,
};

/// A container that grows, with the growth in bytes an hour.
fn growing() -> impl Strategy<Value = (Evidence, u64)> {
    (100..1000_u64, 0.005..0.2_f64, 8..72_u32, prop::option::of(1.0..4.0_f64), 0..4_u64).prop_map(
        |(start, rate, hours, limit, noise)| {
            let rate = (start as f64 * rate).max(4.0) as u64;
            let mib =
                |hour: u32| start + rate * u64::from(hour) + (u64::from(hour) * 7 % (noise + 1)) * rate / 8;
            let seen: Vec<PodHour> =
                (0..hours).map(|hour| PodHour { hour, mib: mib(hour), cores: 0.1, start: false }).collect();
            let mut evidence = evidence(&seen);
            let limit = limit.map(|factor| (mib(hours) as f64 * factor) as u64 * MIB);
            evidence.container.current.memory_limit = limit;
            evidence.container.current.memory_request = limit;
            (evidence, rate * MIB)
        },
    )
}

#[test]
fn the_limit_of_a_growing_container_lasts_or_is_not_lowered() {
    let newest = |evidence: &Evidence| evidence.hours.values().last().unwrap().highest().unwrap().bytes;
    let oldest = |evidence: &Evidence| evidence.hours.values().next().unwrap().highest().unwrap().bytes;
    AdviceRule::Growth.prove(
        &growing(),
        |(evidence, _)| newest(evidence) as f64 > 1.2 * oldest(evidence) as f64,
        |(evidence, per_hour)| {
            let Recommendation { values, reasons, .. } = advised(evidence);
            let current = evidence.container.current;
            at_least(values.memory_limit, current.memory_limit.unwrap_or(0) as f64)?;
            at_least(values.memory_request, current.memory_request.unwrap_or(0) as f64)?;
            let covered = reasons.iter().find_map(|reason| match reason {
                Reason::Leak { covered, .. } => Some(*covered),
                _ => None,
            });
            let until = newest(evidence) + per_hour * 24 * 7;
            match covered {
                Some(true) => at_least(values.memory_limit, until as f64),
                Some(false) if values.memory_limit.is_none() == current.memory_limit.is_none() => Ok(()),
                other => Err(format!("{other:?}: {values:?}")),
            }
        },
    );
}

/// A number of 0 to 1 that looks random (the mixer of SplitMix64).
fn by_chance(seed: u64) -> f64 {
    let mut bits = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((bits ^ (bits >> 31)) >> 40) as f64 / (1_u64 << 24) as f64
}

/// A container that grows in a way that no line describes, with its usage in any hour, MiB, and the hours seen.
fn growing_in_shapes() -> impl Strategy<Value = (Evidence, Vec<u64>)> {
    let shape = prop_oneof![
        // Load by the hour of the day.
        (0.0..0.4_f64, 0.0..1.0_f64).prop_map(|(height, phase)| (height, phase, 0.0, 1.0, 1)),
        // Load by chance: not so much that it hides the growth of a day.
        (0.02..0.1_f64).prop_map(|noise| (0.0, 0.0, noise, 1.0, 1)),
        // A step once or twice a day.
        (6..=24_u32).prop_map(|step| (0.0, 0.0, 0.0, 1.0, step)),
        // Faster and faster.
        (1.5..2.5_f64).prop_map(|power| (0.0, 0.0, 0.0, power, 1)),
    ];
    (200..1000_u64, 0.06..0.2_f64, 72..=168_u32, shape, 1.5..6.0_f64, any::<u64>()).prop_map(
        |(start, per_day, hours, (height, phase, noise, power, step), limit, seed)| {
            let usage = |hour: u32| {
                let at = hour / step * step;
                let days = f64::from(at) / 24.0;
                let grown = start as f64 * (1.0 + per_day * days.powf(power));
                let wave = (std::f64::consts::TAU * (f64::from(hour) / 24.0 + phase)).sin() * height;
                let chance = by_chance(seed ^ u64::from(hour));
                (grown * (1.0 + wave + noise * chance)) as u64
            };
            let seen: Vec<PodHour> =
                (0..hours).map(|hour| PodHour { hour, mib: usage(hour), cores: 0.1, start: false }).collect();
            let mut evidence = evidence(&seen);
            let highest = seen.iter().map(|it| it.mib).max().unwrap_or(0);
            let limit = Some((highest as f64 * limit) as u64 * MIB);
            evidence.container.current.memory_limit = limit;
            evidence.container.current.memory_request = limit;
            (evidence, (hours..hours + 7 * 24).map(usage).collect())
        },
    )
}

#[test]
fn a_limit_is_not_lowered_to_one_that_growth_of_any_shape_reaches() {
    AdviceRule::Growth.prove(
        &growing_in_shapes(),
        |_| true,
        |(evidence, usage)| {
            let Recommendation { values, reasons, .. } = advised(evidence);
            let current = evidence.container.current.memory_limit;
            let is_said = reasons.iter().any(|reason| matches!(reason, Reason::Leak { .. }));
            let limit = values.memory_limit.unwrap_or(u64::MAX);
            let highest = usage.iter().max().copied().unwrap_or(0) * MIB;
            if limit >= highest || (values.memory_limit >= current && is_said) {
                return Ok(());
            }
            Err(format!("{current:?} -> {limit}: reached by {highest}"))
        },
    );
}
