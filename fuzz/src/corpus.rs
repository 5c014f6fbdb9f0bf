//! Samples of what the targets read: files of the repository, and what programs of the repository write.

use std::{fs, io, path::PathBuf};

use anyhow::{Context as _, Result};
use snug::evidence::Snapshot;
use snug_agent::history::{DIRECTORY, Store};
use snug_sizing::evidence::Hour;
use tempfile::TempDir;

/// The day of the samples of history files, in days since the Unix epoch.
pub(crate) const HISTORY_DAY: u32 = 20_000;

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

fn file(path: &str) -> Result<Vec<u8>> {
    fs::read(root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn files(paths: &[&str]) -> Result<Vec<Vec<u8>>> {
    paths.iter().map(|path| file(path)).collect()
}

fn texts(texts: &[&str]) -> Result<Vec<Vec<u8>>> {
    Ok(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// Inputs of `fuzz/corpus` for a target: those that were once mishandled, and samples that no program here writes.
pub(crate) fn found(target: &str) -> Result<Vec<Vec<u8>>> {
    let folder = root().join("fuzz/corpus").join(target);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).with_context(|| format!("cannot read {}", path.display())))
        .collect()
}

/// A temporary folder, in memory if possible.
pub(crate) fn scratch() -> io::Result<TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }
}

pub(crate) fn cgroup_paths() -> Result<Vec<Vec<u8>>> {
    let mut samples = files(&[
        "tests/fixtures/kubelet-1.20/cgroup-tree-memory.txt",
        "tests/fixtures/kubelet-1.36/cgroup-tree-memory.txt",
    ])?;
    samples.extend(texts(&[
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b2e5e2c_8d5f_4c7b_a4fb_3e4a7b0a1c11.slice/\
         cri-containerd-3f0c8b9f5a1d4e6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d.scope",
        "/kubepods/besteffort/pod0b2e5e2c-8d5f-4c7b-a4fb-3e4a7b0a1c11/3f0c8b9f5a1d4e6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d",
        "/docker/3f0c8b9f5a1d4e6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d/kubelet/kubepods/burstable",
        "/machine.slice/libpod-3f0c8b9f5a1d4e6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d.scope/container",
        "/system.slice/ssh@4-10.0.0.1:22-10.0.0.2:51114.service\n/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/lxc.payload.web/init.scope\n/system.slice/a\\x2db.service\n/",
    ])?);
    Ok(samples)
}

pub(crate) fn cgroup_files() -> Result<Vec<Vec<u8>>> {
    texts(&[
        "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 3\nnr_throttled 1\nthrottled_usec 70\nnr_bursts 1\nburst_usec 4\n",
        "nr_periods 3\nnr_throttled 1\nthrottled_time 70000\n",
        "user 120\nsystem 30\n",
        "max 100000\n",
        "-1\n",
        "9223372036854771712\n",
        "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "some avg10=0.00 avg60=1.20 avg300=0.31 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=999\n",
        "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n(unknown) rbytes=0\n259:1\n",
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 0\n8:0 Total 12288\nTotal 12288\n",
        "anon 1000\nfile 2000\nkernel 300\nkernel_stack 16384\nslab 4096\nsock 0\nshmem 0\nfile_mapped 10\nfile_dirty 0\n\
         inactive_anon 0\nactive_anon 1000\ninactive_file 1500\nactive_file 500\npgfault 7\npgmajfault 1\nworkingset_refault_anon 0\n\
         workingset_refault_file 3\n",
        "cache 2000\nrss 1000\ntotal_cache 2000\ntotal_rss 1000\ntotal_inactive_file 1500\ntotal_active_file 500\ntotal_pgfault 7\n\
         total_pgmajfault 1\nhierarchical_memory_limit 9223372036854771712\n",
    ])
}

pub(crate) fn mounts() -> Result<Vec<Vec<u8>>> {
    let mut samples = texts(&[
        "31 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
        "32 31 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
         33 31 0:28 / /sys/fs/cgroup/a\\040b rw master:3 - cgroup none rw,name=systemd\n",
    ])?;
    samples.extend(fs::read("/proc/self/mountinfo"));
    Ok(samples)
}

pub(crate) fn proc_files() -> Result<Vec<Vec<u8>>> {
    let mut samples = texts(&["0-3,8\n", "0\n"])?;
    samples.extend(fs::read("/proc/net/dev"));
    Ok(samples)
}

/// `corpus/btf` has the types of Linux 6.18 that the programs read.
pub(crate) fn btf() -> Result<Vec<Vec<u8>>> {
    Ok(Vec::new())
}

/// Records of integers: a kind, and enough zeros for the longest.
pub(crate) fn kernel_events() -> Result<Vec<Vec<u8>>> {
    let of_kind = |kind: u32| kind.to_ne_bytes().into_iter().chain(std::iter::repeat_n(0, 8192)).collect();
    Ok((0..8).map(of_kind).collect())
}

