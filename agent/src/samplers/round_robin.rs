//! Spreads work evenly over an interval.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Items that are each due once per interval, a few at a time.
#[derive(Debug)]
pub(super) struct RoundRobin<T> {
    queue: VecDeque<T>,
    /// Number of items in the current cycle.
    size: usize,
    last: Option<Instant>,
    /// Items that are due; the fraction stays for the next call.
    owed: f64,
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), size: 0, last: None, owed: 0.0 }
    }
}

impl<T> RoundRobin<T> {
    /// All items were just taken: begins a new cycle.
    pub(super) fn restart(&mut self, now: Instant) {
        self.queue.clear();
        self.last = Some(now);
        self.owed = 0.0;
    }

    /// The items that are due now; all of them in the first call. `all` lists the items of a new cycle.
    pub(super) fn due(
        &mut self,
        now: Instant,
        interval: Duration,
        mut all: impl FnMut() -> Vec<T>,
    ) -> Vec<T> {
        let Some(last) = self.last.replace(now) else {
            let all = all();
            self.size = all.len();
            return all;
        };
        // With no items, `all` is called once per interval.
        let size = self.size.max(1) as f64;
        let share = now.saturating_duration_since(last).as_secs_f64() / interval.as_secs_f64();
        self.owed = (self.owed + size * share).min(size);
        let mut due = Vec::new();
        while self.owed >= 1.0 {
            if self.queue.is_empty() {
                self.queue = all().into();
                self.size = self.queue.len();
            }
            self.owed -= 1.0;
            due.extend(self.queue.pop_front());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn each_item_is_due_once_per_interval() {
        let mut queue = RoundRobin::default();
        let begun = Instant::now();
        let all = || (0..50).collect::<Vec<u32>>();
        assert_eq!(queue.due(begun, INTERVAL, all), all());
        let mut taken = Vec::new();
        for tick in 1..=1000 {
            let due = queue.due(begun + Duration::from_millis(tick * 100), INTERVAL, all);
            assert!(due.len() <= 1, "{due:?}");
            taken.extend(due);
        }
        // Sums of tenths are not exact in binary.
        assert!((499..=500).contains(&taken.len()), "{}", taken.len());
        assert_eq!(taken[..50], all()[..]);
        assert_eq!(taken[50..100], all()[..]);
    }

    #[test]
    fn after_a_restart_all_items_are_due_within_an_interval() {
        let mut queue = RoundRobin::default();
        let begun = Instant::now();
        let all = || (0..10).collect::<Vec<u32>>();
        queue.due(begun, INTERVAL, all);
        queue.due(begun + INTERVAL / 2, INTERVAL, all);
        let again = begun + INTERVAL * 3 / 4;
        queue.restart(again);
        assert!(queue.due(again, INTERVAL, all).is_empty());
        assert_eq!(queue.due(again + INTERVAL, INTERVAL, all), all());
    }

    #[test]
    fn no_item_is_due_twice_after_a_pause_and_no_items_are_fine() {
        let mut queue = RoundRobin::default();
        let begun = Instant::now();
        assert_eq!(queue.due(begun, INTERVAL, Vec::<u32>::new), Vec::<u32>::new());
        let later = begun + Duration::from_secs(600);
        assert_eq!(queue.due(later, INTERVAL, || vec![1, 2, 3]), [1]);
        assert_eq!(queue.due(later + 100 * INTERVAL, INTERVAL, || vec![4, 5, 6]), [2, 3, 4]);
    }
}
