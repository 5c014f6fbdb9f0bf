//! Opening the history of a data directory: the lock, the files of an older version, the files.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    error::HistoryError,
    health::Health,
    migration,
    store::{DIRECTORY, Store},
};

/// Name of the file in the data directory that is locked by whoever writes.
const LOCK: &str = "history.lock";
/// How long the lock is waited for: an agent that was just stopped, or a process that it was starting, may hold it for a moment.
const MAX_LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// The one in a data directory, made where there is none, with the records of an older version's file. A file that cannot be used is
    /// moved aside and never deleted: what it is called now is in the second value. One with damaged records is written anew without them,
    /// and kept in the same way.
    ///
    /// # Errors
    /// When the directory can be neither used nor made: another agent uses it, it is read-only, or the disk is full.
    pub fn open(data: &Path) -> Result<(Self, Vec<PathBuf>), HistoryError> {
        Self::open_with(data, migration::this_program)
    }

    /// As [`Self::open`], with the program that reads an older version's file.
    pub(super) fn open_with(
        data: &Path,
        converter: fn(&Path, &Path) -> Command,
    ) -> Result<(Self, Vec<PathBuf>), HistoryError> {
        let directory = data.join(DIRECTORY);
        let open = |path: &Path| {
            let path = path.to_owned();
            move |source| HistoryError::Open { path, source }
        };
        fs::create_dir_all(data).map_err(open(data))?;
        let lock_path = data.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(open(&lock_path))?;
        let deadline = Instant::now() + MAX_LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(HistoryError::Locked { path: directory }),
                Err(TryLockError::Error(error)) => return Err(open(&lock_path)(error)),
            }
        }
        let health = Arc::new(Health::default());
        let mut moved = migration::take_over(data, &directory, converter, &health)?;
        let store = Self::at(&directory, health, Some(lock), &mut moved)?;
        Ok((store, moved))
    }
}
