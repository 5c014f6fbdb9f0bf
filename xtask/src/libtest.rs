//! Runs test binaries whose tests depend on a real kernel and its clock, and repeats those that fail, each alone.
//!
//! Such a test may fail because of the machine: something else ran for a second. A failure that does not repeat is a defect of the
//! test or of Snug nevertheless, so it is recorded with its output, and the summary of `cargo xtask test` lists it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{command, host, workspace};

/// If more tests fail, it is not the machine.
const MAX_FAILED: usize = 3;
/// How long processes that a test binary left behind may keep its standard output open.
const OUTPUT_STAYS_OPEN: Duration = Duration::from_secs(5);

/// Which tests of a binary run at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups {
    /// Parts of the names of tests that wait most of their time and neither measure nor disturb others.
    pub(crate) together: &'static [&'static str],
    /// How many of those run at the same time. The other tests run one after the other.
    pub(crate) threads: usize,
}

impl Groups {
    /// Arguments for a run of the tests of either kind. Both runs together have each test once.
    fn arguments(&self) -> [Vec<String>; 2] {
        let threads = |number: usize| format!("--test-threads={number}");
        let together = self.together.iter().map(|part| (*part).to_owned());
        let others = self.together.iter().flat_map(|part| ["--skip".to_owned(), (*part).to_owned()]);
        [
            std::iter::once(threads(self.threads)).chain(together).collect(),
            std::iter::once(threads(1)).chain(others).collect(),
        ]
    }

    /// Runs all tests as [`run_with_second_chance`] does.
    pub(crate) fn run(&self, stage: &str, run: impl Fn(&[&str]) -> Result<Run>) -> Result<()> {
        let outcomes = self.arguments().map(|of_all| {
            run_with_second_chance(stage, |single| {
                let of_all = of_all.iter().map(String::as_str);
                let arguments: Vec<&str> = if single.is_empty() {
                    of_all.collect()
                } else {
                    [&["--test-threads=1"], single].concat()
                };
                run(&arguments)
            })
        });
        let failures: Vec<String> =
            outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(())
    }
}

/// One run of a test binary.
#[derive(Debug)]
pub(crate) struct Run {
    /// Whether it passed.
    pub(crate) outcome: Result<()>,
    /// What it wrote to standard output.
    pub(crate) output: String,
}

/// Runs all tests, and those that fail once more, each alone. `run` gets additional arguments for the test binary. Tests that
/// pass then are recorded under the name of the stage.
///
/// # Errors
/// The first run's failure, if a test fails again or its failures are not those of single tests.
pub(crate) fn run_with_second_chance(stage: &str, run: impl FnMut(&[&str]) -> Result<Run>) -> Result<()> {
    for (name, output) in passed_on_second_run(stage, run)? {
        println!("{stage}: {name} passed only on the second run. On the first one:\n{output}");
        record(stage, &name, &output)?;
    }
    Ok(())
}

/// The tests that passed only on the second run, with their output of the first one.
fn passed_on_second_run(
    stage: &str,
    mut run: impl FnMut(&[&str]) -> Result<Run>,
) -> Result<Vec<(String, String)>> {
    let first = run(&[])?;
    let Err(failure) = first.outcome else { return Ok(Vec::new()) };
    let Some(failed) = failed_tests(&first.output).filter(|failed| failed.len() <= MAX_FAILED) else {
        return Err(failure);
    };
    let mut passed = Vec::new();
    for name in failed {
        println!("{stage}: {name} failed; running it once more, alone");
        // In the background it would compete with the stages that measure, and fail for the same reason.
        host::wait_for_cpu();
        let second = run(&["--exact", &name])?;
        let one_ran = second.output.lines().any(|line| line.starts_with("test result: ok. 1 passed;"));
        if second.outcome.is_err() || !one_ran {
            return Err(failure.context(format!("{name} failed twice")));
        }
        let output = output_of(&first.output, &name);
        passed.push((name, output));
    }
    Ok(passed)
}

/// Runs a test binary, and prints its standard output as it appears, with the time of each result since the start.
pub(crate) fn run(command: &mut Command) -> Result<Run> {
    let line = command::line(command);
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot start `{line}`"))?;
    let copied = Arc::new(Mutex::new(Vec::new()));
    let copying = child.stdout.take().map(|stream| {
        let copied = Arc::clone(&copied);
        thread::spawn(move || copy_lines(stream, &copied))
    });
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    let give_up = Instant::now() + OUTPUT_STAYS_OPEN;
    while copying.as_ref().is_some_and(|copying| !copying.is_finished()) && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(5));
    }
    let output = copied.lock().unwrap_or_else(PoisonError::into_inner);
    let output = String::from_utf8_lossy(&output).into_owned();
    let outcome = if status.success() { Ok(()) } else { Err(anyhow!("`{line}` ended with {status}")) };
    Ok(Run { outcome, output })
}

