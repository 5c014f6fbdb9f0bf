//! Runs one target: under libFuzzer if built by cargo-fuzz, else on the given files.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzer {
    use std::sync::LazyLock;

    use snug_fuzz::{TARGETS, Target};

    /// The target of the variable `SNUG_FUZZ_TARGET`.
    static TARGET: LazyLock<&Target> = LazyLock::new(|| {
        let name = std::env::var("SNUG_FUZZ_TARGET").unwrap_or_default();
        TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
            eprintln!("SNUG_FUZZ_TARGET names no target: {name:?}");
            std::process::exit(2)
        })
    });

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
}

/// `snug-fuzz` lists the targets, `snug-fuzz TARGET FILE…` runs one, `snug-fuzz TARGET --write FOLDER` writes its samples.
#[cfg(not(fuzzing))]
fn main() -> anyhow::Result<()> {
    use anyhow::Context as _;
    use snug_fuzz::TARGETS;

    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return Ok(());
    };
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.with_context(|| format!("there is no target {name:?}"))?;
    let files: Vec<String> = arguments.collect();
    if let [write, folder] = &*files
        && write == "--write"
    {
        for (number, sample) in target.corpus()?.iter().enumerate() {
            std::fs::write(format!("{folder}/sample-{number}"), sample)
                .with_context(|| format!("cannot write to {folder}"))?;
        }
        return Ok(());
    }
    for file in &files {
        (target.run)(&std::fs::read(file).with_context(|| format!("cannot read {file}"))?);
        println!("{file}: ok");
    }
    Ok(())
}
