//! The guest's file system, written as an initramfs archive.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::{command, elf};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File { mode: u32, contents: Vec<u8> },
    Symlink { target: String },
}

/// Files of a guest, sorted by path, so that folders come before their contents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Initramfs {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Initramfs {
    /// Adds a file with these permissions, and its parent folders. Replaces an existing file.
    pub(crate) fn file(&mut self, guest: &Path, mode: u32, contents: Vec<u8>) -> Result<()> {
        self.insert(guest, Entry::File { mode, contents })
    }

    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, guest: &Path) -> Result<()> {
        self.insert(guest, Entry::Folder)
    }

    /// Adds a program, with its shared libraries and loader unless it is static.
    pub(crate) fn program(&mut self, host: &Path, guest: &Path) -> Result<()> {
        if !elf::needed_libraries(host)?.is_empty() {
            let printed = command::capture(command::new("ldd").arg(host))?;
            for library in parse_ldd(&printed)
                .with_context(|| format!("a shared library of {} is missing on this host", host.display()))?
            {
                self.copy(&library, &library)?;
            }
        }
        self.copy(host, guest)
    }

    /// Adds a copy of a file, or of a folder with its contents, of the host.
    pub(crate) fn tree(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(host).with_context(|| cannot_read(host))?;
        if metadata.is_symlink() {
            let target = fs::read_link(host).with_context(|| cannot_read(host))?;
            return self.insert(guest, Entry::Symlink { target: target.to_string_lossy().into_owned() });
        }
        if metadata.is_file() {
            return self.copy(host, guest);
        }
        ensure!(metadata.is_dir(), "{} is not a file, folder or symbolic link", host.display());
        self.folder(guest)?;
        for entry in fs::read_dir(host).with_context(|| cannot_read(host))? {
            let entry = entry.with_context(|| cannot_read(host))?;
            self.tree(&entry.path(), &guest.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn copy(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let contents = fs::read(host).with_context(|| cannot_read(host))?;
        let mode = fs::metadata(host).with_context(|| cannot_read(host))?.permissions().mode() & 0o7777;
        self.file(guest, mode, contents)
    }

    fn insert(&mut self, guest: &Path, entry: Entry) -> Result<()> {
        let path = relative(guest)?;
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            match self.entries.get(parent) {
                None => {
                    self.entries.insert(parent.to_path_buf(), Entry::Folder);
                }
                Some(Entry::Folder) => {}
                Some(_) => {
                    bail!("/{} is a file: cannot create /{} below it", parent.display(), path.display())
                }
            }
        }
        if entry != Entry::Folder && self.entries.get(&path) == Some(&Entry::Folder) {
            bail!("/{} exists and is a folder", path.display());
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Writes a cpio archive in newc format. It is not compressed, because unpacking is slow on an emulated processor.
    pub(crate) fn write(&self, out: &mut impl io::Write) -> Result<()> {
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let builder = Builder::new(&path.to_string_lossy()).ino(number).nlink(1);
            let (builder, contents) = match entry {
                Entry::Folder => {
                    (builder.mode(0o755).set_mode_file_type(ModeFileType::Directory), [].as_slice())
                }
                Entry::File { mode, contents } => {
                    (builder.mode(*mode).set_mode_file_type(ModeFileType::Regular), contents.as_slice())
                }
                Entry::Symlink { target } => {
                    (builder.mode(0o777).set_mode_file_type(ModeFileType::Symlink), target.as_bytes())
                }
            };
            let size = u32::try_from(contents.len()).with_context(|| {
                format!("/{} has {} bytes; the maximum is 4 GiB", path.display(), contents.len())
            })?;
            let mut file = builder.write(&mut *out, size);
            io::Write::write_all(&mut file, contents)?;
            file.finish()?;
        }
        trailer(out)?;
        Ok(())
    }
}

/// The path relative to the guest's root.
///
/// # Errors
///
/// Fails for a path that leaves the root, and for the root itself.
fn relative(guest: &Path) -> Result<PathBuf> {
    use std::path::Component;
    let mut path = PathBuf::new();
    for component in guest.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                bail!("{} must be an absolute path without `..` in the guest", guest.display())
            }
        }
    }
    ensure!(!path.as_os_str().is_empty(), "cannot replace the guest's root: give a path below it");
    Ok(path)
}

/// Paths of files in the output of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn parse_ldd(printed: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in printed.lines().map(str::trim) {
        let file = line.split_once("=>").map_or(line, |(_, file)| file).trim();
        if file.starts_with("not found") {
            bail!("{line}");
        }
        // The vdso has no file.
        if file.starts_with('/') {
            files.extend(file.split_whitespace().next().map(PathBuf::from));
        }
    }
    Ok(files)
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use cpio::newc::Reader;

    fn listing(initramfs: &Initramfs) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = Vec::new();
        initramfs.write(&mut archive).unwrap();
        let mut rest = archive.as_slice();
        let mut found = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            found.push((name, mode, contents));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn the_archive_holds_parents_first_and_every_mode() {
        let mut initramfs = Initramfs::default();
        initramfs.file(Path::new("/usr/bin/tool"), 0o755, b"tool".to_vec()).unwrap();
        initramfs.file(Path::new("init"), 0o700, b"#!".to_vec()).unwrap();
        initramfs.folder(Path::new("/proc")).unwrap();
        let expected = [
            ("init", 0o100_700, b"#!".to_vec()),
            ("proc", 0o040_755, Vec::new()),
            ("usr", 0o040_755, Vec::new()),
            ("usr/bin", 0o040_755, Vec::new()),
            ("usr/bin/tool", 0o100_755, b"tool".to_vec()),
        ]
        .map(|(name, mode, contents)| (name.to_owned(), mode, contents));
        assert_eq!(listing(&initramfs), expected);
    }

    #[test]
    fn a_tree_keeps_links_and_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("busybox"), "bb").unwrap();
        fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
        let mut initramfs = Initramfs::default();
        initramfs.tree(folder.path(), Path::new("/rootfs")).unwrap();
        let found = listing(&initramfs);
        assert!(found.contains(&("rootfs/bin/busybox".into(), 0o100_750, b"bb".to_vec())));
        assert!(found.contains(&("rootfs/bin/sh".into(), 0o120_777, b"busybox".to_vec())));
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        let mut initramfs = Initramfs::default();
        initramfs.file(Path::new("/bin/sh"), 0o755, Vec::new()).unwrap();
        for path in ["/", "", "/../etc/passwd", "/bin", "/bin/sh/below"] {
            assert!(initramfs.file(Path::new(path), 0o644, Vec::new()).is_err(), "{path}");
        }
        assert!(initramfs.tree(Path::new("/dev/null"), Path::new("/null")).is_err());
    }

    #[test]
    fn a_dynamic_program_brings_its_libraries() {
        let shell = Path::new("/bin/sh");
        let mut initramfs = Initramfs::default();
        initramfs.program(shell, Path::new("/bin/sh")).unwrap();
        assert!(initramfs.entries.keys().any(|path| path.to_string_lossy().contains("libc.so")));
        assert!(initramfs.entries.keys().any(|path| path.to_string_lossy().contains("ld-linux")));
    }

    #[test]
    fn ldd_names_files_and_what_is_missing() {
        let printed = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")];
        assert_eq!(parse_ldd(printed).unwrap(), expected);
        let error = parse_ldd("\tlibnl-3.so.200 => not found\n").unwrap_err().to_string();
        assert_eq!(error, "libnl-3.so.200 => not found");
    }
}
