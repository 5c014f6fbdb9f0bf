//! The host: its CPUs and memory, its ids, and the names of its block devices.
//!
//! Files: `/proc/meminfo`, `/sys/devices/system/cpu`, `/sys/dev/block/*/uevent`, machine id, boot id and DMI. Metrics:
//! `machine_*` of `/metrics/cadvisor`, and the label `device` there.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use procfs::FromRead as _;

use super::{Component, Round};
use crate::{
    model::{HostRow, Machine},
    values::IoDevice,
};

/// Time between two readings: CPUs and memory can be hot-plugged, device numbers reused.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Host {
    proc_root: PathBuf,
    sys_root: PathBuf,
    row: Arc<HostRow>,
    due: Instant,
}

impl Host {
    /// Reads the machine's values.
    pub(super) fn new(proc_root: PathBuf, sys_root: PathBuf, now: Instant) -> Self {
        let row = Arc::new(HostRow { machine: machine(&proc_root, &sys_root), devices: BTreeMap::new() });
        Self { proc_root, sys_root, row, due: now + REFRESH_INTERVAL }
    }

    fn update<'a>(&mut self, devices: impl Iterator<Item = &'a IoDevice>, now: Instant) {
        let mut row = HostRow::clone(&self.row);
        let again = now >= self.due;
        if again {
            self.due = now + REFRESH_INTERVAL;
            row.machine = machine(&self.proc_root, &self.sys_root);
            row.devices.clear();
        }
        for IoDevice { major, minor, .. } in devices {
            let path = |(major, minor)| device_path(&self.sys_root, major, minor).unwrap_or_default();
            row.devices.entry((*major, *minor)).or_insert_with(|| path((*major, *minor)));
        }
        if row != *self.row {
            self.row = Arc::new(row);
        }
    }
}

impl Component for Host {
    /// Looks up the names of devices that are new in the store, and reads everything again once per interval.
    fn round(&mut self, round: &mut Round) {
        if !round.is_full {
            return;
        }
        let Round { store, now, host, .. } = round;
        let values = store.living().filter_map(|(key, _)| store.values(key));
        self.update(values.flat_map(|values| values.io.iter().flat_map(|io| io.iter())), *now);
        *host = Arc::clone(&self.row);
    }
}

/// Path of a block device in `/dev`, by the name that its driver gives it.
fn device_path(sys_root: &Path, major: u32, minor: u32) -> Option<String> {
    let text = fs::read_to_string(sys_root.join(format!("dev/block/{major}:{minor}/uevent"))).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(format!("/dev/{name}"))
}

fn machine(proc_root: &Path, sys_root: &Path) -> Machine {
    let first_line = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let first_of = |paths: &[PathBuf]| {
        paths.iter().map(|path| first_line(path)).find(|id| !id.is_empty()).unwrap_or_default()
    };
    // In a container the agent's own /etc is not the host's; the root directory of the host's init process is.
    let mut machine_ids = vec![proc_root.join("1/root/etc/machine-id")];
    if proc_root == Path::new("/proc") {
        machine_ids.push("/etc/machine-id".into());
    }
    let machine_id = first_of(&machine_ids);
    let firmware = [sys_root.join("class/dmi/id/product_uuid"), proc_root.join("device-tree/vm,uuid")];
    let mut system_uuid = first_of(&firmware);
    if system_uuid.is_empty() {
        system_uuid.clone_from(&machine_id);
    }
    let memory = procfs::Meminfo::from_file(proc_root.join("meminfo")).ok();
    let topology = Topology::read(sys_root);
    let count = |of: fn(&Topology) -> usize| topology.as_ref().map(|topology| of(topology) as u64);
    Machine {
        boot_id: first_line(&proc_root.join("sys/kernel/random/boot_id")),
        machine_id,
        system_uuid,
        cpus: count(|topology| topology.cpus),
        cores: count(|topology| topology.cores.len()),
        sockets: count(|topology| topology.sockets.len()),
        memory_bytes: memory.as_ref().map(|memory| memory.mem_total),
        swap_bytes: memory.as_ref().map(|memory| memory.swap_total),
    }
}

/// The online CPUs with their cores and sockets: Linux `Documentation/admin-guide/cputopology.rst`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Topology {
    cpus: usize,
    cores: HashSet<(String, String)>,
    sockets: HashSet<String>,
}

impl Topology {
    /// `None` if the core or socket of an online CPU is not known.
    fn read(sys_root: &Path) -> Option<Self> {
        let cpus = sys_root.join("devices/system/cpu");
        let mut topology = Self::default();
        for cpu in cpu_list(&fs::read_to_string(cpus.join("online")).ok()?)? {
            let of = |file: &str| {
                let text = fs::read_to_string(cpus.join(format!("cpu{cpu}/topology/{file}"))).ok()?;
                Some(text.trim().to_owned())
            };
            let (socket, core) = (of("physical_package_id")?, of("core_id")?);
            topology.cpus += 1;
            topology.cores.insert((socket.clone(), core));
            topology.sockets.insert(socket);
        }
        Some(topology)
    }
}

