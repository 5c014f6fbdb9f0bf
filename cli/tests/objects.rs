//! What `snug recommend` makes of the objects of a cluster: templates, managers, bare pods, and what is gone.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

mod api_server;
#[path = "../../tests/src/http.rs"]
pub mod http;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use snug_sizing::{
    evidence::{Evidence, HOUR, Header, Hour, HourRecord, Peak, PodTotals},
    workload::{Container, Resources, Role, Workload, WorkloadKind},
};

const MIB: u64 = 1 << 20;
const NOW: u64 = 1_800_000_000 / HOUR * HOUR;

/// Thirty hours of a container, the last of which ended some hours ago.
fn container(owner: &str, name: &str, container: &str, ago: u64) -> Evidence {
    let workload = Workload {
        namespace: if owner == "Unit" { "" } else { "shop" }.to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        kind: WorkloadKind::from_owner(owner),
        replicas: u64::from(ago == 0),
    };
    let current = Resources {
        cpu_request: Some(500),
        cpu_limit: None,
        memory_request: Some(512 * MIB),
        memory_limit: Some(512 * MIB),
    };
    let of =
        Container { name: container.to_owned(), seen: NOW - ago * HOUR, current, ..Container::default() };
    let mut evidence = Evidence::new(workload, of, 100);
    for hour in 1..=30 {
        let at = NOW - (ago + hour) * HOUR;
        let mut record = HourRecord { observed: HOUR, ..HourRecord::default() };
        record.cpu.record(0.1, 36_000);
        record.minutes.record(0.1, 60);
        record.working_set.record(60.0 * MIB as f64, 360);
        record.unreclaimable.record(60.0 * MIB as f64, 360);
        record.peak = Some(Peak { bytes: 60 * MIB, at, pod: format!("{name}-0") });
        evidence.hours.insert(Hour::from_seconds(at), record);
    }
    let totals = PodTotals { observed: 30 * HOUR, ..PodTotals::default() };
    evidence.pods.insert(if owner == "Pod" { name.to_owned() } else { format!("{name}-0") }, totals);
    evidence
}

fn snapshot(all: &[Evidence]) -> String {
    let mut text = serde_json::to_string(&Header::new("node-1", NOW)).unwrap() + "\n";
    all.iter().for_each(|one| text += &(serde_json::to_string(one).unwrap() + "\n"));
    text
}

/// An API server with these answers by path, and 404 for the rest. Answers the agent's evidence too.
struct ApiServer {
    kubeconfig: tempfile::NamedTempFile,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    fn start(all: &[Evidence], mut answers: BTreeMap<&'static str, Value>) -> Self {
        let agent = json!({
            "metadata": { "namespace": "snug", "name": "agent" }, "spec": { "containers": [{ "name": "agent" }] },
            "status": { "phase": "Running" },
        });
        let evidence = snapshot(all);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        answers.entry("/version").or_insert_with(|| version("33"));
        let answer = move |head: &str| {
            let target = head.split(' ').nth(1).unwrap();
            kept.lock().unwrap().push(target.to_owned());
            let path = target.split('?').next().unwrap();
            let of_agents = target.contains("snug-agent").then(|| list("v1", "PodList", &json!([agent])));
            match answers.get(path) {
                answer if path == "/api/v1/pods" => {
                    let mut pods =
                        of_agents.or(answer.cloned()).unwrap_or_else(|| list("v1", "PodList", &json!([])));
                    if head.contains("PartialObjectMetadata") {
                        pods["kind"] = "PartialObjectMetadataList".into();
                        pods["apiVersion"] = "meta.k8s.io/v1".into();
                    }
                    ("200 OK", pods.to_string())
                }
                Some(answer) => ("200 OK", answer.to_string()),
                None => (
                    "404 Not Found",
                    json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 })
                        .to_string(),
                ),
            }
        };
        let kubeconfig = api_server::start(answer, move |_| Some(evidence.clone()));
        Self { kubeconfig, requests }
    }

    fn recommend(&self, arguments: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig.path();
        let output =
            snug(&[&["recommend", "--kubeconfig", kubeconfig.to_str().unwrap()], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.recommend(arguments).stdout).unwrap()
    }
}

