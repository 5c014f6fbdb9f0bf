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
        utils::Backoff,
        watcher::{self, watcher},
    },
};
use tokio::time::{Instant, timeout_at};

use crate::messages;

use super::{PodWatch, Settings, bounds::PAGE_PODS, cache::PodCache, count, owners::Owners};

/// How long changes are collected before they are published together.
const PUBLISH_DELAY: Duration = Duration::from_millis(100);
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// After this long without a failure, the next one starts with [`MIN_PAUSE`] again.
const STABLE_AFTER: Duration = Duration::from_secs(120);

/// Pauses between attempts: they double from [`MIN_PAUSE`] to [`MAX_PAUSE`], plus up to a quarter at random, so that the
/// agents of a cluster do not all reconnect at once. They are short, because pods that start meanwhile have no names.
#[derive(Debug, Default)]
struct Pauses {
    attempt: u32,
    /// The end of the last pause.
    last: Option<Instant>,
}

impl Pauses {
    fn pause(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= STABLE_AFTER) {
            self.attempt = 0;
        }
        let pause = (MIN_PAUSE * 2u32.saturating_pow(self.attempt.min(8))).min(MAX_PAUSE);
        self.attempt = self.attempt.saturating_add(1);
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let by_chance = nanos.map_or(0, |since| since.subsec_nanos() % 1000);
        let pause = pause + pause / 4 * by_chance / 1000;
        self.last = Some(now + pause);
        pause
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause(Instant::now()))
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
    let mut logged: Option<String> = None;
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
                    log_once(&error, &mut logged);
                }
                continue;
            }
        };
        if matches!(event, watcher::Event::Init) {
            count(&watched.relists);
        } else {
            watched.connected.store(true, Ordering::Relaxed);
            count(&watched.events);
            if logged.take().is_some() {
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

/// Logs an error with its remedy, unless the last logged error was the same.
fn log_once(error: &watcher::Error, logged: &mut Option<String>) {
    let remedy = match refusal(error).map(|status| status.code) {
        Some(401) => "the API server does not accept the token: check the service account, or the kubeconfig",
        Some(403) => "the service account may not list and watch pods: apply deploy/base/rbac.yaml",
        _ => "the API server cannot be reached; pods keep their current names",
    };
    let error = messages::chain(error);
    let line = format!("{remedy}: {error}");
    if logged.as_ref() != Some(&line) {
        tracing::warn!(error, "{remedy}; will retry");
        *logged = Some(line);
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_to_their_maximum_and_start_again_after_a_stable_time(
            stable in prop::collection::vec(0..300_u64, 1..50),
        ) {
            let (mut pauses, mut now) = (Pauses::default(), Instant::now());
            let mut expected = MIN_PAUSE;
            for seconds in stable {
                let pause = pauses.pause(now);
                prop_assert!((expected..=expected * 5 / 4).contains(&pause), "{pause:?} for {expected:?}");
                expected = (expected * 2).min(MAX_PAUSE);
                let stable = Duration::from_secs(seconds);
                if stable >= STABLE_AFTER {
                    expected = MIN_PAUSE;
                }
                now += pause + stable;
            }
        }
    }
}
