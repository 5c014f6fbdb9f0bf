mod nested;

use proptest::prelude::*;

use super::{NestedNodes, parse, parse_with};
use crate::{
    model::{Level, PathIdentity, Qos, Runtime},
    patterns::Pattern,
};

const C1: &str = "8038cc8f5b470b80d0b9e81ae1c41dac53012bace753d5a82e344fdaaf7aba6f";
const C2: &str = "20692e509e35c21546b1a91d68f73f21a89c3c21d6a77da93e3aead749b65168";
const UID: &str = "51aa0a03-5afa-462e-a0f9-efcecc71a4f3";
const UID_: &str = "51aa0a03_5afa_462e_a0f9_efcecc71a4f3";
const HASH: &str = "8e9b92ba62a691ca7668fe9abad60f0b";

/// `{C1}`, `{UID}` and so on in a table's paths, so that its lines stay readable.
fn fill(path: &str) -> String {
    [("{C1}", C1), ("{C2}", C2), ("{UID}", UID), ("{UID_}", UID_), ("{HASH}", HASH)]
        .iter()
        .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

/// Level, runtime, pod uid, QoS class, id.
type Expected = (Level, Runtime, Option<&'static str>, Option<Qos>, &'static str);

fn check(table: &[(&str, Expected)]) {
    check_with(&NestedNodes::default(), table);
}

fn check_with(nodes: &NestedNodes, table: &[(&str, Expected)]) {
    for (path, (level, runtime, pod_uid, qos, id)) in table {
        let expected = PathIdentity {
            level: *level,
            runtime: *runtime,
            pod_uid: pod_uid.map(fill),
            qos: *qos,
            id: fill(id),
        };
        assert_eq!(parse_with(&fill(path), nodes), Some(expected), "{path}");
    }
}

fn check_none(paths: &[&str]) {
    check_none_with(&NestedNodes::default(), paths);
}

fn check_none_with(nodes: &NestedNodes, paths: &[&str]) {
    for path in paths {
        assert_eq!(parse_with(&fill(path), nodes), None, "{path}");
    }
}

const fn slice(id: &'static str) -> Expected {
    (Level::Slice, Unknown, None, None, id)
}

const fn unit(id: &'static str) -> Expected {
    (Level::Unit, Unknown, None, None, id)
}

const fn cgroup(id: &'static str) -> Expected {
    (Level::Cgroup, Unknown, None, None, id)
}

const fn alone(runtime: Runtime) -> Expected {
    (Level::Container, runtime, None, None, "{C1}")
}

const fn pod(uid: &'static str, qos: Qos, id: &'static str) -> Expected {
    (Level::Pod, Unknown, Some(uid), Some(qos), id)
}

const fn in_pod(runtime: Runtime, uid: &'static str, qos: Qos) -> Expected {
    (Level::Container, runtime, Some(uid), Some(qos), "{C1}")
}

use Qos::{BestEffort, Burstable, Guaranteed};
use Runtime::{Containerd, CriO, Docker, Podman, Unknown};

#[test]
fn kubernetes_with_the_cgroupfs_driver() {
    check(&[
        ("/", (Level::Root, Unknown, None, None, "/")),
        ("/kubepods", slice("kubepods")),
        ("/kubepods/burstable", slice("burstable")),
        ("/kubepods/besteffort", slice("besteffort")),
        ("/kubepods/pod{UID}", pod("{UID}", Guaranteed, "pod{UID}")),
        ("/kubepods/burstable/pod{UID}", pod("{UID}", Burstable, "pod{UID}")),
        ("/kubepods/besteffort/pod{UID}", pod("{UID}", BestEffort, "pod{UID}")),
        ("/kubepods/burstable/pod{HASH}", pod("{HASH}", Burstable, "pod{HASH}")),
        ("/kubepods/pod{UID}/{C1}", in_pod(Unknown, "{UID}", Guaranteed)),
        ("/kubepods/burstable/pod{HASH}/{C1}", in_pod(Unknown, "{HASH}", Burstable)),
        ("/kubepods/besteffort/pod{UID}/{C1}", in_pod(Unknown, "{UID}", BestEffort)),
        ("/kubepods/besteffort/pod{UID}/crio-{C1}", in_pod(CriO, "{UID}", BestEffort)),
        ("/kubepods/besteffort/podmy-static-1/{C1}", in_pod(Unknown, "my-static-1", BestEffort)),
        ("/kubelet/kubepods/burstable/pod{UID}/{C1}", in_pod(Unknown, "{UID}", Burstable)),
        ("/a/b/kubepods/pod{UID}/{C1}", in_pod(Unknown, "{UID}", Guaranteed)),
        ("/kubepods/pod{UID}/kata_{C1}", (Level::Sandbox, Unknown, Some("{UID}"), Some(Guaranteed), "{C1}")),
        ("/k8s.io/{C1}", alone(Containerd)),
        ("/k8s.io", slice("k8s.io")),
    ]);
    check_none(&[
        "/kubepods/burstable/pod{UID}/crio-conmon-{C1}",
        "/kubepods/burstable/pod{UID}/{C1}/init.scope",
        "/kubepods/burstable/pod{UID}/{C1}/system.slice/nginx.service",
        "/kubepods/burstable/pod{UID}/{C1}/docker/{C2}",
        "/kubepods/burstable/pod{UID}/{C1}/{C2}",
        "/kubepods/burstable/pod{UID}/something",
        "/kubepods/burstable/pod{UID}/something/{C1}",
    ]);
}

#[test]
fn kubernetes_with_the_systemd_driver() {
    check(&[
        ("/kubepods.slice", slice("kubepods.slice")),
        ("/kubepods.slice/kubepods-burstable.slice", slice("kubepods-burstable.slice")),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice",
            pod("{UID}", Guaranteed, "kubepods-pod51aa0a03_5afa_462e_a0f9_efcecc71a4f3.slice"),
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{C1}.scope",
            in_pod(Containerd, "{UID}", Guaranteed),
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{C1}.scope",
            in_pod(CriO, "{UID}", Burstable),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{HASH}.slice/docker-{C1}.scope",
            in_pod(Docker, "{HASH}", BestEffort),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/libpod-{C1}.scope",
            in_pod(Podman, "{UID}", BestEffort),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/new-cri-{C1}.scope",
            in_pod(Unknown, "{UID}", BestEffort),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/{C1}",
            in_pod(Unknown, "{UID}", BestEffort),
        ),
        (
            "/k3s.slice/k3s-kubepods.slice/k3s-kubepods-pod{UID_}.slice/cri-containerd-{C1}.scope",
            in_pod(Containerd, "{UID}", Guaranteed),
        ),
        // A runtime set to cgroupfs under a kubelet set to systemd.
        ("/kubepods-burstable-pod{UID_}.slice:cri-containerd:{C1}", in_pod(Containerd, "{UID}", Burstable)),
        (
            "/system.slice/containerd.service/kubepods-pod{UID_}.slice:cri-containerd:{C1}",
            in_pod(Containerd, "{UID}", Guaranteed),
        ),
        ("/system.slice:docker:{C1}", alone(Docker)),
    ]);
    check_none(&[
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-conmon-{C1}.scope",
        "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{C1}.scope/container",
        "/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{C1}.scope/app.slice/a.service",
        "/kubepods.slice/kubepods-pod{UID_}.slice/run-u1.scope",
        "/system.slice/crio-conmon-{C1}.scope",
    ]);
}

