//! The rules of what a cluster allows. `docs/recommendations.md` says what each of them promises.

crate::rules! {
    /// A rule of what a cluster allows.
    pub(super) ConstraintRule {
        /// Values below the `min` of a LimitRange are raised to it.
        LimitRangeMin,
        /// Values above the `max` of a LimitRange are lowered to it, where the container has no more today.
        LimitRangeMax,
        /// Requests are raised until the `maxLimitRequestRatio` of a LimitRange holds.
        LimitRangeRatio,
        /// A CPU limit is not removed where the cluster would set another one, or refuse the pod.
        CpuLimitDemanded,
        /// The sums of a pod are raised to the `min` of a LimitRange for pods.
        PodLimitRangeMin,
        /// A request never exceeds its limit.
        RequestWithinLimit,
        /// The requests and limits of a pod are raised where its containers would not fit.
        PodResourcesFit,
        /// Requests that an autoscaler compares usage with are not lowered so far that its target exceeds 90 %.
        AutoscalerTarget,
        /// A ResourceQuota counts only the pods in its scopes.
        QuotaScope,
        /// A ResourceQuota is compared with requests and with limits.
        QuotaHeadroom,
        /// A pod fits one of the nodes with both its CPU and its memory.
        NodeFits,
        /// A new pod that a rollout starts before it ends an old one counts against ResourceQuotas.
        SurgeQuota,
        /// A new pod that a rollout starts before it ends an old one needs room on a node, beside all pods.
        SurgeRoom,
        /// What a cluster demands neither pins cores nor ends pinning.
        PinnedStays,
    }
}
