use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;
use snug_sizing::{
    cpu_quota::TokenBuckets,
    engine::{CpuLimit, LikesScope, Policy, Profile},
    evidence::{Evidence, HOUR, Hour, HourRecord, OomKill, Peak, PodTotals},
    quantity::Quantity,
    workload::{Container, Resources, Workload},
};

use super::*;
use crate::{evidence::Snapshot, policy::Policies, recommend::report::Report, units};

const MIB: u64 = 1 << 20;
const START: u64 = 1_800_000_000 / HOUR * HOUR;

/// Usage of one hour: milliseconds of CPU time by window, peak in MiB, OOM kills.
type Usage = (u64, u64, u8);

fn evidence(name: &str, current: Resources, hours: &[Usage]) -> Evidence {
    let workload = Workload {
        namespace: "shop".to_owned(),
        owner: "Deployment".to_owned(),
        name: name.to_owned(),
        replicas: 2,
        ..Workload::default()
    };
    let container = Container { name: "app".to_owned(), seen: START, current, ..Container::default() };
    let mut evidence = Evidence::new(workload, container, 100);
    for (at, (used, mib, kills)) in hours.iter().enumerate() {
        let begin = START + at as u64 * HOUR;
        let mut buckets = TokenBuckets::default();
        let mut record = HourRecord { observed: HOUR, ..HourRecord::default() };
        for times in 1..4_u64 {
            record.cpu.record((used * times) as f64 / 100.0, 9000);
            record.minutes.record((used * times) as f64 / 100.0, 20);
            (0..100).for_each(|_| buckets.feed(used * times * 1_000_000, 100_000_000));
        }
        record.quota_what_if = buckets.take();
        record.peak = Some(Peak { bytes: mib * MIB, at: begin + 60, pod: "web-x".to_owned() });
        record.kills = (0..u64::from(*kills))
            .map(|number| OomKill { at: begin + number, limit: mib * MIB, pod: "web-x".to_owned() })
            .collect();
        (record.periods, record.throttled) = (1000, used * 7);
        record.starts = u64::from(*kills);
        record.exits.extend((*kills > 0).then_some((137, u64::from(*kills))));
        record.waits.record(0.0003, 5);
        record.unreclaimable.record((mib * MIB / 2) as f64, 30);
        evidence.hours.insert(Hour::from_seconds(begin), record);
    }
    evidence.pods.insert("web-x".to_owned(), PodTotals::default());
    evidence
}

fn explained(all: Vec<Evidence>, profile: Profile) -> Explanations {
    let mut snapshot = Snapshot::default();
    all.into_iter().for_each(|evidence| snapshot.insert(evidence));
    let pools = snapshot.pools(LikesScope::default());
    let policies = Policies::new(Policy { cpu_limit: CpuLimit::ByRisk, ..Policy::new(profile.risk()) });
    let report = Report::make(&snapshot, &pools, &policies, |_| true);
    let details = Details::new(&snapshot, &pools, &policies);
    let explanation = |mut entry: Entry| {
        entry.judge();
        let history = details.of(&entry).unwrap();
        Explanation { recommendation: entry, history }
    };
    let explanations = report.recommendations.into_iter().map(explanation).collect();
    Explanations { schema: SCHEMA, explanations, skipped: Vec::new() }
}

/// Words with a digit, without punctuation around them.
fn numbers(text: &str) -> BTreeSet<String> {
    let words = text
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '<' && c != '%'));
    words.filter(|word| word.contains(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}

/// Every way in which the text may write a number.
fn forms(number: f64) -> Vec<String> {
    let whole = number.abs().round() as u64;
    let hundred = format!("{:.1}", number * 100.0);
    vec![
        units::bytes(number.abs()),
        Quantity::from_bytes(whole).to_string(),
        Quantity::from_millicores(whole).to_string(),
        units::cores(number),
        units::percent(number.abs()),
        percent(number),
        units::rate(number),
        units::time(whole),
        text::seconds(number),
        format!("{number:.1}"),
        format!("{number:.2}"),
        format!("{number:.3}"),
        format!("{number}"),
        hundred.trim_end_matches(".0").to_owned(),
        humantime::format_duration(std::time::Duration::from_millis(whole)).to_string(),
        snug_sizing::engine::span(number),
    ]
}

fn known(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Number(number) => {
            let forms = forms(number.as_f64().unwrap());
            found.extend(forms.iter().flat_map(|form| numbers(form)));
        }
        Value::String(text) => found.extend(numbers(text)),
        Value::Array(all) => {
            found.insert(all.len().to_string());
            all.iter().for_each(|one| known(one, found));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, one)| {
            found.extend(numbers(name));
            known(one, found);
        }),
        Value::Null | Value::Bool(_) => {}
    }
}

