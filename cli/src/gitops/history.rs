//! The usage history, and what it recommends.

use anyhow::{Context as _, Result, bail};
use snug_sizing::evidence::Evidence;

use crate::{
    columns::plain,
    manifests::Manifests,
    policy::{ContainerNames, Policies},
    recommend::{self, ReportRequest, SizingOptions, report::Report},
    source::{EvidenceSource, OpenedSource},
};

/// One cluster's history with its recommendations.
pub(super) struct History {
    pub report: Report,
    pub source: OpenedSource,
    pub policies: Policies,
}

impl History {
    /// Reads the history of one cluster and makes recommendations as `snug recommend` does.
    pub(super) fn open(options: &EvidenceSource, sizing: &SizingOptions) -> Result<Self> {
        let mut opened = options.open(sizing.likes())?;
        if opened.len() > 1 {
            let names: Vec<String> = opened.iter().map(|one| plain(&one.name)).collect();
            bail!("manifests are compared with one cluster; select one of {} with --match", names.join(", "));
        }
        let source = opened.pop().context("there is no cluster")?;
        let policies = sizing.policies(source.cluster.as_ref())?;
        let request = ReportRequest { policies: &policies, price: None, group_by: None };
        let report = recommend::report_of(&request, &source, |_| true)?;
        Ok(Self { report, source, policies })
    }

    /// Names of all containers of the history and of manifests, which policies are compared with.
    pub(super) fn names<'n>(&'n self, manifests: &'n Manifests) -> Vec<ContainerNames<'n>> {
        let of_history = self.source.snapshot.evidence().map(|evidence| {
            let workload = &evidence.workload;
            (Some(&*workload.namespace), &*workload.name, &*evidence.container.name)
        });
        let of_manifests = manifests
            .targets
            .iter()
            .map(|target| (target.namespace.as_deref(), &*target.workload, &*target.container));
        of_history.chain(of_manifests).collect()
    }

    /// The usage history of a container.
    pub(super) fn evidence(&self, subject: [&str; 4]) -> Option<&Evidence> {
        self.source.snapshot.evidence().find(|evidence| {
            let workload = &evidence.workload;
            [&*workload.namespace, &*workload.owner, &*workload.name, &*evidence.container.name] == subject
        })
    }
}
