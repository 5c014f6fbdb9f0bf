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
    }
}
