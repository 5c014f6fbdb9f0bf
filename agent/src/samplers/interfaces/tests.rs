use std::{fs, process, time::Instant};

use proptest::prelude::*;

use super::{super::skipped::Skipped, *};
use crate::{
    identity::{Names, path},
    store::Appearance,
};

const HEAD: &str = "Inter-|   Receive                                                |  Transmit\n \
    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";

const POD: &str = "/kubepods/burstable/pod11111111-2222-3333-4444-555555555555";

fn line(name: &str, first: u64) -> String {
    let numbers: Vec<String> = (first..first + 16).map(|number| number.to_string()).collect();
    format!("{name:>6}: {}\n", numbers.join("   "))
}

#[test]
fn a_line_has_both_directions() {
    let text = format!("{HEAD}{}{}", line("eth0", 10), line("cni0", 100));
    let found = parse(text.as_bytes());
    assert_eq!(found.skipped, 0);
    let eth0 = Interface {
        name: "eth0".into(),
        receive: Traffic { bytes: 10, packets: 11, errors: 12, dropped: 13 },
        transmit: Traffic { bytes: 18, packets: 19, errors: 20, dropped: 21 },
    };
    assert_eq!(found.interfaces.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["cni0", "eth0"]);
    assert_eq!(found.interfaces[1], eth0);
}

#[test]
fn interfaces_that_the_kubelet_ignores_are_ignored() {
    let names = ["lo", "veth12ab", "docker0", "Docker1", "nerdctl0", "eth0", "ifb0", "xlo"];
    let text: String = names.iter().map(|name| line(name, 1)).collect();
    let found = parse(format!("{HEAD}{text}").as_bytes());
    assert_eq!(found.interfaces.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["eth0", "ifb0", "xlo"]);
}

#[test]
fn malformed_lines_are_skipped_and_counted() {
    let mut text = format!("{HEAD}{}", line("eth0", 1)).into_bytes();
    text.extend_from_slice(
        b"  eth1: 1 2 3\n  eth2: 1 2 x 4 5 6 7 8 9 10 11 12 13 14 15 16\n nothing\n: 1\n\n",
    );
    text.extend_from_slice(line("eth0", 50).as_bytes());
    text.extend_from_slice(b"\xff\"\\: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    let found = parse(&text);
    assert_eq!(found.skipped, 5);
    let names: Vec<_> = found.interfaces.iter().map(|one| (&*one.name, one.receive.bytes)).collect();
    assert_eq!(names, [("\\xff\\\"\\\\", 1), ("eth0", 1)]);
    assert!(parse(b"").interfaces.is_empty());
}

/// A proc file system and a cgroup hierarchy of files.
struct Fixture {
    folder: tempfile::TempDir,
    round: Round,
    interfaces: InterfaceSampler,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("cgroup");
        fs::create_dir(&mount).unwrap();
        let mut round = Round::for_tests(&mount, Instant::now());
        round.config.proc_root = folder.path().join("proc");
        let mut fixture = Self { folder, round, interfaces: InterfaceSampler::default() };
        fixture.process(1, "eth0", 1000);
        fixture.cgroup("/", &[], 0.0);
        fixture
    }

    /// A process in a namespace of its own with one interface.
    fn process(&self, pid: u32, name: &str, bytes: u64) {
        let net = self.folder.path().join(format!("proc/{pid}/net"));
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("dev"), format!("{HEAD}{}{}", line("lo", 5), line(name, bytes))).unwrap();
    }

    /// A process in the network namespace of another one.
    fn neighbour(&self, pid: u32, of: u32) {
        let net = |pid| self.folder.path().join(format!("proc/{pid}/net"));
        fs::create_dir_all(net(pid)).unwrap();
        fs::hard_link(net(of).join("dev"), net(pid).join("dev")).unwrap();
    }

    fn cgroup(&mut self, path: &str, pids: &[u32], created_unix: f64) -> Key {
        let directory = self.folder.path().join("cgroup").join(&path[1..]);
        fs::create_dir_all(&directory).unwrap();
        let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(directory.join("cgroup.procs"), text).unwrap();
        let of_path = path::parse(path).unwrap();
        let appearance = Appearance { path: path.into(), of_path, created_unix, present_at_start: true };
        self.round.store.appear(appearance, 0, self.round.now)
    }

    fn container(&mut self, letter: char, pids: &[u32], created: f64) -> Key {
        self.cgroup(&format!("{POD}/{}", letter.to_string().repeat(64)), pids, created)
    }

    /// Two intervals, so that every target is due at least once.
    fn interval(&mut self) -> Skipped {
        for _ in 0..2 {
            self.round.now += self.round.config.slow_interval;
            self.interfaces.round(&mut self.round);
        }
        std::mem::take(&mut self.round.skipped)
    }

    /// The interfaces of a row, by name, with the bytes received.
    fn shown(&self, key: Key) -> Vec<(String, u64)> {
        let interfaces = self.round.store.values(key).and_then(|values| values.interfaces.clone());
        interfaces
            .iter()
            .flat_map(|all| all.iter())
            .map(|one| (one.name.to_string(), one.receive.bytes))
            .collect()
    }
}

