//! Errors of the history.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file or directory cannot be opened or created.
    #[error("cannot open the history {}: {source}; free the path or give --data-dir another directory", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Another agent has locked the history.
    #[error("the history {} is in use by another agent; give --data-dir another directory", path.display())]
    Locked {
        /// The directory, or the database of version 0.1.
        path: PathBuf,
    },
    /// The history cannot be written.
    #[error("cannot write the history: {0}; is the disk full?")]
    Write(#[source] io::Error),
    /// The history cannot be read.
    #[error("cannot read the history: {0}")]
    Read(#[source] io::Error),
    /// The writing thread cannot be started.
    #[error("cannot start the thread that writes the history")]
    Thread(#[source] io::Error),
    /// An unusable file cannot be moved aside.
    #[error("cannot move the unusable history {} aside: {source}", path.display())]
    Aside { path: PathBuf, source: io::Error },
}