fn copy_lines(stream: impl Read, copied: &Mutex<Vec<u8>>) {
    let started = Instant::now();
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let timed = with_time(&line, started.elapsed());
        // Nothing can be done if nobody reads our own output.
        let _ = std::io::stdout().write_all(timed.as_deref().unwrap_or(&line));
        copied.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&line);
        line.clear();
    }
}

/// The line of a test's result with the time since the start; `None` for other lines.
fn with_time(line: &[u8], elapsed: Duration) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let is_result = text.starts_with("test ") && (text.ends_with(" ok") || text.ends_with(" FAILED"));
    is_result.then(|| format!("{text} (at {} s)\n", elapsed.as_secs()).into_bytes())
}

/// The tests that failed, from the list at the end of the output. `None` unless the list is complete: its length must be the
/// number in the result.
fn failed_tests(output: &str) -> Option<Vec<String>> {
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let result = lines.iter().rposition(|line| line.starts_with("test result: FAILED."))?;
    let (before, _) = lines.split_at(result);
    let number: usize =
        lines.get(result)?.split("; ").find_map(|part| part.strip_suffix(" failed"))?.parse().ok()?;
    let list = before.iter().rposition(|line| *line == "failures:")?;
    let names = before.iter().skip(list + 1).filter_map(|line| line.strip_prefix("    "));
    let names: Vec<String> = names.map(str::to_owned).collect();
    let is_name = |name: &String| name.chars().all(|c| c.is_alphanumeric() || "_:".contains(c));
    (number > 0 && names.len() == number && names.iter().all(is_name)).then_some(names)
}

/// What a failed test printed.
fn output_of(output: &str, name: &str) -> String {
    let header = format!("---- {name} stdout ----");
    let lines = output.lines().map(str::trim_end).skip_while(|line| *line != header).skip(1);
    let lines = lines.take_while(|line| !(line.starts_with("---- ") && line.ends_with(" ----")));
    lines.take_while(|line| *line != "failures:").collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Folder of the records: a file for each test, with its output.
fn folder() -> PathBuf {
    workspace::target_dir().join("test/second-run")
}

fn record(stage: &str, name: &str, output: &str) -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join(format!("{stage} {name}"));
    fs::write(&file, output).with_context(|| format!("cannot write {}", file.display()))
}

/// The tests that passed only on the second run: stage and name, and the output of the first run.
pub(crate) fn recorded() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let output = fs::read_to_string(entry.path()).unwrap_or_else(|error| error.to_string());
        (entry.file_name().to_string_lossy().into_owned(), output)
    };
    let mut all: Vec<_> = entries.map(read).collect();
    all.sort();
    all
}