fn version(minor: &str) -> Value {
    let fields =
        ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    let mut version: Value = fields.map(|field| (field.to_owned(), Value::from("x"))).into_iter().collect();
    (version["major"], version["minor"]) = ("1".into(), minor.into());
    version
}

fn list(api: &str, kind: &str, items: &Value) -> Value {
    json!({ "apiVersion": api, "kind": kind, "metadata": { "resourceVersion": "1" }, "items": items })
}

fn deployments(items: &Value) -> (&'static str, Value) {
    ("/apis/apps/v1/deployments", list("apps/v1", "DeploymentList", items))
}

fn deployment(name: &str, metadata: &Value, init: &[&str], containers: &[&str]) -> Value {
    let named = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({ "name": name, "image": "example/app:1" })).collect()
    };
    let mut init: Value = named(init);
    init.as_array_mut().unwrap().iter_mut().for_each(|one| one["restartPolicy"] = "Always".into());
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "namespace": "shop", "name": name },
        "spec": { "template": { "spec": { "initContainers": init, "containers": named(containers) } } },
    });
    object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    object
}

fn snug(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snug"));
    // As in a small image. A server without TLS needs no root certificates.
    command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/dev/null");
    command.args(arguments).env_remove("KUBECONFIG").output().unwrap()
}

fn on_file(all: &[Evidence], arguments: &[&str]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(snapshot(all).as_bytes()).unwrap();
    let output = snug(&[&["recommend", "--file", file.path().to_str().unwrap()], arguments].concat());
    String::from_utf8(output.stdout).unwrap()
}

