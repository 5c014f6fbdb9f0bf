//! Loading the programs, each alone, with a verdict for each.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{Iter, Program, tp_btf::BtfTracePointLinkId},
    sys::{Stats, enable_stats},
    util::nr_cpus,
};
use aya_log::EbpfLogger;
use snug_ebpf::abi::{
    events::LOST_KINDS,
    lifecycle::MOST_CPUS,
    look::{MOST_HIERARCHIES, NOT_FOLLOWED, Wanted},
    offsets::Offsets,
    snapshot::{PassEnd, SnapshotRecord},
};

use super::{
    attach::{self, PROGRAMS, chain},
    btf,
    error::KernelError,
    events::Event,
    groups::groups,
    heap,
    histograms::HistogramCounters,
    inits::Inits,
    iterator::{CgroupIterator, Order},
    look::{Look, Seeing},
    mapped::{MappedArray, array},
    network::NetworkCounters,
    offsets::{self, OffsetsError},
    pass::Pass,
    runqueue::{self, Costs},
};
use crate::{
    model::{MapRow, ProgramRow, Verdict},
    values::Measurements,
};

/// The object that `cargo xtask build-ebpf` made; empty if the agent was built without.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/snug-ebpf.o"));

/// Where a kernel shows its types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What the kernel half is told before it is loaded.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Cgroups that one pass can hold.
    pub max_cgroups: u32,
    /// Ids of the hierarchies to follow; unused places are `u32::MAX`.
    pub hierarchies: [u32; MOST_HIERARCHIES],
    /// The root of cgroup v2, where packets and sockets are counted; `None` = they are not.
    pub unified: Option<PathBuf>,
    /// Level of the programs' log: 0 off, 1 error … 5 trace.
    pub log_level: u8,
    /// Trace how long tasks wait for a CPU.
    pub runqueue: bool,
    /// Have the kernel count the programs' runs and run time.
    pub stats: bool,
    /// Changes the offsets after they were found: for tests, which make one wrong and see that it is noticed.
    pub adjust_offsets: Option<fn(&mut Offsets)>,
}

/// The loaded kernel half. Dropped = everything detached.
pub struct KernelHalf {
    ebpf: Ebpf,
    records: MappedArray<SnapshotRecord>,
    pass_end: MappedArray<PassEnd>,
    wanted: Array<MapData, Wish>,
    /// What `wanted` holds.
    wanted_now: Wanted,
    look: Look,
    events: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    /// What sockets did, by cgroup.
    pub network: NetworkCounters,
    /// How long tasks waited for a CPU, by cgroup.
    pub runqueue: HistogramCounters,
    /// Round-trip times of TCP connections, by cgroup.
    pub round_trips: HistogramCounters,
    runqueue_costs: Costs,
    /// Of tracing programs, by name.
    links: HashMap<&'static str, BtfTracePointLinkId>,
    /// The init processes that are followed.
    pub inits: Inits,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    verdicts: Vec<(&'static str, Verdict)>,
    missing_fields: Vec<&'static str>,
    _stats: Option<OwnedFd>,
}

/// [`Offsets`] as a global of the programs.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct GlobalOffsets(Offsets);
// SAFETY: integers without padding.
unsafe impl Pod for GlobalOffsets {}

/// [`Wanted`] as the value of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Wish(Wanted);
// SAFETY: integers without padding.
unsafe impl Pod for Wish {}

impl KernelHalf {
    /// The names of all programs, with or without those that trace the run queue.
    pub fn programs_of_object(runqueue: bool) -> impl Iterator<Item = &'static str> {
        let names = PROGRAMS.iter().map(|spec| spec.name);
        names.filter(move |name| runqueue || !runqueue::PROGRAMS.contains(name))
    }

    /// Whether a program is loaded and attached.
    pub fn runs(&self, program: &str) -> bool {
        self.verdict(program) == Verdict::Running
    }

