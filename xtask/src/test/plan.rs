//! The order of the stages, and which run at the same time.

use std::collections::BTreeSet;

use super::Stage;

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Run a stage.
    Foreground(Stage),
    /// Start these stages, one after the other, in the background of the next steps.
    Background(Vec<Stage>),
    /// Wait for everything in the background.
    Join,
}

/// Whether stages that measure and others are chosen, which run at the same time if the others have a group for idle CPU time.
pub(super) fn needs_group(chosen: &BTreeSet<Stage>) -> bool {
    let measuring = chosen.iter().filter(|stage| stage.measures()).count();
    measuring > 0 && measuring < chosen.len()
}

/// The steps of a run. `group`: whether what runs in the background gets only idle CPU time.
pub(super) fn steps(chosen: &BTreeSet<Stage>, group: bool) -> Vec<Step> {
    let is_chosen = |stage: &Stage| chosen.contains(stage);
    let foreground = |stages: &[Stage]| -> Vec<Step> {
        stages.iter().copied().filter(is_chosen).map(Step::Foreground).collect()
    };
    let background = |stages: &[Stage]| -> Option<Step> {
        let stages: Vec<Stage> = stages.iter().copied().filter(is_chosen).collect();
        (!stages.is_empty()).then_some(Step::Background(stages))
    };
    // They share cargo's lock.
    let compiling = [
        Stage::Clippy,
        Stage::Docs,
        Stage::Toolchain,
        Stage::Deny,
        Stage::Pages,
        Stage::Fuzz,
        Stage::Manifests,
        Stage::Browser,
    ];
    let mut steps = foreground(&[Stage::Fmt]);
    if group {
        // Servers and clients in unit tests wait for each other for a few hundred milliseconds.
        steps.extend(foreground(&[Stage::Unit]));
        // One after the other: a guest beside compilers gets too little of the idle CPU time, and its kernel takes that for a lockup.
        steps.extend(background(&[&[Stage::Vm], &compiling[..]].concat()));
        steps.extend(foreground(&[Stage::Kernel, Stage::System, Stage::Cluster]));
    } else {
        // What is already in the background is the setup of the node's programs.
        steps.push(Step::Join);
        steps.extend(foreground(&[Stage::Kernel]));
        steps.extend(background(&[Stage::Vm]));
        steps.extend(foreground(&compiling));
        steps.extend(foreground(&[Stage::Unit]));
        steps.push(Step::Join);
        steps.extend(foreground(&[Stage::System, Stage::Cluster]));
    }
    steps.push(Step::Join);
    steps
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use proptest::prelude::*;

    use super::*;

    fn any_stages() -> impl Strategy<Value = BTreeSet<Stage>> {
        proptest::sample::subsequence(Stage::value_variants(), 0..=Stage::value_variants().len())
            .prop_map(|stages| stages.into_iter().collect())
    }

    proptest! {
        #[test]
        fn each_chosen_stage_runs_once_and_none_measures_in_the_background(chosen in any_stages(), group in any::<bool>()) {
            let steps = steps(&chosen, group);
            let mut run = Vec::new();
            let mut is_busy = true;
            for step in &steps {
                match step {
                    Step::Foreground(stage) => {
                        prop_assert!(group || !is_busy || !stage.measures(), "{steps:?}");
                        run.push(*stage);
                    }
                    Step::Background(stages) => {
                        prop_assert!(stages.iter().all(|stage| !stage.measures()) && !stages.is_empty());
                        run.extend(stages);
                        is_busy = true;
                    }
                    Step::Join => is_busy = false,
                }
            }
            run.sort();
            prop_assert_eq!(run, Vec::from_iter(chosen));
            prop_assert_eq!(steps.last(), Some(&Step::Join));
        }
    }

    #[test]
    fn a_group_is_needed_if_something_can_run_behind_a_measurement() {
        let of = |stages: &[Stage]| needs_group(&stages.iter().copied().collect());
        assert!(of(Stage::value_variants()) && of(&[Stage::Cluster, Stage::Unit]));
        assert!(!of(&[Stage::Cluster, Stage::System]) && !of(&[Stage::Unit, Stage::Vm]) && !of(&[]));
    }
}
