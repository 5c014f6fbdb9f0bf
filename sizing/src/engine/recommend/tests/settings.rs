//! The rules of settings, over random histories.

use super::{
    memory::{advised, at_least, containers, memory_limit},
    *,
};
use crate::engine::note::SettingNote;

#[test]
fn no_memory_limit_is_below_a_configured_heap_and_its_overhead() {
    let heap = |evidence: &Evidence| {
        let heap = |(name, value): (&String, &String)| {
            let mib: u64 = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic()).parse().ok()?;
            ["-Xmx", "GOMEMLIMIT", "NODE_OPTIONS --max-old-space-size"]
                .contains(&name.as_str())
                .then_some(mib)
        };
        evidence.container.settings.iter().filter_map(heap).max()
    };
    AdviceRule::ConfiguredHeap.prove(
        &containers(),
        |evidence| heap(evidence).is_some() && memory_limit(evidence).is_some(),
        |evidence| at_least(memory_limit(evidence), (heap(evidence).unwrap() * MIB) as f64 * 1.1),
    );
}

#[test]
fn a_limit_that_the_heap_follows_is_not_lowered_below_what_usage_may_need_of_it() {
    let share = |evidence: &Evidence| {
        let value = evidence.container.settings.get("-XX:MaxRAMPercentage")?;
        Some(value.parse::<f64>().unwrap() / 100.0)
            .filter(|_| !evidence.container.settings.contains_key("-Xmx"))
    };
    AdviceRule::HeapShare.prove(
        &containers(),
        |evidence| share(evidence).is_some(),
        |evidence| {
            let Recommendation { values, memory, .. } = advised(evidence);
            let needed = memory.unwrap().basis.bytes / share(evidence).unwrap();
            let current = evidence.container.current.memory_limit.unwrap_or(u64::MAX);
            at_least(values.memory_limit, needed.min(current as f64))
        },
    );
}

#[test]
fn settings_and_circumstances_are_named() {
    AdviceRule::Warnings.prove(
        &containers(),
        |evidence| !evidence.container.settings.is_empty() || evidence.container.memory_volumes > 0,
        |evidence| {
            let reasons = advised(evidence).reasons;
            let text: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            let names = |name: &str| text.iter().any(|reason| reason.contains(name));
            let missing = evidence.container.settings.keys().find(|name| {
                let has_heap = evidence.container.settings.keys().any(|other| other.starts_with("-X"));
                !(names(name) || *name == "java" && has_heap)
            });
            match missing {
                Some(name) => Err(format!("{name} is missing in {text:?}")),
                None if evidence.container.memory_volumes > 0 && !names("volume") => Err(format!("{text:?}")),
                None => Ok(()),
            }
        },
    );
}

#[test]
fn what_numbers_do_not_show_is_said() {
    let mut evidence = steady();
    let container = &mut evidence.container;
    container.seen = 1;
    container.hugepages = 64 * MIB;
    container.image = "eclipse-temurin:21".to_owned();
    container.current.memory_request = Some(64 * MIB);
    container.current.memory_limit = Some(120 * MIB);
    container.current.cpu_limit = Some(1000);
    let reasons = advised(&evidence).reasons;
    let notes: Vec<&Reason> =
        reasons.iter().filter(|reason| matches!(reason, Reason::Memory(_) | Reason::Setting(_))).collect();
    let [
        Reason::Memory(MemoryNote::HugePages { bytes }),
        Reason::Memory(MemoryNote::NoSwap),
        Reason::Setting(SettingNote::FollowsLimits { setting, .. }),
        Reason::Setting(SettingNote::FollowsLimits { setting: cpu, .. }),
    ] = notes[..]
    else {
        panic!("{notes:?}")
    };
    assert_eq!(
        (*bytes, &**setting, &**cpu),
        (64 * MIB, "the image eclipse-temurin:21", "the CPU limit changes")
    );
    let json = serde_json::to_value(notes[0]).unwrap();
    assert_eq!(json, serde_json::json!({ "reason": "memory", "note": "huge_pages", "bytes": 64 * MIB }));
}
