//! `cargo xtask vm`: runs a program on stock kernels in virtual machines.

mod initramfs;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};

pub(crate) use self::initramfs::Initramfs;
use self::verdict::Verdict;
use crate::{
    command, containers,
    emulator::{self, Arch, Boot, Kernel, Qemu, Series},
    libtest,
    setup::{self, Need},
    toolchain, workspace,
};

const INIT: &str = include_str!("init.sh");

/// Run a program in virtual machines with stock Debian kernels and cgroup v2.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Kernel series to boot, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "6.1,6.12")]
    kernel: Vec<Series>,
    /// Architecture of the kernel; the program must be for it.
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// Hierarchies of cgroups that the guest mounts.
    #[arg(long, value_enum, default_value = "v2")]
    cgroups: Cgroups,
    /// Update the cached kernels first.
    #[arg(long)]
    refresh: bool,
    /// Add runc and a root file system for containers (`$SNUG_TEST_ROOTFS`) to the guest.
    #[arg(long)]
    containers: bool,
    /// Copy a file or folder into the guest.
    #[arg(long, value_name = "HOST:GUEST")]
    copy: Vec<String>,
    /// Environment variable for the program.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Timeout of the guest, in seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Memory of the guest, in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Program and arguments. Shared libraries of the program are copied, too.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

/// Hierarchies of cgroups that a guest mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cgroups {
    /// cgroup v2 with all controllers.
    #[default]
    V2,
    /// A hierarchy of cgroup v1 for each controller.
    V1,
    /// As v1, and cgroup v2 without controllers.
    Hybrid,
}

impl Cgroups {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
        }
    }
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut needs = vec![Need::Vm];
    if options.containers {
        needs.push(Need::Containers);
    }
    setup::ensure_all(&needs)?;
    let guest = guest_of(options)?;
    if options.refresh {
        for series in &options.kernel {
            Kernel { series: *series, arch: options.arch }.download()?;
        }
    }
    guest.run_on_each(&options.kernel)
}

fn guest_of(options: &Options) -> Result<Guest> {
    let (program, args) = options.program.split_first().context("no program given")?;
    let mut guest = Guest::new(options.arch, Path::new(program), args)?;
    guest.cgroups = options.cgroups;
    guest.timeout = Duration::from_secs(options.timeout);
    guest.memory_mib = options.memory;
    for copy in &options.copy {
        let (host, inside) =
            copy.split_once(':').with_context(|| format!("--copy {copy}: expected HOST:GUEST"))?;
        guest.files.tree(Path::new(host), Path::new(inside))?;
    }
    for variable in &options.env {
        let (name, value) =
            variable.split_once('=').with_context(|| format!("--env {variable}: expected NAME=VALUE"))?;
        guest.env(name, value)?;
    }
    if options.containers {
        guest.add_containers()?;
    }
    Ok(guest)
}

/// Variable with the name of the kernel, for tests.
const KERNEL_VARIABLE: &str = "SNUG_TEST_KERNEL";

/// Kernel modules for the tests: veth creates pairs of network interfaces, brd disks in memory, for swap.
const MODULES: [&str; 2] = ["veth", "brd"];

/// A virtual machine: its files, and the command that it runs.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// Files of the guest.
    pub(crate) files: Initramfs,
    /// Timeout of the run.
    pub(crate) timeout: Duration,
    /// Memory of the guest, in MiB.
    pub(crate) memory_mib: u32,
    pub(crate) cgroups: Cgroups,
    arch: Arch,
    env: Vec<(String, String)>,
    command: Vec<String>,
}

