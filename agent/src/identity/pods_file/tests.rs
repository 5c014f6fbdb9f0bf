use std::{fs, path::Path, sync::Arc};

use super::PodsFile;
use crate::identity::pods::PodsError;

fn list(pods: &[&str]) -> String {
    let items: Vec<_> =
        pods.iter().map(|name| serde_json::json!({"metadata": {"name": name, "uid": name}})).collect();
    serde_json::json!({"kind": "List", "items": items}).to_string()
}

/// Replaces the file atomically.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn changes_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pods.json");
    fs::write(&path, list(&["a"])).unwrap();
    let (mut file, reloaded) = PodsFile::open(&path).unwrap();
    assert_eq!((file.path(), file.pods().len(), reloaded.pods.len()), (path.as_path(), 1, 1));
    assert!(file.reload_if_changed().unwrap().is_none());

    fs::write(&path, list(&["a", "b"])).unwrap();
    assert_eq!(file.reload_if_changed().unwrap().unwrap().pods.len(), 2);
    assert!(file.reload_if_changed().unwrap().is_none());

    // The same size and another inode.
    replace(&path, &list(&["c", "d"]));
    let reloaded = file.reload_if_changed().unwrap().unwrap();
    assert!(Arc::ptr_eq(&reloaded.pods, file.pods()));
    assert!(file.reload_if_changed().unwrap().is_none());
}

#[test]
fn a_broken_version_keeps_the_pods_and_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pods.json");
    fs::write(&path, list(&["a"])).unwrap();
    let (mut file, _) = PodsFile::open(&path).unwrap();

    let whole = list(&["a", "b", "c"]);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = file.reload_if_changed().unwrap_err();
    assert!(matches!(&error, PodsError::Content { .. }), "{error}");
    assert!(error.to_string().contains("pods.json"), "{error}");
    assert!(file.reload_if_changed().unwrap().is_none());
    assert_eq!(file.pods().len(), 1);

    fs::write(&path, &whole).unwrap();
    assert_eq!(file.reload_if_changed().unwrap().unwrap().pods.len(), 3);

    fs::remove_file(&path).unwrap();
    let error = file.reload_if_changed().unwrap_err();
    assert!(matches!(&error, PodsError::Read { .. }), "{error}");
    assert!(file.reload_if_changed().unwrap().is_none());
    assert_eq!(file.pods().len(), 3);

    replace(&path, &list(&["d"]));
    assert_eq!(file.reload_if_changed().unwrap().unwrap().pods.len(), 1);
}

#[test]
fn a_file_may_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pods.json");
    assert!(matches!(PodsFile::open(&path), Err(PodsError::Read { .. })));
    let mut file = PodsFile::new(&path);
    assert!(file.reload_if_changed().is_err());
    assert!(file.reload_if_changed().unwrap().is_none());
    fs::write(&path, list(&["a"])).unwrap();
    assert_eq!(file.reload_if_changed().unwrap().unwrap().pods.len(), 1);
}

#[test]
fn irregular_and_too_large_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(PodsFile::open(dir.path()), Err(PodsError::NotRegular { .. })));
    assert!(matches!(PodsFile::open("/dev/null"), Err(PodsError::NotRegular { .. })));

    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(PodsFile::open(&pipe), Err(PodsError::NotRegular { .. })));

    let path = dir.path().join("pods.json");
    let content = list(&["a"]);
    fs::write(&path, &content).unwrap();
    let mut file = PodsFile::new(&path);
    file.max_bytes = content.len() as u64 - 1;
    let error = file.reload_if_changed().unwrap_err();
    assert!(matches!(&error, PodsError::TooLarge { .. }), "{error}");
    assert!(file.reload_if_changed().unwrap().is_none());
    let mut file = PodsFile::new(&path);
    file.max_bytes = content.len() as u64;
    assert_eq!(file.reload_if_changed().unwrap().unwrap().pods.len(), 1);
}
