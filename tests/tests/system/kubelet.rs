//! Compares `/metrics/cadvisor` with the kernel's files: network, disks, processes, limits, the machine.

use std::{
    collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use procfs::FromRead as _;
use snug_tests::{
    agent::{Agent, eventually},
    exposition::Page,
};
use tempfile::TempDir;

use crate::{cannot_run, container, container::Container, container::pod_list, has_program};

const PATH: &str = "/metrics/cadvisor";

/// How long slow rows may take.
const SLOW: Duration = Duration::from_secs(15);

/// The options of the agent: the shortest intervals.
pub(crate) const QUICK: [&str; 6] =
    ["--slow-interval", "1s", "--working-set-interval", "500ms", "--source", "auto"];

/// Creates two interfaces in a network namespace. One of them sends.
pub(crate) const NETWORK: &str = "ip link add eth0 type veth peer name net1 && ip link set eth0 up && \
    ip link set net1 up && ip addr add 10.9.9.1/24 dev eth0 && ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:01 dev eth0";

/// A pod with a network namespace, which its sandbox and its container share.
pub(crate) fn pod_with_network(sending: &str) -> Result<(Container, String), String> {
    for program in ["unshare", "nsenter", "ip", "bash"] {
        if !has_program(program) {
            return Err(format!("there is no {program}"));
        }
    }
    let tried = Command::new("unshare").args(["--net", "sh", "-c", NETWORK]).output();
    if let Some(why) = tried.as_ref().map_or(Some("cannot start unshare".to_owned()), |output| {
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }) {
        return Err(format!("no interfaces can be made: {why}"));
    }
    let mut container = container()?;
    let made = || -> Result<(u32, String)> {
        let id = "5".repeat(64);
        let leaves = container.beside(&id)?;
        let pause = tempfile::tempdir()?;
        std::os::unix::fs::symlink("/bin/sleep", pause.path().join("pause"))?;
        // A sandbox is recognised by its only process.
        let script =
            format!("exec unshare --net sh -c '{NETWORK} && exec {}/pause 1000'", pause.path().display());
        let pid = container.run_in(&leaves, &script)?;
        eventually(Duration::from_secs(5), "the sandbox has its network", || {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            Ok((comm.trim() == "pause").then_some(()))
        })?;
        container.run(&format!("exec nsenter --net=/proc/{pid}/ns/net bash -c '{sending}'"))?;
        Ok((pid, id))
    };
    let mut made = made;
    let (_, id) = made().map_err(|error| format!("no pod with a network can be made: {error:#}"))?;
    Ok((container, id))
}

/// The interfaces of a process by name: received bytes, packets, errors and drops, then the same for sent ones.
pub(crate) fn net_dev(pid: &str) -> Result<BTreeMap<String, [u64; 8]>> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    let lines = text.lines().skip(2).map(|line| {
        let (name, numbers) = line.split_once(':').context("no interface")?;
        let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(numbers.len() == 16, "{line}");
        let of = |index: usize| numbers.get(index).copied().unwrap_or_default();
        Ok((name.trim().to_owned(), [of(0), of(1), of(2), of(3), of(8), of(9), of(10), of(11)]))
    });
    lines.collect()
}

const NETWORK_FAMILIES: [&str; 8] = [
    "container_network_receive_bytes_total",
    "container_network_receive_packets_total",
    "container_network_receive_errors_total",
    "container_network_receive_packets_dropped_total",
    "container_network_transmit_bytes_total",
    "container_network_transmit_packets_total",
    "container_network_transmit_errors_total",
    "container_network_transmit_packets_dropped_total",
];

/// The interfaces in the series with these labels.
fn shown(page: &Page, labels: &[(&str, &str)]) -> Result<BTreeMap<String, [u64; 8]>> {
    let mut all: BTreeMap<String, [u64; 8]> = BTreeMap::new();
    for (index, family) in NETWORK_FAMILIES.iter().enumerate() {
        for sample in page.all(family, labels) {
            let numbers = all.entry(sample.label("interface").to_owned()).or_default();
            let number = numbers.get_mut(index).context("more families than numbers")?;
            ensure!(*number == 0, "{family} of {labels:?} is there twice");
            *number = sample.value as u64;
        }
    }
    Ok(all)
}

