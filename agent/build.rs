//! Embeds the eBPF programs. `cargo xtask build-ebpf` builds them; this script copies the object file.
//!
//! Without the object file (a plain `cargo check`) the agent still builds. It then logs that and reads cgroup files.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("snug-ebpf.o");
    println!("cargo::rerun-if-env-changed=SNUG_EBPF_OBJECT");
    let object =
        env::var_os("SNUG_EBPF_OBJECT").map_or_else(|| manifest.join("../target/snug-ebpf.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_default();
    if let Err(error) = fs::write(&out, bytes) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}
