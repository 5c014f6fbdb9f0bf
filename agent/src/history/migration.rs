//! Converts the history of versions up to 0.1, a redb database, once.
//!
//! redb panics on some damaged files, and release builds abort on a panic. So the agent starts a second process of itself to
//! convert the old file (`snug-agent convert-history OLD NEW`). If that process fails, the agent still starts. This module
//! and redb will be removed in version 0.3.

mod forms;

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use snug_sizing::evidence::Evidence;

use super::{error::HistoryError, health::Health, medium::aside, store::Store};

/// Name of the file in the data directory.
const FILE: &str = "history.redb";
/// The argument that makes the program convert a file.
const ARGUMENT: &str = "convert-history";
/// Name of the file that marks a complete conversion. It contains the number of records that could not be converted.
const CONVERTED: &str = "converted";
/// Exit code for a file that cannot be opened now: `EX_TEMPFAIL` of sysexits.
const TEMPORARY_FAILURE: u8 = 75;
/// The timeout of a conversion. 256 MiB take some seconds.
const MAX_DURATION: Duration = Duration::from_secs(120);
/// The size of redb's cache, bytes.
const CACHE: usize = 2 << 20;
/// Records per write.
const BATCH: usize = 1000;

type Records = TableDefinition<'static, (u32, &'static str), &'static [u8]>;
/// Usage history of one hour, by hour and container.
const HOURS: Records = TableDefinition::new("hours");
/// The minutes of an hour, under the same keys.
const MINUTES: Records = TableDefinition::new("minutes");
/// Metadata of the file: the format of its records.
const ABOUT: TableDefinition<'_, &str, u32> = TableDefinition::new("about");

