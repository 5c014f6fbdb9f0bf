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
        /// Containers that a patch cannot size get no more for an autoscaler or the pod as a whole.
        InjectedStays,
        /// A change of an object that others manage is not a command, but a word on where it belongs.
        Managed,
        /// A resize of a running pod has what the API server accepts.
        Resize,
        /// Names cannot break an output.
        PlainNames,
        /// An answer does not depend on which workloads were selected.
        AnySelection,
        /// Metrics of several clusters are never added up.
        OneCluster,
        /// Where labels do not tell containers of one name apart, there is no advice.
        NothingAmbiguous,
        /// A container that is scraped several times counts once.
        ScrapedTwice,
        /// A series' own labels count, not those of what was scraped.
        ExportedLabels,
        /// A restart after an OOM kill is an OOM kill, whatever the kubelet counts.
        KillsFromState,
        /// The largest numbers of cgroups are no limits.
        Unlimited,
        /// Init containers and sidecars are what kube-state-metrics says they are.
        RolesFromState,
        /// A workload is found without the metric of its owner, by the names that controllers make.
        OwnersByName,
        /// The CPU usage of a short run is that of its counter, not of rates.
        RunsByCounter,
        /// A row from a partial result says so, with a low confidence.
        PartialRows,
        /// Windows of usage begin and end with the clock.
        AlignedWindows,
        /// A partial result is not taken for a complete one.
        Complete,
        /// A query that is too large is cut into smaller parts.
        SmallerParts,
    }
}
