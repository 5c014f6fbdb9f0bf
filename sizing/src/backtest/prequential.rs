//! Proof that no policy but the oracle uses what it cannot know: whatever comes after a decision, the decision is the same.

use proptest::prelude::*;

use super::{
    open::{Decision, Replay},
    policies::{PolicyChoice, Run, cheat::Cheat},
    policy::Values,
    trace::{ContainerTrace, Series, Trace},
    world::World,
};
use crate::engine::{Profile, Rule};

/// Minutes of the traces.
const MINUTES: usize = 3 * 1440;

/// A pod: namespace, workload, first and last quarter of a day, level of usage, growth a day, and a seed.
type Pod = (u8, u8, (usize, usize), (f64, f64), u64);

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    let pod = (0..2_u8, 0..3_u8, (0..10_usize, 1..12_usize), (1.0..1e6_f64, -0.2..0.5_f64), any::<u64>());
    prop::collection::vec(pod, 1..6)
}

fn world(pods: &[Pod]) -> World {
    let row = |(number, (namespace, owner, (first, length), (level, growth), seed)): (usize, &Pod)| {
        let mut random = crate::random::Random::new(*seed);
        let mut series = |scale: f64| {
            let value = |minute: usize| {
                let runs = minute >= first * 360 && minute < (first + length) * 360 && random.unit() > 0.05;
                let day = minute as f64 / 1440.0;
                if runs {
                    level * scale * (1.0 + growth * day).max(0.1) * (0.5 + random.unit())
                } else {
                    f64::NAN
                }
            };
            Series::new(&(0..MINUTES).map(value).collect::<Vec<f64>>())
        };
        ContainerTrace {
            namespace: format!("ns{namespace}"),
            pod: format!("w{owner}-{number}"),
            container: "app".to_owned(),
            node: String::new(),
            cpu: series(0.001),
            memory: series(1.0),
        }
    };
    World::of_trace("random", Trace::new(MINUTES, pods.iter().enumerate().map(row)))
}

/// The decisions until a minute, bit by bit.
fn decided(world: &World, runs: &[Run], until: usize) -> Vec<(String, usize, u64, u64)> {
    let bits = |run: usize, decision: &Decision| {
        let key = world.trace.groups.get(decision.group).map(|group| format!("{run} {:?}", group.key));
        let Values { cpu, memory } = decision.values;
        (key.unwrap_or_default(), decision.at, cpu.to_bits(), memory.to_bits())
    };
    let decisions = Replay::new(world, Profile::Standard.risk()).open(runs);
    let mut found: Vec<_> = decisions
        .iter()
        .enumerate()
        .flat_map(|(run, decisions)| decisions.0.iter().map(move |decision| (run, decision)))
        .filter(|(_, decision)| decision.at <= until)
        .map(|(run, decision)| bits(run, decision))
        .collect();
    found.sort();
    found
}

/// The same world, as it was known at a minute.
fn known(world: &World, minute: usize) -> World {
    World::of_trace(&world.name, world.trace.before(minute))
}

fn honest() -> Vec<PolicyChoice> {
    let risk = Profile::Standard.risk();
    let shipped = PolicyChoice::BASELINES.iter().map(|(_, choice)| *choice);
    let all = shipped.chain([PolicyChoice::Snug(risk, Rule::FITTED)]);
    let all = all.filter(|choice| !matches!(choice, PolicyChoice::Oracle { .. }));
    all.flat_map(|choice| [Some(choice), choice.without_floors()]).flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn decisions_do_not_depend_on_what_follows(pods in pods(), quarters in 4..11_usize) {
        let at = quarters * 360;
        let whole = world(&pods);
        let honest = honest().into_iter().chain([PolicyChoice::Cheat(Cheat::LateLabels)]);
        let runs: Vec<Run> = honest.map(Run::from).collect();
        prop_assert_eq!(decided(&whole, &runs, at), decided(&known(&whole, at), &runs, at));
    }
}

/// Whether the proof above would fail with this policy, for some of several worlds and times.
fn is_caught(choice: PolicyChoice) -> bool {
    let runs = [Run::from(choice)];
    (0..4_u64).any(|seed| {
        let pod = |owner, first| (0, owner, (first, 9), (1000.0, 0.2), seed * 100 + u64::from(owner));
        let whole = world(&[pod(0, 0), pod(0, 7), pod(1, 1)]);
        (4..9).any(|quarters| {
            let at = quarters * 360;
            decided(&whole, &runs, at) != decided(&known(&whole, at), &runs, at)
        })
    })
}

#[test]
fn planted_leaks_are_caught() {
    for cheat in [Cheat::NextMinute, Cheat::PodsToCome, Cheat::EarlyLabels] {
        assert!(is_caught(PolicyChoice::Cheat(cheat)), "{cheat:?}");
    }
    let (_, oracle) = PolicyChoice::BASELINES.into_iter().find(|(name, _)| *name == "oracle").unwrap();
    assert!(is_caught(oracle));
    for choice in honest().into_iter().chain([PolicyChoice::Cheat(Cheat::LateLabels)]) {
        assert!(!is_caught(choice), "{choice:?}");
    }
}

#[test]
fn late_labels_arrive_when_their_day_is_over() {
    // Decisions at 1440, 1800, 2160, 2520: their days are over at 2880, 3240, …
    let whole = world(&[(0, 0, (0, 12), (1000.0, 0.0), 1)]);
    let runs = [Run::from(PolicyChoice::Cheat(Cheat::LateLabels))];
    let decisions = Replay::new(&whole, Profile::Standard.risk()).open(&runs);
    let with_labels = decisions[0].0.iter().filter(|decision| decision.values.memory > 0.0);
    assert_eq!(with_labels.map(|decision| decision.at).collect::<Vec<_>>(), [2880, 3240, 3600, 3960]);
}
