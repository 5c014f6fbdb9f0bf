//! Private parsers of files of the host, as functions over bytes for the fuzz targets.

use super::{host, interfaces};

/// `/proc/PID/net/dev`, and a list of CPUs.
pub fn proc_files(bytes: &[u8]) {
    interfaces::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        host::cpu_list(text);
    }
}
