//! Private parsers of identity, as functions over bytes for the fuzz targets.

use super::bundle;

/// The `config.json` of a runtime's bundle.
pub fn bundle(bytes: &[u8]) {
    // A bundle that cannot be parsed is an error.
    let _ = bundle::parse(bytes);
}
