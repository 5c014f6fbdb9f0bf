//! What readers see of the history.

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

/// A view of the records: as they are when it is made, whatever is written later.
#[derive(Debug)]
pub struct Hours {
    /// Files, each with how much of it is read.
    segments: Vec<(Arc<Segment>, u64)>,
    health: Arc<Health>,
}

/// Where the records of one container are, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<Entry>);

impl Records {
    /// The hours of which there is a record.
    pub fn hours(&self) -> Vec<Hour> {
        let mut hours: Vec<Hour> = self.of(Kind::HOUR).map(|entry| entry.hour).collect();
        hours.dedup();
        hours
    }

    /// Leaves out the hours that do not fit.
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

    /// The records of each container, from `since` on. Damaged ones are not among them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn subjects(&self, since: Hour) -> Result<BTreeMap<String, Records>, HistoryError> {
        let mut index = Index::new();
        for (number, (segment, length)) in (0..).zip(&self.segments) {
            if segment.day < day_of(since) {
                continue;
            }
            let is_wanted = |kind, hour| hour >= since && (kind == Kind::HOUR || kind == Kind::MINUTES);
            segment
                .index((number, *length), is_wanted, &mut index, &self.health)
                .map_err(HistoryError::Read)?;
        }
        let subjects = index.into_iter().filter_map(|(subject, mut entries)| {
            entries.sort_unstable();
            entries.iter().any(|entry| entry.kind == Kind::HOUR).then_some((subject, Records(entries)))
        });
        Ok(subjects.collect())
    }

    /// The evidence of a container, put together; with as many replicas as the last record has. A record that cannot be understood is
    /// left out and counted in the second value. `None` if nothing is left.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn evidence(&self, records: &Records) -> Result<(Option<Evidence>, u64), HistoryError> {
        let (sum, skipped) = self.sum(records.of(Kind::HOUR))?;
        Ok((sum.evidence, skipped))
    }

    /// The minutes of a container, as far as they are kept.
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
