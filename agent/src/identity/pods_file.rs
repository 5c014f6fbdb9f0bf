//! A file with a list of pods, for hosts without an API server. It is read again whenever it changes.

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

/// The maximum size of a pods file, bytes: a thousand pods, which `kubectl` prints with 4 to 20 KiB each. The file is in memory while
/// it is read, and must fit in the memory limit of the agent several times.
pub const MAX_BYTES: u64 = 16 << 20;

/// A pods file and the pods of its last usable version.
#[derive(Debug)]
pub struct PodsFile {
    path: PathBuf,
    max_bytes: u64,
    state: FileState,
    pods: Arc<Pods>,
}

/// The result of reading a pods file.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The pods that the file lists now.
    pub pods: Arc<Pods>,
    /// The items that were skipped.
    pub skipped: Vec<SkippedPod>,
}

/// The state of the file at the last attempt, so that each change is read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    NeverTried,
    Unreadable(io::ErrorKind),
    Seen { device: u64, inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl FileState {
    fn new(metadata: &Metadata) -> Self {
        Self::Seen {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // Detects a change within one clock tick, and new permissions.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl PodsFile {
    /// A file that may not exist yet. It has no pods until [`PodsFile::reload_if_changed`] has read it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: MAX_BYTES, state: FileState::NeverTried, pods: Arc::default() }
    }

    /// Reads the file, which must exist and be usable.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Reloaded), PodsError> {
        let mut file = Self::new(path);
        file.state = file.stat();
        let reloaded = file.load()?;
        Ok((file, reloaded))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pods of the last usable version.
    pub fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// Reads the file again if it changed since the last attempt; `None` if it did not.
    ///
    /// After an error the pods of the last usable version stay, and the same version is not reported again. The call blocks
    /// while it reads and parses the file.
    pub fn reload_if_changed(&mut self) -> Result<Option<Reloaded>, PodsError> {
        let now = self.stat();
        if now == self.state {
            return Ok(None);
        }
        self.state = now;
        self.load().map(Some)
    }

    fn stat(&self) -> FileState {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => FileState::new(&metadata),
            Err(error) => FileState::Unreadable(error.kind()),
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
        // Without O_NONBLOCK, opening a pipe without a writer would block for ever.
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.path)
            .map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        // Taken before reading, so that the next call detects a write that happens meanwhile.
        self.state = FileState::new(&metadata);
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
