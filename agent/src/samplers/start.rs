//! From configuration to a sampler: find the hierarchies, load the kernel half, choose a source for each measurement.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use snug_ebpf::abi::offsets::Offsets;

use super::{
    Due, Sampler,
    agent::Heartbeat,
    detectors::EventDetectors,
    files::Files,
    hierarchy::Followed,
    host::Host,
    interfaces::Interfaces,
    look::Untold,
    naming::Naming,
    network::NetworkSampler,
    processes::ProcessSampler,
    runqueue::RunqueueSampler,
    sources::{Origins, followed},
};
use crate::{
    cgroupfs::{
        mounts::{Hierarchies, Hierarchy, MountsError, Version},
        reader::ReadError,
    },
    clock::unix_now,
    config::{Config, SourceChoice},
    kernel::{KernelError, KernelHalf, KernelOptions},
    model::{AgentRow, Verdict},
    store::Store,
    views::CurrentView,
};

/// Why nothing can be sampled.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No hierarchy.
    #[error(transparent)]
    Mounts(#[from] MountsError),
    /// The hierarchies cannot be opened.
    #[error(transparent)]
    Files(#[from] ReadError),
}

impl Sampler {
    /// Prepares everything, and says in the log what will be measured how. A kernel half that cannot run is no error:
    /// files serve instead.
    ///
    /// # Errors
    /// When there are no cgroups to read.
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
        let files = Files::new(&hierarchies)?;
        let chosen = followed(&hierarchies);
        let numbers: Vec<u32> = chosen.iter().map(hierarchy_number).collect();
        let loaded = match config.source {
            SourceChoice::Files => {
                Err(Verdict::Unsupported("the configuration asks for cgroup files".to_owned()))
            }
            SourceChoice::Auto | SourceChoice::Kernel => {
                let unified = hierarchies.unified.as_ref().map(|one| one.mount.clone());
                load(&config, &numbers, unified, adjust_offsets)
            }
        };
        let mut followed: Vec<Followed> = chosen
            .iter()
            .zip(numbers)
            .map(|(hierarchy, number)| Followed::new(hierarchy.clone(), number))
            .collect();
        let reason = loaded.as_ref().err().map_or("", Verdict::reason);
        let mut origins = Origins::files(&hierarchies, &chosen, reason);
        if let Ok(kernel) = &loaded {
            if let Some(one) = chosen.first()
                && let Err(error) = kernel.learn_cpus(&one.mount)
            {
                tracing::info!(%error, "the last moments of CPU time of a container that is removed at once may be lost");
            }
            let walks: Vec<Result<(), String>> = followed
                .iter_mut()
                .enumerate()
                .map(|(index, one)| {
                    let walk = kernel
                        .iterate(&one.hierarchy.mount, Some(index))
                        .map_err(|error| error.to_string())?;
                    one.walk = Some(walk);
                    Ok(())
                })
                .collect();
            let walked = |index: usize| walks.get(index).cloned().unwrap_or_else(|| Err(String::new()));
            let compare = config.source == SourceChoice::Auto;
            origins.use_kernel(&chosen, walked, kernel.missing_fields(), compare);
        }
        let (kernel, kernel_absent) = match loaded {
            Ok(kernel) => (Some(kernel), None),
            Err(verdict) => (None, Some(verdict)),
        };
        announce(kernel.as_ref(), kernel_absent.as_ref(), &origins);
        let heartbeat = config.data_dir.as_deref().and_then(|directory| {
            Heartbeat::begin(directory, &config.proc_root)
                .inspect_err(|error| tracing::warn!(%error, "no sign of life is kept"))
                .ok()
        });
        let now = Instant::now();
        let mut sampler = Self {
            agent: AgentRow {
                node: node_name(&config).into(),
                map_bytes: kernel.as_ref().map_or(0, KernelHalf::map_bytes),
                started_unix: unix_now(),
                downtime_seconds: heartbeat.as_ref().map_or(0.0, |heartbeat| heartbeat.away_seconds),
                starts: heartbeat.as_ref().map_or(1, |heartbeat| heartbeat.starts),
                ..AgentRow::default()
            },
            due: Due {
                second: now,
                listing: vec![now; followed.len()],
                listing_pause: vec![super::LISTING; followed.len()],
                compare: now,
                heartbeat: now,
            },
            network: NetworkSampler::default(),
            runqueue: config.runqueue.then(|| {
                RunqueueSampler::new(f64::from(config.runqueue_millicores) / 1000.0, Instant::now())
            }),
            naming: Naming::new(config.pods_file.clone(), config.proc_root.clone(), config.run_root.clone()),
            watched: None,
            interfaces: Interfaces::new(config.proc_root.clone()),
            processes: config.process_metrics.then(|| ProcessSampler::new(config.proc_root.clone())),
            host: Host::new(config.proc_root.clone(), "/sys".into(), now),
            store: Store::new(config.max_workloads as usize),
            compare_pause: Duration::from_secs(1),
            skipped: HashMap::new(),
            first_round: true,
            said_full: false,
            config,
            kernel,
            kernel_absent,
            followed,
            origins,
            files,
            heartbeat,
            evidence: None,
            detectors: EventDetectors::default(),
            untold: Untold::default(),
            views,
        };
        for index in 0..sampler.followed.len() {
            sampler.list(index, now);
        }
        sampler.follow_living();
        Ok(sampler)
    }
}

fn load(
    config: &Config,
    numbers: &[u32],
    unified: Option<PathBuf>,
    adjust_offsets: Option<fn(&mut Offsets)>,
) -> Result<KernelHalf, Verdict> {
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
        stats: config.ebpf_stats,
        adjust_offsets,
    };
    KernelHalf::load(&options).map_err(|error| match error {
        KernelError::Offsets(_) | KernelError::NotBuilt => Verdict::Unsupported(error.to_string()),
        _ => Verdict::Failed(error.to_string()),
    })
}

/// The configured name of the node, else the host's.
pub fn node_name(config: &Config) -> String {
    config.node_name.clone().unwrap_or_else(|| {
        let name = fs::read_to_string(config.proc_root.join("sys/kernel/hostname")).unwrap_or_default();
        name.trim().to_owned()
    })
}

/// The kernel's number for a hierarchy: 0 for v2, else what /proc/cgroups says of its controllers.
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

/// One line for the programs and one for each source that is not the usual one.
fn announce(kernel: Option<&KernelHalf>, absent: Option<&Verdict>, origins: &Origins) {
    if let Some(verdict) = absent {
        tracing::warn!(
            verdict = verdict.as_str(),
            reason = verdict.reason(),
            "the kernel half is not used; measuring by cgroup files, once a second"
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
    for origin in origins.iter().filter(|origin| !origin.reason.is_empty()) {
        by_files.entry(&origin.reason).or_default().push(origin.measurement.as_str());
    }
    for (reason, measurements) in by_files {
        tracing::info!(measurements = measurements.join(", "), reason, "not measured by the kernel half");
    }
}
