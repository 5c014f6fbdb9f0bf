//! Loads the eBPF programs, each with a verdict of its own, and runs passes over cgroups.
//!
//! A *pass* writes a record per cgroup of a hierarchy. It is either a *walk* by the kernel's cgroup iterator (the program
//! `snapshot`), which also caches the addresses of the cgroups, or a sample of the cached cgroups (`resample`, and
//! `sample_active` for active ones), which is possible until a cgroup is created or removed.

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
    lifecycle::MAX_CPUS,
    offsets::Offsets,
    sample::{MAX_HIERARCHIES, NOT_CACHED, WalkRequest},
    snapshot::{PassStats, SnapshotRecord},
};

use super::{
    attach::{self, PROGRAMS, error_chain},
    btf,
    error::KernelError,
    events::KernelEvent,
    groups::groups,
    heap,
    histograms::HistogramCounters,
    inits::Inits,
    iterator::{CgroupIterator, Order},
    mapped::{MappedArray, map_array},
    network::{self, NetworkCounters, PacketCounting},
    offsets::{self, MissingField, OffsetsError},
    pass::Pass,
    runqueue::{self, ProgramCosts},
    sample::{CgroupCache, SampleKind},
    subtrees::Subtrees,
};
use crate::{
    model::{MapRow, ProgramRow, Verdict},
    values::Measurements,
};

/// The object file from `cargo xtask build-ebpf`; empty if the agent was built without eBPF programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/snug-ebpf.o"));

/// The kernel's BTF.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Options for loading the eBPF programs.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Maximum number of records of a pass, and of entries in the maps by cgroup.
    pub max_cgroups: u32,
    /// The kernel's ids of the sampled hierarchies, the rest `u32::MAX`.
    pub hierarchies: [u32; MAX_HIERARCHIES],
    /// Mount of cgroup v2, for the programs that count packets and sockets; `None`: these do not run.
    pub unified: Option<PathBuf>,
    /// Log level of the programs: 0 (off), 1 (error) to 5 (trace).
    pub log_level: u8,
    /// Whether to trace run queue latency.
    pub runqueue: bool,
    /// Whether to count packets.
    pub packets: bool,
    /// Whether the kernel counts runs and run time of the programs (`BPF_ENABLE_STATS`).
    pub stats: bool,
    /// Changes the resolved offsets. For tests of the verification.
    pub adjust_offsets: Option<fn(&mut Offsets)>,
}

/// The loaded eBPF programs and their maps. All programs are detached when dropped.
pub struct EbpfPrograms {
    ebpf: Ebpf,
    records: MappedArray<SnapshotRecord>,
    pass_stats: MappedArray<PassStats>,
    walk_request: Array<MapData, WalkRequestValue>,
    /// The value in `walk_request`.
    current_request: WalkRequest,
    cache: CgroupCache,
    events: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    /// Traffic and TCP connections by cgroup.
    pub network: NetworkCounters,
    pub packets: PacketCounting,
    /// Run queue latency by cgroup.
    pub runqueue: HistogramCounters,
    /// Round-trip times of TCP connections, by cgroup.
    pub round_trips: HistogramCounters,
    runqueue_costs: ProgramCosts,
    /// Links of the attached tracepoint programs, by program name.
    links: HashMap<&'static str, BtfTracePointLinkId>,
    /// The init processes whose exit is reported.
    pub inits: Inits,
    /// Cgroups whose descendants walks leave out.
    pub subtrees: Subtrees,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    verdicts: Vec<(&'static str, Verdict)>,
    missing_fields: Vec<MissingField>,
    _stats: Option<OwnedFd>,
}

/// [`Offsets`] as a global variable of the programs.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct GlobalOffsets(Offsets);
// SAFETY: integers without padding.
unsafe impl Pod for GlobalOffsets {}

/// [`WalkRequest`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct WalkRequestValue(WalkRequest);
// SAFETY: integers without padding.
unsafe impl Pod for WalkRequestValue {}

impl EbpfPrograms {
    /// The names of all programs; those that trace the run queue or count packets only if asked for.
    pub fn program_names(runqueue: bool, packets: bool) -> impl Iterator<Item = &'static str> {
        let names = PROGRAMS.iter().map(|spec| spec.name);
        names.filter(move |name| {
            (runqueue || !runqueue::PROGRAMS.contains(name)) && (packets || !network::PROGRAMS.contains(name))
        })
    }