#[test]
fn containers_without_kubernetes() {
    check(&[
        ("/docker", slice("docker")),
        ("/system.slice/nerdctl-{C1}.scope", alone(Containerd)),
        ("/default/{C1}", alone(Containerd)),
        ("/ecs/6e2ba4a1b3b94b7ab9d0f5c9b8a7a3d1/{C1}", alone(Unknown)),
        ("/my-parent/{C1}", alone(Unknown)),
        ("/my.slice/docker-{C1}.scope", alone(Docker)),
        ("/machine.slice/libpod-{C1}.scope", alone(Podman)),
        ("/libpod_parent", slice("libpod_parent")),
        ("/libpod_parent/libpod-{C1}", alone(Podman)),
        ("/libpod_parent/{C1}", (Level::Slice, Podman, None, None, "{C1}")),
        ("/libpod_parent/{C2}/libpod-{C1}", alone(Podman)),
        ("/machine.slice/machine-libpod_pod_{C1}.slice", (Level::Slice, Podman, None, None, "{C1}")),
        ("/machine.slice/machine-libpod_pod_{C2}.slice/libpod-{C1}.scope", alone(Podman)),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{C1}.scope", alone(Podman)),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{C2}.slice/libpod-{C1}.scope",
            alone(Podman),
        ),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{C1}.scope", alone(Docker)),
        ("/system.slice/web.service/libpod-payload-{C1}", alone(Podman)),
        ("/system.slice/docker.service/docker/{C1}", alone(Docker)),
    ]);
    check_none(&[
        "/machine.slice/libpod-{C1}.scope/container",
        "/machine.slice/libpod-{C1}.scope/container/init.scope",
        "/machine.slice/libpod-conmon-{C1}.scope",
        "/libpod_parent/libpod-conmon-{C1}",
        "/libpod_parent/conmon",
        "/system.slice/web.service/runtime",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-{C1}.scope",
    ]);
}

