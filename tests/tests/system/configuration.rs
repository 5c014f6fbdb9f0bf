//! Errors of the agent for invalid configurations and unsuitable hosts.

use std::{fs, net::TcpListener, path::Path};

use anyhow::Result;
use snug_tests::agent::{Ended, command, run_to_end};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ended> {
    let mut command = command(arguments)?;
    command.envs(variables.iter().copied());
    run_to_end(command)
}

#[track_caller]
fn assert_refused(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{}", ended.log);
    for part in parts {
        assert!(ended.log.contains(part), "{part:?} is not in {:?}", ended.log);
    }
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
}

#[test]
fn an_invalid_value_is_refused_from_every_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    fs::write(&file, "log = \"info\"\nmax-cgroups = 3\n")?;
    let file = file.to_string_lossy();
    let allowed = "whole number from 64 to 65536";

    let flag = run(&["--max-cgroups", "3"], &[])?;
    assert_refused(&flag, 2, &["--max-cgroups", "max-cgroups", "\"3\"", allowed]);
    let variable = run(&[], &[("SNUG_MAX_CGROUPS", "3")])?;
    assert_refused(&variable, 2, &["SNUG_MAX_CGROUPS", "max-cgroups", "\"3\"", allowed]);
    for in_file in [run(&["--config", &file], &[])?, run(&[], &[("SNUG_CONFIG", &file)])?] {
        assert_refused(&in_file, 2, &[&format!("{file}:2"), "max-cgroups", "\"3\"", allowed]);
    }
    // All errors are reported at once.
    let all = run(&["--source", "bpf"], &[("SNUG_CONFIG", &*file), ("SNUG_LISTEN", "nowhere")])?;
    assert_refused(
        &all,
        2,
        &["3 errors", "\"bpf\"", "auto, kernel, files", "\"nowhere\"", "SNUG_LISTEN", allowed],
    );
    Ok(())
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    fs::write(&file, "sample_interval = \"100ms\"\n")?;
    let file = file.to_string_lossy();
    assert_refused(&run(&["--sample-intervall", "1s"], &[])?, 2, &["did you mean \"--sample-interval\"?"]);
    assert_refused(&run(&[], &[("SNUG_LISTENN", "x")])?, 2, &["did you mean \"SNUG_LISTEN\"?"]);
    assert_refused(&run(&["--config", &file], &[])?, 2, &[":1", "did you mean \"sample-interval\"?"]);
    Ok(())
}

#[test]
fn check_config_prints_the_current_values_and_starts_nothing() -> Result<()> {
    let shown = run(&["--check-config", "--max-series", "7"], &[("SNUG_LISTEN", "127.0.0.1:1234")])?;
    assert!(shown.status.success(), "{}", shown.log);
    for (line, origin) in [
        ("listen = \"127.0.0.1:1234\"", "SNUG_LISTEN"),
        ("max-series = 7", "--max-series"),
        ("source = \"auto\"", "default"),
    ] {
        assert!(shown.output.lines().any(|l| l.starts_with(line) && l.ends_with(origin)), "{}", shown.output);
    }
    // The output is a valid configuration file.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    fs::write(&file, &shown.output)?;
    let again = run(&["--check-config", "--config", &file.to_string_lossy()], &[])?;
    assert!(again.output.contains("max-series = 7"), "{}{}", again.output, again.log);

    assert_refused(&run(&["--check-config", "--max-series", "x"], &[])?, 2, &["max-series", "\"x\""]);
    Ok(())
}

#[test]
fn standard_output_on_a_full_device_is_an_error() -> Result<()> {
    for argument in ["--check-config", "--help", "--version"] {
        let full = fs::File::options().write(true).open("/dev/full")?;
        let output = command([argument])?.stdout(full).output()?;
        let message = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{argument}: {message}");
        assert!(message.contains("cannot write to standard output: No space left on device"), "{message}");
    }
    Ok(())
}

#[test]
fn the_error_for_a_port_in_use_has_a_remedy() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let ended = run(&["--listen", &address], &[])?;
    assert_refused(&ended, 1, &[&address, "--listen", "in use"]);
    assert_eq!(ended.log.matches("in use").count(), 1, "logged once: {}", ended.log);
    Ok(())
}

#[test]
fn the_error_for_a_cgroup_root_without_cgroups_has_a_remedy() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let missing = empty.path().join("missing");
    for root in [empty.path(), &missing, Path::new("/dev/null")] {
        let root = root.to_string_lossy();
        let ended = run(&["--listen", "127.0.0.1:0", "--cgroup-root", &root], &[])?;
        assert_refused(&ended, 1, &[&root, "--cgroup-root"]);
    }
    Ok(())
}

#[test]
fn the_error_for_an_invalid_proc_root_has_a_remedy() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let root = empty.path().to_string_lossy();
    let ended = run(&["--listen", "127.0.0.1:0", "--proc-root", &root], &[])?;
    assert_refused(&ended, 1, &[&format!("{root}/self/mountinfo"), "--proc-root"]);

    fs::create_dir(empty.path().join("self"))?;
    for (table, message) in [
        ("29 23 0:26 / /sys/fs/cgroup rw - cgroup2\n", &["line 1", "proc file system"][..]),
        ("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", &["no cgroup file system", "--cgroup-root"]),
    ] {
        fs::write(empty.path().join("self/mountinfo"), table)?;
        let ended = run(&["--listen", "127.0.0.1:0", "--proc-root", &root], &[])?;
        assert_refused(&ended, 1, &[&format!("{root}/self/mountinfo")]);
        assert_refused(&ended, 1, message);
    }
    Ok(())
}
