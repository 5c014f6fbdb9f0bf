//! The engine: makes a recommendation from the usage history of a container. Pure and deterministic.

pub mod advice;
pub mod calibration;
pub mod confidence;
pub mod cpu;
pub mod curve;
pub mod delivered;
pub mod growth;
pub mod likes;
pub mod memory;
pub mod note;
pub mod oom;
pub mod pools;
pub mod reason;
mod recommend;
pub mod risk;
pub mod rule;
pub mod stability;
pub mod steps;
mod text;
mod whole_hours;

pub use self::{
    calibration::{Calibration, Pool},
    confidence::Confidence,
    delivered::{DeliveredShare, SoFar},
    likes::LikesScope,
    note::{MemoryNote, SettingNote},
    pools::{Member, Pools},
    reason::{LimitKept, Reason, span},
    recommend::{
        Context, CpuLimit, DEFAULT_HORIZON_DAYS, NotEnoughData, Policy, QosRule, Recommendation, recommend,
    },
    risk::{Profile, Risk, RiskError},
    rule::Rule,
    whole_hours::settle,
};