/// Deletes the records of earlier runs.
pub(crate) fn forget() -> Result<()> {
    match fs::remove_dir_all(folder()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder().display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn results_have_the_time_since_the_start() {
        let timed = |line: &str| with_time(line.as_bytes(), Duration::from_millis(61_900));
        assert_eq!(timed("test a::b ... ok\n").unwrap(), b"test a::b ... ok (at 61 s)\n");
        assert_eq!(timed("test a::b ... FAILED\n").unwrap(), b"test a::b ... FAILED (at 61 s)\n");
        let others = ["test result: ok. 1 passed; 0 failed\n", "running 1 test\n", "test a ... ok", "\n", ""];
        assert!(others.into_iter().all(|line| timed(line).is_none()));
    }

    /// Output of libtest, with messages of a guest's kernel between its lines.
    const OUTPUT: &str = "\
running 3 tests\r
test cpu::a ... ok\r
test net::b ... FAILED\r
[   12.345678] a kernel message\r
test c ... FAILED\r
\r
failures:\r
\r
---- net::b stdout ----\r
\r
thread 'net::b' (12) panicked at tests/net.rs:3:5:\r
assertion failed\r
failed: 7 of 8\r
\r
---- c stdout ----\r
Error: no file\r
\r
\r
failures:\r
    c\r
    net::b\r
\r
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\r
";

    const OK: &str =
        "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s\n";

    #[test]
    fn failed_tests_and_their_output_are_found() {
        assert_eq!(failed_tests(OUTPUT).unwrap(), ["c", "net::b"]);
        assert_eq!(output_of(OUTPUT, "c"), "Error: no file");
        let output = output_of(OUTPUT, "net::b");
        assert!(output.starts_with("thread 'net::b'") && output.ends_with("failed: 7 of 8"), "{output}");
        assert_eq!(output_of(OUTPUT, "absent"), "");
    }

    #[test]
    fn an_incomplete_list_is_none() {
        for damaged in [
            OUTPUT.replace("    c\r\n", ""),
            OUTPUT.replace("    c\r\n", "    [ 3.0] message\r\n"),
            OUTPUT.replace("2 failed", "3 failed"),
            OUTPUT.replace("test result: FAILED.", "signal: 6"),
            String::new(),
        ] {
            assert_eq!(failed_tests(&damaged), None, "{damaged}");
        }
        assert_eq!(failed_tests(OK), None);
    }

    /// Runs with these outcomes of a second run for `c` and `net::b`; returns the result and the calls.
    fn second(
        outcome_of: impl Fn(&str) -> (bool, &'static str),
    ) -> (Result<Vec<(String, String)>>, Vec<String>) {
        let mut calls = Vec::new();
        let result = passed_on_second_run("stage", |arguments| {
            calls.push(arguments.join(" "));
            let (passes, output) = match arguments {
                [] => (false, OUTPUT),
                [.., name] => outcome_of(name),
            };
            let outcome = if passes { Ok(()) } else { Err(anyhow!("it failed")) };
            Ok(Run { outcome, output: output.to_owned() })
        });
        (result, calls)
    }

    #[test]
    fn a_test_that_passes_alone_passes_and_is_reported() {
        let (result, calls) = second(|_| (true, OK));
        let expected = ["c", "net::b"].map(|name| (name.to_owned(), output_of(OUTPUT, name)));
        assert_eq!(result.unwrap(), expected);
        assert_eq!(calls, ["", "--exact c", "--exact net::b"]);
    }

    #[test]
    fn a_test_that_fails_twice_or_does_not_run_fails() {
        let (result, calls) = second(|name| if name == "c" { (true, OK) } else { (false, OUTPUT) });
        assert_eq!(format!("{:#}", result.unwrap_err()), "net::b failed twice: it failed");
        assert_eq!(calls.len(), 3);
        assert!(second(|_| (true, "test result: ok. 0 passed; 0 failed\n")).0.is_err());
        assert!(second(|_| (false, OK)).0.is_err(), "the exit status counts");
    }

    #[test]
    fn each_test_is_in_one_group_and_a_failed_one_runs_alone() {
        let groups = Groups { together: &["net::", "c"], threads: 3 };
        let calls = std::cell::RefCell::new(Vec::new());
        let result = groups.run("stage", |arguments| {
            calls.borrow_mut().push(arguments.join(" "));
            let fails = arguments == ["--test-threads=1", "--skip", "net::", "--skip", "c"];
            let output =
                if fails { "failures:\n    x\n\ntest result: FAILED. 4 passed; 1 failed\n" } else { "" };
            Ok(Run {
                outcome: if output.is_empty() { Ok(()) } else { Err(anyhow!("it failed")) },
                output: output.to_owned(),
            })
        });
        assert_eq!(format!("{:#}", result.unwrap_err()), "x failed twice: it failed");
        let expected = [
            "--test-threads=3 net:: c",
            "--test-threads=1 --skip net:: --skip c",
            "--test-threads=1 --exact x",
        ];
        assert_eq!(calls.into_inner(), expected);
    }

    #[test]
    fn what_is_not_the_failure_of_a_few_tests_is_not_repeated() {
        let many = (0..=MAX_FAILED).map(|number| format!("    t{number}\n")).collect::<String>();
        let result = format!("test result: FAILED. 0 passed; {} failed; 0 ignored", MAX_FAILED + 1);
        let many = format!("failures:\n{many}\n{result}\n");
        assert_eq!(failed_tests(&many).unwrap().len(), MAX_FAILED + 1);
        for output in [many, "Segmentation fault\n".to_owned()] {
            let mut calls = 0;
            let result = passed_on_second_run("stage", |_| {
                calls += 1;
                Ok(Run { outcome: Err(anyhow!("it failed")), output: output.clone() })
            });
            assert_eq!((result.unwrap_err().to_string(), calls), ("it failed".to_owned(), 1));
        }
    }

    #[test]
    fn a_process_that_stays_does_not_stop_the_run() {
        let mut command = command::new("sh");
        let run = run(command.args(["-c", "echo one; echo two >&2; sleep 7 & exit 3"])).unwrap();
        assert_eq!(run.output, "one\n");
        assert!(run.outcome.unwrap_err().to_string().ends_with("ended with exit status: 3"));
    }

    proptest! {
        #[test]
        fn no_output_panics(output in "((failures:|    [a-z:]{1,5}|test result: FAILED. 1 passed; [0-9]{1,3} failed;|---- a stdout ----|.{0,9})\r?\n){0,8}") {
            if let Some(names) = failed_tests(&output) {
                prop_assert!(!names.is_empty());
            }
            let _ = output_of(&output, "a");
        }
    }
}
