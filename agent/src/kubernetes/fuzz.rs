//! Private parsers of what the API server sends, as functions over bytes for the fuzz targets.

use std::sync::Arc;

use kube::{
    core::{ObjectList, WatchEvent},
    runtime::watcher::Event,
};

use super::cache::{Object, PodCache};

/// A list of pods, or a watch: an event per line.
pub fn pods(bytes: &[u8]) {
    let mut cache = PodCache::default();
    if let Ok(list) = serde_json::from_slice::<ObjectList<Object>>(bytes) {
        cache.apply_event(Event::Init);
        for object in list.items {
            cache.apply_event(Event::InitApply(object));
        }
        cache.apply_event(Event::InitDone);
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        let event = match serde_json::from_slice::<WatchEvent<Object>>(line) {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Event::Apply(object),
            Ok(WatchEvent::Deleted(object)) => Event::Delete(object),
            _ => continue,
        };
        cache.apply_event(event);
    }
    cache.arranged(Arc::clone);
}
