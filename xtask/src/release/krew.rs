//! The manifest with which krew, the plugin manager of kubectl, installs `kubectl snug`.

use anyhow::Result;
use serde_json::json;

use super::{VERSION, archive_name};
use crate::{
    files::{self, File},
    image::Arch,
};

/// The manifest for these archives. JSON is YAML.
pub(super) fn manifest(archives: &[(Arch, File)]) -> Result<Vec<u8>> {
    let platform = |(arch, archive): &(Arch, File)| {
        let name = archive_name(*arch);
        json!({
            "selector": { "matchLabels": { "os": "linux", "arch": arch.oci_name() } },
            "uri": format!("{}/releases/download/v{VERSION}/{}", env!("CARGO_PKG_REPOSITORY"), archive.path),
            "sha256": files::sha256(&archive.content),
            "files": [
                { "from": format!("{name}/snug"), "to": "." },
                { "from": format!("{name}/LICENSE-*"), "to": "." },
            ],
            "bin": "snug",
        })
    };
    let platforms: Vec<_> = archives.iter().map(platform).collect();
    Ok(serde_json::to_vec_pretty(&json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": { "name": "snug" },
        "spec": {
            "version": format!("v{VERSION}"),
            "homepage": env!("CARGO_PKG_REPOSITORY"),
            "shortDescription": "Recommend requests and limits of containers",
            "description": "Recommends CPU and memory requests and limits from measured usage, with the risk and the reasons. \
                Reads Snug's agents through forwarded ports, or a Prometheus.\n",
            "platforms": platforms,
        },
    }))?)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use flate2::read::GzDecoder;
    use serde::Deserialize;

    use super::{
        super::{Documents, ReleaseDate, archive},
        *,
    };
    use crate::{build::Programs, command};

    // The types of krew's pkg/index/types.go, without fields that Snug does not set: krew ignores unknown fields, this test refuses them.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Plugin {
        api_version: String,
        kind: String,
        metadata: Metadata,
        spec: Spec,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Metadata {
        name: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Spec {
        version: String,
        homepage: String,
        short_description: String,
        description: String,
        platforms: Vec<Platform>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Platform {
        uri: String,
        sha256: String,
        selector: Selector,
        files: Vec<FileOperation>,
        bin: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Selector {
        match_labels: std::collections::BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct FileOperation {
        from: String,
        to: String,
    }

    /// The archives of a program that prints its name.
    fn archives() -> [(Arch, File); 2] {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\necho snug\n").unwrap();
        let programs = Programs { agent: program.clone(), cli: program };
        [Arch::Amd64, Arch::Arm64].map(|arch| {
            (arch, archive(arch, &programs, &Documents::default(), b"{}", ReleaseDate(0)).unwrap())
        })
    }

    fn plugin(archives: &[(Arch, File)]) -> Plugin {
        serde_json::from_slice(&manifest(archives).unwrap()).unwrap()
    }

    #[test]
    fn the_manifest_keeps_the_rules_of_krew() {
        let plugin = plugin(&archives());
        // What its ValidatePlugin refuses (internal/index/validation/validate.go).
        assert_eq!(plugin.api_version, "krew.googlecontainertools.github.com/v1alpha2");
        assert_eq!((plugin.kind.as_str(), plugin.metadata.name.as_str()), ("Plugin", "snug"));
        let spec = plugin.spec;
        assert!(!spec.short_description.is_empty() && !spec.short_description.contains(['\r', '\n']));
        assert!(spec.version.starts_with('v') && spec.version.split('.').count() == 3, "{}", spec.version);
        assert!(!spec.homepage.is_empty() && !spec.description.is_empty());
        assert_eq!(spec.platforms.len(), 2);
        for platform in spec.platforms {
            assert!(platform.uri.ends_with(".tar.gz") && platform.uri.contains(&spec.version));
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert!(platform.sha256.len() == 64 && platform.sha256.bytes().all(is_digit));
            assert!(platform.files.iter().all(|file| !file.from.is_empty() && !file.to.is_empty()));
            assert_eq!(platform.bin, "snug");
            assert_eq!(platform.selector.match_labels.keys().collect::<Vec<_>>(), ["arch", "os"]);
        }
    }

    /// Does what krew does with the files of a platform (internal/download, internal/installation): unpacks the archive, and moves
    /// what each pattern matches.
    fn install(platform: &Platform, archive: &[u8], to: &Path) {
        let unpacked = tempfile::tempdir().unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let kind = entry.header().entry_type();
            assert!(kind.is_file() || kind.is_dir(), "krew refuses links: {:?}", entry.path());
            entry.unpack_in(unpacked.path()).unwrap();
        }
        for FileOperation { from, to: folder } in &platform.files {
            let mut copy = command::new("sh");
            copy.args(["-c", "mkdir -p \"$2\" && cp -p $1 \"$2\"", "sh", from]).arg(to.join(folder));
            command::run(copy.current_dir(unpacked.path())).unwrap();
        }
    }

    #[test]
    fn krew_finds_the_program_in_the_archive() {
        let archives = archives();
        for ((arch, archive), platform) in archives.iter().zip(plugin(&archives).spec.platforms) {
            assert_eq!(platform.selector.match_labels["arch"], arch.oci_name());
            assert_eq!(platform.sha256, files::sha256(&archive.content));
            let folder = tempfile::tempdir().unwrap();
            install(&platform, &archive.content, folder.path());
            let printed = command::capture(&mut command::new(folder.path().join(&platform.bin))).unwrap();
            assert_eq!(printed, "snug\n");
            assert!(folder.path().join("LICENSE-MIT").is_file());
        }
    }
}
