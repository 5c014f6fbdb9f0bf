//! `snug diff` and `snug check` as processes, on manifests as people keep them in Git, with the real kustomize and helm.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

mod checks;
mod diffs;
mod edits;
mod history;
mod rendered;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A copy of a fixture.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new(fixture: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture), folder.path());
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs snug in it, with `-f .` unless a path is given.
    fn snug(&self, history: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snug"));
        let (name, rest) = arguments.split_first().unwrap();
        command.arg(name).args(["--file", history.to_str().unwrap()]).args(rest).current_dir(self.path());
        if !rest.contains(&"-f") {
            command.args(["-f", "."]);
        }
        if let Some(tools) = tools() {
            command.arg("--helm").arg(tools.join("helm"));
        }
        command.output().unwrap()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path().join(path), text).unwrap();
    }

    /// All files with their bytes.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The folder with helm and kustomize; tests that need them do nothing without.
fn tools() -> Option<PathBuf> {
    let folder = std::env::var_os("SNUG_TEST_MANIFEST_TOOLS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("no helm and kustomize: run `cargo xtask test --only manifests`");
    }
    folder
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
