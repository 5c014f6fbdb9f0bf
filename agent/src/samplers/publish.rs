//! Publishing the view.

use std::sync::{Arc, Weak};

use super::Round;
use crate::{
    kernel,
    model::{AgentRow, View},
    views::CurrentView,
};

/// Views of readers from which on their memory is worth returning. Scrapes that do not wait have one or two.
const MANY_VIEWS: usize = 4;

/// Old views that readers still have.
#[derive(Debug, Default)]
struct LentViews {
    views: Vec<Weak<View>>,
    were_many: bool,
}

impl LentViews {
    fn add(&mut self, view: Weak<View>) {
        self.views.push(view);
        self.forget_returned();
    }

    fn forget_returned(&mut self) {
        self.views.retain(|view| view.strong_count() > 0);
        self.were_many |= self.views.len() >= MANY_VIEWS;
    }

    /// Whether readers had many views, and have returned them since the last call.
    fn are_returned(&mut self) -> bool {
        self.forget_returned();
        self.views.len() <= 1 && std::mem::take(&mut self.were_many)
    }
}

/// Builds views.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    lent: LentViews,
}

impl Publisher {
    pub(super) fn publish(&mut self, round: &mut Round, views: &CurrentView) {
        let agent = AgentRow { sources: round.sources.rows().cloned().collect(), ..round.agent.clone() };
        let mut view = round.store.build_view(agent, round.now);
        view.host = Arc::clone(&round.host);
        view.pods = Arc::clone(round.naming.pods());
        let before = views.last().map(|view| Arc::downgrade(&view));
        // The old view's memory is reused, unless a scrape still reads it.
        match (views.publish(view), before) {
            (Some(before), _) => round.store.recycle(before),
            (None, Some(before)) => self.lent.add(before),
            (None, None) => {}
        }
        // The allocator would keep it.
        if self.lent.are_returned() {
            kernel::trim_heap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::Store;

    #[test]
    fn memory_is_returned_once_after_many_views() {
        let mut lent = LentViews::default();
        let view = || Arc::new(Store::new(1).build_view(AgentRow::default(), Instant::now()));
        for (number, is_many) in [(MANY_VIEWS - 1, false), (MANY_VIEWS, true), (3 * MANY_VIEWS, true)] {
            let mut read: Vec<_> = (0..number).map(|_| view()).collect();
            for view in &read {
                lent.add(Arc::downgrade(view));
                assert!(!lent.are_returned() || !is_many);
            }
            read.truncate(2);
            assert!(!lent.are_returned(), "two are still read");
            read.clear();
            assert_eq!((lent.are_returned(), lent.are_returned()), (is_many, false), "{number}");
        }
    }
}
