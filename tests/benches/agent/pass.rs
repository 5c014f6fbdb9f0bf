//! The kernel half's passes, by walks and by revisits, against reading the same values from files, in one run, round by round.

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

/// Every n-th container has a worker …
const EVERY: usize = 4;
/// … up to so many.
const MOST_WORKERS: usize = 64;

/// Containers from which on the budgets are judged.
const ENOUGH: usize = 100;

/// What the kernel half measures where it can.
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

/// A hierarchy that is passed over.
struct Walk<'a> {
    hierarchy: &'a Hierarchy,
    iterator: CgroupIterator,
    /// What is taken from it.
    measured: Measurements,
    /// Nanoseconds of CPU time of each walk, copying the records out included, per cgroup.
    walks: Vec<f64>,
    /// The same of each revisit.
    revisits: Vec<f64>,
    /// Nanoseconds that each walk held `cgroup_mutex`, as the program counted.
    held: Vec<f64>,
}

/// A hierarchy's part in a row.
struct OfHierarchy {
    name: String,
    walk: f64,
    revisit: f64,
    held: Vec<f64>,
}

/// Medians of one size, nanoseconds per container.
struct Row {
    containers: usize,
    busy: usize,
    /// Flushes and a revisit of each hierarchy.
    kernel: f64,
    files: f64,
    kept_open: Option<f64>,
    hierarchies: Vec<OfHierarchy>,
}

/// Measures at all sizes.
pub(crate) fn run(sizes: &[usize], rounds: usize) -> Result<Section> {
    raise_file_limit()?;
    let largest_size = sizes.iter().copied().max().unwrap_or(0);
    let options = KernelOptions {
        max_cgroups: u32::try_from(largest_size + 64)?,
        hierarchies: [u32::MAX; 4],
        log_level: 0,
        runqueue: false,
        stats: false,
        adjust_offsets: None,
        unified: None,
    };
    let mut kernel = EbpfPrograms::load(&options)?;
    let hierarchies = Hierarchies::find(Path::new("/proc"), None)?;
    let rows = sizes
        .iter()
        .map(|size| {
            eprintln!("bench: passes over {size} containers");
            measure(&mut kernel, *size, rounds)
        })
        .collect::<Result<Vec<Row>>>()?;
    Ok(report(&hierarchies, &rows, rounds))
}

fn measure(kernel: &mut EbpfPrograms, size: usize, rounds: usize) -> Result<Row> {
    let tree = Tree::new("pass")?;
    let hierarchies = tree.hierarchies();
    let containers = tree.containers(size, 1)?;
    let workers = Workers::start(&tree, containers.iter().step_by(EVERY).take(MOST_WORKERS))?;
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
            walks.push(Walk { hierarchy, iterator, measured, walks: vec![], revisits: vec![], held: vec![] });
        }
    }
    // What the agent does before a pass, for this part of the tree.
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
        // Nothing is made or removed meanwhile: what one walk met is what all revisits of the round see.
        for walk in &mut walks {
            let (time, end) =
                cpu_time(|| kernel.pass(&walk.iterator, walk.measured).map(|pass| through(&pass)));
            let end = whole_pass(end?, size)?;
            if round > 0 {
                walk.walks.push(time.as_nanos() as f64 / end.cgroups as f64);
                walk.held.push(end.held_ns as f64);
            }
        }
        // So that every way finds counters to bring up to date.
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
            let end = whole_pass(end?.context("a revisit found its walk out of date")?, size)?;
            passing += time;
            if round > 0 {
                walk.revisits.push(time.as_nanos() as f64 / end.cgroups as f64);
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
        // The first round warms caches.
        if round > 0 {
            whole.push(per_container(flushing + passing));
            files.push(per_container(by_files));
            kept_open.push(per_container(by_kept));
        }
    }
    Ok(Row {
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
                revisit: median(walk.revisits),
                held: walk.held,
            })
            .collect(),
    })
}

/// Takes a pass's records, as the agent would.
fn through(pass: &Pass<'_>) -> PassStats {
    pass.records().for_each(|record| {
        black_box(record);
    });
    pass.stats
}

/// A pass that met every container, and their pod.
fn whole_pass(end: PassStats, size: usize) -> Result<PassStats> {
    ensure!(
        end.cgroups == size as u64 + 1 && end.lost + end.unreadable == 0,
        "a pass over {size} containers and their pod gave {end:?}"
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

/// The files that hold what the kernel half measures.
fn files_of(measurement: Measurement, version: Version) -> &'static [&'static str] {
    match (measurement, version) {
        (Measurement::Cpu, Version::V2) => &["cpu.stat"],
        (Measurement::Cpu, Version::V1) => &["cpuacct.usage"],
        // The rows of cpu.stat are read for the CPU time already.
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

/// All these files of all containers, open; `None` where that is more than this process may open.
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

fn report(hierarchies: &Hierarchies, rows: &[Row], rounds: usize) -> Section {
    let mut section = Section::new("pass");
    let passes = rows.first().map_or(0, |row| row.hierarchies.len());
    section.paragraph(&format!(
        "This host is {}: one look at everything takes {passes} {}, so a container's record is taken {passes} times. \
         \"Kernel\" is both flushes, all passes and copying every record out; the passes are revisits, as nearly all of the \
         agent's are: it walks once in 10 s, and after a cgroup was made or removed. \"Files\" is the agent's own reader for the \
         same measurements, opening and closing each file; \"kept open\" is `pread` alone, on files that stay open, \
         without parsing. Nanoseconds of CPU time of the reading thread per container; medians of {rounds} rounds in \
         which the three take turns, 120 ms apart.",
        layout(hierarchies),
        if passes == 1 { "pass" } else { "passes, one for each hierarchy" },
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
        &[
            "containers",
            "of these busy",
            "kernel",
            "files",
            "kept open",
            "files ÷ kernel",
            "kept open ÷ kernel",
        ],
        &table,
    );

    section.paragraph(
        "Each pass by itself: CPU time per cgroup, and how long a walk held `cgroup_mutex`, as the program in the kernel \
         measured it (wall time, so that interruptions count). A revisit does not take it.",
    );
    let table: Vec<Vec<String>> = rows
        .iter()
        .flat_map(|row| {
            row.hierarchies.iter().map(|one| {
                vec![
                    row.containers.to_string(),
                    one.name.clone(),
                    format!("{:.0} ns", one.revisit),
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
        "revisit, per cgroup",
        "walk, per cgroup",
        "mutex held, median",
        "longest",
    ];
    section.table(&head, &table);

    // What a pass costs at all (a session with the kernel, the way there) is spread over its cgroups: with ten of them it
    // says nothing about one.
    let judged = || {
        let many = rows.iter().filter(|row| row.containers >= ENOUGH);
        let few = rows.iter().filter(|_| rows.iter().all(|row| row.containers < ENOUGH));
        many.chain(few)
    };
    let revisits = judged().flat_map(|row| row.hierarchies.iter().map(|one| one.revisit));
    let pass = largest(&revisits.collect::<Vec<_>>());
    let ratio = judged().map(|row| row.files / row.kernel).fold(f64::INFINITY, f64::min);
    section.budgets = vec![
        Budget::at_most("one pass, per cgroup, in the worst hierarchy", pass / 1e3, 1.0, "µs", 2),
        Budget::at_least("cheaper than files, all flushes and passes counted", ratio, 50.0, "×"),
    ];
    section.paragraph(&format!("Budgets hold from {ENOUGH} containers on, at the worst of these sizes."));
    section.finish()
}
