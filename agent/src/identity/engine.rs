//! The names that docker, podman and nerdctl give to containers outside of pods, from the state of these engines on disk.
//!
//! Only the engines of root keep it where it is looked for: rootless ones have it in a home directory. Nothing but the name is
//! kept of a file.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};

/// The maximum size of a file, bytes. That of podman lists all containers.
const MAX_BYTES: u64 = 16 << 20;
/// The maximum length of a name, bytes.
const MAX_NAME_BYTES: usize = 255;
/// containerd's containers by namespace, below the host's `/run`.
const CONTAINERD: &str = "containerd/io.containerd.runtime.v2.task";
/// podman's lists of containers below `/var/lib`; those of the second do not survive a boot.
const PODMAN: [&str; 2] = ["containers.json", "volatile-containers.json"];

#[derive(Deserialize)]
struct Docker {
    #[serde(rename = "Name")]
    name: String,
}

#[derive(Deserialize)]
struct Podman {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Deserialize)]
struct Nerdctl {
    #[serde(default)]
    annotations: NerdctlAnnotations,
}

#[derive(Default, Deserialize)]
struct NerdctlAnnotations {
    #[serde(rename = "nerdctl/name")]
    name: Option<String>,
}

/// The name of a container by its id. `run_root` is the host's `/run`, `lib_root` its `/var/lib`. `None` if no engine has it, or its
/// files cannot be read.
pub fn find(run_root: &Path, lib_root: &Path, id: &str) -> Option<String> {
    // Ids become parts of paths.
    if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let name = docker(lib_root, id).or_else(|| podman(lib_root, id)).or_else(|| nerdctl(run_root, id))?;
    (!name.is_empty() && name.len() <= MAX_NAME_BYTES).then_some(name)
}

fn docker(lib_root: &Path, id: &str) -> Option<String> {
    let config: Docker = read(&lib_root.join("docker/containers").join(id).join("config.v2.json"))?;
    Some(config.name.trim_start_matches('/').to_owned())
}

fn podman(lib_root: &Path, id: &str) -> Option<String> {
    let folder = lib_root.join("containers/storage/overlay-containers");
    let all = PODMAN.iter().filter_map(|list| read::<Vec<Podman>>(&folder.join(list)));
    all.flatten().find(|container| container.id == id)?.names.into_iter().next()
}

fn nerdctl(run_root: &Path, id: &str) -> Option<String> {
    let namespaces = fs::read_dir(run_root.join(CONTAINERD)).ok()?;
    let config = |namespace: fs::DirEntry| read::<Nerdctl>(&namespace.path().join(id).join("config.json"));
    namespaces.flatten().find_map(config)?.annotations.name
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut json = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// The name by a file of this path and content below `/run` and `/var/lib`, which are one folder here.
    fn named(path: &str, content: &str) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        find(root.path(), root.path(), ID)
    }

    fn files(name: &Value) -> [(String, Value); 4] {
        let podman = json!([{ "id": "other", "names": ["other"] }, { "id": ID, "names": [name, "more"] }]);
        let nerdctl =
            json!({ "process": { "env": ["TOKEN=secret"] }, "annotations": { "nerdctl/name": name } });
        [
            (format!("docker/containers/{ID}/config.v2.json"), json!({ "Name": name, "State": {} })),
            ("containers/storage/overlay-containers/containers.json".to_owned(), podman.clone()),
            ("containers/storage/overlay-containers/volatile-containers.json".to_owned(), podman),
            (format!("{CONTAINERD}/default/{ID}/config.json"), nerdctl),
        ]
    }

    #[test]
    fn each_engine_names_its_containers() {
        for (path, content) in files(&json!("web")) {
            assert_eq!(named(&path, &content.to_string()).as_deref(), Some("web"), "{path}");
        }
        assert_eq!(named(&files(&json!("/web"))[0].0, r#"{"Name":"/web"}"#).as_deref(), Some("web"));
        assert_eq!(named("other", ""), None);
        assert_eq!(find(Path::new("/"), Path::new("/"), "../../etc"), None);
    }

    proptest! {
        // Each writes ten files.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_file_gives_a_short_name_or_none(content in "(\\PC|[\\[\\]{}\":,]){0,80}", name in "\\PC{0,300}") {
            for (path, with_name) in files(&json!(name)) {
                named(&path, &content);
                prop_assert!(named(&path, &with_name.to_string()).is_none_or(|name| (1..=MAX_NAME_BYTES).contains(&name.len())));
            }
        }
    }
}
