//! `snug diff` and `snug check`: recommendations and risks for the manifests in a Git repository.

mod assess;
pub mod check;
pub mod diff;
mod findings;
mod history;
mod matching;
mod outputs;
mod plan;
mod shown;

use std::path::PathBuf;

use clap::Args;

use crate::manifests::{FileError, Manifests, ReadOptions};

/// The manifests, and how to read them.
#[derive(Debug, Args)]
pub struct ManifestOptions {
    /// File or folder with manifests, kustomizations or charts; - is standard input; can be repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    filename: Vec<PathBuf>,
    /// Namespace of manifests and charts that name none [default: the only one in the history that has the workload]
    #[arg(long, value_name = "NAMESPACE")]
    default_namespace: Option<String>,
    /// Values file of a chart, as for helm; can be repeated: the last one is changed
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Name of the release of a chart [default: the name of the chart]
    #[arg(long, value_name = "NAME")]
    release: Option<String>,
    /// Folder of a chart that a HelmRelease or an Application names, as NAME=FOLDER; can be repeated
    #[arg(long, value_name = "NAME=FOLDER", value_parser = chart)]
    chart: Vec<(String, PathBuf)>,
    /// The program that renders charts
    #[arg(long, value_name = "PROGRAM", default_value = "helm")]
    helm: PathBuf,
}

fn chart(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or("use NAME=FOLDER")?;
    Ok((name.to_owned(), folder.into()))
}

impl ManifestOptions {
    fn read(&self) -> Result<Manifests, FileError> {
        let Self { filename, default_namespace, values, release, chart, helm } = self;
        let options = ReadOptions {
            values: values.clone(),
            release: release.clone(),
            namespace: default_namespace.clone(),
            charts: chart.clone(),
            helm: helm.clone(),
        };
        Manifests::read(filename, &options)
    }
}
