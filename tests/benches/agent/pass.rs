//! Compares passes of the eBPF programs (walks and resamples) with reading the same values from cgroup files, in alternate rounds.

use std::{fs::File, hint::black_box, os::unix::fs::FileExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use snug_agent::{
    cgroupfs::{
        Measurements,
        mounts::{Hierarchies, Hierarchy, Version},
        reader::CgroupReader,
    },
    kernel::{CgroupIterator, EbpfPrograms, KernelOptions, Pass},
    values::Measurement,
};
use snug_ebpf::abi::snapshot::PassStats;

use crate::{
    cgroups::{Container, Tree},
    interrupt,
    measure::{Budget, Section, cpu_time, largest, median},
    process::{Workers, layout},
};

/// Every n-th container has a worker, …
const EVERY: usize = 4;
/// … up to this number of workers.
const MAX_WORKERS: usize = 64;

/// Minimum number of containers for the budgets.
const ENOUGH: usize = 100;

/// All measurements of the eBPF programs.
const OF_KERNEL: [Measurement; 8] = [
    Measurement::Cpu,
    Measurement::Throttling,
    Measurement::Pressure,
    Measurement::Memory,
    Measurement::WorkingSet,
    Measurement::MemoryEvents,
    Measurement::Swap,
    Measurement::Pids,
];

/// A hierarchy and its measurements.
struct Walk<'a> {
    hierarchy: &'a Hierarchy,
    iterator: CgroupIterator,
    /// Measurements that are read from it.
    measured: Measurements,
    /// CPU time of each walk, including copying of the records, in nanoseconds per cgroup.
    walks: Vec<f64>,
    /// The same for each resample.
    resamples: Vec<f64>,
    /// Nanoseconds that each walk held `cgroup_mutex`, measured by the eBPF program.
    held: Vec<f64>,
}

/// Results of one hierarchy.
struct OfHierarchy {
    name: String,
    walk: f64,
    resample: f64,
    held: Vec<f64>,
}

/// Medians for one number of containers, in nanoseconds per container.
struct PassFigures {
    containers: usize,
    busy: usize,
    /// Flushes and a resample of each hierarchy.
    kernel: f64,
    files: f64,
    kept_open: Option<f64>,
    hierarchies: Vec<OfHierarchy>,
}

/// Measures with all numbers of containers.
pub(crate) fn run(sizes: &[usize], rounds: usize) -> Result<Section> {
    raise_file_limit()?;
    let largest_size = sizes.iter().copied().max().unwrap_or(0);
    let options = KernelOptions {
        max_cgroups: u32::try_from(largest_size + 64)?,
        hierarchies: [u32::MAX; 4],
        log_level: 0,
        runqueue: false,
        packets: false,
        stats: false,
        adjust_offsets: None,
        unified: None,
    };
    let mut kernel = EbpfPrograms::load(&options)?;
    let hierarchies = Hierarchies::find(Path::new("/proc"), None)?;
    let rows = sizes
        .iter()
        .map(|size| {
            eprintln!("bench: passes with {size} containers");
            measure(&mut kernel, *size, rounds)
        })
        .collect::<Result<Vec<PassFigures>>>()?;
    Ok(report(&hierarchies, &rows, rounds))
}

