//! `cargo xtask vm`: runs programs on stock kernels in virtual machines.

mod initramfs;
mod kernel;
mod qemu;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};

pub(crate) use self::{
    initramfs::Initramfs,
    kernel::{Series, cached as cached_kernel},
    qemu::Qemu,
    verdict::Verdict,
};
use crate::{
    command, containers,
    setup::{self, Need},
    toolchain, workspace,
};

const INIT: &str = include_str!("init.sh");

/// Run a program in a virtual machine with a stock Debian kernel and full cgroup v2.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// The kernel's series.
    #[arg(long, value_enum, default_value = "all")]
    kernel: Choice,
    /// Look for a newer kernel of the series than the cached one.
    #[arg(long)]
    refresh: bool,
    /// Give the guest runc and a root file system for containers (`$SNUG_TEST_ROOTFS`).
    #[arg(long)]
    containers: bool,
    /// A file or folder to copy into the guest.
    #[arg(long, value_name = "HOST:GUEST")]
    copy: Vec<String>,
    /// A variable for the program.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// How long the guest may take, in seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// The guest's memory in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// The program (its libraries come along if it is not static) and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    All,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut needs = vec![Need::Vm];
    if options.containers {
        needs.push(Need::Containers);
    }
    setup::ensure_all(&needs)?;
    let series: &[Series] = match options.kernel {
        Choice::V6_1 => &[Series::V6_1],
        Choice::V6_12 => &[Series::V6_12],
        Choice::All => Series::value_variants(),
    };
    let guest = guest_of(options)?;
    if options.refresh {
        for series in series {
            kernel::download(*series)?;
        }
    }
    guest.run_on_each(series)
}

fn guest_of(options: &Options) -> Result<Guest> {
    let (program, args) = options.program.split_first().context("no program given")?;
    let mut guest = Guest::new(Path::new(program), args)?;
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

/// Makes sure that emulator and kernels are there.
pub(crate) fn ensure() -> Result<()> {
    qemu::ensure_host_fits()?;
    Qemu::ensure()?;
    for series in Series::value_variants() {
        kernel::ensure(*series)?;
    }
    Ok(())
}

/// What stock kernels keep in modules and tests need: pairs of network interfaces.
const MODULES: [&str; 1] = ["veth"];

/// A machine to be booted: its files, and the command that it runs.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// What it finds beside busybox and the program.
    pub(crate) files: Initramfs,
    /// The longest the whole run may take.
    pub(crate) timeout: Duration,
    /// Its memory.
    pub(crate) memory_mib: u32,
    env: Vec<(String, String)>,
    command: Vec<String>,
}

impl Guest {
    /// A guest that runs this program of the host, from /bin, and goes down.
    pub(crate) fn new(program: &Path, args: &[String]) -> Result<Self> {
        let name =
            program.file_name().with_context(|| format!("{} is no program's path", program.display()))?;
        let inside = Path::new("/bin").join(name);
        let mut files = Initramfs::default();
        files.program(program, &inside)?;
        files.program(Path::new(toolchain::BUSYBOX), Path::new(toolchain::BUSYBOX))?;
        files.file(Path::new("/init"), 0o755, INIT.as_bytes().to_vec())?;
        let mut command = vec![inside.to_string_lossy().into_owned()];
        command.extend_from_slice(args);
        Ok(Self { files, timeout: Duration::from_secs(300), memory_mib: 2048, env: Vec::new(), command })
    }

    /// Sets a variable for the program.
    pub(crate) fn env(&mut self, name: &str, value: &str) -> Result<()> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !is_name(name) {
            bail!("{name:?} is no name of a variable: letters, digits and _ only");
        }
        self.env.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Gives the guest runc, and a root file system for its containers as `$SNUG_TEST_ROOTFS`.
    pub(crate) fn add_containers(&mut self) -> Result<()> {
        let runc = command::find("runc").context("there is no runc: run `cargo xtask setup containers`")?;
        self.files.program(&runc, Path::new("/usr/bin/runc"))?;
        self.files.tree(&containers::root_file_system()?, Path::new("/rootfs"))?;
        self.env(containers::ROOTFS_VARIABLE, "/rootfs")
    }