#[test]
fn systemd_and_plain_cgroups() {
    check(&[
        ("/init.scope", unit("init.scope")),
        ("/system.slice", slice("system.slice")),
        ("/system.slice/ssh.service", unit("ssh.service")),
        ("/system.slice/_cpu.service", unit("cpu.service")),
        ("/system.slice/system-getty.slice", slice("system-getty.slice")),
        ("/system.slice/system-getty.slice/getty@tty1.service", unit("getty@tty1.service")),
        (r"/system.slice/dev\x2dwatch.service", unit(r"dev\x2dwatch.service")),
        (r"/machine.slice/machine-qemu\x2d1\x2dweb.scope", unit(r"machine-qemu\x2d1\x2dweb.scope")),
        ("/user.slice/user-1000.slice", slice("user-1000.slice")),
        ("/user.slice/user-1000.slice/session-12.scope", unit("session-12.scope")),
        ("/user.slice/user-1000.slice/user@1000.service", unit("user@1000.service")),
        ("/batch", cgroup("batch")),
        ("/batch/job 7", cgroup("job 7")),
        ("/lxc.payload.web/system.slice/nginx.service", unit("nginx.service")),
        ("/kubepods/unexpected", cgroup("unexpected")),
        ("/kubepods.slice/odd.service", unit("odd.service")),
    ]);
    check_none(&[
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
        "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/vcpu0",
        "/system.slice/systemd-udevd.service/udev",
        "/system.slice/run-user-0.mount",
        "/system.slice/docker.socket",
        "/dev-hugepages.mount",
        "/system.slice/swap.swap",
    ]);
}

