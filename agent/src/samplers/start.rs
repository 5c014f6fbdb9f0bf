//! Creates a sampler from the configuration: finds the hierarchies, loads the eBPF programs, chooses the source of each
//! measurement.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use snug_ebpf::abi::offsets::Offsets;

use super::{
    Round, Sampler, components,
    files::CgroupFiles,
    hierarchy::TrackedHierarchy,
    naming::Naming,
    pacing::Pacing,
    publish::Publisher,
    sample::PendingSamples,
    skipped::Skipped,
    sources::{MeasurementSources, tracked_hierarchies},
};
use crate::{
    cgroupfs::{
        mounts::{Hierarchies, MountsError},
        reader::ReadError,
    },
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
        let now = Instant::now();
        let mut round = Round::new(config, &hierarchies, now)?;
        let Round { config, hierarchies: tracked, sources, .. } = &mut round;
        let loaded = match config.source {
            SourceChoice::Files => Err(Verdict::Unsupported("source is set to files".to_owned())),
            SourceChoice::Auto | SourceChoice::Kernel => {
                let unified = hierarchies.unified.as_ref().map(|one| one.mount.clone());
                load(config, tracked, unified, adjust_offsets)
            }
        };
        match &loaded {
            Err(verdict) => sources.fall_back_hierarchy(None, verdict.reason()),
            Ok(kernel) => {
                if let Some(first) = tracked.first()
                    && let Err(error) = kernel.learn_cpu_offsets(&first.hierarchy.mount)
                {
                    tracing::info!(%error, "final records lack CPU time that was not flushed yet");
                }
                for (index, tracked) in tracked.iter_mut().enumerate() {
                    match kernel.iterate(&tracked.hierarchy.mount, Some(index)) {
                        Ok(walk) => {
                            tracked.walk = Some(walk);
                            let compare = config.source == SourceChoice::Auto;
                            sources.use_kernel(index, &tracked.hierarchy, kernel.missing_fields(), compare);
                        }
                        Err(error) => sources.fall_back_hierarchy(Some(index), &error.to_string()),
                    }
                }
            }
        }
        let (kernel, absent) = match loaded {
            Ok(kernel) => (Some(kernel), None),
            Err(verdict) => (None, Some(verdict)),
        };
        announce(kernel.as_ref(), absent.as_ref(), &round.sources);
        round.kernel = kernel;
        for index in 0..round.hierarchies.len() {
            round.list_directories(index);
        }
        let components = components(&mut round, absent);
        let publisher = Publisher::default();
        Ok(Self { round, components, publisher, views, full_round: now, pacing: Pacing::new(now) })
    }
}

impl Round {
    /// All measurements come from files, as far as a hierarchy has them.
    pub(super) fn new(config: Config, hierarchies: &Hierarchies, now: Instant) -> Result<Self, ReadError> {
        let chosen = tracked_hierarchies(hierarchies);
        Ok(Self {
            now,
            is_full: true,
            is_sampled: false,
            is_first: true,
            kernel: None,
            sources: MeasurementSources::files(hierarchies, &chosen),
            files: CgroupFiles::new(hierarchies)?,
            nested_nodes: NestedNodes::new(&config.nested_nodes),
            naming: Naming::new(config.pods_file.clone(), config.proc_root.clone(), config.run_root.clone()),
            evidence: None,
            store: Store::new(config.max_workloads as usize),
            pending: PendingSamples::default(),
            settled: Vec::new(),
            agent: AgentRow::default(),
            host: Arc::default(),
            skipped: Skipped::default(),
            hierarchies: chosen.into_iter().map(TrackedHierarchy::new).collect(),
            config,
        })
    }
}

fn load(
    config: &Config,
    tracked: &[TrackedHierarchy],
    unified: Option<PathBuf>,
    adjust_offsets: Option<fn(&mut Offsets)>,
) -> Result<EbpfPrograms, Verdict> {
    let mut hierarchies = [u32::MAX; 4];
    for (place, tracked) in hierarchies.iter_mut().zip(tracked) {
        *place = tracked.id;
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
    for entry in sources.rows().filter(|entry| !entry.reason.is_empty()) {
        by_files.entry(&entry.reason).or_default().push(entry.measurement.as_str());
    }
    for (reason, measurements) in by_files {
        tracing::info!(measurements = measurements.join(", "), reason, "not measured with eBPF");
    }
}
