//! What `deploy/` becomes: rendered by the real kustomize and the real helm.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The programs, from the folder that `cargo xtask setup manifests` fills, and a copy of `deploy/` to change.
#[derive(Debug)]
pub struct Tools {
    folder: PathBuf,
    copy: tempfile::TempDir,
}

impl Tools {
    /// The tools of `SNUG_TEST_MANIFEST_TOOLS`; the error names the task that installs them.
    pub fn given() -> Result<Self, String> {
        let folder = env::var("SNUG_TEST_MANIFEST_TOOLS")
            .map_err(|_| "no helm and kustomize: run `cargo xtask test --only manifests`".to_owned())?;
        let copy = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        copy_all(&deploy(), copy.path()).map_err(|error| format!("cannot copy deploy/: {error}"))?;
        Ok(Self { folder: folder.into(), copy })
    }

    /// The copy of `deploy/`.
    pub fn copy(&self) -> &Path {
        self.copy.path()
    }

    /// The base with these components, as kustomize renders it.
    pub fn kustomize(&self, components: &[&str]) -> Result<String> {
        let folder = tempfile::tempdir_in(self.copy())?;
        let components: Vec<String> =
            components.iter().map(|component| format!("../components/{component}")).collect();
        let kustomization = serde_json::json!({ "resources": ["../base"], "components": components });
        fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string())?;
        self.kustomize_folder(folder.path())
    }

    /// A folder with a `kustomization.yaml`, rendered.
    pub fn kustomize_folder(&self, folder: &Path) -> Result<String> {
        self.run("kustomize", &["build", &folder.display().to_string()])
    }

    /// The chart with these arguments, as helm renders it in the namespace `snug`.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let chart = self.copy().join("helm/snug-agent").display().to_string();
        self.run("helm", &[&["template", "snug-agent", &chart, "--namespace", "snug"], arguments].concat())
    }

    /// Runs one of the programs and takes what it prints.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.folder.join(program)).args(arguments).output()?;
        let (out, error) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{program} {arguments:?}: {error}{out}");
        Ok(out)
    }
}

/// The folder `deploy/`.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The objects of a stream of YAML documents.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).context("not YAML")?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
