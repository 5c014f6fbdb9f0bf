//! The rules of harmless advice, each with a switch for tests.
//!
//! `docs/recommendations.md` says what each rule promises. A test proves a rule over random input, and proves with the switch
//! that it would fail without the rule.

/// Defines an enum of the rules of a crate. Code asks `Rule::X.is_on()`, which is always true outside of tests.
///
/// In tests of the crate, `prove` (below) checks one rule over random cases. The crate needs `proptest` for its tests.
#[macro_export]
macro_rules! rules {
    ($(#[$of_enum:meta])* $vis:vis $name:ident { $($(#[$of_rule:meta])* $rule:ident,)+ }) => {
        $(#[$of_enum])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$of_rule])* $rule,)+ }

        impl $name {
            /// Whether the rule applies: always, except in a test that switches it off.
            #[cfg(not(test))]
            #[inline]
            $vis const fn is_on(self) -> bool {
                true
            }

            /// Whether the rule applies: always, except in a test that switches it off.
            #[cfg(test)]
            $vis fn is_on(self) -> bool {
                rule_switch::OFF.get() != Some(self)
            }
        }

        #[cfg(test)]
        mod rule_switch {
            thread_local! {
                /// The rule that is off in this thread.
                pub(super) static OFF: std::cell::Cell<Option<super::$name>> = const { std::cell::Cell::new(None) };
            }
        }

        #[cfg(test)]
        impl $name {
            /// Runs a function without the rule, in this thread.
            pub(crate) fn without<T>(self, run: impl FnOnce() -> T) -> T {
                rule_switch::OFF.set(Some(self));
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                rule_switch::OFF.set(None);
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }

            /// Proves the rule over random cases. `applies` is its precondition and `holds` what it promises.
            ///
            /// At least 1,000 cases must meet the precondition. The rule must hold for all of them, and without the rule at
            /// least one of them must fail: otherwise the test proves nothing.
            ///
            /// # Panics
            /// When one of these is not so.
            pub(crate) fn prove<S: proptest::strategy::Strategy>(
                self,
                cases: &S,
                applies: impl Fn(&S::Value) -> bool,
                holds: impl Fn(&S::Value) -> Result<(), String>,
            ) where
                S::Value: std::fmt::Debug,
            {
                use proptest::{strategy::ValueTree as _, test_runner::{TestCaseError, TestRunner}};
                const WANTED: usize = 1_000;
                const MAX_TRIED: usize = 100_000;
                let mut runner = TestRunner::deterministic();
                let (mut applied, mut tried, mut failed_without) = (0, 0, 0);
                while applied < WANTED && tried < MAX_TRIED {
                    let tree = cases.new_tree(&mut runner).unwrap();
                    let case = tree.current();
                    tried += 1;
                    if !applies(&case) {
                        continue;
                    }
                    applied += 1;
                    failed_without += usize::from(self.without(|| holds(&case).is_err()));
                    // Also looks for a simpler case if this one fails.
                    let result = runner.run_one(tree, |case| {
                        if applies(&case) { holds(&case).map_err(TestCaseError::fail) } else { Ok(()) }
                    });
                    if let Err(error) = result {
                        panic!("{self:?} does not hold: {error}");
                    }
                }
                println!("{self:?}: {applied} of {tried} cases meet the precondition; {failed_without} of them fail without the rule");
                assert!(applied >= WANTED, "{self:?}: only {applied} of {tried} cases meet the precondition");
                assert!(failed_without > 0, "{self:?} makes no difference");
            }
        }
    };
}

#[cfg(test)]
mod tests {
    rules! {
        /// Rules of a small example.
        Example {
            /// The result is at least ten.
            AtLeastTen,
            /// Changes nothing.
            Idle,
        }
    }

    fn example(number: u64) -> u64 {
        if Example::AtLeastTen.is_on() { number.max(10) } else { number }
    }

    fn at_least_ten(number: &u64) -> Result<(), String> {
        if example(*number) >= 10 { Ok(()) } else { Err(format!("{number} stays")) }
    }

    #[test]
    fn a_rule_that_makes_a_difference_is_proved() {
        Example::AtLeastTen.prove(&(0..20_u64), |number| *number < 15, at_least_ten);
    }

    #[test]
    #[should_panic(expected = "Idle makes no difference")]
    fn a_rule_that_makes_no_difference_is_not_proved() {
        Example::Idle.prove(&(0..20_u64), |_| true, at_least_ten);
    }

    #[test]
    #[should_panic(expected = "only 0 of")]
    fn a_rule_whose_precondition_is_rare_is_not_proved() {
        Example::AtLeastTen.prove(&(0..20_u64), |_| false, at_least_ten);
    }

    #[test]
    #[should_panic(expected = "does not hold")]
    fn a_rule_that_fails_is_not_proved() {
        Example::AtLeastTen.prove(
            &(0..20_u64),
            |_| true,
            |number| if *number < 19 { Ok(()) } else { Err(String::new()) },
        );
    }
}