#[test]
fn a_pods_interfaces_are_those_of_its_namespace_and_are_shown_once() -> Result<()> {
    let (container, sandbox) = match pod_with_network("exec sleep 1000") {
        Ok(made) => made,
        Err(why) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[container.pod("shop", "web", "app")]))?;
    let agent = Agent::start(QUICK.into_iter().chain(["--pods-file", &pods.to_string_lossy()]))?;
    let pids = fs::read_to_string(container.file("cgroup.procs")?)?;
    let pid = pids.lines().next().context("the container has no process")?;
    let same = |pid: &str, other: &str| -> Result<bool> {
        Ok(fs::read_link(format!("/proc/{pid}/ns/net"))? == fs::read_link(format!("/proc/{other}/ns/net"))?)
    };
    assert!(!same(pid, "self")?, "the pod has a namespace of its own");

    let labels = [("namespace", "shop")];
    let page = eventually(SLOW, "the interfaces are what the kernel says", || {
        let (before, page, after) = (net_dev(pid)?, agent.scrape(PATH)?, net_dev(pid)?);
        // Neighbour discovery sends a packet from time to time.
        let without_lo =
            before.iter().filter(|(name, _)| *name != "lo").map(|(name, all)| (name.clone(), *all));
        Ok((before == after && shown(&page, &labels)? == without_lo.collect()).then_some(page))
    })?;
    let found = shown(&page, &labels)?;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["eth0", "net1"]);
    assert!(found.values().all(|numbers| numbers[4] > 0), "something was sent: {found:?}");
    for sample in page.all(NETWORK_FAMILIES[0], &labels) {
        assert_eq!((sample.label("name"), sample.label("container")), (&*sandbox, ""), "{sample:?}");
    }
    the_root_shows_the_hosts(&agent)
}

fn the_root_shows_the_hosts(agent: &Agent) -> Result<()> {
    let ignored =
        |name: &str| ["lo", "veth", "docker", "nerdctl"].iter().any(|prefix| name.starts_with(prefix));
    eventually(SLOW, "the root shows the host's interfaces", || {
        let (before, page, after) = (net_dev("1")?, agent.scrape(PATH)?, net_dev("1")?);
        let root = shown(&page, &[("id", "/")])?;
        let names = before.keys().filter(|name| !ignored(name)).collect::<Vec<_>>();
        assert_eq!(root.keys().collect::<Vec<_>>(), names);
        // The agent's last sample may be a second old.
        let sampled = root.iter().all(|(name, numbers)| {
            after.get(name).is_some_and(|after| numbers.iter().zip(after).all(|(one, most)| one <= most))
        });
        Ok(sampled.then_some(()))
    })
}

#[test]
fn a_pod_on_the_hosts_network_shows_nothing() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.run("exec sleep 1000")?;
    let agent = Agent::start(QUICK)?;
    eventually(SLOW, "the host's interfaces are there", || {
        let page = agent.scrape(PATH)?;
        Ok((!page.all(NETWORK_FAMILIES[0], &[("id", "/")]).is_empty()).then_some(()))
    })?;
    let page = agent.scrape(PATH)?;
    assert!(page.has("container_memory_rss"));
    assert!(page.all(NETWORK_FAMILIES[0], &[("name", &container.id)]).is_empty());
    Ok(())
}

/// The disk of a directory: its device numbers and its path.
fn disk_of(folder: &Path) -> Result<(String, String)> {
    let device = fs::metadata(folder)?.dev();
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mut entry = fs::canonicalize(Path::new("/sys/dev/block").join(&numbers))
        .with_context(|| format!("{} is on no disk: its device is {numbers}", folder.display()))?;
    // I/O is counted per whole disk.
    if entry.join("partition").exists() {
        entry.pop();
    }
    let uevent = fs::read_to_string(entry.join("uevent"))?;
    let name =
        uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).context("the disk has no name")?;
    Ok((fs::read_to_string(entry.join("dev"))?.trim().to_owned(), format!("/dev/{name}")))
}

/// A container that has written and read a file on a disk with direct I/O.
pub(crate) struct DiskUser {
    /// The disk's numbers.
    pub(crate) numbers: String,
    /// Its path.
    pub(crate) device: String,
    _folder: TempDir,
}