impl Guest {
    /// A guest that copies `program` to /bin, runs it and powers off.
    pub(crate) fn new(arch: Arch, program: &Path, args: &[String]) -> Result<Self> {
        let name = program.file_name().with_context(|| format!("{} has no file name", program.display()))?;
        let inside = Path::new("/bin").join(name);
        let mut files = Initramfs::default();
        files.program(program, &inside)?;
        files.program(&emulator::busybox(arch)?, Path::new(toolchain::BUSYBOX))?;
        files.file(Path::new("/init"), 0o755, INIT.as_bytes().to_vec())?;
        let mut command = vec![inside.to_string_lossy().into_owned()];
        command.extend_from_slice(args);
        Ok(Self {
            files,
            timeout: Duration::from_secs(300),
            memory_mib: 2048,
            cgroups: Cgroups::V2,
            arch,
            env: Vec::new(),
            command,
        })
    }

    /// Sets an environment variable of the program.
    pub(crate) fn env(&mut self, name: &str, value: &str) -> Result<()> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !is_name(name) {
            bail!("{name:?} is not a valid variable name: use letters, digits and _");
        }
        self.env.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Adds runc, and a root file system for containers (`$SNUG_TEST_ROOTFS`).
    pub(crate) fn add_containers(&mut self) -> Result<()> {
        let runc = command::find("runc").context("runc not found: run `cargo xtask setup containers`")?;
        self.files.program(&runc, Path::new("/usr/bin/runc"))?;
        self.files.tree(&containers::root_file_system()?, Path::new("/rootfs"))?;
        self.env(containers::ROOTFS_VARIABLE, "/rootfs")
    }

    /// Name of the guest with this kernel.
    pub(crate) fn name_on(&self, kernel: Kernel) -> String {
        match self.cgroups {
            Cgroups::V2 => kernel.name(),
            other => format!("{}-{}", kernel.name(), other.name()),
        }
    }

    /// Boots a kernel of the series and runs the command on it. The serial log is in `target/vm/<name>.log`.
    fn boot(&self, series: Series) -> Result<Run> {
        let started = Instant::now();
        let qemu = Qemu::ensure(self.arch)?;
        let kernel = Kernel { series, arch: self.arch };
        let (name, kernel) = (self.name_on(kernel), kernel.ensure()?);
        let folder = workspace::target_dir().join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut files = self.files.clone();
        let script = format!("export {KERNEL_VARIABLE}={name}\n{}", self.script());
        files.file(Path::new("/etc/snug-command"), 0o644, script.into_bytes())?;
        files.file(Path::new("/etc/snug-cgroups"), 0o644, self.cgroups.name().into())?;
        for module in MODULES {
            match kernel.module(module) {
                Ok(content) => {
                    files.file(&Path::new("/modules").join(format!("{module}.ko")), 0o644, content)?;
                }
                // Mirrors drop the modules of old kernels first.
                Err(error) => println!("vm {name}: tests that need a module cannot run: {error:#}"),
            }
        }
        let initramfs = folder.join(format!("{name}.initramfs"));
        let mut archive = Vec::new();
        files.write(&mut archive)?;
        fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
        let log_path = folder.join(format!("{name}.log"));
        let boot =
            Boot { kernel: &kernel.image, initramfs: &initramfs, cpus: 2, memory_mib: self.memory_mib };
        let end = qemu.boot(&boot, &log_path, self.timeout)?;
        let log = fs::read(&log_path).with_context(|| format!("cannot read {}", log_path.display()))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        let verdict = verdict::judge(&log, end);
        Ok(Run { verdict, log, log_path, elapsed: started.elapsed() })
    }

    /// Runs the command on all kernels at the same time. Prints the output of each, or the whole log of a failed run.
    ///
    /// # Errors
    ///
    /// Fails unless the command exits with 0 on every kernel.
    pub(crate) fn run_on_each(&self, series: &[Series]) -> Result<()> {
        self.ensure_kernels(series)?;
        on_each(series, |series| self.run_on(series, &[])?.outcome)
    }

    /// As [`Self::run_on_each`], for a test binary: tests that fail on a kernel run there once more, each alone.
    pub(crate) fn run_tests_on_each(&self, stage: &str, series: &[Series]) -> Result<()> {
        self.ensure_kernels(series)?;
        on_each(series, |series| {
            let stage = format!("{stage} {}", series.name());
            libtest::run_with_second_chance(&stage, |arguments| self.run_on(series, arguments))
        })
    }

