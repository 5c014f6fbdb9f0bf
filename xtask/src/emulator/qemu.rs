//! Finds, installs and runs qemu.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{apt, command, host, toolchain, workspace};

/// Folders of libraries and firmware in an unpacked set of packages.
const LIBRARIES: &[&str] = &["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const FIRMWARE: &[&str] = &["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// How qemu exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With success: the guest powered off, or its kernel panicked.
    PoweredOff,
    /// With an error.
    Failed(Option<i32>),
    /// It was killed after the timeout.
    TimedOut,
}

/// An installed qemu, or one unpacked into the cache.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    unpacked: Option<PathBuf>,
}

impl Qemu {
    /// Finds qemu on the PATH or in the cache.
    pub(crate) fn find() -> Result<Option<Self>> {
        if let Some(program) = command::find(toolchain::QEMU_PROGRAM) {
            return Ok(Some(Self { program, unpacked: None }));
        }
        let root = workspace::cache_dir()?.join("qemu");
        let program = root.join("usr/bin").join(toolchain::QEMU_PROGRAM);
        Ok(command::is_executable(&program).then_some(Self { program, unpacked: Some(root) }))
    }

    /// Installs qemu if apt would neither remove nor upgrade a package, else unpacks it into the cache.
    pub(crate) fn ensure() -> Result<Self> {
        if let Some(qemu) = Self::find()? {
            return Ok(qemu);
        }
        let simulation = apt::simulate(&[toolchain::QEMU_PACKAGE])?;
        if simulation.remove.is_empty() && simulation.upgrade.is_empty() && host::is_root() {
            println!("setup: installing {} to boot test kernels", toolchain::QEMU_PACKAGE);
            apt::install(&[toolchain::QEMU_PACKAGE])?;
        } else {
            let folder = workspace::cache_dir()?.join("qemu");
            let reason = match (simulation.remove.as_slice(), simulation.upgrade.as_slice()) {
                ([], []) => "installing requires root".to_owned(),
                ([], upgrade) => format!("installing would upgrade {}", upgrade.join(", ")),
                (remove, _) => format!("installing would remove {}", remove.join(", ")),
            };
            println!("setup: unpacking qemu into {} to boot test kernels ({reason})", folder.display());
            let packages: Vec<&str> = simulation.install.iter().map(String::as_str).collect();
            apt::unpack(&packages, &folder)?;
        }
        let qemu = Self::find()?.context("the qemu package contains no qemu-system-x86_64")?;
        qemu.version().context("the unpacked qemu does not run")?;
        Ok(qemu)
    }

    /// Path of the executable.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// First line of `--version`.
    pub(crate) fn version(&self) -> Result<String> {
        let printed = command::capture(self.command()?.arg("--version"))?;
        Ok(printed.lines().next().unwrap_or_default().to_owned())
    }

    fn command(&self) -> Result<Command> {
        // An emulated CPU uses all the time that it gets: other processes come first.
        let mut command = command::new_killed_with_parent("nice")?;
        command.args(["-n", "10"]).arg(&self.program);
        if let Some(root) = &self.unpacked {
            let libraries: Vec<String> =
                LIBRARIES.iter().map(|folder| root.join(folder).display().to_string()).collect();
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for folder in FIRMWARE {
                command.arg("-L").arg(root.join(folder));
            }
        }
        Ok(command)
    }

    /// Boots a kernel and waits until it powers off, at most for `timeout`. The serial console goes to `log`.
    pub(crate) fn boot(&self, boot: &Boot<'_>, log: &Path, timeout: Duration) -> Result<End> {
        fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.command()?;
        // Emulation works everywhere; KVM is often present but broken on nested hosts.
        let threads = if boot.single_thread { "tcg,thread=single" } else { "tcg,thread=multi" };
        command.args(["-accel", threads, "-cpu", "max"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-smp").arg(boot.cpus.to_string()).arg("-m").arg(format!("{}M", boot.memory_mib));
        command.arg("-serial").arg(format!("file:{}", log.display()));
        // A disk of zeros gives the guest a page cache that the kernel can reclaim.
        command
            .args(["-blockdev", "driver=null-co,node-name=zeros,size=268435456,read-zeroes=on,read-only=on"]);
        command.args(["-device", "nvme,drive=zeros,serial=zeros"]);
        command.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initramfs);
        command.arg("-append").arg(kernel_arguments(host::tsc_khz()));
        command.stdin(Stdio::null());
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", command::line(&command)))?;
        wait(&mut child, timeout)
    }
}

/// Kernel, initramfs and size of a virtual machine.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    /// Emulate all CPUs on one thread: slower, but no CPU runs code that another one has just changed.
    pub(crate) single_thread: bool,
}

fn kernel_arguments(tsc_khz: Option<u64>) -> String {
    let mut arguments = "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 psi=1".to_owned();
    // The guest reads the host's TSC. Without its exact frequency the guest's clock would be wrong.
    if let Some(khz) = tsc_khz {
        arguments.push_str(&format!(" tsc=reliable tsc_early_khz={khz}"));
    }
    arguments
}

fn wait(child: &mut Child, timeout: Duration) -> Result<End> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for qemu")? {
            return Ok(if status.success() { End::PoweredOff } else { End::Failed(status.code()) });
        }
        if Instant::now() >= deadline {
            child.kill().context("cannot kill qemu")?;
            child.wait().context("cannot wait for qemu")?;
            return Ok(End::TimedOut);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Fails unless the host is x86-64: guests run programs of the host, and the kernels are for x86-64.
pub(crate) fn ensure_host_fits() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels for virtual machines are for x86-64, this host is {}: run the kernel tests on the host with \
         `cargo xtask test --only kernel`",
        std::env::consts::ARCH,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tsc_is_reliable_only_with_a_known_frequency() {
        assert!(kernel_arguments(Some(2_500_014)).ends_with("tsc=reliable tsc_early_khz=2500014"));
        assert!(!kernel_arguments(None).contains("tsc"));
    }

    #[test]
    fn a_child_that_exceeds_the_timeout_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let started = Instant::now();
        assert_eq!(wait(&mut child, Duration::from_millis(100)).unwrap(), End::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(30));
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_secs(30)).unwrap(), End::Failed(Some(3)));
        let mut child = Command::new("true").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_secs(30)).unwrap(), End::PoweredOff);
    }
}