fn measure(kernel: &mut EbpfPrograms, size: usize, rounds: usize) -> Result<PassFigures> {
    let tree = Tree::new("pass")?;
    let hierarchies = tree.hierarchies();
    let containers = tree.containers(size, 1)?;
    let workers = Workers::start(&tree, containers.iter().step_by(EVERY).take(MAX_WORKERS))?;
    let pod = containers.first().and_then(|one| one.path.rsplit_once('/')).context("no containers")?.0;
    let below = |hierarchy: &Hierarchy| hierarchy.mount.join(pod.trim_start_matches('/'));

    let mut walks: Vec<Walk<'_>> = Vec::new();
    for measurement in OF_KERNEL {
        let Some(hierarchy) = hierarchies.serving(measurement) else { continue };
        if let Some(walk) = walks.iter_mut().find(|walk| walk.hierarchy == hierarchy) {
            walk.measured = walk.measured.with(measurement);
        } else {
            let (iterator, measured) =
                (kernel.iterate(&below(hierarchy), Some(walks.len()))?, Measurements::new(&[measurement]));
            walks.push(Walk {
                hierarchy,
                iterator,
                measured,
                walks: vec![],
                resamples: vec![],
                held: vec![],
            });
        }
    }
    // The agent does the same before a pass.
    let mut flush_points = Vec::new();
    if let Some(unified) = &hierarchies.unified {
        flush_points.push(open(&below(unified).join("cpu.stat"))?);
    }
    if let Some(memory) = hierarchies.memory() {
        flush_points.push(open(&below(memory).join("memory.stat"))?);
    }
    let mut reader = CgroupReader::new(hierarchies)?;
    let which: Measurements = OF_KERNEL.into_iter().collect();
    let kept = keep_open(hierarchies, &containers);

    let (mut whole, mut files, mut kept_open) = (Vec::new(), Vec::new(), Vec::new());
    let per_container = |time: Duration| time.as_nanos() as f64 / size as f64;
    for round in 0..=rounds {
        // No cgroup is created or removed during the round, so its resamples see the cgroups of the walk.
        for walk in &mut walks {
            let (time, end) =
                cpu_time(|| kernel.pass(&walk.iterator, walk.measured).map(|pass| through(&pass)));
            let end = whole_pass(end?, size)?;
            if round > 0 {
                walk.walks.push(time.as_nanos() as f64 / end.cgroups as f64);
                walk.held.push(end.held_ns as f64);
            }
        }
        // Each way of reading must find counters that have changed.
        interrupt::sleep(Duration::from_millis(120))?;
        let (flushing, flushed) = cpu_time(|| -> Result<()> {
            for file in &flush_points {
                file.read_at(&mut [0; 16], 0)?;
            }
            Ok(())
        });
        flushed?;
        let mut passing = Duration::ZERO;
        for (index, walk) in walks.iter_mut().enumerate() {
            let (time, end) = cpu_time(|| {
                kernel.resample(index, walk.measured).map(|seen| seen.map(|pass| through(&pass)))
            });
            let end = whole_pass(end?.context("a resample found that its walk is outdated")?, size)?;
            passing += time;
            if round > 0 {
                walk.resamples.push(time.as_nanos() as f64 / end.cgroups as f64);
            }
        }
        interrupt::sleep(Duration::from_millis(120))?;
        let (by_files, read) = cpu_time(|| -> Result<()> {
            for container in &containers {
                black_box(reader.read(&container.path, which)?);
            }
            Ok(())
        });
        read?;
        interrupt::sleep(Duration::from_millis(120))?;
        let mut buffer = vec![0; 16 << 10];
        let (by_kept, read) = cpu_time(|| -> Result<()> {
            for file in kept.iter().flatten() {
                black_box(file.read_at(&mut buffer, 0)?);
            }
            Ok(())
        });
        read?;
        // The first round fills caches and does not count.
        if round > 0 {
            whole.push(per_container(flushing + passing));
            files.push(per_container(by_files));
            kept_open.push(per_container(by_kept));
        }
    }
    Ok(PassFigures {
        containers: size,
        busy: workers.count(),
        kernel: median(whole),
        files: median(files),
        kept_open: kept.map(|_| median(kept_open)),
        hierarchies: walks
            .into_iter()
            .map(|walk| OfHierarchy {
                name: name(walk.hierarchy),
                walk: median(walk.walks),
                resample: median(walk.resamples),
                held: walk.held,
            })
            .collect(),
    })
}

/// Reads the records of a pass, as the agent does.
fn through(pass: &Pass<'_>) -> PassStats {
    pass.records().for_each(|record| {
        black_box(record);
    });
    pass.stats
}

/// Fails unless a pass found all containers and their pod.
fn whole_pass(end: PassStats, size: usize) -> Result<PassStats> {
    ensure!(
        end.cgroups == size as u64 + 1 && end.lost + end.unreadable == 0,
        "a pass over {size} containers and their pod returned {end:?}"
    );
    Ok(end)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn name(hierarchy: &Hierarchy) -> String {
    match hierarchy.version {
        Version::V2 => "v2".to_owned(),
        Version::V1 => hierarchy.controllers.join("+"),
    }
}

/// The files with the measurements of the eBPF programs.
fn files_of(measurement: Measurement, version: Version) -> &'static [&'static str] {
    match (measurement, version) {
        (Measurement::Cpu, Version::V2) => &["cpu.stat"],
        (Measurement::Cpu, Version::V1) => &["cpuacct.usage"],
        // cpu.stat is already in the list, for CPU time.
        (Measurement::Throttling, Version::V2) => &["cpu.max", "cpu.max.burst"],
        (Measurement::Throttling, Version::V1) => {
            &["cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"]
        }
        (Measurement::Pressure, _) => &["cpu.pressure", "memory.pressure", "io.pressure"],
        (Measurement::Memory, Version::V2) => &["memory.current", "memory.peak", "memory.max"],
        (Measurement::Memory, Version::V1) => {
            &["memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"]
        }
        (Measurement::WorkingSet, _) => &["memory.stat"],
        (Measurement::MemoryEvents, Version::V2) => &["memory.events"],
        (Measurement::MemoryEvents, Version::V1) => &["memory.failcnt", "memory.oom_control"],
        (Measurement::Swap, Version::V2) => &["memory.swap.current", "memory.swap.max"],
        (Measurement::Swap, Version::V1) => &["memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes"],
        (Measurement::Pids, _) => &["pids.current", "pids.max"],
        (Measurement::SlowRows | Measurement::Spec, _) => &[],
    }
}