fn eth0(bytes: u64) -> Vec<(String, u64)> {
    vec![("eth0".to_owned(), bytes)]
}

#[test]
fn a_pod_shows_its_interfaces_once_on_the_sandbox_as_soon_as_that_is_known() {
    let mut fixture = Fixture::new();
    fixture.process(20, "eth0", 20);
    fixture.neighbour(21, 20);
    let sandbox = fixture.container('a', &[20], 1.0);
    let app = fixture.container('b', &[21], 2.0);
    // Without names, the oldest is most likely the sandbox.
    assert_eq!(fixture.interval(), Skipped::default());
    assert_eq!((fixture.shown(sandbox), fixture.shown(app)), (eth0(20), vec![]));
    // Sums by pod need series with names.
    fixture.round.store.set_names(app, Arc::new(Names::default()), Level::Container);
    fixture.interval();
    assert_eq!((fixture.shown(sandbox), fixture.shown(app)), (vec![], eth0(20)));
    fixture.round.store.set_names(sandbox, Arc::new(Names::default()), Level::Sandbox);
    fixture.interval();
    assert_eq!((fixture.shown(sandbox), fixture.shown(app)), (eth0(20), vec![]));
    let root = fixture.round.store.get_by_path("/").unwrap();
    assert_eq!(fixture.shown(root), eth0(1000));
}

#[test]
fn the_next_process_is_read_if_the_first_has_exited() {
    let mut fixture = Fixture::new();
    fixture.process(20, "eth0", 20);
    let sandbox = fixture.container('a', &[], 1.0);
    let app = fixture.container('b', &[0, 999_999, 20], 2.0);
    assert_eq!(fixture.interval(), Skipped::default());
    assert_eq!((fixture.shown(sandbox), fixture.shown(app)), (eth0(20), vec![]));
    // No process is left: the row keeps its interfaces.
    fs::remove_dir_all(fixture.folder.path().join("proc/20")).unwrap();
    assert_eq!(fixture.interval(), Skipped::default());
    assert_eq!(fixture.shown(sandbox), eth0(20));
}

#[test]
fn the_hosts_namespace_is_shown_on_the_root_only() {
    let mut fixture = Fixture::new();
    fixture.neighbour(20, 1);
    let pod = fixture.container('a', &[20], 1.0);
    assert_eq!(fixture.interval(), Skipped::default());
    assert_eq!(fixture.shown(pod), []);
    assert!(fixture.round.store.values(pod).unwrap().interfaces.is_none());
    let root = fixture.round.store.get_by_path("/").unwrap();
    assert_eq!(fixture.shown(root), eth0(1000));
}

#[test]
fn without_the_hosts_namespace_no_pod_is_read() {
    let mut fixture = Fixture::new();
    fixture.process(20, "eth0", 20);
    fs::remove_dir_all(fixture.folder.path().join("proc/1")).unwrap();
    let pod = fixture.container('a', &[20], 1.0);
    let skipped = fixture.interval();
    assert!(skipped[Cause::InterfacesWithoutHost] > 0 && skipped[Cause::Interfaces] > 0, "{skipped:?}");
    assert_eq!(fixture.shown(pod), []);
    fixture.process(1, "eth0", 1000);
    fixture.interval();
    assert_eq!(fixture.shown(pod), eth0(20));
}