/// Maximum number of CPUs in a list: `NR_CPUS` is at most 8192.
const MAX_CPUS: usize = 65_536;

/// A list such as `0-3,8`.
pub(super) fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last.checked_sub(first)? as usize + cpus.len() >= MAX_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    (!cpus.is_empty()).then_some(cpus)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn cpu(root: &Path, number: u32, socket: &str, core: u32) {
        write(
            root,
            &format!("devices/system/cpu/cpu{number}/topology/physical_package_id"),
            &format!("{socket}\n"),
        );
        write(root, &format!("devices/system/cpu/cpu{number}/topology/core_id"), &format!("{core}\n"));
    }

    #[test]
    fn threads_cores_and_sockets() {
        let root = tempfile::tempdir().unwrap();
        let (proc, sys) = (root.path().join("proc"), root.path().join("sys"));
        write(&sys, "devices/system/cpu/online", "0-3,6-7\n");
        for (number, socket, core) in
            [(0, "0", 0), (1, "0", 0), (2, "0", 1), (3, "0", 1), (6, "1", 0), (7, "1", 1)]
        {
            cpu(&sys, number, socket, core);
        }
        write(
            &proc,
            "meminfo",
            "MemTotal: 2048 kB\nMemFree: 1 kB\nBuffers: 0 kB\nCached: 0 kB\nSwapTotal: 4 kB\n",
        );
        write(&proc, "sys/kernel/random/boot_id", "boot\n");
        write(&proc, "1/root/etc/machine-id", "machine\n");
        let expected = Machine {
            boot_id: "boot".to_owned(),
            machine_id: "machine".to_owned(),
            system_uuid: "machine".to_owned(),
            cpus: Some(6),
            cores: Some(4),
            sockets: Some(2),
            memory_bytes: None,
            swap_bytes: None,
        };
        let found = machine(&proc, &sys);
        assert_eq!(Machine { memory_bytes: None, swap_bytes: None, ..found }, expected);
        write(&sys, "class/dmi/id/product_uuid", "firmware\n");
        assert_eq!(machine(&proc, &sys).system_uuid, "firmware");
        // If the topology of one CPU is not known, all of it is not.
        fs::remove_dir_all(sys.join("devices/system/cpu/cpu7")).unwrap();
        let found = machine(&proc, &sys);
        assert_eq!((found.cpus, found.cores, found.sockets), (None, None, None));
    }

    #[test]
    fn nothing_is_known_of_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(machine(root.path(), root.path()), Machine::default());
    }

    #[test]
    fn this_machine() {
        let found = machine(Path::new("/proc"), Path::new("/sys"));
        let cpus = std::thread::available_parallelism().unwrap().get() as u64;
        assert!(found.cpus.unwrap() >= cpus, "{found:?}");
        assert!(found.cores <= found.cpus && found.sockets <= found.cores, "{found:?}");
        assert!(found.memory_bytes.unwrap() > 64 << 20, "{found:?}");
        assert_eq!(found.boot_id.len(), 36);
    }

    #[test]
    fn devices_are_named_once_and_again_after_a_while() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "dev/block/254:0/uevent", "MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n");
        let now = Instant::now();
        let mut host = Host::new(root.path().join("proc"), root.path().to_owned(), now);
        let devices =
            [(254, 0), (7, 1)].map(|(major, minor)| IoDevice { major, minor, ..IoDevice::default() });
        host.update(devices.iter(), now);
        let names = |host: &Host| host.row.devices.values().cloned().collect::<Vec<_>>();
        assert_eq!(names(&host), ["", "/dev/vda"]);
        let before = Arc::clone(&host.row);
        write(root.path(), "dev/block/7:1/uevent", "DEVNAME=mapper/a\n");
        host.update(devices.iter(), now + REFRESH_INTERVAL / 2);
        assert!(Arc::ptr_eq(&before, &host.row), "unchanged, so not replaced");
        host.update(devices.iter(), now + REFRESH_INTERVAL);
        assert_eq!(names(&host), ["/dev/mapper/a", "/dev/vda"]);
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        for bad in ["", "\n", "x", "3-1", "0-4294967295", "1-", "-1"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_list_of_cpus_is_read_or_refused(text in "[0-9,\\- x]{0,20}") {
            prop_assert!(cpu_list(&text).is_none_or(|cpus| !cpus.is_empty() && cpus.len() <= MAX_CPUS));
        }
    }
}
