//! Sample cgroup files of several kernels, laid out in directories for tests.

use std::{fs, path::Path};

use super::mounts::{Hierarchies, Hierarchy, Version};

/// A file's name and its text.
pub(super) type Sample = (&'static str, &'static str);

/// v2, Linux 5.10: no `memory.peak`, no bursts, `cpu.pressure` without `full`, no `kernel` row.
pub(super) const V2_5_10: &[Sample] = &[
    ("cgroup.procs", "731\n"),
    (
        "cpu.stat",
        "usage_usec 5131000\nuser_usec 4100000\nsystem_usec 1031000\nnr_periods 120\nnr_throttled 17\nthrottled_usec 901234\n",
    ),
    ("cpu.max", "50000 100000\n"),
    ("cpu.weight", "20\n"),
    ("cpu.pressure", "some avg10=1.53 avg60=0.87 avg300=0.20 total=912345\n"),
    (
        "memory.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=41\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=40\n",
    ),
    (
        "io.pressure",
        "some avg10=0.00 avg60=0.01 avg300=0.00 total=5120\nfull avg10=0.00 avg60=0.01 avg300=0.00 total=5000\n",
    ),
    ("memory.current", "41943040\n"),
    ("memory.high", "50331648\n"),
    ("memory.max", "67108864\n"),
    ("memory.min", "0\n"),
    ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n"),
    (
        "memory.stat",
        "anon 30000000\nfile 9000000\nkernel_stack 49152\npercpu 0\nsock 0\nshmem 4096\nfile_mapped 8192\n\
         file_dirty 12288\nfile_writeback 0\nanon_thp 0\ninactive_anon 29999104\nactive_anon 896\n\
         inactive_file 8000000\nactive_file 995904\nunevictable 0\nslab_reclaimable 300000\n\
         slab_unreclaimable 200000\nslab 500000\nworkingset_refault_anon 0\nworkingset_refault_file 7\n\
         workingset_activate_anon 0\nworkingset_activate_file 0\nworkingset_restore_anon 0\n\
         workingset_restore_file 0\nworkingset_nodereclaim 0\npgfault 9001\npgmajfault 3\npgrefill 0\npgscan 64\n\
         pgsteal 60\npgactivate 0\npgdeactivate 0\npglazyfree 0\npglazyfreed 0\nthp_fault_alloc 0\n\
         thp_collapse_alloc 0\n",
    ),
    ("memory.swap.current", "0\n"),
    ("memory.swap.peak", "8192\n"),
    ("memory.swap.max", "max\n"),
    ("pids.current", "3\n"),
    ("pids.max", "max\n"),
    ("io.stat", "254:0 rbytes=1536000 wbytes=4096 rios=120 wios=1 dbytes=0 dios=0\n"),
];

/// v2, Linux 6.1: what differs from 5.10.
pub(super) const V2_6_1: &[Sample] = &[
    (
        "cpu.stat",
        "usage_usec 5131000\nuser_usec 4100000\nsystem_usec 1031000\ncore_sched.force_idle_usec 0\nnr_periods 120\n\
         nr_throttled 17\nthrottled_usec 901234\nnr_bursts 2\nburst_usec 800\n",
    ),
    ("cpu.max.burst", "20000\n"),
    (
        "cpu.pressure",
        "some avg10=1.53 avg60=0.87 avg300=0.20 total=912345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=911\n",
    ),
    ("memory.peak", "67108864\n"),
    ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"),
    (
        "memory.stat",
        "anon 30000000\nfile 9000000\nkernel 700000\nkernel_stack 49152\npagetables 100000\nsec_pagetables 0\n\
         percpu 0\nsock 0\nvmalloc 0\nshmem 4096\nzswap 0\nzswapped 0\nfile_mapped 8192\nfile_dirty 12288\n\
         file_writeback 0\nswapcached 0\nanon_thp 0\nfile_thp 0\nshmem_thp 0\ninactive_anon 29999104\n\
         active_anon 896\ninactive_file 8000000\nactive_file 995904\nunevictable 0\nslab_reclaimable 300000\n\
         slab_unreclaimable 200000\nslab 500000\nworkingset_refault_anon 0\nworkingset_refault_file 7\n\
         pgscan 64\npgsteal 60\npgscan_kswapd 0\npgscan_direct 64\npgsteal_kswapd 0\npgsteal_direct 60\n\
         pgfault 9001\npgmajfault 3\npgrefill 0\npgactivate 0\nthp_fault_alloc 0\n",
    ),
];

/// v2, Linux 6.12: what differs from 6.1.
pub(super) const V2_6_12: &[Sample] = &[
    (
        "cpu.stat",
        "usage_usec 5131000\nuser_usec 4100000\nsystem_usec 1031000\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
         nr_periods 120\nnr_throttled 17\nthrottled_usec 901234\nnr_bursts 2\nburst_usec 800\n",
    ),
    (
        "io.stat",
        "254:0 rbytes=1536000 wbytes=4096 rios=120 wios=1 dbytes=0 dios=0\n\
         (unknown) rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n",
    ),
];

