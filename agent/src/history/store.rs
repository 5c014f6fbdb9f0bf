//! The records of the history: one per hour, workload and container, in redb.

mod migration;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    TableError, backends::InMemoryBackend,
};
use snug_sizing::{
    evidence::{Evidence, Hour},
    minutes::{self, Minutes},
};

use crate::clock::unix_seconds;

type Records = TableDefinition<'static, (u32, &'static str), &'static [u8]>;
type Writable<'t> = Table<'t, (u32, &'static str), &'static [u8]>;

/// Evidence of one hour by hour and subject. The hour comes first, so that what is written again and again while an hour lasts lies
/// on few pages, and what is old is one range.
const HOURS: Records = TableDefinition::new("hours");
/// The minutes of an hour, of the last hours only, under the same keys.
const MINUTES: Records = TableDefinition::new("minutes");
/// What is known of the file itself.
const ABOUT: TableDefinition<'_, &str, u32> = TableDefinition::new("about");
/// The form of the records. Raise it with any change of `Evidence`, and keep the old form in [`migration`].
const SCHEMA: u32 = 3;
/// The oldest form that is still understood.
const OLDEST_SCHEMA: u32 = 1;
/// Name of the file in the data directory.
pub const FILE: &str = "history.redb";
/// Bytes that redb may keep of the file in memory.
const CACHE: usize = 2 << 20;

/// What went wrong with the history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be opened or made.
    #[error("cannot open the history {}: {source}; free the file or give --data-dir another directory", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<redb::Error>,
    },
    /// It cannot be written.
    #[error("cannot write the history: {0}; is the disk full?")]
    Write(#[source] Box<redb::Error>),
    /// It cannot be read.
    #[error("cannot read the history: {0}")]
    Read(#[source] Box<redb::Error>),
    /// A record is no record.
    #[error("the history has a record that cannot be understood: {0}")]
    Record(#[from] postcard::Error),
    /// A file that could not be used cannot be moved out of the way.
    #[error("cannot move the unusable history {} aside: {source}", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

fn write<E: Into<redb::Error>>(error: E) -> HistoryError {
    HistoryError::Write(Box::new(error.into()))
}

fn read<E: Into<redb::Error>>(error: E) -> HistoryError {
    HistoryError::Read(Box::new(error.into()))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// The database.
#[derive(Debug)]
pub struct Store {
    /// `None` after an error of the disk, until it can be opened again.
    database: RwLock<Option<Database>>,
    /// Where it is on disk, if it is.
    path: Option<PathBuf>,
}

impl Store {
    /// One in memory, which ends with the agent.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn in_memory() -> Result<Self, HistoryError> {
        let database = builder().create_with_backend(InMemoryBackend::new()).map_err(write)?;
        prepare(&database)?;
        Ok(Self { database: RwLock::new(Some(database)), path: None })
    }

    /// The one in a directory, made where there is none. A file that is none, or of another version, is moved aside and never deleted:
    /// its new name is the second value.
    ///
    /// # Errors
    /// When the file can be neither used nor moved: it is locked by another agent, read-only, or the disk is full.
    pub fn open(directory: &Path) -> Result<(Self, Option<PathBuf>), HistoryError> {
        let path = directory.join(FILE);
        let open = |source: redb::Error| HistoryError::Open { path: path.clone(), source: Box::new(source) };
        fs::create_dir_all(directory).map_err(|error| open(redb::Error::Io(error)))?;
        let of = |database| Self { database: RwLock::new(Some(database)), path: Some(path.clone()) };
        match open_at(&path) {
            Ok(database) => Ok((of(database), None)),
            Err(error) if is_unusable(&error) => {
                let aside = directory.join(format!("{FILE}.unusable-{}", unix_seconds()));
                fs::rename(&path, &aside)
                    .map_err(|source| HistoryError::Aside { path: path.clone(), source })?;
                Ok((of(open_at(&path).map_err(open)?), Some(aside)))
            }
            Err(error) => Err(open(error)),
        }
    }

    /// Does something with the database. After an error of the disk it takes nothing more until it is opened anew (redb: `PreviousIo`),
    /// which is done at the next call, when readers are done with the old one.
    fn with<T>(&self, action: impl FnOnce(&Database) -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        self.reopen()?;
        let result = {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            action(guard.as_ref().ok_or_else(closed)?)
        };
        if result.as_ref().is_err_and(is_of_disk) && self.path.is_some() {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    fn reopen(&self) -> Result<(), HistoryError> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            let opened = open_at(path);
            *database = Some(
                opened
                    .map_err(|source| HistoryError::Open { path: path.clone(), source: Box::new(source) })?,
            );
        }
        Ok(())
    }

    /// Adds evidence, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, batch: &[Evidence]) -> Result<(), HistoryError> {
        self.with(|database| add(database, batch))
    }

    /// Removes the minutes of hours before `by_minute` and hours before `oldest`, and then the oldest ones until records take no more
    /// than `most` bytes. Returns what they take.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prune(&self, by_minute: Hour, oldest: Hour, most: u64) -> Result<u64, HistoryError> {
        self.forget_before(MINUTES, by_minute)?;
        self.forget_hours_before(oldest)?;
        loop {
            let stored = self.stored_bytes()?;
            let first = self.hours()?.first_hour()?;
            match first {
                Some(Hour(first)) if stored > most => {
                    self.forget_hours_before(Hour(first.saturating_add(1)))?;
                }
                _ => return Ok(stored),
            }
        }
    }

    fn forget_hours_before(&self, oldest: Hour) -> Result<(), HistoryError> {
        self.forget_before(MINUTES, oldest)?;
        self.forget_before(HOURS, oldest)
    }

    fn forget_before(&self, table: Records, oldest: Hour) -> Result<(), HistoryError> {
        self.with(|database| {
            let transaction = database.begin_write().map_err(write)?;
            {
                let mut records = transaction.open_table(table).map_err(write)?;
                records.retain_in(..(oldest.0, ""), |_, _| false).map_err(write)?;
            }
            transaction.commit().map_err(write)
        })
    }

    fn stored_bytes(&self) -> Result<u64, HistoryError> {
        self.with(|database| {
            let transaction = database.begin_write().map_err(write)?;
            let stats = transaction.stats().map_err(read)?;
            transaction.abort().map_err(write)?;
            Ok(stats.stored_bytes() + stats.metadata_bytes())
        })
    }

    /// What there is now; later writes do not show in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hours(&self) -> Result<Hours, HistoryError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(read)?;
            let table = |records| transaction.open_table(records).map_err(|error: TableError| read(error));
            Ok(Hours { hours: table(HOURS)?, minutes: table(MINUTES)? })
        })
    }
}

