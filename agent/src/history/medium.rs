//! The place and the names of the history's files.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::clock::unix_seconds;

/// The prefix of a file's name. The day follows, in days since the Unix epoch.
const PREFIX: &str = "day-";
/// The extension of an incomplete file.
const UNFINISHED: &str = "new";

/// The place of the files.
#[derive(Clone, Debug)]
pub(super) enum Medium {
    Directory(PathBuf),
    /// In memory, until the agent stops.
    Memory,
}

impl Medium {
    /// The file of a day.
    pub(super) fn path(&self, day: u32) -> Option<PathBuf> {
        match self {
            Self::Directory(directory) => Some(directory.join(format!("{PREFIX}{day}"))),
            Self::Memory => None,
        }
    }

    /// Creates the new file of a day, which [`Self::put_in_place`] renames.
    pub(super) fn create(&self, day: u32) -> io::Result<File> {
        match self.path(day) {
            Some(path) => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path.with_extension(UNFINISHED)),
            None => Ok(memfd_create("snug-history", MemfdFlags::CLOEXEC)?.into()),
        }
    }

    /// Replaces the file of a day by the new one.
    pub(super) fn put_in_place(&self, day: u32) -> io::Result<()> {
        let (Some(path), Self::Directory(directory)) = (self.path(day), self) else { return Ok(()) };
        fs::rename(path.with_extension(UNFINISHED), path)?;
        File::open(directory)?.sync_all()
    }

    /// The days that have a file. Removes incomplete files.
    pub(super) fn days(&self) -> io::Result<Vec<u32>> {
        let Self::Directory(directory) = self else { return Ok(Vec::new()) };
        let mut days = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            if entry.path().extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(entry.path())?;
            } else if let Ok(day) = name.parse() {
                days.push(day);
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Removes the files of days before `first` that were moved aside.
    pub(super) fn remove_aside_before(&self, first: u32) -> io::Result<()> {
        let Self::Directory(directory) = self else { return Ok(()) };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let parts = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('.'));
            let day = parts.and_then(|(day, _)| day.parse::<u32>().ok());
            if day.is_some_and(|day| day < first) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The name of an unusable file after it was moved aside.
pub(super) fn aside(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unusable-{}", unix_seconds()));
        if number > 0 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    (0..1000).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}
