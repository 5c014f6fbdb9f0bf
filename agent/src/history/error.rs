//! What can go wrong with the history.

use std::{io, path::PathBuf};

/// What went wrong with the history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file or directory cannot be opened or made.
    #[error("cannot open the history {}: {source}; free the path or give --data-dir another directory", path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another agent writes it.
    #[error("the history {} is in use by another agent; give --data-dir another directory", path.display())]
    Locked {
        /// The directory, or the file of an older version.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write the history: {0}; is the disk full?")]
    Write(#[source] io::Error),
    /// It cannot be read.
    #[error("cannot read the history: {0}")]
    Read(#[source] io::Error),
    /// There is no thread to write it.
    #[error("cannot start the thread that writes the history")]
    Thread(#[source] io::Error),
    /// A file that could not be used cannot be moved out of the way.
    #[error("cannot move the unusable history {} aside: {source}", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}
