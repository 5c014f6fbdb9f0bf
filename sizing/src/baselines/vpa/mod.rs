//! The recommender of the [Vertical Pod Autoscaler](https://github.com/kubernetes/autoscaler/tree/55c37cd5/vertical-pod-autoscaler),
//! at 55c37cd5.
//!
//! Amounts are whole millicores and bytes, rounded down after every step like VPA's `ResourceAmount`. Times are seconds.

mod aggregate;
mod estimate;
mod histogram;

pub use self::{
    aggregate::{Aggregate, ContainerMemory, OomTooOld},
    estimate::{Amounts, Estimates, confidence, estimate, podwide_minimum},
    histogram::{Buckets, Decaying},
};

/// Upper bound of an amount: VPA's `MaxResourceAmount`.
pub const MAX_AMOUNT: f64 = 1e14;
/// A day, in seconds: half-lives, the interval of memory peaks and the unit of confidence.
pub const DAY: f64 = 86_400.0;

/// Converts a float to an amount: rounded down, at least 0, at most [`MAX_AMOUNT`].
fn amount(value: f64) -> i64 {
    if value.is_nan() { 0 } else { value.clamp(0.0, MAX_AMOUNT) as i64 }
}
