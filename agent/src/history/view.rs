//! A view of the history for readers.

use std::{collections::BTreeMap, sync::Arc};

use snug_sizing::{
    evidence::{Evidence, Hour},
    minutes::Minutes,
};

use super::{
    error::HistoryError,
    frame::Kind,
    health::Health,
    record::Sum,
    segment::{Entry, Index, Segment, day_of},
};

/// The records at one moment. Later writes do not change it.
#[derive(Debug)]
pub struct Hours {
    /// Files, each with the length that is read.
    segments: Vec<(Arc<Segment>, u64)>,
    health: Arc<Health>,
}

/// The locations of the records of one container, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<Entry>);

impl Records {
    /// The hours that have a record.
    pub fn hours(&self) -> Vec<Hour> {
        let mut hours: Vec<Hour> = self.of(Kind::HOUR).map(|entry| entry.hour).collect();
        hours.dedup();
        hours
    }

    /// Keeps the hours for which `fits` is true.
    pub fn retain(&mut self, fits: impl Fn(Hour) -> bool) {
        self.0.retain(|entry| fits(entry.hour));
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.kind == kind)
    }
}

impl Hours {
    pub(super) fn new(segments: Vec<(Arc<Segment>, u64)>, health: Arc<Health>) -> Self {
        Self { segments, health }
    }

    /// The records of each container from `since` on, without damaged ones.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn subjects(&self, since: Hour) -> Result<BTreeMap<String, Records>, HistoryError> {
        let mut index = Index::new();
        for (number, (segment, length)) in (0..).zip(&self.segments) {
            if segment.day < day_of(since) {
                continue;
            }
            let is_selected = |kind, hour| hour >= since && (kind == Kind::HOUR || kind == Kind::MINUTES);
            segment
                .index((number, *length), is_selected, &mut index, &self.health)
                .map_err(HistoryError::Read)?;
        }
        let subjects = index.into_iter().filter_map(|(subject, mut entries)| {
            entries.sort_unstable();
            entries.iter().any(|entry| entry.kind == Kind::HOUR).then_some((subject, Records(entries)))
        });
        Ok(subjects.collect())
    }

    /// The usage history of a container, merged from its records, with the replicas of the last record. The second value is the
    /// number of records that cannot be decoded. `None` if no record is usable.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn evidence(&self, records: &Records) -> Result<(Option<Evidence>, u64), HistoryError> {
        let (sum, skipped) = self.sum(records.of(Kind::HOUR))?;
        Ok((sum.evidence, skipped))
    }

    /// The minutes of a container that are kept.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn minutes(&self, records: &Records) -> Result<Minutes, HistoryError> {
        let (sum, _) = self.sum(records.of(Kind::MINUTES))?;
        Ok(sum.minutes.unwrap_or_default())
    }

    fn sum<'r>(&self, entries: impl Iterator<Item = &'r Entry>) -> Result<(Sum, u64), HistoryError> {
        let mut sum = Sum::default();
        let mut skipped = 0;
        let mut buffer = Vec::new();
        for entry in entries {
            let Some((segment, _)) = self.segments.get(entry.segment as usize) else { continue };
            let frame = segment.read(entry, &mut buffer, &self.health).map_err(HistoryError::Read)?;
            skipped += u64::from(!frame.is_some_and(|frame| sum.add(&frame)));
        }
        Ok((sum, skipped))
    }
}