/// The database in a file, made where there is none.
fn open_at(path: &Path) -> Result<Database, redb::Error> {
    let database = builder().create(path)?;
    prepare(&database).map_err(|error| match error {
        HistoryError::Write(error) | HistoryError::Read(error) => *error,
        other => redb::Error::Corrupted(other.to_string()),
    })?;
    Ok(database)
}

/// An error after which a database takes nothing more.
fn is_of_disk(error: &HistoryError) -> bool {
    let (HistoryError::Write(error) | HistoryError::Read(error)) = error else { return false };
    matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo)
}

fn closed() -> HistoryError {
    HistoryError::Read(Box::new(redb::Error::PreviousIo))
}

/// Makes what a database has to have, and brings records up to date.
fn prepare(database: &Database) -> Result<(), HistoryError> {
    let transaction = database.begin_write().map_err(write)?;
    {
        let mut about = transaction.open_table(ABOUT).map_err(write)?;
        let schema = about.get("schema").map_err(read)?.map(|value| value.value());
        match schema {
            Some(SCHEMA) => {}
            Some(older @ OLDEST_SCHEMA..SCHEMA) => {
                migrate(&mut transaction.open_table(HOURS).map_err(write)?, older)?;
                about.insert("schema", SCHEMA).map_err(write)?;
            }
            Some(other) => {
                let text = format!("its records are of version {other}, not {SCHEMA}");
                return Err(HistoryError::Read(Box::new(redb::Error::Corrupted(text))));
            }
            None => {
                about.insert("schema", SCHEMA).map_err(write)?;
            }
        }
        transaction.open_table(HOURS).map_err(write)?;
        transaction.open_table(MINUTES).map_err(write)?;
    }
    transaction.commit().map_err(write)
}

/// See [`Store::add`].
fn add(database: &Database, batch: &[Evidence]) -> Result<(), HistoryError> {
    let transaction = database.begin_write().map_err(write)?;
    {
        let mut hours = transaction.open_table(HOURS).map_err(write)?;
        let mut minutes = transaction.open_table(MINUTES).map_err(write)?;
        for evidence in batch {
            let subject = subject(evidence);
            let Some((Hour(hour), _)) = evidence.hours.first_key_value() else { continue };
            let key = (*hour, subject.as_str());
            add_minutes(&mut minutes, key, &evidence.minutes)?;
            let known = match hours.get(key).map_err(read)? {
                // What cannot be understood is written over: it is of no use to anybody.
                Some(bytes) => postcard::from_bytes::<Evidence>(bytes.value()).ok(),
                None => None,
            };
            let sum = known.and_then(|mut known| {
                known.merge(evidence).ok()?;
                known.workload.replicas = evidence.workload.replicas;
                Some(known)
            });
            let mut sum = sum.unwrap_or_else(|| evidence.clone());
            sum.minutes.clear();
            let bytes = postcard::to_stdvec(&sum)?;
            hours.insert(key, bytes.as_slice()).map_err(write)?;
        }
    }
    transaction.commit().map_err(write)
}

