//! Runs: short ones, ones that are named late, and ones without a task.

use proptest::prelude::*;
use snug_sizing::evidence::HourRecord;

use super::*;

#[test]
fn usage_and_kills_of_a_container_that_is_named_after_its_end_are_kept() {
    let mut node = Node::new();
    node.store.expect_names(true);
    let key = node.container('a', START + 10.0);
    node.memory(key, 2 * MIB, MIB, 30 * MIB);
    node.collector.oom_killed(&node.store, key, START + 10.2, 32 * MIB);
    node.store.depart(key, 0, true, false, node.begun);
    node.settle(10.4);
    node.name(key, "web-1");
    node.settle(40.0);
    let evidence = node.finish(41.0);
    let [one] = &evidence[..] else { panic!("{evidence:?}") };
    assert_eq!(one.title(), "shop/web/app");
    let record = one.hours.first_key_value().unwrap().1;
    let kill = OomKill { at: (START + 10.2) as u64, limit: 32 * MIB, pod: "web-1".to_owned() };
    assert_eq!((record.starts, &*record.kills), (1, &[kill][..]));
}

/// A run of which only the final record is known: it has no working set.
#[derive(Clone, Debug)]
struct Run {
    /// Quarters of a second.
    quarters: u32,
    peak: u64,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (1..240_u32, 1..100_u64).prop_map(|(quarters, mib)| Run { quarters, peak: mib * MIB });
    prop::collection::vec(run, 1..5)
}

/// The history of a crash loop of such runs.
fn history_of(runs: &[Run]) -> Result<Evidence, String> {
    let (mut node, mut at) = (Node::new(), 0.0);
    for (run, id) in runs.iter().zip('a'..) {
        let key = node.container(id, START + at);
        node.name(key, "web-1");
        let memory = Some(Memory { peak_bytes: Some(run.peak), ..Memory::default() });
        let cpu = Some(Cpu { usage_ns: 90_000_000 });
        node.store.update(key, Values { cpu, memory, ..Values::default() });
        node.store.depart(key, 0, true, false, node.begun);
        at += f64::from(run.quarters) / 4.0;
        node.collector.observe_leaving(&node.store, node.begun + Duration::from_secs_f64(at), START + at);
        node.settle(at);
    }
    only(node.finish(at))
}

fn only(mut history: Vec<Evidence>) -> Result<Evidence, String> {
    let one = history.pop().filter(|one| history.is_empty() && one.hours.len() == 1);
    one.ok_or_else(|| format!("not one hour of one container, also {history:?}"))
}

/// The record of the only hour.
fn record(evidence: &Evidence) -> &HourRecord {
    evidence.hours.first_key_value().unwrap().1
}

#[test]
fn runs_shorter_than_a_minute_are_observed_with_their_seconds() {
    AgentRule::ShortRuns.prove(
        &runs(),
        |_| true,
        |runs| {
            let evidence = history_of(runs)?;
            let record = record(&evidence);
            let seconds: u32 = runs.iter().map(|run| run.quarters.div_ceil(4)).sum();
            let count = runs.len() as u64;
            let found = (record.starts, record.observed, evidence.pods["web-1"].cpu_millis);
            same(&found, &(count, u64::from(seconds), 90 * count))
        },
    );
}

#[test]
fn a_run_that_ended_before_its_first_sample_has_the_peak_of_its_final_record() {
    AgentRule::FinalPeak.prove(
        &runs(),
        |_| true,
        |runs| {
            let evidence = history_of(runs)?;
            let peak = record(&evidence).start_peak.as_ref().map(|peak| peak.bytes);
            same(&peak, &runs.iter().map(|run| run.peak).max())
        },
    );
}

#[test]
fn a_short_run_without_a_name_counts_only_if_it_was_killed() {
    let cases = (1..120_u32, any::<bool>(), 0..30_u32);
    AgentRule::ShortUnnamedRuns.prove(
        &cases,
        |(seconds, ..)| *seconds < 60,
        |(seconds, is_killed, begins)| {
            let mut node = Node::new();
            let begins = f64::from(*begins);
            let key = node.appear(&format!("/docker/{}", "a".repeat(64)), START + begins);
            node.memory(key, 2 * MIB, MIB, 2 * MIB);
            // The collected usage is flushed meanwhile.
            for second in 0..*seconds {
                node.cpu(key, u64::from(second), begins + f64::from(second));
                node.second(begins + f64::from(second));
            }
            let ends = begins + f64::from(*seconds);
            if *is_killed {
                node.collector.oom_killed(&node.store, key, START + ends, 64 * MIB);
            }
            node.store.depart(key, 0, true, false, node.begun);
            node.settle(ends);
            let history = node.finish(ends);
            let kills: usize =
                history.iter().flat_map(|one| one.hours.values()).map(|hour| hour.kills.len()).sum();
            same(&(!history.is_empty(), kills), &(*is_killed || *seconds >= 60, usize::from(*is_killed)))
        },
    );
}

#[test]
fn a_watermark_from_before_the_agent_is_no_usage_of_its_first_hour() {
    // MiB: the working set, file cache, the watermark above both, and by how much it rises later.
    let cases = (1..100_u64, 0..100_u64, 0..500_u64, prop::option::of(1..100_u64), 1..9_000_u32);
    AgentRule::WatermarkBeforeAgent.prove(
        &cases,
        |_| true,
        |(working_set, cache, above, rises, age)| {
            let mut node = Node::new();
            let key = node.container('a', START - f64::from(*age));
            node.name(key, "web-1");
            let usage = working_set + cache;
            let before = usage + above;
            node.memory(key, usage * MIB, cache * MIB, before * MIB);
            node.second(7.0);
            if let Some(more) = rises {
                node.memory(key, usage * MIB, cache * MIB, (before + more) * MIB);
                node.second(8.0);
            }
            let evidence = merged(node.finish(9.0))?;
            let earlier = evidence.earlier_peak.as_ref().map(|peak| (peak.bytes, peak.at));
            same(&earlier, &Some((before * MIB, START as u64 + 7)))?;
            // A watermark that rises is usage, but for the cache.
            let highest = rises.map_or(*working_set, |more| before + more - cache);
            same(&record(&evidence).highest().map(|peak| peak.bytes), &Some(highest * MIB))
        },
    );
}

#[test]
fn a_cgroup_that_never_had_a_task_used_nothing() {
    let mut node = Node::new();
    let key = node.container('a', START);
    node.name(key, "sandboxed-1");
    node.memory(key, 0, 0, 0);
    for second in 1..=20_u32 {
        node.cpu(key, 0, f64::from(second));
        node.second(f64::from(second));
    }
    let one = merged(node.finish(21.0)).unwrap();
    let record = record(&one);
    assert!(record.observed >= 19, "{}", record.observed);
    assert_eq!(record.highest().map(|peak| peak.bytes), Some(0));
    let totals = &one.pods["sandboxed-1"];
    assert_eq!((totals.cpu_millis, totals.peak), (0, 0));
    assert!(buckets(&record.cpu_start).iter().all(|(_, upper)| *upper == 0.0), "{record:?}");
}