impl DiskUser {
    /// Writes and reads 1 MiB in the container. The error is the reason if this host has no suitable disk or does not count.
    pub(crate) fn of(container: &mut Container) -> Result<Self> {
        // In the build directory, which is on a disk. The directory for temporary files may be in memory.
        let folder = tempfile::tempdir_in(std::env::current_exe()?.parent().context("no folder")?)?;
        let (numbers, device) = disk_of(folder.path())?;
        // v1 counts only if a limit is set.
        if let Ok(file) = container.file("blkio.throttle.write_bps_device") {
            fs::write(file, format!("{numbers} 10000000000"))?;
        }
        let file = folder.path().join("data");
        let file = file.display();
        container.run(&format!(
            "dd if=/dev/zero of={file} bs=64k count=16 oflag=direct 2>/dev/null; \
             dd if={file} of=/dev/null bs=64k iflag=direct 2>/dev/null; exec sleep 1000"
        ))?;
        eventually(SLOW, "the container's files count its I/O", || {
            let io = disk_io(container, &numbers)?;
            Ok(io.filter(|io| io[0] >= 1_048_576.0 && io[1] >= 1_048_576.0))
        })?;
        Ok(Self { numbers, device, _folder: folder })
    }
}

/// Bytes read, bytes written, reads and writes of a device, from the cgroup files of the container.
pub(crate) fn disk_io(container: &Container, numbers: &str) -> Result<Option<[f64; 4]>> {
    let bytes = container.read("io.stat", "blkio.throttle.io_service_bytes_recursive")?;
    let operations = container.read("io.stat", "blkio.throttle.io_serviced_recursive")?;
    let find = |text: &str, v2: &str, v1: &str| -> Option<f64> {
        let line = text.lines().find(|line| {
            line.starts_with(&format!("{numbers} {v1} ")) || line.starts_with(&format!("{numbers} rbytes="))
        })?;
        let v2 = line.split(' ').find_map(|word| word.strip_prefix(v2)?.strip_prefix('='));
        v2.or_else(|| line.rsplit(' ').next())?.parse().ok()
    };
    let all = [
        find(&bytes, "rbytes", "Read"),
        find(&bytes, "wbytes", "Write"),
        find(&operations, "rios", "Read"),
        find(&operations, "wios", "Write"),
    ];
    Ok(match all {
        [Some(a), Some(b), Some(c), Some(d)] => Some([a, b, c, d]),
        _ => None,
    })
}

#[test]
fn disk_io_equals_the_containers_cgroup_files() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let agent = Agent::start(QUICK)?;
    let used = match DiskUser::of(&mut container) {
        Ok(used) => used,
        Err(why) => return cannot_run(format!("{why:#}")),
    };
    let DiskUser { numbers, device, .. } = &used;
    let id = ("name", container.id.as_str());
    let page = eventually(SLOW, "the values are those of the files", || {
        let (before, page, after) =
            (disk_io(&container, numbers)?, agent.scrape(PATH)?, disk_io(&container, numbers)?);
        let of = |family: &str| page.one(family, &[id, ("device", device)]);
        let found = [
            of("container_fs_reads_bytes_total")?,
            of("container_fs_writes_bytes_total")?,
            of("container_fs_reads_total")?,
            of("container_fs_writes_total")?,
        ];
        let expected = before.filter(|_| before == after).map(|all| all.map(Some));
        Ok((expected == Some(found)).then_some(page))
    })?;
    let (major, minor) = numbers.split_once(':').context("no numbers")?;
    for (operation, family) in
        [("Read", "container_fs_reads_bytes_total"), ("Write", "container_fs_writes_bytes_total")]
    {
        let labels = [id, ("device", device), ("major", major), ("minor", minor), ("operation", operation)];
        let value = page.value("container_blkio_device_usage_total", &labels)?;
        assert_eq!(value, page.value(family, &[id, ("device", device)])?);
    }
    Ok(())
}

#[test]
fn the_machine_metrics_equal_proc() -> Result<()> {
    let agent = Agent::start(QUICK)?;
    let page = agent.scrape(PATH)?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let ids = [("boot_id", boot_id.trim()), ("machine_id", machine_id.trim())];
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    assert_eq!(page.value("machine_cpu_cores", &ids)?, cpus as f64);
    let memory = procfs::Meminfo::from_file("/proc/meminfo")?;
    assert_eq!(page.value("machine_memory_bytes", &ids)?, memory.mem_total as f64);
    assert_eq!(page.value("machine_swap_bytes", &ids)?, memory.swap_total as f64);
    let cores = page.value("machine_cpu_physical_cores", &ids)?;
    let sockets = page.value("machine_cpu_sockets", &ids)?;
    assert!(1.0 <= sockets && sockets <= cores && cores <= cpus as f64, "{sockets} {cores} {cpus}");
    assert_eq!(page.value("machine_scrape_error", &[])?, 0.0);
    assert_eq!(page.value("container_spec_memory_limit_bytes", &[("id", "/")])?, memory.mem_total as f64);
    Ok(())
}

