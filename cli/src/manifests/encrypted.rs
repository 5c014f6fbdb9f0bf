//! Files whose content is encrypted: they are named, not read.

use std::path::PathBuf;

use super::Manifests;
use crate::yaml::Value;

/// How encrypted files begin.
const HEADS: [(&str, &str); 3] = [
    ("\0GITCRYPT", "git-crypt"),
    ("$ANSIBLE_VAULT", "Ansible Vault"),
    ("-----BEGIN AGE ENCRYPTED FILE-----", "age"),
];

/// By what a document is encrypted.
pub(super) fn encrypted_by(value: &Value) -> Option<&'static str> {
    let is_sops =
        value.get("sops").is_some_and(|sops| sops.get("mac").is_some() || sops.get("version").is_some());
    if is_sops {
        return Some("SOPS");
    }
    (value.text_at(&["kind"]) == Some("SealedSecret")).then_some("Sealed Secrets")
}

impl Manifests {
    /// Names encrypted files.
    pub(super) fn encrypted(&mut self) {
        let paths: Vec<PathBuf> = self.files.manifests().cloned().collect();
        for path in paths {
            let Some(file) = self.files.get(&path) else { continue };
            let head = HEADS.iter().find(|(head, _)| file.text.starts_with(head)).map(|(_, by)| *by);
            let within = file
                .parsed
                .iter()
                .flatten()
                .find_map(|(document, value)| Some((document.root.line, encrypted_by(value)?)));
            if let Some((line, by)) = within.or(head.map(|by| (0, by))) {
                self.unplaced(
                    path,
                    line,
                    format!("encrypted by {by}: values in it are neither read nor changed"),
                );
            }
        }
    }
}
