//! Short names that tell what a container is, by the fields that are known of it.

/// Characters of a container's id that are shown.
const SHORT_ID: usize = 12;
/// Hexadecimal digits from which on a word is an id.
const MIN_ID: usize = 32;

/// What is known of a container.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameParts<'a> {
    pub(crate) pod: &'a str,
    pub(crate) container: &'a str,
    pub(crate) workload: &'a str,
    /// `app`, `init`, …, or the level of the cgroup: `container`, `sandbox`, `unit` or `cgroup`.
    pub(crate) kind: &'a str,
    /// Path of the cgroup.
    pub(crate) id: &'a str,
    /// The name that docker, podman or nerdctl gave it.
    pub(crate) engine_name: &'a str,
    pub(crate) runtime: &'a str,
}

pub(crate) fn short(known: NameParts<'_>) -> String {
    let NameParts { pod, container, workload, kind, id, engine_name, runtime } = known;
    let role = match kind {
        "init" | "sidecar" | "ephemeral" => format!(" ({kind})"),
        _ => String::new(),
    };
    if !pod.is_empty() {
        let pod = short_pod(pod, workload);
        return match container {
            "" if kind == "sandbox" => format!("{pod} (sandbox)"),
            "" => format!("{pod}/{}", short_ids(last(id))),
            name if name == workload => pod + &role,
            name => format!("{pod}/{name}{role}"),
        };
    }
    if !engine_name.is_empty() {
        return engine_name.to_owned();
    }
    match kind {
        "unit" => unescaped(last(id)),
        "container" | "sandbox" => {
            let of = pod_uid(id).map(|uid| format!("pod {uid}/"));
            let of =
                of.unwrap_or_else(|| if runtime.is_empty() { String::new() } else { format!("{runtime} ") });
            let id = short_ids(last(id));
            let id = id.trim_end_matches(".scope");
            let id = id.rsplit_once('-').filter(|(_, id)| is_hexadecimal(id)).map_or(id, |(_, id)| id);
            if kind == "sandbox" { format!("{of}{id} (sandbox)") } else { format!("{of}{id}") }
        }
        _ => short_ids(id),
    }
}

/// Workload and last part of a pod's name: `web-x2x` for `web-7c9f-x2x` of the Deployment `web`.
fn short_pod(pod: &str, workload: &str) -> String {
    let rest = pod.strip_prefix(workload).and_then(|rest| rest.strip_prefix('-'));
    match rest.and_then(|rest| rest.rsplit_once('-')) {
        Some((_, suffix)) if !workload.is_empty() && !suffix.is_empty() => format!("{workload}-{suffix}"),
        _ => pod.to_owned(),
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// The first part of the pod's uid in a path, as the kubelet makes them.
fn pod_uid(path: &str) -> Option<&str> {
    let part = path.split('/').rev().find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let start = part.rfind("pod")?;
        part.get(start + 3..)
    })?;
    let uid = part.split(['-', '_']).next()?;
    (uid.len() >= 8 && is_hexadecimal(uid)).then(|| uid.get(..8)).flatten()
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A text with its long ids cut.
fn short_ids(text: &str) -> String {
    let mut short = String::new();
    let mut word = String::new();
    for c in text.chars().map(Some).chain([None]) {
        match c {
            Some(c) if c.is_ascii_hexdigit() => word.push(c),
            c => {
                let cut = if word.len() >= MIN_ID { SHORT_ID } else { word.len() };
                short.extend(word.drain(..).take(cut));
                short.extend(c);
            }
        }
    }
    short
}

/// The name of a systemd unit without its escapes: `dev-disk` for `dev\x2ddisk`.
fn unescaped(unit: &str) -> String {
    let mut name = String::new();
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        name += before;
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii_graphic) {
            Some(byte) => {
                name.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                name += "\\x";
                rest = after;
            }
        }
    }
    name + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "d9b357c32006129d7d8772fc4c36ffc6e161502f31c46225c621fca9ce496552";

    #[test]
    fn a_name_tells_what_a_container_is() {
        let of_pod = |pod, workload, container, kind| {
            short(NameParts { pod, workload, container, kind, ..NameParts::default() })
        };
        assert_eq!(of_pod("checkout-5swmw54p9t-86n5p", "checkout", "checkout", "app"), "checkout-86n5p");
        assert_eq!(
            of_pod("api-dff8d6758b-cb76d", "api", "istio-proxy", "sidecar"),
            "api-cb76d/istio-proxy (sidecar)"
        );
        assert_eq!(of_pod("postgres-1", "postgres", "postgres", "app"), "postgres-1");
        assert_eq!(of_pod("report-28500000-abcde", "report", "main", "app"), "report-abcde/main");
        assert_eq!(of_pod("tool", "", "main", ""), "tool/main");
        assert_eq!(of_pod("web-0", "web", "", "sandbox"), "web-0 (sandbox)");
        let of_path =
            |id: &str, kind, runtime| short(NameParts { id, kind, runtime, ..NameParts::default() });
        assert_eq!(of_path("/system.slice/cron.service", "unit", ""), "cron.service");
        assert_eq!(of_path(r"/system.slice/dev\x2ddisk.service", "unit", ""), "dev-disk.service");
        assert_eq!(of_path(&format!("/docker/{ID}"), "container", "docker"), "docker d9b357c32006");
        let scope = format!("/machine.slice/libpod-{ID}.scope");
        assert_eq!(of_path(&scope, "container", "podman"), "podman d9b357c32006");
        let in_pod = format!("/kubepods/burstable/poda8d5956a-fb63-1994-7956-4512827ab08a/{ID}");
        assert_eq!(of_path(&in_pod, "container", ""), "pod a8d5956a/d9b357c32006");
        assert_eq!(
            of_path("/other_service/1beba4aeed32aedf5fb04d943baa6ac6", "cgroup", ""),
            "/other_service/1beba4aeed32"
        );
        let named = NameParts { id: &in_pod, kind: "container", engine_name: "web", ..NameParts::default() };
        assert_eq!(short(named), "web");
    }

    proptest! {
        #[test]
        fn every_container_has_a_name(pod in "\\PC{0,8}", container in "\\PC{0,8}", workload in "\\PC{0,4}",
                                      kind in "(app|init|unit|sandbox|container|cgroup)?", id in "/(\\PC|\\\\x|pod|-|[0-9a-f]{32}){0,9}") {
            let known = NameParts { pod: &pod, container: &container, workload: &workload, kind: &kind, id: &id, ..NameParts::default() };
            prop_assert!(!short(known).is_empty());
        }
    }
}
