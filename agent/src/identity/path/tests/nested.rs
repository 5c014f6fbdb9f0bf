//! Kubernetes in containers: by a setting only.

use super::*;

fn nodes(patterns: &[&str]) -> NestedNodes {
    NestedNodes::new(&patterns.iter().map(|pattern| Pattern::new(&fill(pattern))).collect::<Vec<_>>())
}

#[test]
fn nodes_that_are_containers() {
    let kind = "/system.slice/docker-{C2}.scope/kubelet.slice/kubelet-kubepods.slice";
    let path = |rest: &str| format!("{kind}/kubelet-kubepods-burstable.slice/{rest}");
    let pod_slice = "kubelet-kubepods-burstable-pod{UID_}.slice";
    let nested = nodes(&[
        "/docker/*",
        "/system.slice/docker-*.scope",
        "/machine.slice/libpod-*.scope",
        "/kubepods/burstable/pod{HASH}/*/docker/*",
        "/lxc.payload.node?",
        "/machine.slice/systemd-nspawn@*.service",
    ]);
    check_with(
        &nested,
        &[
            (
                &path(&format!("{pod_slice}/cri-containerd-{{C1}}.scope")),
                in_pod(Containerd, "{UID}", Burstable),
            ),
            (
                &path(pod_slice),
                pod(
                    "{UID}",
                    Burstable,
                    "kubelet-kubepods-burstable-pod51aa0a03_5afa_462e_a0f9_efcecc71a4f3.slice",
                ),
            ),
            (kind, slice("kubelet-kubepods.slice")),
            ("/system.slice/docker-{C1}.scope", alone(Docker)),
            ("/docker/{C1}", alone(Docker)),
            ("/docker/{C2}/kubelet/kubepods/burstable/pod{UID}/{C1}", in_pod(Unknown, "{UID}", Burstable)),
            ("/docker/{C2}/kubelet/kubepods/pod{UID}", pod("{UID}", Guaranteed, "pod{UID}")),
            ("/docker/{C2}/kubelet/kubepods", slice("kubepods")),
            // k3s in Docker, minikube by Docker and by podman.
            ("/docker/{C2}/kubepods/besteffort/pod{UID}/{C1}", in_pod(Unknown, "{UID}", BestEffort)),
            (
                "/docker/{C2}/kubepods.slice/kubepods-pod{UID_}.slice/docker-{C1}.scope",
                in_pod(Docker, "{UID}", Guaranteed),
            ),
            (
                "/machine.slice/libpod-{C2}.scope/container/kubepods.slice/kubepods-pod{UID_}.slice/crio-{C1}.scope",
                in_pod(CriO, "{UID}", Guaranteed),
            ),
            // A cluster in a pod of another.
            (
                "/kubepods/burstable/pod{HASH}/{C2}/docker/{C2}/kubelet/kubepods/besteffort/pod{UID}/{C1}",
                in_pod(Unknown, "{UID}", BestEffort),
            ),
            ("/lxc.payload.node1/kubepods/burstable/pod{UID}/{C1}", in_pod(Unknown, "{UID}", Burstable)),
            (
                "/machine.slice/systemd-nspawn@n.service/payload/kubepods/pod{UID}/{C1}",
                in_pod(Unknown, "{UID}", Guaranteed),
            ),
        ],
    );
    check_none_with(
        &nested,
        &[
            "/docker/{C1}/kubelet",
            "/docker/{C1}/kubelet.slice",
            "/docker/{C1}/kubelet.slice/kubelet.service",
            "/docker/{C1}/system.slice/containerd.service",
            "/docker/{C1}/init.scope",
            "/docker/{C1}/docker/{C2}",
            "/docker/{C1}/kubepods/other",
            "/docker/{C1}/kubepods/burstable/pod{UID}/{C2}/nested",
            "/docker/{C1}/kubepods/{C2}",
            // Containers of a nested node's pods are no nodes.
            "/docker/{C1}/kubepods/pod{UID}/{C2}/kubepods/pod{HASH}/{C2}",
        ],
    );
}

#[test]
fn what_a_container_or_a_unit_makes_below_itself_is_not_kubernetes() {
    let victims = [
        "kubepods",
        "kubepods/burstable",
        "kubepods/pod{UID}",
        "kubepods/burstable/pod{UID}/{C2}",
        "kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{C2}.scope",
        "kubepods-pod{UID_}.slice:cri-containerd:{C2}",
        "a/b/kubepods/pod{UID}/{C2}",
    ];
    let makers = [
        "/kubepods/burstable/pod{HASH}/{C1}",
        "/kubepods.slice/kubepods-pod{HASH}.slice/cri-containerd-{C1}.scope",
        "/kubepods/pod{HASH}/kata_{C1}",
        "/kubepods/pod{HASH}/other",
        "/docker/{C1}",
        "/system.slice/docker-{C1}.scope",
        "/machine.slice/libpod-{C1}.scope/container",
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/user.slice/user-1000.slice/session-2.scope",
        "/system.slice/web.service",
        "/machine.slice/systemd-nspawn@n.service/payload",
        "/user.slice/user-1000.slice/user@1000.service/system.slice/containerd.service",
    ];
    for (maker, victim) in makers.iter().flat_map(|maker| victims.iter().map(move |victim| (maker, victim))) {
        let path = format!("{maker}/{victim}");
        let identity = parse(&fill(&path));
        assert_eq!(identity.as_ref().and_then(|identity| identity.pod_uid.clone()), None, "{path}");
        // A unit may contain containers, without a pod.
        assert!(identity.is_none() || maker.contains(".service") || maker.contains("session"), "{path}");
    }
    let of_lxc = ["/lxc.payload.web/", "/lxc/web/"];
    for (maker, victim) in of_lxc.iter().flat_map(|maker| victims.iter().map(move |victim| (maker, victim))) {
        let identity = parse(&fill(&format!("{maker}{victim}")));
        assert_eq!(identity.and_then(|identity| identity.pod_uid), None, "{maker}{victim}");
    }
    // What systemd itself runs for the node may make pods.
    check(&[("/system.slice/k3s.service/kubepods/pod{UID}/{C1}", in_pod(Unknown, "{UID}", Guaranteed))]);
}
