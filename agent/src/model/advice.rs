//! The rules of the agent that keep advice harmless. `docs/recommendations.md` says what each of them promises.

snug_sizing::rules! {
    /// A rule of harmless advice.
    pub(crate) AgentRule {
        /// Requests and limits of a whole pod are its own, and no container has them as its current ones.
        PodResources,
        /// A limit that no machine reaches is no limit.
        NoLimit,
        /// Init containers and native sidecars are recorded as such.
        Roles,
        /// Static pods whose names differ only by their node's are one workload.
        StaticPods,
        /// Ephemeral containers are not recorded: they can have no requests and limits.
        Ephemeral,
        /// An image is as old as the oldest container that runs it.
        ImageAge,
        /// Volumes in memory are recorded with the size that they can reach.
        MemoryVolumes,
        /// Units of different guests, and of the host, are never one workload.
        GuestsApart,
        /// Instances of a container in one pod are one replica.
        OneReplicaPerPod,
        /// What is read slowly is read for a reader, all at one moment.
        OneMoment,
        /// User and system time never exceed the CPU time.
        PartsOfCpuTime,
        /// An OOM kill has the limit that was too low for the container, or none.
        ExceededLimit,
        /// An OOM kill that only counters show is counted, once.
        CountedKills,
        /// An OOM kill that only a pod status reports is counted, once.
        ReportedKills,
        /// A run has at least one second.
        ShortRuns,
        /// A run that ended before its first full sample has the peak of its final record.
        FinalPeak,
        /// A short run of a container without a pod and a name counts only if it was OOM-killed.
        ShortUnnamedRuns,
        /// A watermark from before the agent is no usage of the hour in which it is read.
        WatermarkBeforeAgent,
        /// A container that ended before its workload was known waits for its name.
        LateNames,
        /// A run that no status has belongs to the only container of its pod.
        OnlyContainer,
        /// Of environments and arguments only settings are kept.
        SettingsOnly,
    }
}
