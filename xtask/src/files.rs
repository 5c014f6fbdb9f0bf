//! Files for archives that are reproducible: sorted, owned by root, and of one time.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
};

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

/// A file or symbolic link in an archive.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
    link: Option<String>,
}

impl File {
    /// An executable file. `path` has no leading slash.
    pub(crate) fn program(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o755, content, link: None }
    }

    /// A file with mode 0644.
    pub(crate) fn text(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content, link: None }
    }

    /// A symbolic link.
    pub(crate) fn link(path: &str, to: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, content: Vec::new(), link: Some(to.to_owned()) }
    }
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compresses bytes, without a time.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

/// A tar of these files; folders come before their files. All are of the same time, in seconds since the epoch.
pub(crate) fn tar(files: &[File], time: u64) -> Result<Vec<u8>> {
    let mut folders = BTreeSet::new();
    for file in files {
        let ancestors = Path::new(&file.path).ancestors().skip(1);
        folders.extend(ancestors.filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_path_buf));
    }
    let mut archive = tar::Builder::new(Vec::new());
    for folder in &folders {
        let mut header = header(0o755, 0, time);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, folder, std::io::empty())?;
    }
    append(&mut archive, files, time)?;
    Ok(archive.into_inner()?)
}

/// As [`tar()`], without entries for folders.
pub(crate) fn tar_without_folders(files: &[File], time: u64) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, files, time)?;
    Ok(archive.into_inner()?)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, files: &[File], time: u64) -> Result<()> {
    let files: BTreeMap<&str, &File> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    for (path, file) in files {
        let mut header = header(file.mode, file.content.len() as u64, time);
        match &file.link {
            Some(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, to)?;
            }
            None => archive.append_data(&mut header, path, file.content.as_slice())?,
        }
    }
    Ok(())
}

fn header(mode: u32, size: u64, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}
