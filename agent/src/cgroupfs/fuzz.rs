//! Private parsers of cgroup files, as functions over bytes for the fuzz targets.

use std::path::Path;

use super::mounts::parse_mountinfo;

/// A mount table.
pub fn mounts(bytes: &[u8]) {
    // A table that cannot be parsed is an error.
    let _ = parse_mountinfo(Path::new("mountinfo"), bytes);
}
