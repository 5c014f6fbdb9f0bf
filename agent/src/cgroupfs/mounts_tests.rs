use proptest::prelude::*;

use super::*;

const HYBRID: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:3 - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

fn mounts(text: &str) -> Vec<Mount> {
    parse_mountinfo(Path::new("/proc/self/mountinfo"), text.as_bytes()).unwrap()
}

fn choose(text: &str) -> Hierarchies {
    Hierarchies::choose(mounts(text), |_| true)
}

fn hierarchy(version: Version, mount: &str, controllers: &[&str]) -> Hierarchy {
    Hierarchy {
        mount: mount.into(),
        version,
        controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        root_in_hierarchy: "/".to_owned(),
    }
}

fn serves(all: &Hierarchies, measurement: Measurement) -> Option<&str> {
    all.serving(measurement).and_then(|hierarchy| hierarchy.mount.to_str())
}

#[test]
fn a_hybrid_host_has_each_measurement_in_its_hierarchy() {
    let all = choose(HYBRID);
    assert_eq!(all.v1.len(), 4, "systemd's own hierarchy accounts for nothing: {all:?}");
    assert_eq!(all.v1[1].controllers, ["cpu", "cpuacct"]);
    let expected = [
        (Measurement::Cpu, "unified"),
        (Measurement::Throttling, "cpu,cpuacct"),
        (Measurement::Pressure, "unified"),
        (Measurement::Memory, "memory"),
        (Measurement::WorkingSet, "memory"),
        (Measurement::MemoryEvents, "memory"),
        (Measurement::Swap, "memory"),
        (Measurement::Pids, "pids"),
        (Measurement::SlowRows, "unified"),
        (Measurement::Spec, "cpu,cpuacct"),
    ];
    for (measurement, directory) in expected {
        assert_eq!(
            serves(&all, measurement),
            Some(format!("/sys/fs/cgroup/{directory}").as_str()),
            "{measurement:?}"
        );
    }
    assert_eq!(all.io().unwrap().mount, Path::new("/sys/fs/cgroup/blkio"));
}

#[test]
fn pure_v1_has_no_pressure() {
    let text: String =
        HYBRID.lines().filter(|line| !line.contains("cgroup2")).map(|line| format!("{line}\n")).collect();
    let all = choose(&text);
    assert_eq!(all.unified, None);
    assert_eq!(serves(&all, Measurement::Cpu), Some("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(serves(&all, Measurement::Pressure), None);
}

#[test]
fn v2_is_preferred_for_the_controllers_that_it_has() {
    let all = Hierarchies::from_list([
        hierarchy(Version::V1, "/v1/memory", &["memory"]),
        hierarchy(Version::V2, "/v2", &["cpu", "io", "pids"]),
    ]);
    assert_eq!(serves(&all, Measurement::Throttling), Some("/v2"));
    assert_eq!(serves(&all, Measurement::Memory), Some("/v1/memory"));
    assert_eq!(all.io().unwrap().mount, Path::new("/v2"));
}

#[test]
fn the_mount_with_the_most_cgroups_wins() {
    let line = |root: &str, point: &str| format!("41 31 0:38 {root} {point} rw - cgroup2 cgroup2 rw\n");
    let first = |mounts: &[(&str, &str)]| {
        let text: String = mounts.iter().map(|(root, point)| line(root, point)).collect();
        choose(&text).unified.unwrap().mount
    };
    let own = ("/", "/sys/fs/cgroup");
    assert_eq!(first(&[("/kubelet/pod1", "/run/a"), own]), Path::new("/sys/fs/cgroup"));
    assert_eq!(first(&[("/", "/var/lib/somewhere/cgroup"), own]), Path::new("/sys/fs/cgroup"));
    assert_eq!(first(&[own, ("/../..", "/host/sys/fs/cgroup")]), Path::new("/host/sys/fs/cgroup"));
    assert_eq!(first(&[own, ("/../sibling", "/b")]), Path::new("/sys/fs/cgroup"));
}

#[test]
fn mounts_that_are_covered_are_passed_over() {
    let all = Hierarchies::choose(
        mounts(
            "30 1 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
             31 1 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        ),
        |mount| mount.point != Path::new("/sys/fs/cgroup"),
    );
    assert_eq!(all.unified.unwrap().mount, Path::new("/sys/fs/cgroup/unified"));
}

#[test]
fn escapes_and_foreign_lines() {
    let found = mounts("30 1 0:30 /a\\134b /mnt/my\\040cgroup\\011\\999 rw - cgroup2 none rw\n");
    assert_eq!(found[0].root, "/a\\b");
    assert_eq!(found[0].point, Path::new("/mnt/my cgroup\t\\999"));
    let mut text = b"28 1 0:9 / /mnt/\xff\xfe rw - ext4 /dev/vda rw\nnonsense\n\n".to_vec();
    text.extend(HYBRID.bytes());
    assert_eq!(parse_mountinfo(Path::new("x"), &text).unwrap().len(), 6);
}

#[test]
fn malformed_lines_are_named() {
    let error =
        parse_mountinfo(Path::new("/p/mountinfo"), b"\nx 1 0:30 / /a rw - cgroup2 none rw\n").unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("/p/mountinfo, line 2: ")
            && message.ends_with("is /p/mountinfo a proc file system?"),
        "{message}"
    );
}

#[test]
fn roots_without_hierarchies_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let empty = Hierarchies::find(Path::new("/proc"), Some(directory.path())).unwrap_err();
    assert!(matches!(empty, MountsError::Empty { .. }), "{empty}");
    let missing = Hierarchies::find(Path::new("/proc"), Some(&directory.path().join("no"))).unwrap_err();
    assert!(matches!(missing, MountsError::Root { .. }), "{missing}");
    let no_table = Hierarchies::find(directory.path(), None).unwrap_err();
    assert!(matches!(no_table, MountsError::Unreadable { .. }), "{no_table}");
    fs::create_dir(directory.path().join("self")).unwrap();
    fs::write(directory.path().join("self/mountinfo"), "22 27 0:21 / /proc rw,relatime - proc proc rw\n")
        .unwrap();
    let none = Hierarchies::find(directory.path(), None).unwrap_err();
    assert!(matches!(none, MountsError::NoneMounted { .. }), "{none}");
}

#[test]
fn a_root_inside_a_mount_knows_where_it_is() {
    let table = mounts("41 31 0:38 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    let of = |path: &str| root_in_hierarchy(Path::new(path), Version::V2, &table);
    assert_eq!(of("/sys/fs/cgroup"), "/outer");
    assert_eq!(of("/sys/fs/cgroup/kubepods"), "/outer/kubepods");
    assert_eq!(of("/elsewhere"), "/");
}

proptest! {
    #[test]
    fn nothing_panics_on_wild_tables(
        text in "(([0-9]{1,3} ){0,2}(0:1 )?(/[a-z.\\\\0-7]{0,6} ){0,3}(rw |- |cgroup2? |name=x|,|\n|.){0,12}\n?){0,5}",
    ) {
        if let Ok(mounts) = parse_mountinfo(Path::new("x"), text.as_bytes()) {
            Hierarchies::choose(mounts, |_| true);
        }
    }

    #[test]
    fn escaping_round_trips(path in proptest::collection::vec(any::<u8>(), 0..40)) {
        let escaped: Vec<u8> = path
            .iter()
            .flat_map(|&byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                _ => vec![byte],
            })
            .collect();
        prop_assert_eq!(unescape(&escaped), path);
    }
}
