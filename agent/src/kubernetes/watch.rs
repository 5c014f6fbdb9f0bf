//! The loop of the watch: list, watch, and start again after a failure.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::{DeserializeGuard, Status},
    runtime::{
        WatchStreamExt as _,
        utils::{Backoff, ResetTimerBackoff},
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use tokio::time::{Instant, timeout_at};

use crate::{
    messages,
    retry::{self, Outage},
};

use super::{PodWatch, Settings, bounds::PAGE_PODS, cache::PodCache, count, owners::Owners};

/// How long changes are collected before they are published together.
const PUBLISH_DELAY: Duration = Duration::from_millis(100);
const MIN_PAUSE: Duration = Duration::from_millis(400);
const MAX_PAUSE: Duration = Duration::from_secs(6);
/// After this long without a failure, the next one starts with [`MIN_PAUSE`] again.
const STABLE_AFTER: Duration = Duration::from_secs(120);

/// Pauses between attempts. They are short, because pods that start meanwhile have no names.
struct Pauses(ResetTimerBackoff<ExponentialBackoff>);

impl Default for Pauses {
    fn default() -> Self {
        Self(ResetTimerBackoff::new(retry::pauses(MIN_PAUSE, MAX_PAUSE).into(), STABLE_AFTER))
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for Pauses {
    /// Not after each event: a list that fails has begun with one.
    fn reset(&mut self) {}
}

pub(super) async fn run(client: Client, settings: &Settings, watched: &PodWatch) {
    let pods: Api<DeserializeGuard<Pod>> = Api::all(client.clone());
    let config =
        watcher::Config::default().page_size(PAGE_PODS).fields(&format!("spec.nodeName={}", settings.node));
    let mut events = pin!(watcher(pods, config).backoff(Pauses::default()));
    let mut cache = PodCache::default();
    let mut owners = Owners::default();
    let mut publish_at: Option<Instant> = None;
    let mut outage = Outage::default();
    loop {
        let event = match publish_at {
            None => events.next().await,
            Some(at) => match timeout_at(at, events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    publish_at = None;
                    if settings.owner_lookup {
                        watched.publish(cache.arranged(|pod| owners.rename(pod)));
                        if let Some(reads) = owners.resolve(&client, cache.pods()).await {
                            watched.owner_reads.fetch_add(reads, Ordering::Relaxed);
                            watched.publish(cache.arranged(|pod| owners.rename(pod)));
                        }
                    } else {
                        watched.publish(cache.arranged(Arc::clone));
                    }
                    continue;
                }
            },
        };
        // The stream of the watcher does not end.
        let Some(event) = event else { return };
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                watched.connected.store(false, Ordering::Relaxed);
                count(&watched.errors);
                if is_gone(&error) {
                    tracing::debug!("the watch has expired; pods are listed again");
                } else {
                    log_once(&error, &mut outage);
                }
                continue;
            }
        };
        if matches!(event, watcher::Event::Init) {
            count(&watched.relists);
        } else {
            watched.connected.store(true, Ordering::Relaxed);
            count(&watched.events);
            if outage.end() {
                tracing::info!("the API server answers again");
            }
        }
        let change = cache.apply_event(event);
        if let Some((pod, why)) = change.skipped {
            count(&watched.skipped_pods);
            let (pod, why) = (messages::excerpt(&pod), messages::excerpt(&why));
            tracing::warn!(pod, why, "a pod from the API server is invalid and is skipped");
        }
        if change.synced {
            if !watched.synced.swap(true, Ordering::Relaxed) {
                tracing::info!(pods = cache.pods().count(), node = %settings.node, "pods are known");
                if cache.pods().next().is_none() {
                    tracing::warn!(
                        node = %settings.node,
                        "the API server knows no pod on this node; is node-name the node's name in the cluster?"
                    );
                }
            }
            publish_at = Some(Instant::now());
        } else if change.pods && publish_at.is_none() {
            publish_at = Some(Instant::now() + PUBLISH_DELAY);
        }
    }
}

fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// Logs an error with its remedy.
fn log_once(error: &watcher::Error, outage: &mut Outage) {
    let Some(cause) = outage.new_cause(error) else { return };
    let remedy = match refusal(error).map(|status| status.code) {
        Some(401) => "the API server does not accept the token: check the service account, or the kubeconfig",
        Some(403) => "the service account may not list and watch pods: apply deploy/base/rbac.yaml",
        _ => "the API server cannot be reached; pods keep their current names",
    };
    tracing::warn!(error = cause, "{remedy}; will retry");
}

fn refusal(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}