/// The container names of the patch of a workload, in the order of sections and names.
fn patched(script: &str, workload: &str) -> Vec<String> {
    let command = script.lines().find(|line| line.starts_with("kubectl") && line.contains(workload));
    let json = command.and_then(|command| command.split('\'').nth(1)).unwrap_or("null");
    let patch: Value = serde_json::from_str(json).unwrap();
    let pod = &patch["spec"]["template"]["spec"];
    let all =
        ["initContainers", "containers"].map(|section| pod[section].as_array().cloned().unwrap_or_default());
    all.concat().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_container_in_two_window_lengths_is_one_row() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/advice/two-window-lengths.ndjson");
    let output = |format: &str| {
        let output = snug(&["recommend", "--file", file.to_str().unwrap(), "-o", format]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(patched(&output("patch"), "deployment/web"), ["app"]);
    let said: Value = serde_json::from_str(&output("json")).unwrap();
    let rows = said["recommendations"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["replicas"]), (1, &json!(2)));
    assert!(
        rows[0]["warnings"].to_string().contains("windows of several lengths are not comparable"),
        "{rows:?}"
    );
    // Twice the request of one pod.
    let table = output("table");
    let total = table.lines().find(|line| line.starts_with("all pods ")).unwrap();
    assert!(total.contains(" 2000 → ") && total.contains(" 2048 → "), "{table}");
}

#[test]
fn rows_and_totals_are_grouped_by_a_label() {
    let all = ["web", "api", "cron"].map(|name| container("Deployment", name, "app", 0));
    let pod = |name: &str, team: &str| {
        json!({
            "metadata": { "namespace": "shop", "name": name, "labels": { "team": team } },
            "spec": { "containers": [{ "name": "app" }] }, "status": { "phase": "Running" },
        })
    };
    let pods = json!([pod("web-0", "front"), pod("api-0", "back"), pod("cron-0", "back")]);
    let answers = BTreeMap::from([("/api/v1/pods", list("v1", "PodList", &pods))]);
    let server = ApiServer::start(&all, answers);
    let said: Value = serde_json::from_str(&server.text(&["--group-by", "team", "-o", "json"])).unwrap();
    let totals: Vec<(&str, u64)> = said["totals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["containers"].as_u64().unwrap()))
        .collect();
    assert_eq!((totals, &said["group_by"]), (vec![("back", 2), ("front", 1)], &"team".into()));
    let table = server.text(&["--group-by", "team"]);
    let at = |part: &str| table.find(part).unwrap_or_else(|| panic!("{part}: {table}"));
    assert!(at("team=back\n") < at("shop/api") && at("shop/cron") < at("team=front\n"));
    assert!(at("team=front\n") < at("shop/web"));
}

#[test]
fn a_container_that_is_gone_is_not_in_the_patch() {
    let all = [container("StatefulSet", "web", "app", 0), container("StatefulSet", "web", "old-logger", 10)];
    assert_eq!(patched(&on_file(&all, &["-o", "patch"]), "statefulset/web"), ["app"]);
    let table = on_file(&all, &[]);
    assert!(
        table
            .contains("shop/web/old-logger: not seen for 10 h while its workload ran: the container is gone"),
        "{table}"
    );
}

#[test]
fn an_injected_container_is_not_in_the_patch_and_its_row_names_the_annotations() {
    let all = [container("Deployment", "mesh", "app", 0), container("Deployment", "mesh", "istio-proxy", 0)];
    let script = on_file(&all, &["-o", "patch"]);
    assert_eq!(patched(&script, "deployment/mesh"), ["app"]);
    assert!(script.contains("# shop/mesh istio-proxy: Istio adds this container"), "{script}");
    let said: Value = serde_json::from_str(&on_file(&all, &["-o", "json"])).unwrap();
    let row = &said["recommendations"][1];
    let annotations = row["warnings"][0]["annotations"].as_object().unwrap();
    assert_eq!(annotations["sidecar.istio.io/proxyMemoryLimit"], row["quantities"]["limits"]["memory"]);
    assert_eq!(annotations["sidecar.istio.io/proxyCPU"], row["quantities"]["requests"]["cpu"]);
}

#[test]
fn templates_managers_and_absent_workloads_are_read_from_the_cluster() {
    let all = [
        container("Deployment", "web", "app", 0),
        container("Deployment", "web", "mesh", 0),
        container("Deployment", "web", "extra", 0),
        container("Deployment", "gone", "app", 0),
        container("Deployment", "argo", "app", 0),
        container("Deployment", "gateway", "istio-proxy", 0),
    ];
    let items = json!([
        deployment("web", &json!({}), &["mesh"], &["app"]),
        deployment(
            "argo",
            &json!({ "annotations": { "argocd.argoproj.io/tracking-id": "store:apps/Deployment:shop/argo" } }),
            &[],
            &["app"]
        ),
        deployment("gateway", &json!({}), &[], &["istio-proxy"]),
    ]);
    let server = ApiServer::start(&all, [deployments(&items)].into());
    let script = server.text(&["-o", "patch"]);
    assert_eq!(patched(&script, "deployment/web"), ["mesh", "app"]);
    assert!(script.contains("# shop/web extra: the pod template does not have this container"), "{script}");
    assert_eq!(patched(&script, "deployment/gateway"), ["istio-proxy"], "its template has it");
    assert!(
        !script.contains("deployment/gone") && script.contains("\n# kubectl -n shop patch deployment/argo"),
        "{script}"
    );
    assert!(script.contains("change it in the source of the Argo CD application store"), "{script}");
    let table = server.text(&[]);
    assert!(table.contains("shop/gone/app: the cluster has no Deployment of this name now"), "{table}");
    assert!(table.contains("shop/argo app: Argo CD (application store) manages this workload"), "{table}");
    let requests = server.requests.lock().unwrap().clone();
    let lists = |path: &str| requests.iter().filter(|request| request.starts_with(path)).count();
    assert_eq!(
        (lists("/apis/apps/v1/deployments"), lists("/apis/apps/v1/statefulsets")),
        (2, 0),
        "{requests:?}"
    );
}

#[test]
fn an_unreadable_list_is_no_list_without_objects() {
    let server = ApiServer::start(&[container("Deployment", "web", "app", 0)], BTreeMap::new());
    let output = server.recommend(&["-o", "patch"]);
    assert_eq!(patched(&String::from_utf8(output.stdout).unwrap(), "deployment/web"), ["app"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot list deployments"), "{error}");
}

#[test]
fn a_bare_pod_is_resized_where_the_version_can() {
    let all = [container("Pod", "tool", "app", 0)];
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "shop", "name": "tool" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "app", "resources": {
            "requests": { "cpu": "500m", "memory": "512Mi" }, "limits": { "memory": "512Mi" },
        } }] },
        "status": { "qosClass": "Burstable" },
    });
    for (minor, expected) in [
        ("32", "# shop/tool: cannot be patched: bare pod; Kubernetes 1.32 cannot resize pods"),
        ("33", "# shop/tool: app: the memory limit stays"),
        (
            "34+",
            "kubectl -n shop patch pod/tool --subresource resize --type strategic --patch '{\"spec\":{\"containers\":[{\"name\":\"app\"",
        ),
    ] {
        // The kubelet is older than the API server.
        let info = [
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ];
        let mut info: Value = info.map(|field| (field.to_owned(), Value::from("x"))).into_iter().collect();
        info["kubeletVersion"] = format!("v1.{}.1", minor.trim_end_matches('+')).into();
        let node = json!({ "metadata": { "name": "n1" }, "status": { "nodeInfo": info } });
        let answers = [
            ("/api/v1/pods", list("v1", "PodList", &json!([pod]))),
            ("/api/v1/nodes", list("v1", "NodeList", &json!([node]))),
            ("/version", version("35")),
        ];
        let script = ApiServer::start(&all, answers.into()).text(&["-o", "patch"]);
        assert!(script.starts_with(expected), "{minor}: {script}");
        assert_eq!(script.contains("--subresource resize"), minor != "32", "{script}");
    }
}

