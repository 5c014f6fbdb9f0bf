//! The rules of the command that keep advice harmless. `docs/recommendations.md` says what each of them promises.

snug_sizing::rules! {
    /// A rule of harmless advice.
    pub CommandRule {
        /// Usage of one container in CPU windows of several lengths is one row.
        OneRow,
        /// Runs of a CronJob are one workload, from every source.
        RunsOfACronJob,
        /// Only pods that run now count as replicas.
        LivingReplicas,
        /// Workloads and containers that are gone get no advice.
        Gone,
        /// A patch has containers of the pod template only, each in its section.
        TemplateOnly,
        /// Containers that a known injector adds are never patched.
        Injected,
        /// A change of an object that others manage is not a command, but a word on where it belongs.
        Managed,
        /// A resize of a running pod has what the API server accepts.
        Resize,
        /// Names cannot break an output.
        PlainNames,
        /// An answer does not depend on which workloads were selected.
        AnySelection,
    }
}
