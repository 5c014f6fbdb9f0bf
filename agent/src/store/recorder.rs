//! Numbers events and keeps the last ones.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{Event, EventCounts, EventDetails, Identity, Subject};

/// The maximum number of events that are kept.
pub const MAX_EVENTS: usize = 1024;
/// The maximum number of events of one subject. Whoever has more loses the oldest of its own, not those of others.
const MAX_EVENTS_OF_SUBJECT: usize = MAX_EVENTS / 8;
/// How long an event waits for the names of its pod, which may arrive after the pod's first event.
const NAMES_TIMEOUT: Duration = Duration::from_secs(5);

/// An event that waits for names.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    at_unix: f64,
    subject: Subject,
    details: EventDetails,
}

/// Numbers events and keeps the last [`MAX_EVENTS`].
#[derive(Debug, Default)]
pub(super) struct Recorder {
    recent: VecDeque<Arc<Event>>,
    waiting: VecDeque<Waiting>,
    last: u64,
    counts: EventCounts,
    /// [`Self::recent`] for readers; `None` after a change.
    shown: Option<Arc<[Arc<Event>]>>,
}

impl Recorder {
    /// Records an event. If the names of its subject may still arrive, the event waits for them, at most [`NAMES_TIMEOUT`].
    pub(super) fn record(&mut self, subject: Subject, details: EventDetails, at_unix: f64, now: Instant) {
        if subject.lacks_names() && self.waiting.len() < MAX_EVENTS {
            self.waiting.push_back(Waiting { since: now, at_unix, subject, details });
        } else {
            self.append(subject, details, at_unix);
        }
    }

    /// Sets the names of a cgroup in the events that wait for them.
    pub(super) fn named(&mut self, identity: &Identity) {
        if self.waiting.is_empty() {
            return;
        }
        for one in self.waiting.iter_mut().filter(|one| one.subject.path == identity.path) {
            one.subject = Subject::new(identity);
        }
        self.release(|one| !one.subject.lacks_names());
    }

    /// Appends the events whose names have not arrived in time.
    pub(super) fn settle(&mut self, now: Instant) {
        self.release(|one| now.saturating_duration_since(one.since) >= NAMES_TIMEOUT);
    }

    /// The last events, newest last.
    pub(super) fn rows(&mut self) -> Arc<[Arc<Event>]> {
        let recent = &self.recent;
        Arc::clone(self.shown.get_or_insert_with(|| recent.iter().cloned().collect()))
    }

    /// Events so far, by kind.
    pub(super) const fn counts(&self) -> EventCounts {
        self.counts
    }

    fn release(&mut self, due: impl Fn(&Waiting) -> bool) {
        for _ in 0..self.waiting.len() {
            let Some(one) = self.waiting.pop_front() else { return };
            if due(&one) {
                self.append(one.subject, one.details, one.at_unix);
            } else {
                self.waiting.push_back(one);
            }
        }
    }

    fn append(&mut self, subject: Subject, details: EventDetails, at_unix: f64) {
        self.last += 1;
        let event = Event { sequence: self.last, at_unix, subject, details };
        self.counts.add(event.kind());
        let is_of_subject = |other: &Arc<Event>| other.subject.is_same(&event.subject);
        if self.recent.len() == MAX_EVENTS {
            self.recent.pop_front();
        } else if self.recent.len() > MAX_EVENTS_OF_SUBJECT
            && self.recent.iter().filter(|other| is_of_subject(other)).count() >= MAX_EVENTS_OF_SUBJECT
            && let Some(oldest) = self.recent.iter().position(is_of_subject)
        {
            self.recent.remove(oldest);
        }
        self.recent.push_back(Arc::new(event));
        self.shown = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventCursor, EventKind, Level, Names, PathIdentity, Runtime};

    fn identity(path: &str, pod_uid: Option<&str>, names: Option<Names>) -> Identity {
        let of_path = PathIdentity {
            level: Level::Container,
            runtime: Runtime::Containerd,
            pod_uid: pod_uid.map(str::to_owned),
            qos: None,
            id: "a".to_owned(),
        };
        Identity { path: path.into(), of_path, names: names.map(Arc::new), engine_name: None }
    }

