//! `snug certificates` as a process.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

fn snug(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_snug")).arg("certificates").args(arguments).output().unwrap()
}

#[test]
fn secrets_are_printed_for_kubectl() {
    let output = snug(&["-n", "monitoring", "--host", "10.0.0.1", "--host", "node-1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let secrets = list["items"].as_array().unwrap();
    let names: Vec<&Value> = secrets.iter().map(|secret| &secret["metadata"]["name"]).collect();
    assert_eq!(names, ["snug-agent-tls", "snug-agent-client"]);
    for secret in secrets {
        assert_eq!(secret["metadata"]["namespace"], "monitoring");
        assert_eq!(secret["type"], "kubernetes.io/tls");
        for (key, begin) in
            [("ca.crt", "CERTIFICATE"), ("tls.crt", "CERTIFICATE"), ("tls.key", "PRIVATE KEY")]
        {
            let pem = secret["stringData"][key].as_str().unwrap();
            assert!(pem.starts_with(&format!("-----BEGIN {begin}-----")), "{key}");
        }
    }
    let keys: BTreeSet<&str> =
        secrets.iter().map(|secret| secret["stringData"]["tls.key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 2, "each has a key of its own");
}

#[test]
fn files_are_written_once_and_keys_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let arguments = ["--directory", path.to_str().unwrap()];
    assert!(snug(&arguments).status.success());
    let names: BTreeSet<String> =
        fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let expected = ["ca.crt", "client.crt", "client.key", "tls.crt", "tls.key"];
    assert_eq!(names, expected.map(str::to_owned).into());
    #[cfg(unix)]
    for key in ["client.key", "tls.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(path.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
    let again = snug(&arguments);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("files that exist are not replaced"));
}

#[test]
fn an_invalid_host_is_an_error() {
    let output = snug(&["--host", "not a name"]);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("neither a DNS name nor an IP address"));
}