/// Adds minutes to those of their hour.
fn add_minutes(table: &mut Writable<'_>, key: (u32, &str), new: &Minutes) -> Result<(), HistoryError> {
    if new.is_empty() {
        return Ok(());
    }
    let known = table.get(key).map_err(read)?.map(|bytes| postcard::from_bytes::<Minutes>(bytes.value()));
    let mut sum = known.and_then(Result::ok).unwrap_or_default();
    minutes::merge(&mut sum, new);
    table.insert(key, postcard::to_stdvec(&sum)?.as_slice()).map_err(write)?;
    Ok(())
}

/// Rewrites all records of an older form, in the transaction that says so: a kill leaves the old file. What cannot be understood is
/// left out and said.
fn migrate(hours: &mut Writable<'_>, version: u32) -> Result<(), HistoryError> {
    let keys: Vec<(u32, String)> = hours
        .iter()
        .map_err(read)?
        .map(|entry| entry.map(|(key, _)| (key.value().0, key.value().1.to_owned())))
        .collect::<Result<_, _>>()
        .map_err(read)?;
    let mut lost = 0_u64;
    for (hour, subject) in &keys {
        let key = (*hour, subject.as_str());
        let record = hours.get(key).map_err(read)?.map(|bytes| migration::record(version, bytes.value()));
        match record {
            Some(Ok(evidence)) => {
                let bytes = postcard::to_stdvec(&evidence)?;
                hours.insert(key, bytes.as_slice()).map_err(write)?;
            }
            Some(Err(_)) => {
                lost += 1;
                hours.remove(key).map_err(write)?;
            }
            None => {}
        }
    }
    tracing::info!(
        records = keys.len(),
        lost,
        from = version,
        to = SCHEMA,
        "the history was brought up to date"
    );
    Ok(())
}

/// A file that will never be of use, unlike one that cannot be had now.
fn is_unusable(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted => true,
        redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Who a record is about, as a key. Windows of different lengths are not added up.
fn subject(evidence: &Evidence) -> String {
    let Evidence { workload, container, window_millis, .. } = evidence;
    [&*workload.namespace, &*workload.owner, &*workload.name, &*container.name, &*window_millis.to_string()]
        .join("\0")
}

/// A view of the records.
#[derive(Debug)]
pub struct Hours {
    hours: ReadOnlyTable<(u32, &'static str), &'static [u8]>,
    minutes: ReadOnlyTable<(u32, &'static str), &'static [u8]>,
}

impl Hours {
    fn first_hour(&self) -> Result<Option<Hour>, HistoryError> {
        let first = self.hours.first().map_err(read)?;
        Ok(first.map(|(key, _)| Hour(key.value().0)))
    }

    /// The hours of each subject, from `since` on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn subjects(&self, since: Hour) -> Result<BTreeMap<String, Vec<Hour>>, HistoryError> {
        let mut subjects: BTreeMap<String, Vec<Hour>> = BTreeMap::new();
        for entry in self.hours.range((since.0, "")..).map_err(read)? {
            let (key, _) = entry.map_err(read)?;
            let (hour, subject) = key.value();
            match subjects.get_mut(subject) {
                Some(hours) => hours.push(Hour(hour)),
                None => drop(subjects.insert(subject.to_owned(), vec![Hour(hour)])),
            }
        }
        Ok(subjects)
    }

    /// The evidence of a subject in these hours, oldest first, put together; with as many replicas as the last has. A record that
    /// cannot be understood is left out and counted in the second value. `None` if nothing is left.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn evidence(&self, subject: &str, hours: &[Hour]) -> Result<(Option<Evidence>, u64), HistoryError> {
        let mut sum: Option<Evidence> = None;
        let mut skipped = 0;
        for hour in hours {
            let Some(bytes) = self.hours.get((hour.0, subject)).map_err(read)? else { continue };
            let Ok(evidence) = postcard::from_bytes::<Evidence>(bytes.value()) else {
                skipped += 1;
                continue;
            };
            match &mut sum {
                None => sum = Some(evidence),
                Some(sum) => {
                    skipped += u64::from(sum.merge(&evidence).is_err());
                    sum.workload.replicas = evidence.workload.replicas;
                }
            }
        }
        Ok((sum, skipped))
    }

    /// The minutes of a subject in these hours, as far as they are kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn minutes(&self, subject: &str, hours: &[Hour]) -> Result<Minutes, HistoryError> {
        let mut sum = Minutes::new();
        for hour in hours {
            let bytes = self.minutes.get((hour.0, subject)).map_err(read)?;
            if let Some(of_hour) = bytes.and_then(|bytes| postcard::from_bytes(bytes.value()).ok()) {
                minutes::merge(&mut sum, &of_hour);
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests;
