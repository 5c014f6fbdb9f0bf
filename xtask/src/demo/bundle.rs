//! OCI bundles: the `config.json` of each container.

use std::path::Path;

use serde_json::{Value, json};

use super::plan::Workload;

/// The program, in the container's root file system.
pub(super) const PROGRAM: &str = "/snug-workload";
/// Mount point of the folder that containers share with the demo.
pub(super) const SHARED: &str = "/shared";
/// Mount points in the root file system.
pub(super) const FOLDERS: &[&str] = &["dev", "proc", "shared"];

/// Length of a CFS period in microseconds: the kernel's default, which Kubernetes keeps.
const PERIOD_US: u32 = 100_000;

/// Host paths that a bundle refers to.
#[derive(Debug)]
pub(super) struct BundlePaths<'a> {
    pub(super) root: &'a Path,
    pub(super) shared: &'a Path,
    pub(super) cgroup: &'a str,
    /// Whether the host has swap: memory limits must then include swap.
    pub(super) host_swaps: bool,
}

/// `config.json` of a container (OCI runtime specification 1.0.2).
pub(super) fn config(workload: &Workload, id: &str, paths: &BundlePaths<'_>) -> Value {
    let truth = format!("{SHARED}/{id}.json");
    let hold = format!("{SHARED}/hold");
    let mut args = vec![PROGRAM, "--truth", &truth, "--hold", &hold];
    args.extend(workload.behaviour);
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "hostname": workload.name,
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": paths.root, "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            // A separate mount, because the runtime creates devices in it and all containers share one root file system.
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
            {
                "destination": SHARED,
                "type": "bind",
                "source": paths.shared,
                "options": ["bind", "rw", "nosuid", "nodev", "noexec"],
            },
        ],
        "linux": {
            "cgroupsPath": paths.cgroup,
            "namespaces": namespaces,
            "resources": resources(workload, paths.host_swaps),
        },
    })
}

fn resources(workload: &Workload, host_swaps: bool) -> Value {
    let mut resources = json!({});
    if let Some(millicores) = workload.cpu_limit {
        resources["cpu"] = json!({ "quota": millicores * (PERIOD_US / 1000), "period": PERIOD_US });
    }
    if let Some(mib) = workload.memory_limit {
        let bytes = u64::from(mib) << 20;
        resources["memory"] = json!({ "limit": bytes });
        if host_swaps {
            // The sum of memory and swap.
            resources["memory"]["swap"] = bytes.into();
        }
    }
    resources
}

/// Whether `/proc/swaps` lists a swap device or file.
pub(super) fn swaps(proc_swaps: &str) -> bool {
    proc_swaps.lines().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{BURSTY, GROWER, IDLE};

    fn paths(host_swaps: bool) -> BundlePaths<'static> {
        BundlePaths {
            root: Path::new("/t/root"),
            shared: Path::new("/t/shared"),
            cgroup: "/demo/kubepods/podx/0a",
            host_swaps,
        }
    }

    #[test]
    fn limits_become_resources() {
        let config = config(&BURSTY, "0a", &paths(false));
        let resources = &config["linux"]["resources"];
        assert_eq!(resources["cpu"], json!({ "quota": 30_000, "period": 100_000 }));
        assert_eq!(resources["memory"], json!({ "limit": 64 << 20 }));
        assert_eq!(super::config(&IDLE, "0a", &paths(true))["linux"]["resources"], json!({}));
    }

    #[test]
    fn a_host_that_swaps_gets_no_way_around_the_limit() {
        let config = config(&GROWER, "0a", &paths(true));
        assert_eq!(config["linux"]["resources"]["memory"], json!({ "limit": 32 << 20, "swap": 32 << 20 }));
    }

    #[test]
    fn arguments_name_the_usage_file() {
        let config = config(&IDLE, "0a", &paths(false));
        let args = json!(["/snug-workload", "--truth", "/shared/0a.json", "--hold", "/shared/hold", "idle"]);
        assert_eq!(config["process"]["args"], args);
        assert_eq!(config["linux"]["cgroupsPath"], "/demo/kubepods/podx/0a");
        assert_eq!(config["mounts"][2]["source"], "/t/shared");
    }

    #[test]
    fn swap_is_on_when_something_is_listed() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!swaps(heading));
        assert!(!swaps(""));
        assert!(swaps(&format!("{heading}/dev/vda2 partition 1 0 -2\n")));
    }
}
