//! The rules of the engine that keep advice harmless. `docs/recommendations.md` says what each of them promises.

crate::rules! {
    /// A rule of harmless advice.
    pub AdviceRule {
        /// No memory limit is below what a container runtime needs to start a container.
        RuntimeMinimum,
        /// No memory limit is below the peak of memory that could not be reclaimed.
        UnreclaimablePeak,
        /// Until enough days are seen, nothing is lowered below the highest usage from before the agent.
        EarlierPeak,
        /// Page cache that filled the limit is no need.
        PageCache,
        /// Without memory usage there is no recommendation, and without CPU usage none for CPU.
        NoUse,
        /// OOM kills count, however short the history is.
        ShortHistory,
        /// After an OOM kill, no limit is at or below the one that was hit.
        KillRaises,
        /// A value is lowered by a part at a time.
        LargestStep,
        /// A growing container gets a limit that lasts, or no change.
        Growth,
        /// No memory limit is below a configured heap and its overhead.
        ConfiguredHeap,
        /// Where the heap is a share of the limit, the limit is not lowered below usage divided by that share.
        HeapShare,
        /// The memory limit is not lowered below usage and what volumes in memory may hold.
        VolumesFit,
        /// Usage of earlier images does not make a recommendation sure.
        NewImage,
        /// A history with missing parts makes no recommendation sure.
        PartialHistory,
        /// A recommendation names the settings and circumstances that its numbers do not show.
        Warnings,
        /// A CPU limit comes from CFS periods: from the quota simulation, or else the current one stays.
        PeriodsCarryLimits,
        /// After throttling above the risk, no CPU limit is at or below the current one.
        ThrottledLimitRises,
        /// A CPU limit is lowered only after a day of history.
        LimitFallsAfterADay,
        /// A Guaranteed pod stays Guaranteed: the CPU request follows the limit.
        RequestFollowsLimit,
        /// Pinned cores stay whole.
        WholeCores,
        /// No cores are pinned that are not pinned today.
        NotPinned,
        /// A CPU request or limit is lowered by a part at a time.
        LargestCpuStep,
        /// Values are rounded up to steps that a person would choose.
        Steps,
        /// A current value stays where the change would be too small.
        MinimalChange,
        /// Hours that are not complete change nothing.
        WholeHours,
        /// An unfinished hour counts where its memory usage is above the recommended limit.
        UnfinishedPeak,
        /// A row whose expected risk is far above the asked one says so.
        ExpectedRisk,
    }
}
