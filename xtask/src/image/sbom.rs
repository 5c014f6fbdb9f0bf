//! Software bill of materials (SBOM) in CycloneDX: every crate that is linked into the programs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use cyclonedx_bom::{
    external_models::{normalized_string::NormalizedString, spdx::SpdxExpression},
    models::{
        bom::Bom,
        component::{Classification, Component, Components},
        license::{LicenseChoice, Licenses},
        metadata::Metadata,
    },
    prelude::Purl,
};
use serde_json::Value;

use crate::{toolchain, workspace};

/// Crates of one platform: name, version and license by package id.
type Crates = BTreeMap<String, (String, String, Option<String>)>;

/// The SBOM of the programs for `arch`, as JSON.
pub(super) fn workspace_sbom(arch: &str) -> Result<Vec<u8>> {
    let host = format!("{arch}-unknown-linux-gnu");
    let metadata = |target: &str| workspace::metadata(&["--locked", "--filter-platform", target]);
    let mut crates = linked(&metadata(&host)?, &["snug-agent", "snug"])?;
    crates.extend(linked(&metadata(toolchain::BPF_TARGET)?, &["snug-ebpf"])?);
    let components = crates.into_values().map(|(name, version, license)| {
        let purl = Purl::new("cargo", &name, &version).ok();
        let id = purl.as_ref().map(ToString::to_string);
        let mut component = Component::new(Classification::Library, &name, &version, id);
        component.purl = purl;
        component.licenses = license
            .and_then(|license| SpdxExpression::try_from(license.replace('/', " OR ")).ok())
            .map(|license| Licenses(vec![LicenseChoice::Expression(license)]));
        component
    });
    let mut whole = Component::new(
        Classification::Container,
        "snug-agent",
        env!("CARGO_PKG_VERSION"),
        Some("snug-agent-image".to_owned()),
    );
    whole.description = Some(NormalizedString::new("Snug's node agent and command-line tool"));
    let bom = Bom {
        // No serial number and no time: the SBOM must be reproducible.
        serial_number: None,
        metadata: Some(Metadata { component: Some(whole), ..Metadata::default() }),
        components: Some(Components(components.collect())),
        ..Bom::default()
    };
    let mut json = Vec::new();
    bom.output_as_json_v1_5(&mut json).context("cannot write the SBOM")?;
    Ok(json)
}

/// Crates that the named members link, directly or not. Build and dev dependencies are left out.
fn linked(metadata: &Value, members: &[&str]) -> Result<Crates> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut known = Crates::new();
    for package in list(&metadata["packages"]) {
        let license = package["license"].as_str().map(str::to_owned);
        known.insert(text(&package["id"]), (text(&package["name"]), text(&package["version"]), license));
    }
    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let normal = list(&node["deps"])
            .into_iter()
            .filter(|dependency| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
        needs.insert(text(&node["id"]), normal.map(|dependency| text(&dependency["pkg"])).collect());
    }
    let mut open: Vec<String> = known
        .iter()
        .filter(|(_, (name, ..))| members.contains(&name.as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    anyhow::ensure!(open.len() >= members.len(), "cargo metadata lacks some of {members:?}");
    let mut met = BTreeSet::new();
    while let Some(id) = open.pop() {
        if met.insert(id.clone()) {
            open.extend(needs.get(&id).cloned().unwrap_or_default());
        }
    }
    known.retain(|id, _| met.contains(id));
    Ok(known)
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
        for other in ["proptest", "tempfile", "xtask", "oci-spec"] {
            assert!(!names.contains(&other), "{other}");
        }
        let tokio = bill["components"].as_array().unwrap().iter().find(|one| one["name"] == "tokio").unwrap();
        assert_eq!(tokio["licenses"][0]["expression"], "MIT");
        assert!(tokio["purl"].as_str().unwrap().starts_with("pkg:cargo/tokio@"));
    }
}
