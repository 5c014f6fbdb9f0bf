//! A root file system for the containers of tests and demonstrations: busybox alone.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{command, toolchain, workspace};

/// The variable by which tests learn where the root file system is.
pub(crate) const ROOTFS_VARIABLE: &str = "SNUG_TEST_ROOTFS";

/// Builds the root file system in target/rootfs, or finds it there.
pub(crate) fn root_file_system() -> Result<PathBuf> {
    let root = workspace::target_dir().join("rootfs");
    let bin = root.join("bin");
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot make {}", root.display()))?;
    }
    let busybox = bin.join("busybox");
    if !command::is_executable(&busybox) {
        // Whoever is cut off here leaves no half of a program under its name.
        let part = bin.join("busybox.part");
        fs::copy(toolchain::BUSYBOX, &part)
            .with_context(|| format!("no {}: run `cargo xtask setup containers`", toolchain::BUSYBOX))?;
        fs::rename(&part, &busybox).with_context(|| format!("cannot make {}", busybox.display()))?;
    }
    let applets = command::capture(command::new(&busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let link = bin.join(applet);
        if fs::symlink_metadata(&link).is_err() {
            symlink("busybox", &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    Ok(root)
}
