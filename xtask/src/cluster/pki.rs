//! Keys, certificates and kubeconfigs of a test cluster.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command;

/// The folder with all keys, certificates and kubeconfigs.
pub(super) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Creates new keys, certificates and kubeconfigs with the program `maker` of the tests. `server` is the URL of the API server.
    pub(super) fn make(
        maker: &Path,
        folder: &Path,
        node: &str,
        addresses: [&str; 2],
        server: &str,
    ) -> Result<Self> {
        command::run(command::new(maker).arg(folder).arg(node).args(addresses).arg(server))?;
        Ok(Self { folder: folder.to_owned() })
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}