#[test]
fn names_that_only_look_like_something() {
    check(&[
        ("//", (Level::Root, Unknown, None, None, "/")),
        ("//kubepods//pod{UID}///{C1}/", in_pod(Unknown, "{UID}", Guaranteed)),
        ("/kubepods/{C1}", cgroup("{C1}")),
        ("/kubepods/burstable/{C1}", cgroup("{C1}")),
        ("/{C1}.service", unit("{C1}.service")),
        ("/user-{C1}.slice", slice("user-{C1}.slice")),
        ("/docker/{C1}0", cgroup("{C1}0")),
        ("/docker/8038CC8F5B470B80D0B9E81AE1C41DAC53012BACE753D5A82E344FDAAF7ABA6F", {
            cgroup("8038CC8F5B470B80D0B9E81AE1C41DAC53012BACE753D5A82E344FDAAF7ABA6F")
        }),
        ("/system.slice/docker-{C1}0.scope", unit("docker-{C1}0.scope")),
        ("/system.slice/docker-.scope", unit("docker-.scope")),
        ("/system.slice/mydocker-{C1}.scope", unit("mydocker-{C1}.scope")),
        ("/system.slice/docker-{C1}.service", unit("docker-{C1}.service")),
        ("/system.slice/docker-{C1}.scope.scope", unit("docker-{C1}.scope.scope")),
        ("/mykubepods/pod{UID}", cgroup("pod{UID}")),
        ("/kubepods/pod", cgroup("pod")),
        ("/kubepods/podman", cgroup("podman")),
        ("/kubepods/pod1\n2", cgroup("pod1\n2")),
        ("/kubepods-pod.slice", slice("kubepods-pod.slice")),
        ("/pod{UID}/burstable", cgroup("burstable")),
        ("/.service", cgroup(".service")),
        ("/a b.service", cgroup("a b.service")),
        ("/\"quoted\".scope", cgroup("\"quoted\".scope")),
        ("/new\nline", cgroup("new\nline")),
        ("/dienst-ünïcode", cgroup("dienst-ünïcode")),
        ("/☃.slice", cgroup("☃.slice")),
        ("/:", cgroup(":")),
        ("/::{C1}", cgroup("::{C1}")),
        ("/a:docker:b", cgroup("a:docker:b")),
        ("/-", cgroup("-")),
        ("/-.slice", slice("-.slice")),
    ]);
    check_none(&["", "kubepods", "..", "/..", "/../system.slice", "/a/../kubepods", "/./a", "{C1}"]);

    let long = format!("/{}", "ä".repeat(100_000));
    assert_eq!(parse(&long).map(|identity| identity.level), Some(Level::Cgroup));
    let deep = "/kubepods".repeat(50_000);
    assert_eq!(parse(&deep).map(|identity| identity.level), Some(Level::Slice));
    assert_eq!(
        parse(&format!("/kubepods/pod1{}", "0".repeat(1000))).and_then(|identity| identity.pod_uid),
        None
    );
}

#[derive(Clone, Copy, Debug)]
enum Driver {
    Cgroupfs,
    Systemd,
}

/// The cgroup name that a runtime gives the container `id`, and the runtime that the parser must find.
fn container_name(driver: Driver, runtime: Runtime, id: &str) -> (String, Runtime) {
    let prefix = match runtime {
        Containerd => "cri-containerd",
        CriO => "crio",
        Docker => "docker",
        Podman => "libpod",
        Unknown => "other",
    };
    match (driver, runtime) {
        (Driver::Systemd, _) => (format!("{prefix}-{id}.scope"), runtime),
        (Driver::Cgroupfs, CriO | Podman) => (format!("{prefix}-{id}"), runtime),
        (Driver::Cgroupfs, _) => (id.to_owned(), Unknown),
    }
}

/// The path of a pod as a kubelet below `root` makes it.
fn pod_path(driver: Driver, root: &str, qos: Qos, uid: &str) -> String {
    let class = match qos {
        Guaranteed => None,
        Burstable => Some("burstable"),
        BestEffort => Some("besteffort"),
    };
    if let Driver::Cgroupfs = driver {
        let class = class.map_or(String::new(), |class| format!("/{class}"));
        let root = if root.is_empty() { String::new() } else { format!("/{root}") };
        return format!("{root}/kubepods{class}/pod{uid}");
    }
    let mut stem = if root.is_empty() { String::new() } else { format!("{root}-") };
    let mut path = if root.is_empty() { String::new() } else { format!("/{root}.slice") };
    stem.push_str("kubepods");
    path.push_str(&format!("/{stem}.slice"));
    if let Some(class) = class {
        stem.push_str(&format!("-{class}"));
        path.push_str(&format!("/{stem}.slice"));
    }
    format!("{path}/{stem}-pod{}.slice", uid.replace('-', "_"))
}