#[test]
fn runs_of_a_cron_job_are_one_row() {
    let run = |ago: u64| {
        let mut run = container("Job", &format!("backup-{}", (NOW - ago * HOUR) / 60), "app", 0);
        run.hours = run
            .hours
            .into_iter()
            .rev()
            .take(1)
            .map(|(_, record)| (Hour::from_seconds(NOW - ago * HOUR), record))
            .collect();
        run
    };
    let all = [1, 25, 49].map(run);
    let said: Value = serde_json::from_str(&on_file(&all, &["-o", "json"])).unwrap();
    let rows = said["recommendations"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["owner"], &rows[0]["workload"]),
        (1, &json!("CronJob"), &json!("backup"))
    );
    assert!(on_file(&all, &["-o", "patch"]).contains("patch cronjob/backup"));
}

#[test]
fn a_native_sidecar_that_only_metrics_show_stays_in_its_section() {
    let with_image = |image: &str| {
        let mut sidecar = container("StatefulSet", "web", "istio-proxy", 0);
        sidecar.container.role = Role::Sidecar;
        image.clone_into(&mut sidecar.container.image);
        on_file(&[container("StatefulSet", "web", "app", 0), sidecar], &["-o", "patch"])
    };
    let script = with_image("");
    assert_eq!(patched(&script, "statefulset/web"), ["istio-proxy", "app"]);
    assert!(script.contains("# shop/web istio-proxy: if Istio adds this container"), "{script}");
    assert_eq!(patched(&with_image("example/proxy:1"), "statefulset/web"), ["app"], "an agent saw the pods");
}

#[test]
fn init_containers_stay_in_their_section() {
    let mut init = container("Deployment", "web", "migrate", 20);
    init.container.role = Role::Init;
    let all = [container("Deployment", "web", "app", 0), init];
    let script = on_file(&all, &["-o", "patch"]);
    assert_eq!(patched(&script, "deployment/web"), ["migrate", "app"]);
    assert!(script.contains("\"initContainers\":[{\"name\":\"migrate\""), "{script}");
}