    /// Downloads what is missing, one after the other: kernels may be in the same package lists.
    fn ensure_kernels(&self, series: &[Series]) -> Result<()> {
        Qemu::ensure(self.arch)?;
        series.iter().try_for_each(|series| Kernel { series: *series, arch: self.arch }.ensure().map(drop))
    }

    /// Runs the command with more arguments on one kernel, and prints its output.
    pub(crate) fn run_on(&self, series: Series, arguments: &[&str]) -> Result<libtest::Run> {
        let mut guest = self.clone();
        guest.command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let name = self.name_on(Kernel { series, arch: self.arch });
        let run = guest.boot(series)?;
        let output: String = verdict::output_of_command(&run.log).join("\n") + "\n";
        let seconds = run.elapsed.as_secs_f64();
        if run.verdict == Verdict::Exited(0) {
            println!("{output}vm {name}: passed ({seconds:.1} s)");
            return Ok(libtest::Run { outcome: Ok(()), output });
        }
        // In one piece: other guests print at the same time.
        println!("{}", run.log);
        // After a panic the list of failures says nothing.
        let output = if matches!(run.verdict, Verdict::Exited(_)) { output } else { String::new() };
        let reason = match run.verdict {
            Verdict::Exited(code) => format!("the program exited with {code}"),
            Verdict::Panicked(line) => format!("the kernel panicked: {line}"),
            Verdict::TimedOut => format!("timed out after {} s", self.timeout.as_secs()),
            Verdict::EmulatorFailed(code) => format!("qemu failed with {code:?}"),
            Verdict::NoResult => "the guest powered off without a result".to_owned(),
        };
        let log = run.log_path.display();
        let outcome = Err(anyhow!("vm {name}: {reason} ({seconds:.1} s, log in {log})"));
        Ok(libtest::Run { outcome, output })
    }

    fn script(&self) -> String {
        let exports =
            self.env.iter().map(|(name, value)| format!("export {name}={}\n", command::quote(value)));
        let words: Vec<String> = self.command.iter().map(|word| command::quote(word)).collect();
        exports.chain([format!("{}\n", words.join(" "))]).collect()
    }
}

/// Does something for all kernels at the same time, and fails with all errors.
fn on_each(series: &[Series], run: impl Fn(Series) -> Result<()> + Sync) -> Result<()> {
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let runs: Vec<_> = series.iter().map(|series| scope.spawn(|| run(*series))).collect();
        let end = |run: ScopedJoinHandle<'_, _>| run.join().unwrap_or_else(|_| bail!("a thread panicked"));
        runs.into_iter().map(end).collect()
    });
    let failures: Vec<String> =
        results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// One run of a guest.
#[derive(Debug)]
pub(crate) struct Run {
    /// Outcome of the run.
    pub(crate) verdict: Verdict,
    /// Log of the serial console.
    pub(crate) log: String,
    pub(crate) log_path: PathBuf,
    /// Time from packing the files to power-off.
    pub(crate) elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_runs_the_command_with_its_variables() {
        let me = std::env::current_exe().unwrap();
        let mut guest = Guest::new(Arch::Amd64, &me, &["--test-threads=1".into(), "a b".into()]).unwrap();
        guest.env("RUST_BACKTRACE", "it's 1").unwrap();
        let name = me.file_name().unwrap().to_string_lossy();
        let expected = format!("export RUST_BACKTRACE='it'\\''s 1'\n/bin/{name} --test-threads=1 'a b'\n");
        assert_eq!(guest.script(), expected);
        for name in ["", "1A", "A B", "A;reboot"] {
            assert!(guest.env(name, "x").is_err(), "{name}");
        }
    }

    #[test]
    fn the_init_script_prints_the_expected_markers() {
        assert!(INIT.contains(&format!("echo \"{}\"", verdict::BEGIN)));
        assert!(INIT.contains(&format!("echo \"{} $status\"", verdict::RESULT)));
    }
}
