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
    use serde::Deserialize;

    use super::*;

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

    #[test]
    fn the_manifest_keeps_the_rules_of_krew() {
        let archives = [Arch::Amd64, Arch::Arm64]
            .map(|arch| (arch, File::text(&format!("{}.tar.gz", archive_name(arch)), b"bytes".to_vec())));
        let plugin: Plugin = serde_json::from_slice(&manifest(&archives).unwrap()).unwrap();
        // What its ValidatePlugin refuses (internal/index/validation/validate.go).
        assert_eq!(plugin.api_version, "krew.googlecontainertools.github.com/v1alpha2");
        assert_eq!((plugin.kind.as_str(), plugin.metadata.name.as_str()), ("Plugin", "snug"));
        let spec = plugin.spec;
        assert!(!spec.short_description.is_empty() && !spec.short_description.contains('\n'));
        assert!(spec.version.starts_with('v') && spec.version.split('.').count() == 3, "{}", spec.version);
        assert!(!spec.homepage.is_empty() && !spec.description.is_empty());
        assert_eq!(spec.platforms.len(), 2);
        for platform in spec.platforms {
            assert!(platform.uri.ends_with(".tar.gz") && platform.uri.contains(&spec.version));
            assert!(platform.sha256.len() == 64 && platform.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
            assert!(platform.files.iter().all(|file| !file.from.is_empty() && !file.to.is_empty()));
            assert_eq!(platform.bin, "snug");
            assert_eq!(platform.selector.match_labels.keys().collect::<Vec<_>>(), ["arch", "os"]);
        }
    }
}
