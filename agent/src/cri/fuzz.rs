//! Private parsers of the runtime's answers, as functions over bytes for the fuzz targets.

use prost::Message as _;

use super::{api, container_bundle, sandbox_bundle};

/// The answers to both list calls.
pub fn answer(bytes: &[u8]) {
    if let Ok(list) = api::Containers::decode(bytes) {
        list.containers.into_iter().filter_map(container_bundle).for_each(drop);
    }
    if let Ok(list) = api::Sandboxes::decode(bytes) {
        list.items.into_iter().filter_map(sandbox_bundle).for_each(drop);
    }
}
