//! Creates a sampler from the configuration: finds the hierarchies, loads the eBPF programs, chooses the source of each
//! measurement.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use snug_ebpf::abi::offsets::Offsets;

use super::{
    Sampler, Schedule,
    agent::Heartbeat,
    detectors::EventDetectors,
    files::FileSampler,
    hierarchy::TrackedHierarchy,
    host::Host,
    interfaces::InterfaceSampler,
    kills::KillCounters,
    naming::Naming,
    network::NetworkSampler,
    pacing::Pacing,
    processes::ProcessSampler,
    publish::LentViews,
    runqueue::RunqueueSampler,
    sample::PendingSamples,
    skipped::Skipped,
    sources::{MeasurementSources, tracked_hierarchies},
};
use crate::{
    cgroupfs::{
        mounts::{Hierarchies, Hierarchy, MountsError, Version},
        reader::ReadError,
    },
    clock::unix_now,
    config::{Config, SourceChoice},
    identity::path::NestedNodes,
    kernel::{EbpfPrograms, KernelError, KernelOptions},
    model::{AgentRow, Verdict},
    store::Store,
    views::CurrentView,
};

/// Why the sampler cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No cgroup hierarchy was found.
    #[error(transparent)]
    Mounts(#[from] MountsError),
    /// A hierarchy cannot be opened.
    #[error(transparent)]
    Files(#[from] ReadError),
}

impl Sampler {
    /// Creates a sampler and logs the source of each measurement. If the eBPF programs cannot run, cgroup files are read
    /// instead.
    ///
    /// # Errors
    /// When no cgroup hierarchy can be found or opened.
    pub fn start(config: Config, views: Arc<CurrentView>) -> Result<Self, StartError> {
        Self::start_with(config, views, None)
    }

    /// As [`Self::start`]; `adjust_offsets` is [`KernelOptions::adjust_offsets`], for tests.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        config: Config,
        views: Arc<CurrentView>,
        adjust_offsets: Option<fn(&mut Offsets)>,
    ) -> Result<Self, StartError> {
        let hierarchies = Hierarchies::find(&config.proc_root, config.cgroup_root.as_deref())?;
        let files = FileSampler::new(&hierarchies)?;
        let chosen = tracked_hierarchies(&hierarchies);
        let numbers: Vec<u32> = chosen.iter().map(hierarchy_number).collect();
        let loaded = match config.source {
            SourceChoice::Files => Err(Verdict::Unsupported("source is set to files".to_owned())),
            SourceChoice::Auto | SourceChoice::Kernel => {
                let unified = hierarchies.unified.as_ref().map(|one| one.mount.clone());
                load(&config, &numbers, unified, adjust_offsets)
            }
        };
        let mut tracked: Vec<TrackedHierarchy> = chosen
            .iter()
            .zip(numbers)
            .map(|(hierarchy, number)| TrackedHierarchy::new(hierarchy.clone(), number))
            .collect();
        let reason = loaded.as_ref().err().map_or("", Verdict::reason);
        let mut sources = MeasurementSources::files(&hierarchies, &chosen, reason);
        if let Ok(kernel) = &loaded {
            if let Some(one) = chosen.first()
                && let Err(error) = kernel.learn_cpu_offsets(&one.mount)
            {
                tracing::info!(%error, "final records lack CPU time that was not flushed yet");
            }
            let walks: Vec<Result<(), String>> = tracked
                .iter_mut()
                .enumerate()
                .map(|(index, tracked)| {
                    let walk = kernel
                        .iterate(&tracked.hierarchy.mount, Some(index))
                        .map_err(|error| error.to_string())?;
                    tracked.walk = Some(walk);
                    Ok(())
                })
                .collect();
            let walked = |index: usize| walks.get(index).cloned().unwrap_or_else(|| Err(String::new()));
            let compare = config.source == SourceChoice::Auto;
            sources.use_kernel(&chosen, walked, kernel.missing_fields(), compare);
        }
        let (kernel, kernel_absent) = match loaded {
            Ok(kernel) => (Some(kernel), None),
            Err(verdict) => (None, Some(verdict)),
        };
        announce(kernel.as_ref(), kernel_absent.as_ref(), &sources);
        let heartbeat = config.data_dir.as_deref().and_then(|directory| {
            Heartbeat::start(directory, &config.proc_root)
                .inspect_err(|error| tracing::warn!(%error, "no heartbeat is written"))
                .ok()
        });
        let now = Instant::now();
        let mut sampler = Self {
            agent: AgentRow {
                node: node_name(&config).into(),
                map_bytes: kernel.as_ref().map_or(0, EbpfPrograms::map_bytes),
                started_unix: unix_now(),
                downtime_seconds: heartbeat.as_ref().map_or(0.0, |heartbeat| heartbeat.downtime_seconds),
                starts: heartbeat.as_ref().map_or(1, |heartbeat| heartbeat.starts),
                ..AgentRow::default()
            },
            schedule: Schedule {
                full_round: now,
                listing: vec![now; tracked.len()],
                listing_pause: vec![super::MIN_LISTING_PAUSE; tracked.len()],
                compare: now,
                heartbeat: now,
            },
            pacing: Pacing::new(now),
            network: NetworkSampler::new(config.network_millicores, now),
            runqueue: config
                .runqueue
                .then(|| RunqueueSampler::new(config.runqueue_millicores, Instant::now())),
            nested_nodes: NestedNodes::new(&config.nested_nodes),
            naming: Naming::new(config.pods_file.clone(), config.proc_root.clone(), config.run_root.clone()),
            watched: None,
            interfaces: InterfaceSampler::new(config.proc_root.clone()),
            processes: config.process_metrics.then(|| ProcessSampler::new(config.proc_root.clone())),
            host: Host::new(config.proc_root.clone(), "/sys".into(), now),
            store: Store::new(config.max_workloads as usize),
            compare_pause: Duration::from_secs(1),
            skipped: Skipped::default(),
            first_round: true,
            capacity_error_logged: false,
            config,
            kernel,
            kernel_absent,
            hierarchies: tracked,
            sources,
            files,
            heartbeat,
            evidence: None,
            detectors: EventDetectors::default(),
            kill_counters: KillCounters::default(),
            pending: PendingSamples::default(),
            views,
            lent_views: LentViews::default(),
        };
        for index in 0..sampler.hierarchies.len() {
            sampler.list_directories(index, now);
        }
        sampler.track_existing_inits();
        Ok(sampler)
    }
}

