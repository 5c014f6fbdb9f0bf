//! Runs all targets over the corpus and over mutated samples of it: no panic, and bounded time and memory.
//!
//! `SNUG_FUZZ_SECONDS` is the CPU time of each target, `SNUG_FUZZ_TARGET` selects one, and `SNUG_FUZZ_SEED` makes other inputs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{fs, panic, path::PathBuf, time::Duration};

use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};
use snug_fuzz::{Mutator, TARGETS, Target};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Most memory for an input: this much, and so many bytes for each of its bytes. A parsed pod or a record of the history is larger
/// than its text.
const MAX_MEMORY: (usize, usize) = (8 << 20, 256);
/// Most CPU time for an input, without optimisation: this much, and so much for each KiB.
const MAX_TIME: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(20));

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A file with the current input, so that one which ends the process is not lost.
fn input_file(target: &Target) -> PathBuf {
    let folder: PathBuf = [env!("CARGO_TARGET_TMPDIR"), "fuzz"].iter().collect();
    fs::create_dir_all(&folder).unwrap();
    folder.join(target.name)
}

/// Runs one input. Returns its CPU time.
fn run(target: &Target, input: &[u8], file: &PathBuf) -> Duration {
    fs::write(file, input).unwrap();
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let started = cpu_time();
    let outcome = panic::catch_unwind(|| (target.run)(input));
    let took = cpu_time() - started;
    let memory = ALLOCATED.peak_usage().saturating_sub(before);
    let failed = |what: &str| panic!("{}: {what}; the input is {}", target.name, file.display());
    if outcome.is_err() {
        failed("it panicked");
    }
    if memory > MAX_MEMORY.0 + MAX_MEMORY.1 * input.len() {
        failed(&format!("it took {memory} bytes of memory for {} bytes", input.len()));
    }
    if took > MAX_TIME.0 + MAX_TIME.1 * u32::try_from(input.len() >> 10).unwrap() {
        failed(&format!("it took {took:?} for {} bytes", input.len()));
    }
    took
}

#[test]
fn no_input_causes_a_panic_or_takes_unbounded_time_or_memory() {
    let seconds = variable("SNUG_FUZZ_SECONDS").map_or(1.0, |seconds| seconds.parse().unwrap());
    let budget = Duration::from_secs_f64(seconds);
    let only = variable("SNUG_FUZZ_TARGET");
    let seed = variable("SNUG_FUZZ_SEED").map_or(27, |seed| seed.parse().unwrap());
    let mut targets =
        TARGETS.iter().filter(|target| only.as_deref().is_none_or(|name| name == target.name)).peekable();
    assert!(targets.peek().is_some(), "there is no target {only:?}");
    for target in targets {
        let corpus = target.corpus().unwrap();
        assert!(!corpus.is_empty(), "{} has no samples", target.name);
        let file = input_file(target);
        let mut mutator = Mutator::new(seed);
        let (mut longest, mut runs) = (Duration::ZERO, 0);
        let started = cpu_time();
        for sample in &corpus {
            longest = longest.max(run(target, sample, &file));
        }
        while cpu_time() - started < budget {
            longest = longest.max(run(target, &mutator.mutate(&corpus), &file));
            runs += 1;
        }
        println!("{}: {runs} inputs, the longest took {longest:?}", target.name);
    }
}
