//! Connects all parts: one thread samples, one serves, and a signal stops both.

mod listeners;
mod signals;

use std::{io, net::SocketAddr, os::unix::net::UnixStream, sync::Arc, thread, time::Duration};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use snug_sizing::evidence::HOUR;

use self::listeners::Listeners;
pub use self::signals::{ReadConfig, Reload, Signals};
use crate::{
    config::{Config, EventLog, KubernetesChoice},
    cri::{self, CriNames},
    exporters::{
        ecs,
        http::{ServeError, ServerLimits, ServerState},
        limits::SeriesLimits,
        otlp::Exporter,
        series::Push,
    },
    history::{History, HistoryError, Retention},
    kernel,
    kubernetes::{self, PodWatch},
    samplers::{self, Sampler, StartError},
    views::CurrentView,
};

/// Why the agent stopped, other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address is in use, or not an address of this host.
    #[error("cannot listen on {address}; give --{option} another address")]
    Listen { option: &'static str, address: SocketAddr, source: io::Error },
    /// The sampling thread cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A thread, pipe, signal handler or runtime cannot be created.
    #[error("cannot set up {what}")]
    System { what: &'static str, source: io::Error },
    /// The history cannot start.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The sampling thread failed.
    #[error("sampling ended")]
    Sampling(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT. `exporter` is the OTLP exporter, if the configuration names a receiver.
///
/// # Errors
/// When the agent cannot work at all. If only a part cannot work, the agent logs it and runs without that part.
pub fn run(
    config: Config,
    exporter: Option<Arc<Exporter>>,
    signals: Signals,
    reload: Reload,
) -> Result<(), AgentError> {
    let system = |what| move |source| AgentError::System { what, source };
    let (runtime, mut stop_signal, hangup) = signals.split();
    let listeners = runtime.block_on(Listeners::open(&config))?;

    let views = Arc::new(CurrentView::default());
    let limits = SeriesLimits {
        allow_families: config.metrics_allow.clone(),
        deny_families: config.metrics_deny.clone(),
        allow_namespaces: config.namespaces_allow.clone(),
        deny_namespaces: config.namespaces_deny.clone(),
        drop_labels: config.drop_labels.clone(),
        kube_state: config.kube_state_metrics,
        max_series: if config.max_series == 0 { u64::MAX } else { config.max_series.into() },
    };
    let mut server = ServerLimits::default();
    // When measuring by files, there is no newer view between two intervals.
    server.stale_after = server.stale_after.max(config.working_set_interval * 3);
    let mut state = ServerState::new(Arc::clone(&views), limits, config.kubelet_metrics, server);
    listeners.files.report_to(&state.scrapes);

    let hours = |age: Duration| u32::try_from(age.as_secs() / HOUR).unwrap_or(u32::MAX);
    let retention = Retention {
        hours: hours(config.history_age),
        hours_by_minute: hours(config.history_minutes_age),
        bytes: u64::from(config.history_mebibytes) << 20,
    };
    let event_log = config.event_log;
    state.classic_histograms = config.classic_histograms;
    state.push = exporter.clone().map(|exporter| exporter as Arc<dyn Push>);
    let watch = watch_settings(&config);
    let cri = config.cri_socket.clone().map(|socket| Arc::new(CriNames::new(socket)));
    let current = config.clone();
    let data_dir = config.data_dir.clone();
    let sampler = Sampler::start(config, views)?;
    // Before there are other threads: capabilities belong to threads, and new ones inherit them.
    if let Err(error) = kernel::drop_net_admin() {
        tracing::warn!(%error, "CAP_NET_ADMIN cannot be dropped");
    }
    let history = History::start(data_dir, retention)?;
    let mut sampler = sampler.with_history(history.sink());
    state.history = Some(history.store());
    let state = Arc::new(state);
    if let Some(settings) = watch {
        let watch = Arc::new(PodWatch::default());
        sampler = sampler.with_pod_watch(Arc::clone(&watch));
        runtime.spawn(kubernetes::run(settings, watch));
    }
    if let Some(cri) = cri {
        sampler = sampler.with_runtime(Arc::clone(&cri));
        runtime.spawn(cri::run(cri));
    }
    let (stop_delivery, delivery_stopped) = oneshot::channel::<()>();
    let delivery_stopped = delivery_stopped.map(|_| ()).shared();
    let pushing = exporter.map(|exporter| {
        let (limits, scrapes) = (Arc::clone(&state.limits), Arc::clone(&state.scrapes));
        let (views, stop) = (Arc::clone(&state.views), delivery_stopped.clone());
        runtime.spawn(exporter.run(views, limits, scrapes, stop))
    });
    let logging = (event_log == EventLog::Stdout).then(|| {
        let (views, limits) = (Arc::clone(&state.views), Arc::clone(&state.limits));
        runtime.spawn(async move {
            ecs::write_lines(&views, &limits, tokio::io::stdout(), delivery_stopped).await;
        })
    });
    let (stop, stopped) = UnixStream::pair().map_err(system("the stop signal"))?;
    let (exited, mut has_exited) = oneshot::channel();
    let sampling = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || {
            let result = sampler.run(&stopped);
            let _ = exited.send(());
            result
        })
        .map_err(system("the sampling thread"))?;

    let served = runtime.block_on(async {
        let shutdown = async {
            tokio::select! {
                () = stop_signal.received() => {}
                _ = &mut has_exited => {}
            }
        };
        tokio::spawn(hangup.reload(current, listeners.files.clone(), reload));
        for (bound, what) in listeners.addresses() {
            tracing::info!(bound = bound.map(tracing::field::display), "serving {what}");
        }
        tokio::spawn(listeners.files.clone().keep_reading());
        listeners.serve(state, shutdown).await
    });
    // Closing this end of the pair stops the sampling thread.
    drop(stop);
    let sampled = sampling.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
    drop(history);
    // The view of the last round is available now: the exporters deliver it and stop.
    drop(stop_delivery);
    for delivery in [pushing, logging].into_iter().flatten() {
        let _ = runtime.block_on(delivery);
    }
    served?;
    sampled.map_err(AgentError::Sampling)
}

/// Whether and how to watch this node's pods.
fn watch_settings(config: &Config) -> Option<kubernetes::Settings> {
    let is_enabled = match config.kubernetes {
        KubernetesChoice::Off => false,
        KubernetesChoice::On => true,
        KubernetesChoice::Auto => {
            config.kubeconfig.is_some() || (config.pods_file.is_none() && kubernetes::in_cluster())
        }
    };
    is_enabled.then(|| kubernetes::Settings {
        node: samplers::node_name(config),
        kubeconfig: config.kubeconfig.clone(),
        owner_lookup: config.owner_lookup,
    })
}
