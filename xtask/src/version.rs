//! Versions of compilers and kernels, and compatibility of LLVM versions.

use std::fmt;

/// A dotted version. Missing parts are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    /// The first word of `text` that begins like a version, without a suffix (`-rust-1.96`, `+deb12`).
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let mut parts = word.get(..end)?.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The `LLVM version:` line of `rustc -vV`.
pub(crate) fn llvm_of_rustc(verbose_version: &str) -> Option<Version> {
    let line = verbose_version.lines().find_map(|line| line.strip_prefix("LLVM version:"))?;
    Version::find(line)
}

/// The reason why a linker with this LLVM cannot read the bitcode of that rustc, if any.
///
/// LLVM reads bitcode of older patch releases of the same major version. It rejects bitcode of a newer patch release
/// ("Invalid record"). A newer major version reads it, but is known to write wrong BTF.
pub(crate) fn llvm_mismatch(rustc: Version, linker: Version) -> Option<String> {
    if rustc.major != linker.major {
        return Some(format!("rustc writes LLVM {rustc} bitcode and bpf-linker reads LLVM {linker}"));
    }
    (rustc > linker).then(|| {
        format!("rustc's LLVM {rustc} is newer than bpf-linker's {linker}, which cannot read its bitcode")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(major: u32, minor: u32, patch: u32) -> Version {
        Version { major, minor, patch }
    }

    #[test]
    fn finds_versions_in_what_tools_print() {
        assert_eq!(Version::find("bpf-linker 0.10.4\n"), Some(version(0, 10, 4)));
        assert_eq!(Version::find("6.12.117+deb12-cloud-amd64"), Some(version(6, 12, 117)));
        assert_eq!(Version::find("6.1"), Some(version(6, 1, 0)));
        assert_eq!(Version::find("no number"), None);
        assert_eq!(Version::find("22"), None);
        assert_eq!(Version::find("1..2"), None);
    }

    #[test]
    fn reads_the_llvm_line_of_rustc() {
        let printed = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_of_rustc(printed), Some(version(22, 1, 8)));
        assert_eq!(llvm_of_rustc("rustc 1.96.0\n"), None);
    }

    #[test]
    fn a_linker_reads_its_own_and_older_patches_only() {
        assert_eq!(llvm_mismatch(version(22, 1, 8), version(22, 1, 8)), None);
        assert_eq!(llvm_mismatch(version(22, 1, 2), version(22, 1, 8)), None);
        assert!(llvm_mismatch(version(22, 1, 8), version(22, 1, 2)).is_some_and(|why| why.contains("newer")));
        assert!(llvm_mismatch(version(21, 1, 8), version(22, 1, 8)).is_some());
        assert!(llvm_mismatch(version(23, 0, 0), version(22, 1, 8)).is_some());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Version::find(&text);
        }

        #[test]
        fn what_is_printed_is_read_back(major: u32, minor: u32, patch: u32) {
            let version = version(major, minor, patch);
            prop_assert_eq!(Version::find(&version.to_string()), Some(version));
        }
    }
}
