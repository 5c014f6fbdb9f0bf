//! The engine: makes a recommendation from the usage history of a container. Pure and deterministic.

pub mod advice;
pub mod calibration;
pub mod cpu;
pub mod growth;
pub mod memory;
pub mod note;
pub mod oom;
pub mod reason;
mod recommend;
pub mod risk;
pub mod rule;
pub mod stability;
pub mod steps;
mod text;
mod whole_hours;

pub use self::{
    calibration::{Pool, Tally},
    note::{MemoryNote, SettingNote},
    reason::{Confidence, LimitKept, Reason, span},
    recommend::{
        Context, CpuLimit, DEFAULT_HORIZON_DAYS, NotEnoughData, Policy, QosRule, Recommendation, recommend,
    },
    risk::{Profile, Risk, RiskError},
    rule::Rule,
    whole_hours::settle,
};
