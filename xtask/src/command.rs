//! Runs other programs. Every error contains the whole command line.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// A command with the workspace root as its working directory.
pub(crate) fn new(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// A command that the kernel kills when this process exits for any reason.
pub(crate) fn new_killed_with_parent(program: impl AsRef<OsStr>) -> Result<Command> {
    let setpriv = find("setpriv").context("setpriv not found on the PATH: install util-linux")?;
    let mut command = new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    Ok(command)
}

/// The cargo that runs this task, else the one on the PATH.
pub(crate) fn cargo() -> Command {
    new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Removes variables of the calling cargo and user that would affect a build for BPF.
pub(crate) fn remove_cargo_variables(command: &mut Command) -> &mut Command {
    for name in [
        "CARGO",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs the command with inherited output. Fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status)
}

/// Runs the command and returns its standard output. The error of a failed command contains its standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&capture_bytes(command)?).into_owned())
}

/// As [`capture`], for output that is not text.
pub(crate) fn capture_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", line(command), output.status, stderr.trim());
    }
    Ok(output.stdout)
}

/// Interval between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Maximum number of lines of standard error in an error message.
const LAST_LINES: usize = 20;

/// Runs a command, counts its lines on standard error, and prints `label` and the count every ten seconds.
pub(crate) fn run_counting(command: &mut Command, label: &str) -> Result<()> {
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| cannot_start(command))?;
    let mut last = VecDeque::new();
    let mut done = 0_usize;
    let mut printed = Instant::now();
    if let Some(stderr) = child.stderr.take() {
        for message in BufReader::new(stderr).split(b'\n') {
            let message =
                message.with_context(|| format!("cannot read the output of `{}`", line(command)))?;
            done += 1;
            last.push_back(String::from_utf8_lossy(&message).into_owned());
            if last.len() > LAST_LINES {
                last.pop_front();
            }
            if printed.elapsed() >= PROGRESS {
                println!("{label}: {done}");
                printed = Instant::now();
            }
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{}`", line(command)))?;
    check(command, status).with_context(|| Vec::from(last).join("\n"))
}

/// The command line for a shell, with the environment variables that were set.
pub(crate) fn line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        // Cargo separates encoded flags by this unprintable character.
        let value = value?.to_string_lossy().replace('\x1f', " ");
        Some(format!("{}={}", name.to_string_lossy(), quote(&value)))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    set.chain(words.map(|word| quote(&word.to_string_lossy()))).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The PATH with folders before it.
pub(crate) fn path_with(folders: &[PathBuf]) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&path));
    std::env::join_paths(all).with_context(|| format!("cannot add {folders:?} to the PATH"))
}

/// Finds a program on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
}

/// Whether `path` is an executable file.
pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_failure_names_command_status_and_message() {
        let error = capture(new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert_eq!(error, "`sh -c 'echo broken >&2; exit 3'` ended with exit status: 3: broken");
        let error = run(&mut new("snug-no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot start `snug-no-such-program`");
    }

    #[test]
    fn a_counted_command_fails_with_its_last_lines() {
        run_counting(new("sh").args(["-c", "echo one >&2; echo two >&2"]), "test").unwrap();
        let error = run_counting(new("sh").args(["-c", "seq 100 >&2; exit 3"]), "test").unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("81\n82\n") && error.contains("\n100: `sh -c"), "{error}");
        assert!(error.ends_with("ended with exit status: 3"), "{error}");
    }

    #[test]
    fn a_line_shows_the_variables_that_were_set() {
        let mut command = Command::new("cargo");
        command.env("RUSTFLAGS", "-C a -C b").env_remove("RUSTC").args(["build", "--release"]);
        assert_eq!(line(&command), "RUSTFLAGS='-C a -C b' cargo build --release");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_shell_reads_quoted_words_back(word in "[^\0]{0,20}") {
            let printed = capture(new("sh").arg("-c").arg(format!("printf %s {}", quote(&word)))).unwrap();
            prop_assert_eq!(printed, word);
        }
    }
}