    /// Loads and attaches what this kernel can run.
    ///
    /// # Errors
    /// When nothing can run: no object, no kernel types, maps refused. A single program that fails has a verdict instead.
    pub fn load(options: &KernelOptions) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NotBuilt);
        }
        let (mut offsets, missing_fields) = {
            let path = KERNEL_TYPES.to_owned();
            let bytes = match fs::read(KERNEL_TYPES) {
                Ok(bytes) => bytes,
                Err(source) => return Err(OffsetsError::Unreadable { path, source }.into()),
            };
            let types = btf::Btf::parse(&bytes).map_err(|source| OffsetsError::Types { path, source })?;
            offsets::resolve(&types)?
        };
        if let Some(adjust) = options.adjust_offsets {
            adjust(&mut offsets);
        }
        let offsets = GlobalOffsets(offsets);
        let types = Btf::from_sys_fs()?;
        let cpus =
            nr_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).map_or(1, |cpus| cpus.min(MOST_CPUS));
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types))
            .override_global("OFFSETS", &offsets, true)
            .override_global("HIERARCHIES", options.hierarchies.as_slice(), true)
            .override_global("CPUS", &cpus, true)
            .override_global("MAX_CGROUPS", &options.max_cgroups, true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, false)
            .map_max_entries("RECORDS", options.max_cgroups)
            .map_max_entries("PLACES", options.max_cgroups * MOST_HIERARCHIES as u32)
            .map_max_entries("NETWORK", options.max_cgroups)
            .map_max_entries("RUNQUEUE", options.max_cgroups)
            .map_max_entries("ROUND_TRIPS", options.max_cgroups)
            .map_max_entries("INITS", options.max_cgroups)
            .map_max_entries("INIT_TASKS", options.max_cgroups)
            .map_max_entries("CPU_OFFSETS", cpus)
            .load(OBJECT)
            .map_err(|source| KernelError::Load { source: Box::new(source) })?;

        let records = array::<SnapshotRecord>(&ebpf, "RECORDS", options.max_cgroups)?;
        let pass_end = array::<PassEnd>(&ebpf, "PASS_END", 1)?;
        let look = Look::new(&ebpf)?;
        let wanted = take(&mut ebpf, "WANTED")?;
        let wanted = Array::try_from(wanted).map_err(|error| unusable("WANTED", &error))?;
        let events = take(&mut ebpf, "EVENTS")?;
        let events = RingBuf::try_from(events).map_err(|error| unusable("EVENTS", &error))?;
        let lost = take(&mut ebpf, "LOST")?;
        let lost = PerCpuArray::try_from(lost).map_err(|error| unusable("LOST", &error))?;
        let log = if options.log_level > 0 {
            Some(EbpfLogger::init(&mut ebpf).map_err(|error| unusable("AYA_LOGS", &error))?)
        } else {
            None
        };

        let network =
            NetworkCounters::new(take(&mut ebpf, "NETWORK")?).map_err(|error| unusable("NETWORK", &error))?;
        let [waits, round_trips] = ["RUNQUEUE", "ROUND_TRIPS"].map(|name| {
            HistogramCounters::new(take(&mut ebpf, name)?).map_err(|error| unusable(name, &error))
        });
        let runqueue_costs = Costs::new(take(&mut ebpf, "RUNQUEUE_COST")?)
            .map_err(|error| unusable("RUNQUEUE_COST", &error))?;
        let inits = Inits::new(take(&mut ebpf, "INITS")?, take(&mut ebpf, "INIT_TASKS")?)
            .map_err(|error| unusable("INITS", &error))?;

        let unified = options.unified.as_deref().and_then(|directory| File::open(directory).ok());
        let (mut verdicts, mut links) = (Vec::new(), HashMap::new());
        for spec in &PROGRAMS {
            let of_runqueue = runqueue::PROGRAMS.contains(&spec.name);
            if of_runqueue && !options.runqueue {
                continue;
            }
            let verdict = if of_runqueue && !attach::may_trace_scheduler() {
                Verdict::Unsupported("the run queue is traced from Linux 6.12 on".to_owned())
            } else {
                attach::attach(&mut ebpf, spec, &types, &missing_fields, unified.as_ref(), &mut links)
            };
            verdicts.push((spec.name, verdict));
        }
        // The kernel's types are some megabytes and are not needed again.
        drop(types);
        heap::give_back();
        let stats = options.stats.then(|| enable_stats(Stats::RunTime)).and_then(|enabled| {
            enabled
                .inspect_err(|error| {
                    tracing::info!(
                        error = %chain(error),
                        "the kernel does not count the programs' run time: that takes CAP_SYS_ADMIN; \
                         ebpf-stats = \"off\" does without"
                    );
                })
                .ok()
        });
        let kernel = Self {
            ebpf,
            records,
            pass_end,
            wanted,
            wanted_now: Wanted::default(),
            look,
            events,
            lost,
            network,
            runqueue: waits?,
            round_trips: round_trips?,
            runqueue_costs,
            links,
            inits,
            log,
            verdicts,
            missing_fields,
            _stats: stats,
        };
        Ok(kernel)
    }

    /// Has the kernel half learn where each CPU keeps its counters, so that final records have CPU time that was not
    /// flushed. Any cgroup directory serves.
    ///
    /// # Errors
    /// When the program for it does not run here or the directory is no cgroup.
    pub fn learn_cpus(&self, directory: &Path) -> Result<(), KernelError> {
        let once = self.link("cpus", directory, Order::SelfOnly)?;
        once.run().map_err(KernelError::Pass)
    }

    /// Nanoseconds that tracing how long tasks wait took so far, all CPUs together, the way into the programs not included.
    pub fn runqueue_cost_ns(&self) -> u64 {
        self.runqueue_costs.nanoseconds()
    }

    /// Attaches or detaches what traces how long tasks wait, as far as it runs here at all.
    pub fn trace_runqueue(&mut self, on: bool) {
        for name in runqueue::PROGRAMS {
            let done = match (self.links.remove(name), on) {
                (Some(link), true) => {
                    self.links.insert(name, link);
                    Ok(())
                }
                (None, true) if self.runs(name) => attach::attach_loaded(&mut self.ebpf, name)
                    .map(|link| self.links.extend(link.map(|link| (name, link)))),
                (Some(link), false) => attach::detach(&mut self.ebpf, name, link),
                (None, _) => Ok(()),
            };
            if let Err(error) = done {
                tracing::warn!(program = name, error = %chain(&error), on, "cannot switch a program");
            }
        }
    }

    /// Fields that this kernel's types lack; what they would tell is not measured by the kernel half.
    pub fn missing_fields(&self) -> &[&'static str] {
        &self.missing_fields
    }

    /// Links the snapshot to a cgroup directory and all below it. `hierarchy`: which of those in the [options](KernelOptions) it is in, so
    /// that [looks](Self::look) and [revisits](Self::revisit) can follow a pass; one iterator for each.
    ///
    /// # Errors
    /// When the snapshot does not run here or the directory is no cgroup.
    pub fn iterate(&self, directory: &Path, hierarchy: Option<usize>) -> Result<CgroupIterator, KernelError> {
        let mut iterator = self.link("snapshot", directory, Order::Descendants)?;
        iterator.hierarchy = hierarchy.and_then(|index| u32::try_from(index).ok());
        Ok(iterator)
    }

    fn link(
        &self,
        name: &'static str,
        directory: &Path,
        order: Order,
    ) -> Result<CgroupIterator, KernelError> {
        let not_running = |reason| KernelError::NotRunning { name, reason };
        if !self.runs(name) {
            return Err(not_running(self.verdict(name).reason().to_owned()));
        }
        let link = |source| KernelError::Link { path: directory.to_owned(), source };
        let program: &Iter = self
            .ebpf
            .program(name)
            .and_then(|program| match program {
                Program::Iter(iter) => Some(iter),
                _ => None,
            })
            .ok_or_else(|| not_running("it is not in the object".to_owned()))?;
        let fd = program.fd().map_err(|error| not_running(chain(&error)))?;
        let start = File::open(directory).map_err(link)?;
        CgroupIterator::new(fd.as_fd(), &start, order).map_err(link)
    }

    /// Walks the cgroups of `iterator` once and fills what these measurements are taken from. The records stay until the
    /// next pass.
    ///
    /// # Errors
    /// When the kernel refuses the walk (the hierarchy has gone, say).
    pub fn pass(
        &mut self,
        iterator: &CgroupIterator,
        measurements: Measurements,
    ) -> Result<Pass<'_>, KernelError> {
        let hierarchy = iterator.hierarchy.unwrap_or(NOT_FOLLOWED);
        let wanted = Wanted { groups: groups(measurements), hierarchy };
        if wanted != self.wanted_now {
            self.wanted.set(0, Wish(wanted), 0).map_err(|error| unusable("WANTED", &error))?;
            self.wanted_now = wanted;
        }
        iterator.run().map_err(KernelError::Pass)?;
        Ok(self.found())
    }

    /// Sees the cgroups that the last [pass](Self::pass) over a hierarchy met once more, without another walk. `None`: another walk is
    /// needed, because cgroups were made or removed since. The records stay until the next pass or look.
    ///
    /// # Errors
    /// When the program, or one that tells it of cgroups made and removed, does not run here.
    pub fn revisit(
        &self,
        hierarchy: usize,
        measurements: Measurements,
    ) -> Result<Option<Pass<'_>>, KernelError> {
        self.see(hierarchy, Seeing::All(groups(measurements)))
    }

    /// As [`Self::revisit`], but tells only of cgroups that have used CPU time since they were last seen, and of these only that, and memory
    /// usage where the hierarchy keeps it.
    ///
    /// # Errors
    /// As [`Self::revisit`].
    pub fn look(&self, hierarchy: usize) -> Result<Option<Pass<'_>>, KernelError> {
        self.see(hierarchy, Seeing::Busy)
    }

    fn see(&self, hierarchy: usize, seeing: Seeing) -> Result<Option<Pass<'_>>, KernelError> {
        for name in [seeing.program(), "cgroup_made", "cgroup_removed"] {
            if !self.runs(name) {
                return Err(KernelError::NotRunning { name, reason: self.verdict(name).reason().to_owned() });
            }
        }
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(seeing.program()) else {
            return Ok(None);
        };
        let seen = self.look.run(program, hierarchy, seeing).map_err(KernelError::Look)?;
        Ok(seen.then(|| self.found()))
    }

    /// What the last pass or look left.
    fn found(&self) -> Pass<'_> {
        Pass::new(self.pass_end.get(0).unwrap_or_default(), &self.records)
    }

    /// Readable when events wait.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes all events that wait. The second value counts entries that were none.
    pub fn drain(&mut self, mut handle: impl FnMut(Event)) -> u64 {
        let mut foreign = 0;
        while let Some(item) = self.events.next() {
            match Event::decode(&item) {
                Some(event) => handle(event),
                None => foreign += 1,
            }
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        foreign
    }

    /// Events that the kernel half could not deliver, by kind, summed over CPUs.
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        LOST_KINDS
            .iter()
            .zip(0..)
            .map(|(kind, index)| {
                let count = self.lost.get(&index, 0).map_or(0, |counts| counts.iter().sum());
                (*kind, count)
            })
            .collect()
    }

    /// The programs, their verdicts and what they cost.
    pub fn programs(&self) -> Vec<ProgramRow> {
        self.verdicts
            .iter()
            .map(|(name, verdict)| {
                let info = match verdict {
                    Verdict::Running => self.ebpf.program(name).and_then(|program| program.info().ok()),
                    _ => None,
                };
                ProgramRow {
                    name,
                    verdict: verdict.clone(),
                    run_time_ns: info
                        .as_ref()
                        .map_or(0, |info| u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX)),
                    run_count: info.as_ref().map_or(0, aya::programs::ProgramInfo::run_count),
                }
            })
            .collect()
    }

    /// How full the maps are; `used` is what the last pass of the fullest hierarchy took.
    pub fn maps(&self, used: u64) -> Vec<MapRow> {
        let capacity = self.records.capacity() as u64;
        vec![
            MapRow { name: "records", used, capacity },
            MapRow { name: "runqueue", used: self.runqueue.entries(), capacity },
            MapRow { name: "network", used: self.network.entries(), capacity },
            MapRow { name: "round_trips", used: self.round_trips.entries(), capacity },
        ]
    }

    /// Kernel memory of all maps that this process holds, bytes, as the kernel counts it.
    pub fn map_bytes(&self) -> u64 {
        let Ok(fds) = fs::read_dir("/proc/self/fdinfo") else { return 0 };
        fds.flatten()
            .filter_map(|fd| fs::read_to_string(fd.path()).ok())
            .filter(|info| info.contains("map_type:"))
            .filter_map(|info| {
                info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok())
            })
            .sum()
    }

    fn verdict(&self, program: &str) -> Verdict {
        self.verdicts
            .iter()
            .find(|(name, _)| *name == program)
            .map_or_else(|| Verdict::Failed("unknown program".to_owned()), |(_, verdict)| verdict.clone())
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name).ok_or_else(|| KernelError::Map { name, reason: "it is not in the object".to_owned() })
}

fn unusable(name: &'static str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    KernelError::Map { name, reason: chain(error) }
}
