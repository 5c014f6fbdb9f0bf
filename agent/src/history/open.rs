//! Opens the history of a data directory: takes the lock, converts the database of an older version, opens the files.

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

/// Name of the lock file in the data directory.
const LOCK: &str = "history.lock";
/// How long to wait for the lock. An agent that was just stopped, or a process that it was starting, may still hold it.
const MAX_LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Opens or creates the history of a data directory, and converts the database of an older version. An unusable file is
    /// moved aside and never deleted; the second value has its new path. A file with damaged records is rewritten without
    /// them, and the damaged file is moved aside, too.
    ///
    /// # Errors
    /// When the directory cannot be used or created: another agent uses it, it is read-only, or the disk is full.
    pub fn open(data: &Path) -> Result<(Self, Vec<PathBuf>), HistoryError> {
        Self::open_with(data, migration::this_program)
    }

    /// Like [`Self::open`], with the command that converts the database of an older version.
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
        let mut moved = migration::migrate(data, &directory, converter, &health)?;
        let store = Self::open_at(&directory, health, Some(lock), &mut moved)?;
        Ok((store, moved))
    }
}