pub(crate) fn pods() -> Result<Vec<Vec<u8>>> {
    files(&[
        "tests/fixtures/kubelet-1.20/kubelet-pods.json",
        "tests/fixtures/kubelet-1.32/kubelet-pods.json",
        "tests/fixtures/kubelet-1.36/kubelet-pods.json",
        "tests/fixtures/kubelet-1.36/pods-resources.json",
    ])
}

/// The lists, and each pod of one as events.
pub(crate) fn watch_events() -> Result<Vec<Vec<u8>>> {
    let mut samples = pods()?;
    let list: serde_json::Value =
        serde_json::from_slice(&file("tests/fixtures/kubelet-1.36/pods-resources.json")?)?;
    for pod in list["items"].as_array().into_iter().flatten() {
        let event = |kind: &str| serde_json::json!({"type": kind, "object": pod}).to_string();
        samples.push(["ADDED", "MODIFIED", "DELETED"].map(event).join("\n").into_bytes());
    }
    samples.extend(texts(&[
        r#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12746","creationTimestamp":null}}}"#,
        r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}}"#,
    ])?);
    Ok(samples)
}

/// Encoded by hand: field numbers and lengths.
pub(crate) fn cri_answers() -> Result<Vec<Vec<u8>>> {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
        // Two bytes for lengths of 128 and more.
        let length = if length < 128 { vec![length] } else { vec![length, 1] };
        [vec![number << 3 | 2], length, content.to_vec()].concat()
    };
    let label =
        |key: &str, value: &str| field(8, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let container = [
        field(1, b"3f0c8b9f5a1d"),
        field(4, &field(1, b"docker.io/library/nginx:1.27")),
        label("io.kubernetes.pod.namespace", "shop"),
        label("a", "b"),
    ];
    let sandbox = [
        field(1, b"3f0c8b9f5a1d"),
        field(2, &[field(1, b"web-0"), field(2, b"uid"), field(3, b"shop")].concat()),
    ];
    Ok(vec![
        field(1, &container.concat()),
        field(1, &sandbox.concat()),
        field(1, &sandbox.concat()).repeat(3),
    ])
}

pub(crate) fn bundles() -> Result<Vec<Vec<u8>>> {
    texts(&[
        r#"{"ociVersion":"1.1.0","process":{"args":["nginx"]},"annotations":{"io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"nginx:1.27",
            "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"shop"}}"#,
        r#"{"annotations":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop",
            "io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.ImageName":"nginx:1.27"}}"#,
    ])
}

pub(crate) fn configuration() -> Result<Vec<Vec<u8>>> {
    texts(&[
        "--listen=127.0.0.1:9920\n--sample-interval\nSNUG_SLOW_INTERVAL=30s\nlog-level = \"info\"\ndrop-labels = [\"image\"]\n",
        "--check-config\nworking-set-interval = \"1s\"\notlp-endpoint = \"http://localhost:4317\"\notlp-headers = [\"a=b\"]\n",
        "SNUG_NESTED_NODES=/docker/*\nmax-cgroups = 4096\nsample-interval = \"100ms\"\ntls-listen = \"[::]:9921\"\n",
    ])
}

pub(crate) fn queries() -> Result<Vec<Vec<u8>>> {
    texts(&[
        "namespace=shop&pod=web-0&container=app\nnamespace=a%20b&limit=10\n",
        "since=12&kind=oom_kill&limit=1000\nafter=18446744073709551615",
        "since=1700000000\nsince=2026-01-01T00%3A00%3A00Z&workload=web&minutes=true",
    ])
}

pub(crate) fn accept_headers() -> Result<Vec<Vec<u8>>> {
    texts(&[
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\ngzip;q=1.0, identity",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7",
    ])
}

