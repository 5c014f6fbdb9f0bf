//! Writes an image of one layer as an OCI archive: a tar of an OCI image layout, plus `manifest.json` for `docker load`.
//!
//! Archives are reproducible: files are sorted, owned by root, and dated at the epoch.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::files::{self, File, sha256};

const CREATED: &str = "1970-01-01T00:00:00Z";
/// The same, in seconds since the epoch.
const TIME: u64 = 0;
/// Annotation with the tag of the image.
const TAG: &str = "org.opencontainers.image.ref.name";
/// Annotation with the image reference that containerd assigns on import.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

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

    fn into_file(self) -> File {
        File::text(&self.path(), self.bytes)
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

impl Contents {
    /// Writes the archive and returns the digest of the image's manifest.
    pub(crate) fn write(&self, to: &Path) -> Result<String> {
        let image = self.image()?;
        let (configuration, layer) = (&image.configuration, &image.layer);
        let for_docker = json!([{ "Config": configuration.path(), "RepoTags": [self.reference], "Layers": [layer.path()] }]);
        let digest = format!("sha256:{}", image.manifest.digest);
        let mut named = image.descriptor();
        named["annotations"] = names(&self.reference);
        let mut entries = layout(&named)?;
        entries.push(File::text("manifest.json", for_docker.to_string().into_bytes()));
        entries.extend(image.blobs());
        write(&entries, to)?;
        Ok(digest)
    }

    fn image(&self) -> Result<Image> {
        let plain = files::tar(&self.files, TIME)?;
        let layer = Blob::new(files::gzip(&plain)?);
        let labels: BTreeMap<&str, &str> = self.labels.iter().copied().collect();
        let mut config = json!({ "Labels": labels, "Env": ["PATH=/usr/bin:/bin"] });
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        let configuration = Blob::new(serde_json::to_vec(&json!({
            "created": CREATED,
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
        Ok(Image { arch: self.arch, layer, configuration, manifest })
    }
}

/// The blobs of an image.
struct Image {
    arch: &'static str,
    layer: Blob,
    configuration: Blob,
    manifest: Blob,
}

impl Image {
    fn descriptor(&self) -> Value {
        let mut descriptor = self.manifest.descriptor("manifest.v1+json");
        descriptor["platform"] = json!({ "architecture": self.arch, "os": "linux" });
        descriptor
    }

    fn blobs(self) -> [File; 3] {
        [self.layer, self.configuration, self.manifest].map(Blob::into_file)
    }
}

/// Annotations with the names of an image.
fn names(reference: &str) -> Value {
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    json!({ TAG: tag, CONTAINERD_NAME: reference })
}

fn index(manifests: &[Value]) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }))?)
}

/// The two files of an image layout with one image.
fn layout(named: &Value) -> Result<Vec<File>> {
    Ok(vec![
        File::text("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes()),
        File::text("index.json", index(std::slice::from_ref(named))?),
    ])
}

fn write(entries: &[File], to: &Path) -> Result<()> {
    std::fs::write(to, files::tar_without_folders(entries, TIME)?)
        .with_context(|| format!("cannot write {}", to.display()))
}

/// Writes an archive with one image for several architectures, and returns the digest of its index.
pub(crate) fn write_all(images: &[Contents], to: &Path) -> Result<String> {
    let reference = images.first().map(|image| image.reference.as_str()).context("no images")?;
    let images = images.iter().map(Contents::image).collect::<Result<Vec<Image>>>()?;
    let all: Vec<Value> = images.iter().map(Image::descriptor).collect();
    let index = Blob::new(index(&all)?);
    let digest = format!("sha256:{}", index.digest);
    let mut named = index.descriptor("index.v1+json");
    named["annotations"] = names(reference);
    let mut entries = layout(&named)?;
    entries.push(index.into_file());
    entries.extend(images.into_iter().flat_map(Image::blobs));
    write(&entries, to)?;
    Ok(digest)
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

    /// The file of a descriptor, which has its digest and size.
    fn blob(entries: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
        let (_, hex) = descriptor["digest"].as_str().unwrap().split_once(':').unwrap();
        let bytes = &entries[&format!("blobs/sha256/{hex}")];
        assert_eq!(sha256(bytes), hex);
        assert_eq!(descriptor["size"], bytes.len());
        bytes.clone()
    }

    #[test]
    fn several_architectures_have_one_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let images = [contents(), Contents { arch: "arm64", ..contents() }];
        let digest = write_all(&images, &path).unwrap();
        let entries = entries(&std::fs::read(&path).unwrap());
        let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
        let root = json(&entries["index.json"]);
        assert_eq!(
            (&root["manifests"][0]["digest"], root["manifests"].as_array().unwrap().len()),
            (&json!(digest), 1)
        );
        assert_eq!(root["manifests"][0]["annotations"][TAG], "1");
        let all = json(&blob(&entries, &root["manifests"][0]));
        for (number, arch) in ["amd64", "arm64"].iter().enumerate() {
            let descriptor = &all["manifests"][number];
            assert_eq!(descriptor["platform"], json!({ "architecture": arch, "os": "linux" }));
            let manifest = json(&blob(&entries, descriptor));
            assert_eq!(json(&blob(&entries, &manifest["config"]))["architecture"], *arch);
            blob(&entries, &manifest["layers"][0]);
        }
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
        let blob = |descriptor: &Value| blob(&entries, descriptor);
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
