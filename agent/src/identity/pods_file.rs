//! A file with a list of pods, for hosts where no API server can be asked; read again whenever it changes.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    identity::pods::{Loaded, PodsError, SkippedPod},
    model::Pods,
};

/// The largest pods file that is read, in bytes: tens of thousands of pods as `kubectl` prints them, at 4 KiB or more each.
pub const MAX_BYTES: u64 = 256 << 20;

/// A pods file and what it said when it could last be read.
#[derive(Debug)]
pub struct PodsFile {
    path: PathBuf,
    max_bytes: u64,
    state: State,
    pods: Arc<Pods>,
}

/// What of a pods file's change its reader should know; the pods are in [`PodsFile::pods`].
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The pods that the file lists now.
    pub pods: Arc<Pods>,
    /// Items of the list that were left out.
    pub skipped: Vec<SkippedPod>,
}

/// What the file looked like when it was last tried, so that each change is tried once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NeverTried,
    Unreadable(io::ErrorKind),
    Seen { device: u64, inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self::Seen {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // Tells a new version within the clock's tick of the old one, and new permissions.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl PodsFile {
    /// A file that need not exist yet; without pods until [`PodsFile::reload_if_changed`] has read it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: MAX_BYTES, state: State::NeverTried, pods: Arc::default() }
    }

    /// Reads the file, which must be there and usable now.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Reloaded), PodsError> {
        let mut file = Self::new(path);
        file.state = file.look();
        let reloaded = file.load()?;
        Ok((file, reloaded))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pods of the last version that could be used.
    pub fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// Reads the file again if it was changed or replaced since it was last tried; `None` if not.
    ///
    /// On an error the pods of the last usable version stay, and the same broken version is not reported again.
    /// Reading blocks for as long as the disk and the parser take.
    pub fn reload_if_changed(&mut self) -> Result<Option<Reloaded>, PodsError> {
        let now = self.look();
        if now == self.state {
            return Ok(None);
        }
        self.state = now;
        self.load().map(Some)
    }

    fn look(&self) -> State {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => State::of(&metadata),
            Err(error) => State::Unreadable(error.kind()),
        }
    }

    fn load(&mut self) -> Result<Reloaded, PodsError> {
        let json = self.read()?;
        let Loaded { pods, skipped } = Pods::from_json(&json)
            .map_err(|source| PodsError::Content { path: self.path.clone(), source: Box::new(source) })?;
        self.pods = Arc::new(pods);
        Ok(Reloaded { pods: Arc::clone(&self.pods), skipped })
    }

    fn read(&mut self) -> Result<Vec<u8>, PodsError> {
        let unreadable = |source| PodsError::Read { path: self.path.clone(), source };
        // Opening a pipe that nobody writes to would otherwise wait for ever.
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.path)
            .map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        // Taken before reading: what is written meanwhile is a change that the next call sees.
        self.state = State::of(&metadata);
        if !metadata.is_file() {
            return Err(PodsError::NotRegular { path: self.path.clone() });
        }
        let limit = self.max_bytes;
        let mut json = Vec::new();
        if metadata.len() <= limit {
            file.take(limit + 1)
                .read_to_end(&mut json)
                .map_err(|source| PodsError::Read { path: self.path.clone(), source })?;
        }
        if metadata.len() > limit || json.len() as u64 > limit {
            return Err(PodsError::TooLarge { path: self.path.clone(), limit });
        }
        Ok(json)
    }
}

#[cfg(test)]
mod tests;