fn load(
    config: &Config,
    numbers: &[u32],
    unified: Option<PathBuf>,
    adjust_offsets: Option<fn(&mut Offsets)>,
) -> Result<EbpfPrograms, Verdict> {
    let mut hierarchies = [u32::MAX; 4];
    for (place, number) in hierarchies.iter_mut().zip(numbers) {
        *place = *number;
    }
    let options = KernelOptions {
        max_cgroups: config.max_cgroups,
        hierarchies,
        unified,
        log_level: config.ebpf_log as u8,
        runqueue: config.runqueue,
        packets: config.packets,
        stats: config.ebpf_stats,
        adjust_offsets,
    };
    EbpfPrograms::load(&options).map_err(|error| match error {
        KernelError::Offsets(_) | KernelError::NotBuilt => Verdict::Unsupported(error.to_string()),
        _ => Verdict::Failed(error.to_string()),
    })
}

/// The configured name of the node, else the host name.
pub fn node_name(config: &Config) -> String {
    config.node_name.clone().unwrap_or_else(|| {
        let name = fs::read_to_string(config.proc_root.join("sys/kernel/hostname")).unwrap_or_default();
        name.trim().to_owned()
    })
}

/// The kernel's id of a hierarchy: 0 for cgroup v2, else from `/proc/cgroups`; `u32::MAX` if it is not known.
fn hierarchy_number(hierarchy: &Hierarchy) -> u32 {
    if hierarchy.version == Version::V2 {
        return 0;
    }
    let Ok(controllers) = procfs::cgroups() else { return u32::MAX };
    controllers
        .0
        .iter()
        .find(|controller| hierarchy.has(&controller.name))
        .map_or(u32::MAX, |controller| controller.hierarchy)
}

/// Logs the verdict of each program and the measurements that come from files, with the reason.
fn announce(kernel: Option<&EbpfPrograms>, absent: Option<&Verdict>, sources: &MeasurementSources) {
    if let Some(verdict) = absent {
        tracing::warn!(
            verdict = verdict.as_str(),
            reason = verdict.reason(),
            "eBPF is not used; reading cgroup files once a second"
        );
    }
    if let Some(kernel) = kernel {
        for program in kernel.programs() {
            match &program.verdict {
                Verdict::Running => tracing::info!(program = program.name, "running"),
                Verdict::Unsupported(reason) => {
                    tracing::warn!(program = program.name, reason, "unsupported here");
                }
                Verdict::Failed(reason) => tracing::error!(program = program.name, reason, "failed"),
            }
        }
    }
    if absent.is_some() {
        return;
    }
    let mut by_files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in sources.iter().filter(|entry| !entry.reason.is_empty()) {
        by_files.entry(&entry.reason).or_default().push(entry.measurement.as_str());
    }
    for (reason, measurements) in by_files {
        tracing::info!(measurements = measurements.join(", "), reason, "not measured with eBPF");
    }
}
