//! An idle cgroup in which no measured value is 0.

use std::time::Duration;

use snug_tests::{
    cgroup::{Cgroup, Host, row},
    required,
    wait::until,
    worker::{CacheFile, Job, Worker, cache_file},
};

use crate::memory::inactive_file;

const MIB: u64 = 1 << 20;

/// The cgroup with an idle worker.
pub(crate) struct Busy {
    pub(crate) cgroup: Cgroup,
    _worker: Worker,
    _cached: CacheFile,
}

impl Busy {
    /// Creates the cgroup and waits until the work is done.
    pub(crate) fn new(host: &Host, name: &str) -> Option<Self> {
        let cached = required(cache_file())?;
        let cgroup = Cgroup::new(host, name);
        cgroup.limit_memory(48 * MIB, 16 * MIB);
        cgroup.limit_pids(1_000);
        let mut worker = Worker::start();
        cgroup.add(worker.pid());
        worker.run(&Job::Touch { bytes: 6 * MIB }).unwrap();
        worker.run(&Job::Cache { file: cached.path.clone(), bytes: 16 * MIB }).unwrap();
        let mut greedy = Worker::start();
        cgroup.add(greedy.pid());
        // The largest process is killed.
        assert_eq!(greedy.run(&Job::Touch { bytes: 256 * MIB }), None, "it should have been killed");
        drop(greedy);
        // The kill has emptied the oldest generations of multi-generational LRU. From then on Linux 7.3 counts new pages as active,
        // until the limit makes it age them.
        until("inactive file cache", Duration::from_secs(60), || {
            worker.run(&Job::Cache { file: cached.path.clone(), bytes: 16 * MIB }).unwrap();
            let stat = cgroup.memory_file("memory.stat", "memory.stat");
            (row(&stat, inactive_file(host.unified())) > 0).then_some(())
        });
        worker.run(&Job::Spin { cpu_ms: 300, threads: 4 }).unwrap();
        cgroup.limit_cpu(10_000, 100_000, 10_000);
        worker.run(&Job::Pulse { times: 2, cpu_ms: 18, sleep_ms: 250 }).unwrap();
        until("throttling", Duration::from_secs(60), || {
            worker.run(&Job::Spin { cpu_ms: 30, threads: 4 }).unwrap();
            (row(&cgroup.bandwidth_stat(), "nr_throttled") > 0).then_some(())
        });
        Some(Self { cgroup, _worker: worker, _cached: cached })
    }
}