/// Opens these files of all containers. `None` if that exceeds the file limit of this process.
fn keep_open(hierarchies: &Hierarchies, containers: &[Container]) -> Option<Vec<File>> {
    let mut kept = Vec::new();
    for container in containers {
        for measurement in OF_KERNEL {
            let Some(hierarchy) = hierarchies.serving(measurement) else { continue };
            let directory = hierarchy.mount.join(container.path.trim_start_matches('/'));
            for file in files_of(measurement, hierarchy.version) {
                match File::open(directory.join(file)) {
                    Ok(file) => kept.push(file),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(_) => return None,
                }
            }
        }
    }
    Some(kept)
}

fn raise_file_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}

fn report(hierarchies: &Hierarchies, rows: &[PassFigures], rounds: usize) -> Section {
    let mut section = Section::new("pass");
    let passes = rows.first().map_or(0, |row| row.hierarchies.len());
    section.paragraph(&format!(
        "This host is {}: one sample of all measurements takes {passes} {}. \
         \"eBPF\" includes both flushes, all passes, and copying all records. The passes are resamples of known cgroups, as almost all passes of the \
         agent are: it walks the hierarchy every 10 s, and after a cgroup was created or removed. \"Files\" is the agent's reader for the \
         same measurements, which opens and closes each file. \"Kept open\" is `pread` on open files, \
         without parsing. CPU time of the reading thread in nanoseconds per container; medians of {rounds} rounds, \
         which alternate between the three at intervals of 120 ms.",
        layout(hierarchies),
        if passes == 1 { "pass" } else { "passes, one per hierarchy" },
    ));
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let (kept, kept_ratio) = row.kept_open.map_or(("-".to_owned(), "-".to_owned()), |kept| {
                (format!("{kept:.0}"), format!("{:.0} ×", kept / row.kernel))
            });
            vec![
                row.containers.to_string(),
                row.busy.to_string(),
                format!("{:.0}", row.kernel),
                format!("{:.0}", row.files),
                kept,
                format!("{:.0} ×", row.files / row.kernel),
                kept_ratio,
            ]
        })
        .collect();
    section.table(
        &["containers", "busy", "eBPF", "files", "kept open", "files ÷ eBPF", "kept open ÷ eBPF"],
        &table,
    );

    section.paragraph(
        "Single passes: CPU time per cgroup, and the time that a walk held `cgroup_mutex`, measured by the eBPF program \
         (wall time, including interruptions). A resample does not take the mutex.",
    );
    let table: Vec<Vec<String>> = rows
        .iter()
        .flat_map(|row| {
            row.hierarchies.iter().map(|one| {
                vec![
                    row.containers.to_string(),
                    one.name.clone(),
                    format!("{:.0} ns", one.resample),
                    format!("{:.0} ns", one.walk),
                    format!("{:.0} µs", median(one.held.clone()) / 1e3),
                    format!("{:.0} µs", largest(&one.held) / 1e3),
                ]
            })
        })
        .collect();
    let head = [
        "containers",
        "hierarchy",
        "resample, per cgroup",
        "walk, per cgroup",
        "mutex held, median",
        "maximum",
    ];
    section.table(&head, &table);

    // A pass has a fixed cost (system call, iterator session). With few cgroups it dominates the cost per cgroup.
    let judged = || {
        let many = rows.iter().filter(|row| row.containers >= ENOUGH);
        let few = rows.iter().filter(|_| rows.iter().all(|row| row.containers < ENOUGH));
        many.chain(few)
    };
    let resamples = judged().flat_map(|row| row.hierarchies.iter().map(|one| one.resample));
    let pass = largest(&resamples.collect::<Vec<_>>());
    let ratio = judged().map(|row| row.files / row.kernel).fold(f64::INFINITY, f64::min);
    section.budgets = vec![
        Budget::at_most("one pass, per cgroup, slowest hierarchy", pass / 1e3, 1.0, "µs", 2),
        Budget::at_least("files ÷ eBPF, including flushes", ratio, 50.0, "×"),
    ];
    section.paragraph(&format!("The budgets apply to the worst result with at least {ENOUGH} containers."));
    section.finish()
}
