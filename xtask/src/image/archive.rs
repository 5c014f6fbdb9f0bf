//! Writes an image of one layer as an OCI archive: a tar of an OCI image layout, plus `manifest.json` for `docker load`.
//!
//! Archives are reproducible: files are sorted, owned by root, and dated at the epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const EPOCH: &str = "1970-01-01T00:00:00Z";
/// Annotation with the tag of the image.
const TAG: &str = "org.opencontainers.image.ref.name";
/// Annotation with the image reference that containerd assigns on import.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A file or symbolic link in an image.
pub(crate) struct File {
    path: String,
    mode: u32,
    content: Vec<u8>,
    link: Option<String>,
}

impl File {
    /// An executable file. `path` has no leading slash.
    pub(crate) fn program(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o755, content, link: None }
    }

    /// A file with mode 0644.
    pub(crate) fn text(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content, link: None }
    }

    /// A symbolic link.
    pub(crate) fn link(path: &str, to: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, content: Vec::new(), link: Some(to.to_owned()) }
    }
}

/// The contents of an image.
pub(crate) struct Contents {
    pub(crate) reference: String,
    /// The architecture in image configurations.
    pub(crate) arch: &'static str,
    pub(crate) files: Vec<File>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) labels: Vec<(&'static str, &'static str)>,
}

struct Blob {
    /// SHA-256 in hexadecimal digits.
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: sha256(&bytes), bytes }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    /// The descriptor of a blob of this media type below `application/vnd.oci.image.`.
    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Contents {
    /// Writes the archive and returns the digest of the image's manifest.
    pub(crate) fn write(&self, to: &Path) -> Result<String> {
        let plain = self.layer()?;
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&plain)?;
        let layer = Blob::new(gzip.finish()?);

        let labels: BTreeMap<&str, &str> = self.labels.iter().copied().collect();
        let mut config = json!({ "Labels": labels, "Env": ["PATH=/usr/bin:/bin"] });
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        let configuration = Blob::new(serde_json::to_vec(&json!({
            "created": EPOCH,
            "architecture": self.arch,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&plain))] },
        }))?);
        let manifest = Blob::new(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": configuration.descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar+gzip")],
        }))?);

        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut descriptor = manifest.descriptor("manifest.v1+json");
        descriptor["annotations"] = json!({ TAG: tag, CONTAINERD_NAME: self.reference });
        descriptor["platform"] = json!({ "architecture": self.arch, "os": "linux" });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        let for_docker = json!([{ "Config": configuration.path(), "RepoTags": [self.reference], "Layers": [layer.path()] }]);

        let mut entries = BTreeMap::from([
            ("oci-layout".to_owned(), json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes()),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
            ("manifest.json".to_owned(), for_docker.to_string().into_bytes()),
        ]);
        let digest = format!("sha256:{}", manifest.digest);
        entries.extend([layer, configuration, manifest].map(|blob| (blob.path(), blob.bytes)));
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes) in &entries {
            archive.append_data(&mut header(0o644, bytes.len() as u64), path, bytes.as_slice())?;
        }
        std::fs::write(to, archive.into_inner()?)
            .with_context(|| format!("cannot write {}", to.display()))?;
        Ok(digest)
    }

    /// The layer as a tar; folders come before their files.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut folders = BTreeSet::new();
        for file in &self.files {
            let ancestors = Path::new(&file.path).ancestors().skip(1);
            folders.extend(ancestors.filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_path_buf));
        }
        let mut layer = tar::Builder::new(Vec::new());
        for folder in &folders {
            let mut header = header(0o755, 0);
            header.set_entry_type(tar::EntryType::Directory);
            layer.append_data(&mut header, folder, std::io::empty())?;
        }
        let files: BTreeMap<&str, &File> = self.files.iter().map(|file| (file.path.as_str(), file)).collect();
        for (path, file) in files {
            let mut header = header(file.mode, file.content.len() as u64);
            match &file.link {
                Some(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    layer.append_link(&mut header, path, to)?;
                }
                None => layer.append_data(&mut header, path, file.content.as_slice())?,
            }
        }
        Ok(layer.into_inner()?)
    }
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn contents() -> Contents {
        Contents {
            reference: "snug.example/test:1".to_owned(),
            arch: "amd64",
            files: vec![
                File::program("usr/bin/b", b"two".to_vec()),
                File::text("usr/bin/a", b"one".to_vec()),
                File::link("bin", "usr/bin"),
            ],
            entrypoint: vec!["/usr/bin/b".to_owned()],
            labels: vec![("x", "1"), ("y", "2"), ("z", "3")],
        }
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, bytes)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn the_same_contents_make_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let digests: Vec<String> = [&one, &two].map(|path| contents().write(path).unwrap()).into();
        assert_eq!(digests[0], digests[1]);
        assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    }

    #[test]
    fn every_descriptor_has_a_blob_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let digest = contents().write(&path).unwrap();
        let entries = entries(&std::fs::read(path).unwrap());
        let json = |name: &str| -> Value { serde_json::from_slice(&entries[name]).unwrap() };
        let blob = |descriptor: &Value| {
            let (_, hex) = descriptor["digest"].as_str().unwrap().split_once(':').unwrap();
            let bytes = &entries[&format!("blobs/sha256/{hex}")];
            assert_eq!(sha256(bytes), hex);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index = json("index.json");
        assert_eq!(index["manifests"][0]["digest"], digest);
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(&*blob(&manifest["layers"][0])).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        let files: Vec<String> = self::entries(&layer).into_keys().collect();
        assert_eq!(files, ["bin", "usr", "usr/bin", "usr/bin/a", "usr/bin/b"]);
        assert_eq!(json("manifest.json")[0]["RepoTags"][0], "snug.example/test:1");
    }
}
