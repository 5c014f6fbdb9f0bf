//! `snug snapshot`: writes the usage history of agents to a file.

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
    /// File to write, compressed by gzip if its name ends in .gz; an existing file is replaced [default: standard output]
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `snug snapshot`. Equal evidence gives equal bytes.
///
/// # Errors
/// When the evidence cannot be read, or the file cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let snapshot = options.source.read_as_recorded()?;
    let Some(path) = &options.output else {
        return snapshot.write(out).context("cannot write the snapshot");
    };
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        if path.extension().is_some_and(|extension| extension == "gz") {
            // Without name and time, so that equal evidence gives equal bytes.
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
