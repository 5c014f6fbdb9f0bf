//! `snug snapshot`: what agents know now, in a file.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::Args;
use flate2::{Compression, GzBuilder};

use crate::source::EvidenceSource;

/// The options of `snug snapshot`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    source: EvidenceSource,
    /// The file to write, packed with gzip if its name ends in .gz; standard output without it. One that is there is replaced.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `snug snapshot`. The same evidence is the same bytes.
///
/// # Errors
/// When there is no evidence to be had, or the file cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let snapshot = options.source.read()?;
    let Some(path) = &options.output else {
        return snapshot.write(out).context("cannot write the snapshot");
    };
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        if path.extension().is_some_and(|extension| extension == "gz") {
            // Without name and time, which are not of the evidence.
            let mut packed = GzBuilder::new().write(file, Compression::default());
            snapshot.write(&mut packed)?;
            packed.finish()?.flush()
        } else {
            snapshot.write(&mut file)?;
            file.flush()
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
