//! Software bill of materials (SBOM) in CycloneDX: every crate that is linked into the programs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, NodeDep, Package, PackageId};
use serde_json::{Value, json};

use crate::{metadata, toolchain};

/// Crates of one platform: name, version and license by package id.
type Crates = BTreeMap<PackageId, (String, String, Option<String>)>;

/// The SBOM of the programs for `arch`, as JSON.
pub(crate) fn workspace_sbom(arch: &str) -> Result<Vec<u8>> {
    let host = format!("{arch}-unknown-linux-gnu");
    let metadata = |target: &str| metadata::read(&["--locked", "--filter-platform", target]);
    let mut crates = linked(metadata(&host)?, &["snug-agent", "snug"])?;
    crates.extend(linked(metadata(toolchain::BPF_TARGET)?, &["snug-ebpf"])?);
    let components: Vec<Value> = crates.into_values().map(component).collect();
    // No serial number and no time: the SBOM must be reproducible.
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "container",
            "bom-ref": "snug-agent-image",
            "name": "snug-agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Snug's node agent and command-line tool",
        } },
        "components": components,
    });
    serde_json::to_vec_pretty(&bill).context("cannot write the SBOM")
}

/// The entry of a crate: name, version and license.
fn component((name, version, license): (String, String, Option<String>)) -> Value {
    // A plus sign, before build metadata, is encoded in package URLs.
    let url = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
    let mut component =
        json!({ "type": "library", "bom-ref": url, "name": name, "version": version, "purl": url });
    if let Some(license) = license {
        // Old crates separate alternatives by a slash, which SPDX expressions do not have.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    component
}

/// Crates that the named members link, directly or not. Build and dev dependencies are left out.
fn linked(metadata: Metadata, members: &[&str]) -> Result<Crates> {
    let graph = metadata.resolve.context("cargo metadata has no dependency graph")?;
    let is_linked =
        |dependency: &NodeDep| dependency.dep_kinds.iter().any(|one| one.kind == DependencyKind::Normal);
    let needs: BTreeMap<PackageId, Vec<PackageId>> = graph
        .nodes
        .into_iter()
        .map(|node| {
            (node.id, node.deps.into_iter().filter(is_linked).map(|dependency| dependency.pkg).collect())
        })
        .collect();
    let roots = metadata.packages.iter().filter(|package| members.contains(&package.name.as_str()));
    let mut open: Vec<&PackageId> = roots.map(|package| &package.id).collect();
    anyhow::ensure!(open.len() >= members.len(), "cargo metadata lacks some of {members:?}");
    let mut met = BTreeSet::new();
    while let Some(id) = open.pop() {
        if met.insert(id) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    let linked = metadata.packages.iter().filter(|package| met.contains(&package.id)).map(|package| {
        let Package { id, name, version, license, .. } = package.clone();
        (id, (name.to_string(), version.to_string(), license))
    });
    Ok(linked.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sbom_has_linked_crates_and_no_dev_dependencies() {
        let json = workspace_sbom("x86_64").unwrap();
        let bill: Value = serde_json::from_slice(&json).unwrap();
        let names: Vec<&str> =
            bill["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        for linked in ["aya", "aya-ebpf", "kube", "tokio", "snug-agent", "snug-sizing", "clap"] {
            assert!(names.contains(&linked), "{linked}");
        }
        for other in ["proptest", "prometheus-client", "xtask", "oci-spec"] {
            assert!(!names.contains(&other), "{other}");
        }
        let tokio = bill["components"].as_array().unwrap().iter().find(|one| one["name"] == "tokio").unwrap();
        assert_eq!(tokio["licenses"][0]["expression"], "MIT");
        assert!(tokio["purl"].as_str().unwrap().starts_with("pkg:cargo/tokio@"));
    }

    #[test]
    fn urls_and_licenses_have_the_form_of_their_standards() {
        let entry = component(("wasi".to_owned(), "0.1.0+one".to_owned(), Some("MIT/Apache-2.0".to_owned())));
        assert_eq!(entry["purl"], "pkg:cargo/wasi@0.1.0%2Bone");
        assert_eq!(entry["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(component(("a".to_owned(), "1".to_owned(), None))["licenses"], Value::Null);
    }
}