    /// Boots a kernel of the series and runs the command on it. The serial log is kept in `target/vm/<series>.log`.
    fn boot(&self, series: Series, in_turn: bool) -> Result<Run> {
        let started = Instant::now();
        let qemu = Qemu::ensure()?;
        let kernel = kernel::ensure(series)?;
        let folder = workspace::target_dir().join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut files = self.files.clone();
        files.file(Path::new("/etc/snug-command"), 0o644, self.script().into_bytes())?;
        for module in MODULES {
            let (path, name) = kernel::module(&kernel, module)?;
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.file(&Path::new("/modules").join(name), 0o644, content)?;
        }
        let initramfs = folder.join(format!("{}.initramfs", series.name()));
        let mut archive = Vec::new();
        files.write(&mut archive)?;
        fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
        let log_path = folder.join(format!("{}.log", series.name()));
        let boot = qemu::Boot {
            kernel: &kernel,
            initramfs: &initramfs,
            cpus: 2,
            memory_mib: self.memory_mib,
            in_turn,
        };
        let end = qemu.boot(&boot, &log_path, self.timeout)?;
        let log = fs::read(&log_path).with_context(|| format!("cannot read {}", log_path.display()))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        let verdict = verdict::judge(&log, end);
        Ok(Run { verdict, log, log_path, elapsed: started.elapsed() })
    }

    /// Runs the command on each kernel, all at once, and prints what each said: its output, or on failure the whole log. Fails unless the
    /// command exits with 0 on all of them.
    pub(crate) fn run_on_each(&self, series: &[Series]) -> Result<()> {
        let mut said = vec![String::new(); series.len()];
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let each = series.iter().zip(&mut said);
            let runs: Vec<_> =
                each.map(|(series, said)| scope.spawn(|| self.run_on(*series, said))).collect();
            let end =
                |run: ScopedJoinHandle<'_, _>| run.join().unwrap_or_else(|_| bail!("a thread panicked"));
            runs.into_iter().map(end).collect()
        });
        said.iter().for_each(|said| print!("{said}"));
        let failures: Vec<String> =
            results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(())
    }

    /// Runs the command on one kernel.
    fn run_on(&self, series: Series, said: &mut String) -> Result<()> {
        let name = series.name();
        let mut run = self.boot(series, false)?;
        if run.log.contains(STALE_BREAKPOINT) {
            *said = format!(
                "vm {name}: the emulator ran a breakpoint that the kernel had removed: once more, CPUs in turn\n"
            );
            run = self.boot(series, true)?;
        }
        let seconds = run.elapsed.as_secs_f64();
        if run.verdict == Verdict::Exited(0) {
            verdict::output_of_command(&run.log).into_iter().for_each(|line| said.extend([line, "\n"]));
            said.push_str(&format!("vm {name}: passed ({seconds:.1} s)\n"));
            return Ok(());
        }
        said.extend([&*run.log, "\n"]);
        let reason = match run.verdict {
            Verdict::Exited(code) => format!("the program exited with {code}"),
            Verdict::Panicked(line) => format!("the kernel panicked: {line}"),
            Verdict::TimedOut => format!("no end after {} s", self.timeout.as_secs()),
            Verdict::EmulatorFailed(code) => format!("qemu failed with {code:?}"),
            Verdict::NoResult => "the guest went down without a result".to_owned(),
        };
        bail!("vm {name}: {reason} ({seconds:.1} s, log in {})", run.log_path.display())
    }

    fn script(&self) -> String {
        let exports =
            self.env.iter().map(|(name, value)| format!("export {name}={}\n", command::quote(value)));
        let words: Vec<String> = self.command.iter().map(|word| command::quote(word)).collect();
        exports.chain([format!("{}\n", words.join(" "))]).collect()
    }
}

/// Linux patches its own code by way of breakpoints. When the emulator's CPUs run on threads of their own, one may still
/// run a breakpoint that is in its translated code but no longer in the kernel's, which is an oops.
const STALE_BREAKPOINT: &str = "Oops: int3: ";

/// One run of a guest.
#[derive(Debug)]
pub(crate) struct Run {
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// The serial console.
    pub(crate) log: String,
    /// Where the log is kept.
    pub(crate) log_path: PathBuf,
    /// From packing the files to power-off.
    pub(crate) elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_runs_the_command_with_its_variables() {
        let me = std::env::current_exe().unwrap();
        let mut guest = Guest::new(&me, &["--test-threads=1".into(), "a b".into()]).unwrap();
        guest.env("RUST_BACKTRACE", "it's 1").unwrap();
        let name = me.file_name().unwrap().to_string_lossy();
        let expected = format!("export RUST_BACKTRACE='it'\\''s 1'\n/bin/{name} --test-threads=1 'a b'\n");
        assert_eq!(guest.script(), expected);
        for name in ["", "1A", "A B", "A;reboot"] {
            assert!(guest.env(name, "x").is_err(), "{name}");
        }
    }

    #[test]
    fn the_init_script_prints_the_markers_that_are_looked_for() {
        assert!(INIT.contains(&format!("echo \"{}\"", verdict::BEGIN)));
        assert!(INIT.contains(&format!("echo \"{} $status\"", verdict::RESULT)));
    }
}