/// Sets the CPU shares of a container to about half the default. Returns the shares.
fn set_shares(container: &Container) -> Result<f64> {
    if let Ok(weight) = container.file("cpu.weight") {
        fs::write(weight, "20")?;
        return Ok(500.0);
    }
    fs::write(container.file("cpu.shares")?, "512")?;
    Ok(512.0)
}

#[test]
fn shares_and_reservation_are_those_of_the_cgroup() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.run("exec sleep 1000")?;
    let shares = set_shares(&container)?;
    let reservation =
        container.file("memory.min").or_else(|_| container.file("memory.soft_limit_in_bytes"))?;
    fs::write(reservation, "4194304")?;
    let agent = Agent::start(QUICK)?;
    let id = [("name", container.id.as_str())];
    eventually(SLOW, "shares and reservation", || {
        let page = agent.scrape(PATH)?;
        let found = page.one("container_spec_cpu_shares", &id)?;
        let reserved = page.one("container_spec_memory_reservation_limit_bytes", &id)?;
        Ok((found == Some(shares) && reserved == Some(4_194_304.0)).then_some(()))
    })
}

#[test]
fn shares_that_are_set_after_the_first_sample_are_read_in_the_next_one() -> Result<()> {
    let agent = Agent::start(["--slow-interval", "5s"])?;
    let (mut one, mut other) = match container().and_then(|one| Ok((one, container()?))) {
        Ok(containers) => containers,
        Err(why) => return cannot_run(why),
    };
    for container in [&mut one, &mut other] {
        container.run("exec sleep 1000")?;
    }
    let shown = |container: &Container| {
        agent.scrape(PATH)?.one("container_spec_cpu_shares", &[("name", container.id.as_str())])
    };
    let appear = || Ok(shown(&one)?.and(shown(&other)?).map(drop));
    eventually(Duration::from_secs(3), "shares of newcomers", appear)?;
    let set = (Some(set_shares(&one)?), Some(set_shares(&other)?));
    let follow = || Ok(((shown(&one)?, shown(&other)?) == set).then_some(()));
    eventually(Duration::from_secs(10), "their new shares", follow)
}

#[test]
fn processes_are_counted_only_if_enabled() -> Result<()> {
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    let pid = container.run("ulimit -Sn 77; exec 7</dev/null 8</dev/null; sleep 1000 & exec sleep 1000")?;
    let id = [("name", container.id.as_str())];
    let families =
        ["container_processes", "container_file_descriptors", "container_sockets", "container_ulimits_soft"];
    let without = Agent::start(QUICK)?;
    eventually(SLOW, "a whole turn without processes", || {
        let page = without.scrape(PATH)?;
        Ok(page.one("container_memory_rss", &id)?.map(drop))
    })?;
    let page = without.scrape(PATH)?;
    assert!(families.iter().all(|family| !page.has(family)));
    drop(without);

    let agent = Agent::start(QUICK.into_iter().chain(["--process-metrics", "on"]))?;
    let pids = fs::read_to_string(container.file("cgroup.procs")?)?;
    let descriptors = pids.lines().map(|pid| fs::read_dir(Path::new("/proc").join(pid).join("fd")));
    let descriptors: usize = descriptors.map(|all| Ok(all?.count())).sum::<Result<usize>>()?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))?;
    assert!(fds.count() >= 5, "two were opened");
    eventually(SLOW, "processes and descriptors", || {
        let page = agent.scrape(PATH)?;
        let found: Vec<Option<f64>> =
            families.iter().map(|family| page.one(family, &id)).collect::<Result<_>>()?;
        Ok((found == [Some(2.0), Some(descriptors as f64), Some(0.0), Some(77.0)]).then_some(()))
    })?;
    let page = agent.scrape(PATH)?;
    assert!(page.value("container_processes", &[("id", "/")])? > 0.0);
    Ok(())
}