#[test]
fn counters_are_held_while_the_interface_is_there() {
    let mut fixture = Fixture::new();
    fixture.process(20, "eth0", 20);
    let pod = fixture.container('a', &[20], 1.0);
    fixture.interval();
    fixture.process(20, "eth0", 10);
    fixture.interval();
    assert_eq!(fixture.shown(pod), eth0(20));
}

#[test]
fn containers_that_share_a_namespace_show_it_once() {
    let mut fixture = Fixture::new();
    fixture.process(20, "eth0", 20);
    fixture.neighbour(21, 20);
    let younger = fixture.cgroup(&format!("/docker/{}", "a".repeat(64)), &[21], 9.0);
    let older = fixture.cgroup(&format!("/docker/{}", "b".repeat(64)), &[20], 8.0);
    for _ in 0..3 {
        assert_eq!(fixture.interval(), Skipped::default());
        assert_eq!((fixture.shown(older), fixture.shown(younger)), (eth0(20), vec![]));
    }
    // A pod takes precedence over both.
    fixture.neighbour(22, 20);
    let pod = fixture.container('c', &[22], 10.0);
    fixture.interval();
    assert_eq!(
        (fixture.shown(pod), fixture.shown(older), fixture.shown(younger)),
        (eth0(20), vec![], vec![])
    );
}

#[test]
fn processes_outside_the_pid_namespace_are_counted() {
    let mut fixture = Fixture::new();
    let pod = fixture.container('a', &[0, 0], 1.0);
    assert_eq!(fixture.interval()[Cause::InterfacesOutOfSight], 2);
    assert_eq!(fixture.shown(pod), []);
}

#[test]
fn the_interfaces_of_this_process_are_those_of_proc_net_dev() {
    let own = read(Path::new("/proc"), process::id()).unwrap();
    assert_eq!(own.skipped, 0);
    assert_eq!(own.namespace, fs::metadata("/proc/self/net/dev").unwrap().ino());
    let names: Vec<_> = own.interfaces.iter().map(|one| &*one.name).collect();
    let listed = fs::read_to_string("/proc/net/dev").unwrap();
    let known = listed.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let mut expected: Vec<_> = known.filter(|name| !ignored(name)).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

proptest! {
    #[test]
    fn rendered_parses_back(all in proptest::collection::btree_map("[a-z0-9.@\"\\\\_-]{1,15}", any::<[u64; 16]>(), 0..8)) {
        let mut text = HEAD.to_owned();
        for (name, numbers) in &all {
            text += &format!("{name:>6}:");
            for number in numbers {
                text += &format!(" {number:>7}");
            }
            text.push('\n');
        }
        let found = parse(text.as_bytes());
        prop_assert_eq!(found.skipped, 0);
        let expected: Vec<_> = all.iter().filter(|(name, _)| !ignored(name)).collect();
        prop_assert_eq!(found.interfaces.len(), expected.len());
        for (one, (name, numbers)) in found.interfaces.iter().zip(expected) {
            prop_assert_eq!(&*one.name, name);
            let both = [one.receive, one.transmit].map(|way| [way.bytes, way.packets, way.errors, way.dropped]);
            prop_assert_eq!(&both[0][..], &numbers[..4]);
            prop_assert_eq!(&both[1][..], &numbers[8..12]);
        }
    }

    #[test]
    fn anything_parses_to_something_with_names_of_its_own(text in proptest::collection::vec(
        prop_oneof![any::<u8>(), Just(b':'), Just(b'\n'), Just(b' '), Just(b'1')], 0..600,
    )) {
        let found = parse(&text);
        let mut names: Vec<_> = found.interfaces.iter().map(|one| one.name.clone()).collect();
        prop_assert!(names.iter().all(|name| !name.is_empty()));
        names.dedup();
        prop_assert_eq!(names.len(), found.interfaces.len());
    }
}