/// The file of a day with real records, appended and sealed.
pub(crate) fn history_files() -> Result<Vec<Vec<u8>>> {
    let mut snapshot = Snapshot::default();
    snapshot.read("web.ndjson", &*file("tests/fixtures/advice/web-and-db.ndjson")?)?;
    let folder = scratch()?;
    let mut batch = Vec::new();
    for evidence in snapshot.evidence().take(2) {
        let mut evidence = evidence.clone();
        let records = std::mem::take(&mut evidence.hours);
        evidence.minutes.clear();
        evidence.hours.extend((0..3).map(|hour| Hour(HISTORY_DAY * 24 + hour)).zip(records.into_values()));
        batch.push(evidence);
    }
    let mut samples = Vec::new();
    let path = folder.path().join(DIRECTORY).join(format!("day-{HISTORY_DAY}"));
    let (store, _) = Store::open(folder.path())?;
    for is_sealed in [false, true] {
        store.add(&batch)?;
        if is_sealed {
            store.seal_all()?;
        }
        samples.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(samples)
}

/// The values of the frames of [`history_files`]: a header of 20 bytes with both lengths, then the key.
pub(crate) fn history_records() -> Result<Vec<Vec<u8>>> {
    let mut samples = Vec::new();
    for file in history_files()? {
        let mut rest = &*file;
        while let Some((header, after)) = rest.split_at_checked(20) {
            let key = usize::from(u16::from_le_bytes([header[10], header[11]]));
            let value = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
            samples.push(after.get(key..key + value).context("a frame is cut off")?.to_vec());
            rest = &after[key + value..];
        }
    }
    Ok(samples)
}

pub(crate) fn exposition() -> Result<Vec<Vec<u8>>> {
    files(&["agent/src/exporters/golden/metrics.txt", "tests/fixtures/kubelet-1.36/metrics-resource.txt"])
}

pub(crate) fn snapshots() -> Result<Vec<Vec<u8>>> {
    files(&[
        "tests/fixtures/advice/web.ndjson",
        "tests/fixtures/advice/web-and-db.ndjson",
        "tests/fixtures/advice/two-window-lengths.ndjson",
    ])
}

pub(crate) fn prometheus_answers() -> Result<Vec<Vec<u8>>> {
    let series = |labels: &str, values: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{{labels}}},{values}}}]}}}}"#
        )
    };
    let container = r#""namespace":"shop","pod":"web-0","container":"app","node":"one","job":"kubelet""#;
    let values: Vec<String> =
        (0..400).map(|at| format!("[{},\"0.{at}\"]", 1_764_000_000 - at * 60)).collect();
    Ok(vec![
        series(container, &format!(r#""values":[{}]"#, values.join(","))).into_bytes(),
        series(container, r#""value":[1764000000.781,"42"]"#).into_bytes(),
        series(container, r#""value":[1764000000,"1e9"],"histogram":[1764000000,{"count":"3","sum":"1","buckets":[[0,"0.1","0.2","3"]]}]"#)
            .into_bytes(),
        br#"{"status":"success","isPartial":true,"warnings":["a store is missing"],"data":{"resultType":"vector","result":[]}}"#.to_vec(),
    ])
}

pub(crate) fn traces() -> Result<Vec<Vec<u8>>> {
    let heading = "namespace,pod,container,node,0,1,2,3\n";
    let rows = "shop,web-5d8f9c7b6-x2x4z,app,one,1,2.5,,4\nshop,db-0,db,two,,,7,9007199254740992\n";
    Ok(vec![format!("{heading}{rows}\x0c{heading}{rows}").into_bytes()])
}

pub(crate) fn policies() -> Result<Vec<Vec<u8>>> {
    texts(&[
        "policies:\n  - match: {namespace: shop}\n    risk: critical\n    min: {cpu: 50m, memory: 64Mi}\n  - match: {workload: \"batch-*\"}\n\
         \x20   risk: oom=0.1,cpu=0.2\n    cpuLimit: by-risk\n    thresholds: {throttled: 0.5}\n  - match: {namespace: kube-system}\n    exclude: true\n",
        "{risk: critical, max: {memory: 2Gi}, horizon: 7d, qos: keep}",
    ])
}

/// Files of kustomizations and charts.
const YAML: &[&str] = &[
    "cli/tests/fixtures/json-patches/overlays/prod/kustomization.yaml",
    "cli/tests/fixtures/plain/shop.yaml",
    "cli/tests/fixtures/podinfo-deploy/bases/backend/deployment.yaml",
    "cli/tests/fixtures/podinfo-deploy/overlays/production/kustomization.yaml",
    "cli/tests/fixtures/podinfo-releases/apps/podinfo.yaml",
    "cli/tests/fixtures/springboot/overlays/production/memorylimit_patch.yaml",
];

pub(crate) fn yaml() -> Result<Vec<Vec<u8>>> {
    let mut samples = files(YAML)?;
    samples.extend(texts(&[
        "a: &x {b: [1, 'two', \"th\\u0072ee\"]}\nc: *x\nd:\n  <<: *x\n  e: |-\n    text\n    f: 1\n",
        "- op: replace\n  path: /spec\n  value: {cpu: 1}\n-\n-   \n- [a, {b: c}]\n--- \n? key\n: value\n...\n",
        "patches:\n- patch: |-\n    - op: add\n      path: /a\n      value: 1\n  target: {kind: Deployment}\n",
    ])?);
    Ok(samples)
}

pub(crate) fn manifests() -> Result<Vec<Vec<u8>>> {
    let folder = |files: &[&str]| -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for name in files {
            let short = name
                .rsplitn(4, '/')
                .take(3)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("/");
            all.extend(format!("=== {short}\n").bytes());
            all.extend(file(name)?);
        }
        Ok(all)
    };
    Ok(vec![
        folder(&[
            "cli/tests/fixtures/json-patches/base/api.yaml",
            "cli/tests/fixtures/json-patches/base/kustomization.yaml",
            "cli/tests/fixtures/json-patches/overlays/prod/kustomization.yaml",
        ])?,
        folder(&["cli/tests/fixtures/plain/shop.yaml", "cli/tests/fixtures/plain/other.yaml"])?,
        folder(&[
            "cli/tests/fixtures/podinfo-releases/apps/podinfo.yaml",
            "cli/tests/fixtures/podinfo-releases/apps/argo.yaml",
        ])?,
    ])
}
