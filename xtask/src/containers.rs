//! The root file system of containers in tests and benches: busybox only.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{command, toolchain, workspace};

/// Environment variable with the path of the root file system, for tests.
pub(crate) const ROOTFS_VARIABLE: &str = "SNUG_TEST_ROOTFS";

/// Path of the root file system, target/rootfs. Creates it if needed.
pub(crate) fn root_file_system() -> Result<PathBuf> {
    let root = workspace::target_dir().join("rootfs");
    let bin = root.join("bin");
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot create {}", root.display()))?;
    }
    let busybox = bin.join("busybox");
    if !command::is_executable(&busybox) {
        // Copy, then rename, so that an interrupted run leaves no incomplete file under the final name.
        let part = bin.join("busybox.part");
        fs::copy(toolchain::BUSYBOX, &part).with_context(|| {
            format!("{} not found: run `cargo xtask setup containers`", toolchain::BUSYBOX)
        })?;
        fs::rename(&part, &busybox).with_context(|| format!("cannot create {}", busybox.display()))?;
    }
    let applets = command::capture(command::new(&busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let link = bin.join(applet);
        if fs::symlink_metadata(&link).is_err() {
            symlink("busybox", &link).with_context(|| format!("cannot create {}", link.display()))?;
        }
    }
    Ok(root)
}