/// v2, Linux 6.18: what differs from 6.12.
pub(super) const V2_6_18: &[Sample] = &[
    ("cpu.stat.local", "throttled_usec 0\n"),
    ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\nsock_throttled 0\n"),
];

/// v1 (Linux 6.18), all controllers of one cgroup, each under its hierarchy's directory.
pub(super) const V1: &[Sample] = &[
    ("cpuacct/cgroup.procs", "731\n"),
    ("cpuacct/cpuacct.usage", "5131000123\n"),
    ("cpuacct/cpuacct.stat", "user 410\nsystem 103\n"),
    ("cpu/cgroup.procs", "731\n"),
    (
        "cpu/cpu.stat",
        "nr_periods 120\nnr_throttled 17\nthrottled_time 901234567\nnr_bursts 2\nburst_time 800001\n",
    ),
    ("cpu/cpu.cfs_quota_us", "50000\n"),
    ("cpu/cpu.cfs_period_us", "100000\n"),
    ("cpu/cpu.cfs_burst_us", "20000\n"),
    ("cpu/cpu.shares", "500\n"),
    ("memory/cgroup.procs", "731\n"),
    ("memory/memory.usage_in_bytes", "41943040\n"),
    ("memory/memory.max_usage_in_bytes", "67108864\n"),
    ("memory/memory.limit_in_bytes", "67108864\n"),
    ("memory/memory.soft_limit_in_bytes", "9223372036854771712\n"),
    ("memory/memory.failcnt", "12\n"),
    ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
    ("memory/memory.kmem.usage_in_bytes", "700416\n"),
    ("memory/memory.memsw.usage_in_bytes", "41947136\n"),
    ("memory/memory.memsw.limit_in_bytes", "9223372036854771712\n"),
    (
        "memory/memory.stat",
        "cache 1\nrss 2\nrss_huge 0\nshmem 0\nmapped_file 0\ndirty 0\nwriteback 0\ninactive_file 5\n\
         hierarchical_memory_limit 67108864\nhierarchical_memsw_limit 9223372036854771712\n\
         total_cache 9000000\ntotal_rss 30000000\ntotal_rss_huge 0\ntotal_shmem 4096\ntotal_mapped_file 8192\n\
         total_dirty 12288\ntotal_writeback 0\ntotal_workingset_refault_anon 0\ntotal_workingset_refault_file 7\n\
         total_swap 4096\ntotal_pgpgin 9000\ntotal_pgpgout 8000\ntotal_pgfault 9001\ntotal_pgmajfault 3\n\
         total_inactive_anon 29999104\ntotal_active_anon 896\ntotal_inactive_file 8000000\n\
         total_active_file 995904\ntotal_unevictable 0\n",
    ),
    ("pids/cgroup.procs", "731\n"),
    ("pids/pids.current", "3\n"),
    ("pids/pids.max", "max\n"),
    ("blkio/cgroup.procs", "731\n"),
    (
        "blkio/blkio.throttle.io_service_bytes_recursive",
        "254:0 Read 1536000\n254:0 Write 4096\n254:0 Sync 1540096\n254:0 Async 0\n254:0 Discard 0\n\
         254:0 Total 1540096\nTotal 1540096\n",
    ),
    ("blkio/blkio.throttle.io_service_bytes", "254:0 Read 1\n254:0 Write 1\n254:0 Total 2\nTotal 2\n"),
    (
        "blkio/blkio.throttle.io_serviced_recursive",
        "254:0 Read 120\n254:0 Write 1\n254:0 Sync 121\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 121\nTotal 121\n",
    ),
];

/// Writes samples below `root`, for the cgroup `/pod/box`; later ones replace earlier ones. In v1 samples the directory
/// is the hierarchy's.
pub(super) fn lay_out(root: &Path, samples: &[&[Sample]]) {
    for (name, text) in samples.iter().copied().flatten() {
        let (hierarchy, file) = name.split_once('/').unwrap_or(("", name));
        let directory = root.join(hierarchy).join("pod/box");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(file), text).unwrap();
    }
}

/// A v2 hierarchy at `mount`.
pub(super) fn v2_at(mount: &Path, controllers: &[&str]) -> Hierarchy {
    hierarchy(mount, Version::V2, controllers)
}

/// The v1 hierarchies of [`V1`] below `root`.
pub(super) fn v1_at(root: &Path) -> Hierarchies {
    let v1 = ["blkio", "cpu", "cpuacct", "memory", "pids"];
    let v1 = v1.map(|name| hierarchy(&root.join(name), Version::V1, &[name])).into();
    Hierarchies { unified: None, v1 }
}

fn hierarchy(mount: &Path, version: Version, controllers: &[&str]) -> Hierarchy {
    let controllers = controllers.iter().map(|&name| name.to_owned()).collect();
    Hierarchy { mount: mount.to_owned(), version, controllers, root_in_hierarchy: "/".to_owned() }
}