    fn eviction() -> EventDetails {
        EventDetails::Eviction("".into())
    }

    #[test]
    fn an_event_waits_for_names_until_a_timeout() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        for path in ["/late", "/never"] {
            recorder.record(Subject::new(&identity(path, Some("u"), None)), eviction(), 1.0, now);
        }
        recorder.record(Subject::new(&identity("/unit", None, None)), eviction(), 2.0, now);
        assert_eq!(recorder.rows().len(), 1, "outside of pods no names are expected");
        let names = Names { namespace: "shop".to_owned(), pod: "web".to_owned(), ..Names::default() };
        recorder.named(&identity("/late", Some("u"), Some(names)));
        recorder.settle(now + NAMES_TIMEOUT / 2);
        assert_eq!(recorder.rows().last().unwrap().subject.to_string(), "shop/web");
        assert_eq!(recorder.rows().len(), 2);
        recorder.settle(now + NAMES_TIMEOUT);
        let rows = recorder.rows();
        assert_eq!(rows.last().unwrap().subject.to_string(), "/never");
        assert_eq!(rows.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(recorder.counts().iter().any(|count| count == (EventKind::Eviction, 3)));
    }

    #[test]
    fn old_events_are_dropped_and_sequence_numbers_show_it() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        for number in 0..MAX_EVENTS + 5 {
            recorder.record(Subject::new(&identity(&format!("/{number}"), None, None)), eviction(), 1.0, now);
        }
        let rows = recorder.rows();
        assert_eq!((rows.len(), rows.first().unwrap().sequence), (MAX_EVENTS, 6));
        assert!(Arc::ptr_eq(&rows, &recorder.rows()), "without new events nothing is copied");
    }

    #[test]
    fn a_noisy_pod_keeps_no_room_of_others() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        let mut record = |path: &str, pod| {
            // Events of pods wait for names, but not any longer than that.
            recorder.record(Subject::new(&identity(path, pod, Some(Names::default()))), eviction(), 1.0, now);
        };
        record("/quiet", None);
        for number in 0..20 * MAX_EVENTS {
            // In a crash loop each container is another one.
            record(&format!("/noisy/{number}"), Some("noisy"));
        }
        record("/last", None);
        recorder.settle(now + NAMES_TIMEOUT);
        let rows = recorder.rows();
        assert_eq!(rows.len(), MAX_EVENTS_OF_SUBJECT + 2);
        assert_eq!(rows.first().unwrap().subject.to_string(), "/quiet");
        let (new, missed) = EventCursor::default().new_events(&rows);
        assert_eq!(missed as usize, 20 * MAX_EVENTS + 2 - new.len(), "the sequence shows what is missing");
    }

    #[test]
    fn a_cursor_takes_each_event_once_and_counts_what_it_missed() {
        let mut recorder = Recorder::default();
        let names = Arc::new(Names { pod: "web".to_owned(), ..Names::default() });
        let mut happen = |times: usize| {
            for number in 0..times {
                let details = EventDetails::Eviction("".into());
                let subject = Subject::from_status(&names, &format!("u{number}"), "");
                recorder.record(subject, details, 1.0, Instant::now());
            }
            recorder.rows()
        };
        let mut cursor = EventCursor::default();
        let mut follow = |rows: Arc<[Arc<Event>]>| {
            let (new, missed) = cursor.new_events(&rows);
            (new.iter().map(|event| event.sequence).collect::<Vec<_>>(), missed)
        };
        assert_eq!(follow(happen(0)), (vec![], 0));
        assert_eq!(follow(happen(2)), (vec![1, 2], 0));
        assert_eq!(follow(happen(0)), (vec![], 0));
        let (new, missed) = follow(happen(MAX_EVENTS + 3));
        assert_eq!((new.len(), new.first(), missed), (MAX_EVENTS, Some(&6), 3));
    }
}
