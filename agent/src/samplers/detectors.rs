//! Detectors: events that no single measurement or message shows.

use std::{sync::Arc, time::Instant};

use super::{statuses::Statuses, throttling::Throttling};
use crate::{
    model::Pods,
    store::{Key, Store},
};

/// All detectors.
#[derive(Debug, Default)]
pub(super) struct EventDetectors {
    throttling: Throttling,
    statuses: Statuses,
}

impl EventDetectors {
    /// Once a second: has the store record the events that are new.
    pub(super) fn detect(&mut self, store: &mut Store, pods: &Arc<Pods>, now: Instant, now_unix: f64) {
        let throttled = self.throttling.detect(store, now);
        for (subject, details) in throttled.into_iter().chain(self.statuses.detect(pods)) {
            store.record(subject, details, now_unix, now);
        }
    }

    /// Drops what is kept of cgroups that are gone.
    pub(super) fn forget(&mut self, gone: &[Key]) {
        self.throttling.forget(gone);
    }
}
