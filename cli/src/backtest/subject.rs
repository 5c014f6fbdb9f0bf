//! What is replayed: the engine with its settings, and the curves of policies.

use serde::Serialize;
use snug_sizing::{
    backtest::{policies::PolicyChoice, score},
    engine::{Risk, Rule},
};

/// The engine with its risk and constants.
#[derive(Clone, Copy, Debug)]
pub struct EngineUnderTest {
    pub(super) risk: Risk,
    pub(super) rule: Rule,
}

impl EngineUnderTest {
    /// The engine at a risk, with the fitted constants.
    pub fn new(risk: Risk) -> Self {
        Self { risk, rule: Rule::FITTED }
    }

    /// The engine as a policy.
    pub fn choice(&self) -> PolicyChoice {
        PolicyChoice::Snug(self.risk, self.rule)
    }
}

#[derive(Debug, Serialize)]
pub struct Curve {
    pub policy: String,
    /// Points by factor.
    pub points: Vec<Point>,
}

/// One point of a curve.
#[derive(Debug, Serialize)]
pub struct Point {
    /// Factor on the values, or the risk; for the oracle, a factor on its share of time above the request.
    pub factor: f64,
    /// Whether this is the policy as it is shipped.
    pub shipped: bool,
    pub memory: score::Memory,
    pub cpu: score::Cpu,
}
