//! The findings of a check.

use super::assess::Assessed;
use crate::{manifests::Target, policy::Problem};

/// A problem of a container, with the place of the value.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub assessed: Assessed,
    pub file: String,
    /// From 1.
    pub line: usize,
}

/// A container that was compared.
#[derive(Debug)]
pub(super) struct Checked<'m> {
    pub target: &'m Target,
    pub title: String,
    pub file: String,
    pub findings: Vec<Finding>,
    /// Why nothing is known of it.
    pub unknown: Option<String>,
}

/// The result of a check.
#[derive(Debug)]
pub(super) struct CheckReport<'m> {
    pub containers: Vec<Checked<'m>>,
    /// What could not be read, or not be placed.
    pub notes: Vec<String>,
}

impl CheckReport<'_> {
    pub(super) fn findings(&self) -> impl Iterator<Item = (&Checked<'_>, &Finding)> {
        self.containers.iter().flat_map(|one| one.findings.iter().map(move |finding| (one, finding)))
    }

    pub(super) fn worst(&self) -> Option<Problem> {
        self.findings().map(|(_, finding)| finding.assessed.problem).max()
    }
}