fn any_pod() -> impl Strategy<Value = (Driver, &'static str, String, Qos, String)> {
    (
        prop_oneof![Just(Driver::Cgroupfs), Just(Driver::Systemd)],
        prop_oneof![Just(""), Just("kubelet"), Just("k3s")],
        prop_oneof![
            Just(String::new()),
            "[0-9a-f]{64}".prop_map(|id| format!("/docker/{id}")),
            "[0-9a-f]{64}".prop_map(|id| format!("/system.slice/docker-{id}.scope")),
            "[0-9a-f]{64}".prop_map(|id| format!("/machine.slice/libpod-{id}.scope/container")),
        ],
        prop_oneof![Just(Guaranteed), Just(Burstable), Just(BestEffort)],
        prop_oneof![
            "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            "[0-9][0-9a-f]{31}"
        ],
    )
}

/// The setting that makes the container around `path` a node.
fn nodes(path: &str) -> NestedNodes {
    let container = path.trim_end_matches("/container");
    NestedNodes::new(&[Pattern::new(container)])
}

fn any_runtime() -> impl Strategy<Value = Runtime> {
    prop_oneof![Just(Containerd), Just(CriO), Just(Docker), Just(Podman), Just(Unknown)]
}

proptest! {
    #[test]
    fn every_pod_and_container_is_recognised(
        (driver, root, node, qos, uid) in any_pod(),
        runtime in any_runtime(),
        id in "[0-9a-f]{64}",
        below in "(/[a-z]{1,9}(\\.slice|\\.service)?){1,3}",
    ) {
        let nested = nodes(&node);
        let parse = |path: &str| parse_with(path, &nested);
        let of_node = !node.is_empty();
        let pod = node + &pod_path(driver, root, qos, &uid);
        // Without the setting, what a container makes below itself is part of it.
        prop_assert_eq!(super::parse(&pod).is_none(), of_node);
        let identity = parse(&pod).unwrap();
        prop_assert_eq!(identity.level, Level::Pod);
        prop_assert_eq!(identity.pod_uid.as_deref(), Some(uid.as_str()));
        prop_assert_eq!(identity.qos, Some(qos));

        let (name, expected_runtime) = container_name(driver, runtime, &id);
        let path = format!("{pod}/{name}");
        let expected = PathIdentity {
            level: Level::Container,
            runtime: expected_runtime,
            pod_uid: Some(uid.clone()),
            qos: Some(qos),
            id: id.clone(),
        };
        prop_assert_eq!(parse(&path), Some(expected));
        prop_assert_eq!(parse(&format!("{path}{below}")), None);
        prop_assert_eq!(parse(&format!("{path}/{id}")), None);
        prop_assert_eq!(parse(&format!("{path}{}", pod_path(driver, root, qos, &uid))), None);
    }

    #[test]
    fn a_slice_taken_for_a_name_is_recognised(
        (_, root, node, qos, uid) in any_pod(),
        runtime in prop_oneof![Just(("cri-containerd", Containerd)), Just(("crio", CriO)), Just(("docker", Docker))],
        id in "[0-9a-f]{64}",
    ) {
        let pod = pod_path(Driver::Systemd, root, qos, &uid);
        let slice = pod.rsplit('/').next().unwrap();
        let identity = parse_with(&format!("{node}/{slice}:{}:{id}", runtime.0), &nodes(&node)).unwrap();
        prop_assert_eq!(identity.runtime, runtime.1);
        prop_assert_eq!(identity.pod_uid, Some(uid));
        prop_assert_eq!(identity.qos, Some(qos));
        prop_assert_eq!(identity.id, id);
    }

    #[test]
    fn nothing_panics(path in "\\PC*", odd in "(/|[.:_@-]|pod|kubepods|\\.slice|\\.scope|docker|[0-9a-f]{64}|é|\n){0,12}") {
        let _ = parse(&path);
        for path in [odd.clone(), format!("/{odd}"), format!("/kubepods/{odd}")] {
            if let Some(identity) = parse(&path) {
                prop_assert!(!identity.id.is_empty());
                prop_assert!(path.starts_with('/'));
                prop_assert_eq!(identity.pod_uid.is_some(), identity.qos.is_some());
            }
        }
    }
}