#[test]
fn one_run_lists_pods_and_nodes_once() {
    let bare = container("Pod", "tool", "app", 0);
    let pods = json!([
        { "metadata": { "namespace": "shop", "name": "web-0", "annotations": { "snug/policy": "exclude: true" } } },
        { "metadata": { "namespace": "shop", "name": "tool" }, "status": { "phase": "Running" }, "spec": { "nodeName": "n", "containers": [
            { "name": "app", "resources": { "requests": { "memory": "512Mi" }, "limits": { "memory": "512Mi" } } },
        ] } },
    ]);
    let node = json!([{ "metadata": { "name": "n" }, "status": { "allocatable": { "cpu": "4", "memory": "8Gi" } } }]);
    let answers = [
        ("/api/v1/pods", list("v1", "PodList", &pods)),
        ("/api/v1/nodes", list("v1", "NodeList", &node)),
        deployments(&json!([deployment("web", &json!({}), &[], &["app"])])),
    ];
    let server = ApiServer::start(&[container("Deployment", "web", "app", 0), bare], answers.into());
    let text = server.text(&["--price", "cpu=0.03,memory=0.004"]);
    assert!(
        text.contains("excluded by a policy") && text.contains("Nodes that packing could empty"),
        "{text}"
    );
    let patch = server.text(&["-o", "patch"]);
    assert!(patch.contains("kubectl -n shop patch pod/tool --subresource resize"), "{patch}");
    let requests = server.requests.lock().unwrap();
    let lists = |path: &str| {
        let all =
            requests.iter().filter(|it| it.split('?').next() == Some(path) && !it.contains("snug-agent"));
        all.count()
    };
    // Two runs.
    assert_eq!((lists("/api/v1/pods"), lists("/api/v1/nodes")), (2, 2), "{requests:?}");
}

#[test]
fn the_pod_that_a_rollout_adds_needs_quota_and_a_node() {
    let metadata = json!({ "namespace": "shop", "name": "web-0" });
    let resources =
        json!({ "requests": { "cpu": "500m", "memory": "512Mi" }, "limits": { "memory": "512Mi" } });
    let pods = json!([{
        "metadata": metadata, "status": { "phase": "Running" },
        "spec": { "nodeName": "n", "containers": [{ "name": "app", "resources": resources }] },
    }]);
    let node = json!([{ "metadata": { "name": "n" }, "status": { "allocatable": { "cpu": "4", "memory": "600Mi" } } }]);
    let amounts = |memory: &str| json!({ "requests.memory": memory });
    let quota = json!([{
        "metadata": { "namespace": "shop", "name": "q" }, "status": { "hard": amounts("600Mi"), "used": amounts("512Mi") },
    }]);
    let text = |strategy: &Value| {
        let mut web = deployment("web", &json!({}), &[], &["app"]);
        (web["spec"]["replicas"], web["spec"]["strategy"]) = (1.into(), strategy.clone());
        let answers = [
            ("/api/v1/pods", list("v1", "PodList", &pods)),
            ("/api/v1/nodes", list("v1", "NodeList", &node)),
            ("/api/v1/resourcequotas", list("v1", "ResourceQuotaList", &quota)),
            deployments(&json!([web])),
        ];
        ApiServer::start(&[container("Deployment", "web", "app", 0)], answers.into()).text(&[])
    };
    // One replica: 25 % are no pod that may be unavailable, and one more.
    let found = text(&Value::Null);
    assert!(
        found.contains("more requests.memory for a while, but the ResourceQuota q has 88Mi left"),
        "{found}"
    );
    assert!(found.contains("no node has room for its cpu request"), "{found}");
    for strategy in [json!({ "type": "Recreate" }), json!({ "rollingUpdate": { "maxUnavailable": 1 } })] {
        let found = text(&strategy);
        assert!(!found.contains("a rollout starts a new pod"), "{found}");
    }
}
