//! Finds, installs and runs qemu.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::kernel::Arch;
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
    arch: Arch,
    program: PathBuf,
    unpacked: Option<PathBuf>,
}

impl Qemu {
    /// Finds qemu on the PATH or in the cache.
    pub(crate) fn find(arch: Arch) -> Result<Option<Self>> {
        let (name, folder) = match arch {
            Arch::Amd64 => (toolchain::QEMU_PROGRAM, "qemu"),
            Arch::Arm64 => (toolchain::QEMU_ARM_PROGRAM, "qemu-arm64"),
        };
        if let Some(program) = command::find(name) {
            return Ok(Some(Self { arch, program, unpacked: None }));
        }
        let root = workspace::cache_dir()?.join(folder);
        let program = root.join("usr/bin").join(name);
        Ok(command::is_executable(&program).then_some(Self { arch, program, unpacked: Some(root) }))
    }

    /// Installs qemu if apt would neither remove nor upgrade a package, else unpacks it into the cache.
    pub(crate) fn ensure(arch: Arch) -> Result<Self> {
        if let Some(qemu) = Self::find(arch)? {
            return Ok(qemu);
        }
        let (package, folder) = match arch {
            Arch::Amd64 => (toolchain::QEMU_PACKAGE, "qemu"),
            Arch::Arm64 => (toolchain::QEMU_ARM_PACKAGE, "qemu-arm64"),
        };
        let simulation = apt::simulate(&[package])?;
        if simulation.remove.is_empty() && simulation.upgrade.is_empty() && host::is_root() {
            println!("setup: installing {package} to boot test kernels");
            apt::install(&[package])?;
        } else {
            let folder = workspace::cache_dir()?.join(folder);
            let reason = match (simulation.remove.as_slice(), simulation.upgrade.as_slice()) {
                ([], []) => "installing requires root".to_owned(),
                ([], upgrade) => format!("installing would upgrade {}", upgrade.join(", ")),
                (remove, _) => format!("installing would remove {}", remove.join(", ")),
            };
            println!("setup: unpacking qemu into {} to boot test kernels ({reason})", folder.display());
            let packages: Vec<&str> = simulation.install.iter().map(String::as_str).collect();
            apt::unpack(&packages, &folder)?;
        }
        let qemu = Self::find(arch)?.with_context(|| format!("the package {package} contains no qemu"))?;
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
        // Emulation works everywhere; KVM is often present but broken on nested hosts. With a thread per CPU, qemu 7.2 may run a
        // breakpoint from translated code after Linux, which patches its code with temporary ones, has removed it.
        command.args(["-accel", "tcg,thread=single"]);
        match self.arch {
            Arch::Amd64 => command.args(["-cpu", "max"]),
            // The architecture's pointer authentication takes most of the time if it is emulated.
            Arch::Arm64 => command.args(["-machine", "virt", "-cpu", "max,pauth-impdef=on"]),
        };
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-smp").arg(boot.cpus.to_string()).arg("-m").arg(format!("{}M", boot.memory_mib));
        command.arg("-serial").arg(format!("file:{}", log.display()));
        // A disk of zeros gives the guest a page cache that the kernel can reclaim.
        command
            .args(["-blockdev", "driver=null-co,node-name=zeros,size=268435456,read-zeroes=on,read-only=on"]);
        command.args(["-device", "nvme,drive=zeros,serial=zeros"]);
        command.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initramfs);
        let tsc_khz = host::tsc_khz();
        if self.arch == Arch::Amd64 && tsc_khz.is_none() {
            println!(
                "vm: the frequency of this host's time-stamp counter is unknown: the guest's clock may be wrong by far"
            );
        }
        command.arg("-append").arg(kernel_arguments(self.arch, tsc_khz));
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
}

/// A guest that stands still ends then, instead of at its timeout. A guest in the background may get no CPU time for a minute.
const PANIC_WHEN_FROZEN: &str = "rcupdate.rcu_cpu_stall_timeout=180 sysctl.kernel.panic_on_rcu_stall=1";

fn kernel_arguments(arch: Arch, tsc_khz: Option<u64>) -> String {
    let (console, tsc_khz) = match arch {
        // A guest that waits for a CPU while it tests its timer would take it for broken, and panic.
        Arch::Amd64 => ("ttyS0 no_timer_check", tsc_khz),
        Arch::Arm64 => ("ttyAMA0", None),
    };
    let mut arguments =
        format!("console={console} quiet loglevel=4 oops=panic panic=-1 psi=1 {PANIC_WHEN_FROZEN}");
    // The guest reads the host's TSC. It would measure the frequency while it waits for a CPU, and its clock would run many times
    // too fast.
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
        let arguments = kernel_arguments(Arch::Amd64, Some(2_500_014));
        assert!(arguments.ends_with("tsc=reliable tsc_early_khz=2500014"), "{arguments}");
        assert!(!kernel_arguments(Arch::Amd64, None).contains("tsc"));
        assert!(!kernel_arguments(Arch::Arm64, Some(2_500_014)).contains("tsc"));
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
