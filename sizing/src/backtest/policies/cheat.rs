//! Policies that use what they cannot know, to prove that tests notice.

use crate::backtest::{
    HORIZON,
    policy::{Policy, PolicyInput, Values},
};

/// Policies that use what they cannot know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cheat {
    /// Knows the next minute.
    NextMinute,
    /// Knows how many pods there will be.
    PodsToCome,
    /// Gets at once what a decision delivers.
    EarlyLabels,
    /// Gets what a decision delivered when its day is over: no cheat.
    LateLabels,
}

impl Cheat {
    pub(in crate::backtest) const fn label_delay(self) -> usize {
        match self {
            Self::EarlyLabels => 0,
            _ => HORIZON,
        }
    }
}

impl Policy for Cheat {
    fn decide(&mut self, view: &PolicyInput<'_>) -> Option<Values> {
        let memory = match self {
            Self::NextMinute => {
                view.rows.iter().filter_map(|row| row.memory.at(view.now)).fold(0.0, f64::max)
            }
            Self::PodsToCome => view.rows.len() as f64,
            Self::EarlyLabels | Self::LateLabels => {
                view.labels.iter().flat_map(|label| &label.highest).sum::<f64>()
            }
        };
        Some(Values { cpu: 1.0, memory })
    }
}