/// Why a file was not converted.
#[derive(Debug, thiserror::Error)]
enum ConvertError {
    /// Another process uses the file, or the disk failed.
    #[error("the file cannot be opened now: {0}")]
    NotNow(#[source] redb::Error),
    /// The file is permanently unusable.
    #[error("the file cannot be used: {0}")]
    Unusable(#[source] redb::Error),
    /// A checksum is wrong.
    #[error("the file is damaged")]
    Damaged,
    /// The records have an unknown format.
    #[error("the records have the format {0:?}, which this version does not know")]
    Form(Option<u32>),
    /// The new files cannot be written.
    #[error(transparent)]
    New(#[from] HistoryError),
    /// The marker file cannot be written.
    #[error("cannot write {CONVERTED}: {0}")]
    Mark(#[source] io::Error),
}

/// The command that converts a file in a second process of this program.
pub(super) fn this_program(old: &Path, new: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).arg(old).arg(new);
    command
}

/// Converts the history of an older version if the arguments of the program (its name first) request it; else `None`.
pub fn convert_if_asked(arguments: &[impl AsRef<OsStr>]) -> Option<ExitCode> {
    let [_, argument, old, new] = arguments else { return None };
    if argument.as_ref() != ARGUMENT {
        return None;
    }
    Some(exit_code(Path::new(old.as_ref()), Path::new(new.as_ref())).into())
}

/// Converts a file. Returns the exit code.
fn exit_code(old: &Path, new: &Path) -> u8 {
    let Err(error) = convert(old, new) else { return 0 };
    eprintln!("cannot convert the history {}: {error}", old.display());
    match error {
        ConvertError::NotNow(_) | ConvertError::New(_) | ConvertError::Mark(_) => TEMPORARY_FAILURE,
        ConvertError::Unusable(_) | ConvertError::Damaged | ConvertError::Form(_) => 1,
    }
}

/// Writes the records of an old file into a new directory, and then [`CONVERTED`].
fn convert(old: &Path, new: &Path) -> Result<(), ConvertError> {
    let mut database = Builder::new().set_cache_size(CACHE).open(old).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => ConvertError::NotNow(error.into()),
        error => ConvertError::Unusable(error.into()),
    })?;
    // Reads do not verify checksums. This call verifies all of them.
    if !database.check_integrity().map_err(unusable)? {
        return Err(ConvertError::Damaged);
    }
    let store = Store::open_at(new, Arc::default(), None, &mut Vec::new())?;
    let lost = copy(&database, &store)?;
    store.seal_all()?;
    fs::write(new.join(CONVERTED), lost.to_string()).map_err(ConvertError::Mark)
}

fn unusable(error: impl Into<redb::Error>) -> ConvertError {
    ConvertError::Unusable(error.into())
}

/// Copies all records. Returns the number of records that cannot be decoded.
fn copy(database: &Database, store: &Store) -> Result<u64, ConvertError> {
    let transaction = database.begin_read().map_err(unusable)?;
    let about = transaction.open_table(ABOUT).map_err(unusable)?;
    let form = about.get("schema").map_err(unusable)?.map(|value| value.value());
    let form = form.filter(|form| forms::ALL.contains(form)).ok_or(ConvertError::Form(form))?;
    let hours = transaction.open_table(HOURS).map_err(unusable)?;
    // The first formats had no such table.
    let minutes = transaction.open_table(MINUTES).ok();
    let mut batch: Vec<Evidence> = Vec::new();
    let mut lost = 0;
    for entry in hours.iter().map_err(unusable)? {
        let (key, value) = entry.map_err(unusable)?;
        let Ok(mut evidence) = forms::evidence(form, value.value()) else {
            lost += 1;
            continue;
        };
        let of_hour = minutes.as_ref().map(|minutes| minutes.get(key.value()));
        if let Some(of_hour) = of_hour.transpose().map_err(unusable)?.flatten() {
            match forms::minutes(of_hour.value()) {
                Ok(of_hour) => evidence.minutes = of_hour,
                Err(_) => lost += 1,
            }
        }
        batch.push(evidence);
        if batch.len() >= BATCH {
            store.add(&batch)?;
            batch.clear();
        }
    }
    store.add(&batch)?;
    Ok(lost)
}

/// Converts the history of an older version, if there is one. Returns the new paths of files that were moved aside.
///
/// The new directory is renamed when it is complete. After that the old file is removed, then [`CONVERTED`]. So a kill at any
/// moment loses nothing.
pub(super) fn migrate(
    data: &Path,
    directory: &Path,
    converter: fn(&Path, &Path) -> Command,
    health: &Health,
) -> Result<Vec<PathBuf>, HistoryError> {
    let old = data.join(FILE);
    let mark = directory.join(CONVERTED);
    let mut moved = Vec::new();
    if old.exists() && !directory.exists() {
        let new = data.join(format!("{}.new", super::DIRECTORY));
        let open = |source| HistoryError::Open { path: new.clone(), source };
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open(error)),
            _ => {}
        }
        match run(converter(&old, &new)).map_err(open)? {
            Outcome::Done if new.join(CONVERTED).exists() => fs::rename(&new, directory).map_err(open)?,
            Outcome::NotNow => {
                let source =
                    io::Error::other("another agent uses the file, or there is no space for the new files");
                return Err(HistoryError::Open { path: old, source });
            }
            outcome => {
                tracing::error!(path = %old.display(), ?outcome, "the history of an older version cannot be read");
                // The records that were converted so far may be wrong.
                match fs::remove_dir_all(&new) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open(error)),
                    _ => {}
                }
            }
        }
    }
    let lost = fs::read_to_string(&mark).ok().map(|lost| lost.trim().parse().unwrap_or(0_u64));
    if old.exists() {
        let open = |source| HistoryError::Aside { path: old.clone(), source };
        if lost == Some(0) {
            fs::remove_file(&old).map_err(open)?;
            tracing::info!(path = %old.display(), "the history of an older version was converted");
        } else {
            let moved_to = aside(&old);
            fs::rename(&old, &moved_to).map_err(open)?;
            health.damaged(lost.unwrap_or(1));
            health.moved_aside(&old, &moved_to);
            moved.push(moved_to);
        }
    }
    if lost.is_some() {
        fs::remove_file(&mark).map_err(|source| HistoryError::Open { path: mark, source })?;
    }
    Ok(moved)
}

/// The outcome of the converting process.
#[derive(Debug)]
enum Outcome {
    Done,
    NotNow,
    #[expect(dead_code, reason = "the text is for the log")]
    Failed(String),
}

fn run(mut command: Command) -> io::Result<Outcome> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > MAX_DURATION {
            child.kill()?;
            child.wait()?;
            return Ok(Outcome::Failed(format!("it took longer than {MAX_DURATION:?}")));
        }
        thread::sleep(Duration::from_millis(5));
    };
    Ok(match status.code() {
        Some(0) => Outcome::Done,
        Some(code) if code == i32::from(TEMPORARY_FAILURE) => Outcome::NotNow,
        _ => Outcome::Failed(status.to_string()),
    })
}

#[cfg(test)]
mod tests;
