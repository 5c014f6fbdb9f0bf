//! The rules of the engine that keep advice harmless. `docs/recommendations.md` says what each of them promises.

crate::rules! {
    /// A rule of harmless advice.
    pub AdviceRule {
        /// No memory limit is below what a container runtime needs to start a container.
        RuntimeMinimum,
    }
}