    /// Whether a program is loaded and attached.
    pub fn is_running(&self, program: &str) -> bool {
        self.verdict(program) == Verdict::Running
    }

    /// Loads and attaches the programs that this kernel supports.
    ///
    /// # Errors
    /// When no program can run: no object file, no BTF, or maps refused. A single program that fails has a verdict instead.
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
            let btf = btf::Btf::parse(&bytes).map_err(|source| OffsetsError::Types { path, source })?;
            offsets::resolve(&btf)?
        };
        if let Some(adjust) = options.adjust_offsets {
            adjust(&mut offsets);
        }
        let offsets = GlobalOffsets(offsets);
        let types = Btf::from_sys_fs()?;
        let cpus =
            nr_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).map_or(1, |cpus| cpus.min(MAX_CPUS));
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types))
            .override_global("OFFSETS", &offsets, true)
            .override_global("HIERARCHIES", options.hierarchies.as_slice(), true)
            .override_global("CPUS", &cpus, true)
            .override_global("MAX_CGROUPS", &options.max_cgroups, true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, false)
            .map_max_entries("RECORDS", options.max_cgroups + 1)
            .map_max_entries("SUBTREES", options.max_cgroups * MAX_HIERARCHIES as u32)
            .map_max_entries("CACHED_CGROUPS", options.max_cgroups * MAX_HIERARCHIES as u32)
            .map_max_entries("NETWORK", options.max_cgroups)
            .map_max_entries("RUNQUEUE", options.max_cgroups)
            .map_max_entries("ROUND_TRIPS", options.max_cgroups)
            .map_max_entries("INITS", options.max_cgroups)
            .map_max_entries("INIT_TASKS", options.max_cgroups)
            .map_max_entries("CPU_OFFSETS", cpus)
            .load(OBJECT)
            .map_err(|source| KernelError::Load { source: Box::new(source) })?;

        let records = map_array::<SnapshotRecord>(&ebpf, "RECORDS", options.max_cgroups)?;
        let pass_stats = map_array::<PassStats>(&ebpf, "PASS_STATS", 1)?;
        let cache = CgroupCache::new(&ebpf)?;
        let walk_request = take_map(&mut ebpf, "WALK_REQUEST")?;
        let walk_request = Array::try_from(walk_request).map_err(|error| unusable("WALK_REQUEST", &error))?;
        let events = take_map(&mut ebpf, "EVENTS")?;
        let events = RingBuf::try_from(events).map_err(|error| unusable("EVENTS", &error))?;
        let lost = take_map(&mut ebpf, "LOST")?;
        let lost = PerCpuArray::try_from(lost).map_err(|error| unusable("LOST", &error))?;
        let log = if options.log_level > 0 {
            Some(EbpfLogger::init(&mut ebpf).map_err(|error| unusable("AYA_LOGS", &error))?)
        } else {
            None
        };

        let network = NetworkCounters::new(take_map(&mut ebpf, "NETWORK")?)
            .map_err(|error| unusable("NETWORK", &error))?;
        let packets =
            PacketCounting::new(take_map(&mut ebpf, "PACKET_COST")?, take_map(&mut ebpf, "PAUSED")?)
                .map_err(|error| unusable("PAUSED", &error))?;
        let [waits, round_trips] = ["RUNQUEUE", "ROUND_TRIPS"].map(|name| {
            HistogramCounters::new(take_map(&mut ebpf, name)?).map_err(|error| unusable(name, &error))
        });
        let runqueue_costs = ProgramCosts::new(take_map(&mut ebpf, "RUNQUEUE_COST")?)
            .map_err(|error| unusable("RUNQUEUE_COST", &error))?;
        let inits = Inits::new(take_map(&mut ebpf, "INITS")?, take_map(&mut ebpf, "INIT_TASKS")?)
            .map_err(|error| unusable("INITS", &error))?;

        let subtrees =
            Subtrees::new(take_map(&mut ebpf, "SUBTREES")?).map_err(|error| unusable("SUBTREES", &error))?;

        let unified = options.unified.as_deref().and_then(|directory| File::open(directory).ok());
        let (mut verdicts, mut links) = (Vec::new(), HashMap::new());
        let names: Vec<_> = Self::program_names(options.runqueue, options.packets).collect();
        for spec in PROGRAMS.iter().filter(|spec| names.contains(&spec.name)) {
            let of_runqueue = runqueue::PROGRAMS.contains(&spec.name);
            let verdict = if of_runqueue && !attach::may_trace_scheduler() {
                Verdict::Unsupported("tracing the run queue requires Linux 6.1 or later".to_owned())
            } else {
                attach::attach(&mut ebpf, spec, &types, &missing_fields, unified.as_ref(), &mut links)
            };
            verdicts.push((spec.name, verdict));
        }
        // The parsed BTF takes several megabytes and is not needed any more.
        drop(types);
        heap::trim_heap();
        let stats = options.stats.then(|| enable_stats(Stats::RunTime)).and_then(|enabled| {
            enabled
                .inspect_err(|error| {
                    tracing::info!(
                        error = %error_chain(error),
                        "no run time of the eBPF programs: counting it requires CAP_SYS_ADMIN; set ebpf-stats = \"off\" to \
                         do without"
                    );
                })
                .ok()
        });
        let kernel = Self {
            ebpf,
            records,
            pass_stats,
            walk_request,
            current_request: WalkRequest::default(),
            cache,
            events,
            lost,
            network,
            packets,
            runqueue: waits?,
            round_trips: round_trips?,
            runqueue_costs,
            links,
            inits,
            subtrees,
            log,
            verdicts,
            missing_fields,
            _stats: stats,
        };
        Ok(kernel)
    }

    /// Runs the program `cpus`, which computes the offsets of per-CPU variables. With them final records include CPU time that
    /// was not flushed. `directory` can be any cgroup.
    ///
    /// # Errors
    /// When the program does not run here or the directory is no cgroup.
    pub fn learn_cpu_offsets(&self, directory: &Path) -> Result<(), KernelError> {
        let once = self.link("cpus", directory, Order::SelfOnly)?;
        once.run().map_err(KernelError::Pass)
    }

    /// Run time of the run queue programs so far, summed over CPUs, nanoseconds. Entering and leaving the programs is not
    /// included.
    pub fn runqueue_cost_ns(&self) -> u64 {
        self.runqueue_costs.nanoseconds()
    }

    /// Attaches or detaches the run queue programs, as far as they could be loaded.
    pub fn trace_runqueue(&mut self, on: bool) {
        for name in runqueue::PROGRAMS {
            let done = match (self.links.remove(name), on) {
                (Some(link), true) => {
                    self.links.insert(name, link);
                    Ok(())
                }
                (None, true) if self.is_running(name) => attach::attach_loaded(&mut self.ebpf, name)
                    .map(|link| self.links.extend(link.map(|link| (name, link)))),
                (Some(link), false) => attach::detach(&mut self.ebpf, name, link),
                (None, _) => Ok(()),
            };
            if let Err(error) = done {
                tracing::warn!(program = name, error = %error_chain(&error), on, "cannot attach or detach a program");
            }
        }
    }

    /// Fields that the kernel's BTF lacks. Measurements that need them come from cgroup files.
    pub fn missing_fields(&self) -> &[MissingField] {
        &self.missing_fields
    }

    /// Links the program `snapshot` to a cgroup directory and its descendants. `hierarchy` is the index of the hierarchy in
    /// [`KernelOptions::hierarchies`]; with it a [walk](Self::pass) caches the cgroups for [`Self::sample_active`] and
    /// [`Self::resample`]. A hierarchy must have one such iterator only.
    ///
    /// # Errors
    /// When the program does not run here or the directory is no cgroup.
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
        if !self.is_running(name) {
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
            .ok_or_else(|| not_running("the object file has none of this name".to_owned()))?;
        let fd = program.fd().map_err(|error| not_running(error_chain(&error)))?;
        let start = File::open(directory).map_err(link)?;
        CgroupIterator::new(fd.as_fd(), &start, order).map_err(link)
    }

    /// Walks the cgroups of `iterator` once and reads the fields that these measurements need. The records stay until the next
    /// pass.
    ///
    /// # Errors
    /// When the kernel refuses the walk, for example because the linked cgroup was removed.
    pub fn pass(
        &mut self,
        iterator: &CgroupIterator,
        measurements: Measurements,
    ) -> Result<Pass<'_>, KernelError> {
        let hierarchy = iterator.hierarchy.unwrap_or(NOT_CACHED);
        let request = WalkRequest { groups: groups(measurements), hierarchy };
        if request != self.current_request {
            self.walk_request
                .set(0, WalkRequestValue(request), 0)
                .map_err(|error| unusable("WALK_REQUEST", &error))?;
            self.current_request = request;
        }
        iterator.run().map_err(KernelError::Pass)?;
        Ok(self.last_pass())
    }

    /// Samples the cgroups of the last [walk](Self::pass) over a hierarchy again, without another walk. `None`: a walk is
    /// needed, because cgroups were created or removed since. The records stay until the next pass.
    ///
    /// # Errors
    /// When the program does not run here, or one of the programs that invalidate the cached cgroups does not.
    pub fn resample(
        &self,
        hierarchy: usize,
        measurements: Measurements,
    ) -> Result<Option<Pass<'_>>, KernelError> {
        self.sample(hierarchy, SampleKind::All(groups(measurements)))
    }

    /// As [`Self::resample`], but only for cgroups that used CPU time since they were last sampled, and only CPU time and, if
    /// the hierarchy has the memory controller, memory usage.
    ///
    /// # Errors
    /// As [`Self::resample`].
    pub fn sample_active(&self, hierarchy: usize) -> Result<Option<Pass<'_>>, KernelError> {
        self.sample(hierarchy, SampleKind::Active)
    }

    fn sample(&self, hierarchy: usize, kind: SampleKind) -> Result<Option<Pass<'_>>, KernelError> {
        for name in [kind.program(), "cgroup_made", "cgroup_removed"] {
            if !self.is_running(name) {
                return Err(KernelError::NotRunning { name, reason: self.verdict(name).reason().to_owned() });
            }
        }
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(kind.program()) else {
            return Ok(None);
        };
        let sampled = self.cache.sample(program, hierarchy, kind).map_err(KernelError::Sample)?;
        Ok(sampled.then(|| self.last_pass()))
    }

    /// The records and statistics in the maps.
    fn last_pass(&self) -> Pass<'_> {
        Pass::new(self.pass_stats.get(0).unwrap_or_default(), &self.records)
    }

    /// A file descriptor that is readable when events are available.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Handles all available events. Returns the number of entries that could not be decoded.
    pub fn drain(&mut self, mut handle: impl FnMut(KernelEvent)) -> u64 {
        let mut undecodable = 0;
        while let Some(item) = self.events.next() {
            match KernelEvent::decode(&item) {
                Some(event) => handle(event),
                None => undecodable += 1,
            }
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        undecodable
    }

    /// Lost events and records by kind, summed over CPUs.
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

    /// The programs with their verdicts and run times.
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
                    verified_instructions: info
                        .as_ref()
                        .and_then(aya::programs::ProgramInfo::verified_instruction_count),
                }
            })
            .collect()
    }

    /// Used and maximum entries of the maps. `used_records`: records of the last pass over the largest hierarchy.
    pub fn maps(&self, used_records: u64) -> Vec<MapRow> {
        let capacity = self.records.capacity() as u64;
        vec![
            MapRow { name: "records", used: used_records, capacity },
            MapRow { name: "runqueue", used: self.runqueue.entries(), capacity },
            MapRow { name: "network", used: self.network.entries(), capacity },
            MapRow { name: "round_trips", used: self.round_trips.entries(), capacity },
        ]
    }

    /// Kernel memory of all maps of this process, bytes (`memlock` in `/proc/self/fdinfo`).
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

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name)
        .ok_or_else(|| KernelError::Map { name, reason: "the object file has none of this name".to_owned() })
}

fn unusable(name: &'static str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    KernelError::Map { name, reason: error_chain(error) }
}
