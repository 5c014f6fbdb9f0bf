//! The files that are read, and those that they refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use crate::yaml::{self, Document, Value, YamlError};

/// Bytes of a file in a folder. Larger ones are no manifests.
const MAX_BYTES: u64 = 16 << 20;
/// Files below the given folders.
const MAX_FILES: usize = 50_000;
/// Folders with what other programs made.
const SKIPPED: [&str; 3] = ["node_modules", "vendor", "target"];

/// Why the files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {file}; check its path and permissions")]
    Read { file: String, source: io::Error },
    #[error("{folder} has more than {MAX_FILES} files; name the folders with manifests")]
    TooMany { folder: String },
}

/// A file with its documents.
#[derive(Clone, Debug)]
pub struct File {
    pub text: String,
    /// Why it is no YAML, or its documents and what they say.
    pub parsed: Result<Vec<(Document, Value)>, YamlError>,
}

impl File {
    fn new(text: String) -> Self {
        let parsed = yaml::parse(&text).and_then(|documents| {
            documents.into_iter().map(|document| document.value().map(|value| (document, value))).collect()
        });
        Self { text, parsed }
    }
}

/// Files by their path.
#[derive(Debug, Default)]
pub struct Files {
    files: BTreeMap<PathBuf, File>,
    /// Below the given paths: only these are changed.
    own: BTreeSet<PathBuf>,
    /// Folders of charts.
    charts: BTreeSet<PathBuf>,
    /// Texts that are not written yet, instead of those of the files.
    changed: BTreeMap<PathBuf, String>,
}

/// A path without `.` and `..`, as far as that is possible without the file system.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if clean.file_name().is_some() => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The name that is shown for standard input.
pub const STANDARD_INPUT: &str = "-";

/// A file name of kustomizations without an extension.
const KUSTOMIZATION: &str = "Kustomization";

fn is_yaml(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    extension.is_some_and(|it| matches!(it, "yaml" | "yml" | "json"))
}

impl Files {
    /// With texts that are not written yet.
    pub(super) fn with_changed(changed: BTreeMap<PathBuf, String>) -> Self {
        Self { changed, ..Self::default() }
    }

    /// The text of a file that is not written yet.
    pub(super) fn changed(&self, path: &Path) -> Option<&str> {
        self.changed.get(path).map(String::as_str)
    }

    /// All texts that are not written yet.
    pub(super) fn all_changed(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.changed.iter().map(|(path, text)| (path.as_path(), text.as_str()))
    }

    /// Adds a given file, folder or standard input.
    pub(super) fn add(&mut self, path: &Path) -> Result<(), FileError> {
        let error = |source| FileError::Read { file: path.display().to_string(), source };
        if path.as_os_str() == STANDARD_INPUT {
            let mut text = Vec::new();
            // It can be read only once.
            if self.changed(path).is_none() {
                io::stdin().lock().read_to_end(&mut text).map_err(error)?;
            }
            self.insert(path.to_owned(), text);
            return Ok(());
        }
        let path = clean(path);
        let metadata =
            fs::metadata(if path.as_os_str().is_empty() { Path::new(".") } else { &path }).map_err(error)?;
        if metadata.is_dir() {
            return self.walk(&path);
        }
        let bytes = fs::read(&path).map_err(error)?;
        self.insert(path, bytes);
        Ok(())
    }

    fn insert(&mut self, path: PathBuf, bytes: Vec<u8>) {
        let file = match (self.changed(&path), String::from_utf8(bytes)) {
            (Some(text), _) => File::new(text.to_owned()),
            (None, Ok(text)) => File::new(text),
            (None, Err(error)) => {
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                File { text, parsed: Err(YamlError::Encoding) }
            }
        };
        self.own.insert(path.clone());
        self.files.insert(path, file);
    }

    fn walk(&mut self, folder: &Path) -> Result<(), FileError> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            let error = |source| FileError::Read { file: shown.display().to_string(), source };
            for entry in fs::read_dir(shown).map_err(error)? {
                let entry = entry.map_err(error)?;
                let (path, kind) = (folder.join(entry.file_name()), entry.file_type().map_err(error)?);
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // Links are not followed: a file would be changed twice.
                if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&&*name) {
                    folders.push(path);
                } else if kind.is_file()
                    && (is_yaml(&path) || name == KUSTOMIZATION)
                    && entry.metadata().map_err(error)?.len() <= MAX_BYTES
                {
                    self.insert(path.clone(), fs::read(&path).map_err(error)?);
                }
            }
            if self.own.len() > MAX_FILES {
                return Err(FileError::TooMany { folder: shown.display().to_string() });
            }
        }
        let charts =
            self.own.iter().filter(|path| path.ends_with("Chart.yaml")).filter_map(|path| path.parent());
        self.charts.extend(charts.map(Path::to_owned).collect::<Vec<_>>());
        Ok(())
    }

    /// A file, read now if it was not yet.
    pub(super) fn load(&mut self, path: &Path) -> Option<&File> {
        if !self.files.contains_key(path) {
            let size = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
            let text = fs::read_to_string(path).ok().filter(|_| size <= MAX_BYTES)?;
            self.files.insert(path.to_owned(), File::new(text));
        }
        self.files.get(path)
    }

    /// A file that was read.
    pub fn get(&self, path: &Path) -> Option<&File> {
        self.files.get(path)
    }

    /// Whether it is below the given paths, so that it may be changed.
    pub fn is_own(&self, path: &Path) -> bool {
        self.own.contains(path)
    }

    /// The given files, but those of charts.
    pub(super) fn manifests(&self) -> impl Iterator<Item = &PathBuf> {
        self.own.iter().filter(|path| !self.is_in_chart(path))
    }

    /// The folders of charts that are no part of another one.
    pub(super) fn charts(&self) -> impl Iterator<Item = &PathBuf> {
        self.charts.iter().filter(|chart| {
            let above = chart.ancestors().skip(1);
            !above.into_iter().any(|folder| self.charts.contains(folder))
        })
    }

    fn is_in_chart(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|folder| self.charts.contains(folder))
    }

    /// What a location says, also within a text.
    pub fn lookup(&self, at: &super::Location) -> Option<Value> {
        let mut value = self.value(&at.file, at.document)?.clone();
        for step in &at.path {
            value = match step {
                yaml::Step::Text => yaml::parse(value.text()?).ok()?.first()?.value().ok()?,
                step => value.at(std::slice::from_ref(step))?.clone(),
            };
        }
        Some(value)
    }

    /// What a document of a file says.
    pub(super) fn value(&self, path: &Path, document: usize) -> Option<&Value> {
        Some(&self.files.get(path)?.parsed.as_ref().ok()?.get(document)?.1)
    }

    /// The line of a location; 1 if it is unknown.
    pub fn line(&self, location: &super::Location) -> usize {
        let of = || {
            let (document, _) =
                self.files.get(&location.file)?.parsed.as_ref().ok()?.get(location.document)?;
            Some(document.line(&location.path))
        };
        of().unwrap_or(1)
    }
}