fn any_resources() -> impl Strategy<Value = Resources> {
    let amount = |max: u64| prop::option::of(1..max);
    (amount(40), amount(40), amount(60), amount(60)).prop_map(|(cpu, more_cpu, memory, more_memory)| {
        Resources {
            cpu_request: cpu.map(|cpu| cpu * 50),
            cpu_limit: more_cpu.map(|more| (cpu.unwrap_or(1) + more) * 50),
            memory_request: memory.map(|memory| memory * 16 * MIB),
            memory_limit: more_memory.map(|more| (memory.unwrap_or(1) + more) * 16 * MIB),
        }
    })
}

fn any_usage() -> impl Strategy<Value = Vec<Usage>> {
    let kills = prop_oneof![9 => Just(0_u8), 1 => 1..4_u8];
    prop::collection::vec((0..60_u64, 5..900_u64, kills), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_number_in_the_text_is_in_the_json(
        now in any_resources(),
        usage in any_usage(),
        others in prop::collection::vec(any_usage(), 0..2),
        profile in prop::sample::select(Profile::ALL.to_vec()),
        width in prop::option::of(40..200_usize),
        is_ascii: bool,
    ) {
        let mut all = vec![evidence("web", now, &usage)];
        all.extend(others.iter().enumerate().map(|(number, usage)| evidence(["api", "db"][number], now, usage)));
        let explained = explained(all, profile);
        let terminal = Terminal { width, is_ascii, ..Terminal::PIPE };
        for one in &explained.explanations {
            let text = one.text(terminal);
            let mut found: BTreeSet<String> = ["7", "1", "99", "0"].map(str::to_owned).into();
            known(&serde_json::to_value(one).unwrap(), &mut found);
            // Columns of a picture are as long as fits the terminal.
            let lines = text.lines().map(|line| line.rsplit_once(", ").filter(|_| line.contains(" a column")).map_or(line, |(line, _)| line));
            for number in lines.flat_map(numbers) {
                prop_assert!(found.contains(&number), "{number} is not in the JSON:\n{text}");
            }
            if is_ascii {
                // Reasons are the engine's.
                let (pictures, _) = text.split_once("\nReasons").unwrap();
                prop_assert!(pictures.replace('µ', "u").is_ascii(), "{pictures}");
            }
        }
    }

    #[test]
    fn a_text_does_not_contradict_itself(now in any_resources(), usage in any_usage()) {
        for one in explained(vec![evidence("web", now, &usage)], Profile::Standard).explanations {
            let (text, entry) = (one.text(Terminal::PIPE), &one.recommendation);
            let has = |part: &str| text.contains(part);
            // The words of the change, the table and the pictures are about the same values.
            let limit = entry.recommended.memory_limit.map(sentences::memory_amount);
            let said = limit.map(|limit| format!("the recommended limit of {limit} is "));
            prop_assert_eq!(said.as_ref().is_some_and(|said| has(said)), said.is_some(), "{}", text);
            let below = one.history.memory.as_ref().and_then(|memory| memory.headroom).is_some_and(|share| share < 0.0);
            prop_assert_eq!(has(" below the usage that counts"), below);
            let limits = entry.current.memory_limit.zip(entry.recommended.memory_limit);
            let is_lower = limits.is_some_and(|(now, then)| then < now);
            prop_assert_eq!(has("lower the memory limit from"), is_lower);
            prop_assert_eq!(has("[OOM risk]"), has("It is killed for lack of memory"));
            // One number of the CPU time above the recommended request so far, and one that is expected.
            let so_far = text.matches("recommended request ").count();
            prop_assert!(so_far >= usize::from(entry.recommended.cpu_request.is_some() && one.history.cpu.is_some()));
            prop_assert!(!has("so far usage exceeded it"), "{text}");
        }
    }
}
