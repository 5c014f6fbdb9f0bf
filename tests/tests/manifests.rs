//! Tests of `deploy/`: kustomize and helm render the same objects, the objects are valid for many versions of Kubernetes, and
//! the agent knows all options that they set. Monitors belong to the Prometheus Operator: their kinds have no schemas here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use serde_json::Value;
use snug_agent::tls;
use snug_sizing::quantity::Quantity;
use snug_tests::{
    manifests::{Tools, deploy, objects},
    required,
};

/// The versions with schemas. 1.20 is the version of the node in the cluster tests.
const VERSIONS: std::ops::RangeInclusive<u32> = 25..=37;

/// A kustomize component and the chart values that enable the same. The last two exclude others.
const FEATURES: [(&str, &[&str]); 15] = [
    ("cri-socket", &["--set", "criSocket=/run/containerd/containerd.sock"]),
    ("owner-lookup", &["--set", "ownerLookup=true"]),
    ("kube-state-metrics", &["--set", "kubeStateMetrics=true"]),
    ("process-metrics", &["--set", "processMetrics=true"]),
    ("memory-peaks", &["--set", "memoryPeaks=true"]),
    ("metrics-server", &["--set", "hostNetwork=true"]),
    ("pod-monitor", &["--set", "podMonitor.enabled=true"]),
    ("service-monitor", &["--set", "serviceMonitor.enabled=true"]),
    ("prometheus-rule", &["--set", "prometheusRule.enabled=true"]),
    ("grafana-dashboards", &["--set", "grafanaDashboards.enabled=true"]),
    ("token-reviews", &["--set", "tokenReviews=true"]),
    ("cert-manager", &["--set", "certificates.source=cert-manager"]),
    ("runtime-cri-o", &["--set", "runtime=cri-o"]),
    ("runtime-k3s", &["--set", "runtime=k3s"]),
    ("no-bundles", &["--set", "bundles=false"]),
];

/// The base has no certificates; the chart makes some.
const WITHOUT_CERTIFICATES: [&str; 2] = ["--set", "certificates.source=none"];

fn tools() -> Option<Tools> {
    required(Tools::given())
}

/// Objects by kind and name, with unordered lists sorted. The namespace is left out: helm creates it, not the chart.
fn by_name(yaml: &str) -> BTreeMap<String, Value> {
    let named = objects(yaml).unwrap().into_iter().map(|mut object| {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        sort(&mut object);
        (name, object)
    });
    named.filter(|(_, object)| object["kind"] != "Namespace").collect()
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(sort),
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(ToString::to_string);
        }
        _ => {}
    }
}

fn assert_same(kustomize: &str, helm: &str) {
    let (kustomize, helm) = (by_name(kustomize), by_name(helm));
    assert_eq!(kustomize.keys().collect::<Vec<_>>(), helm.keys().collect::<Vec<_>>());
    for (name, object) in &kustomize {
        assert_eq!(object, &helm[name], "{name}: kustomize, and then helm");
    }
}

/// No feature, each feature alone, and all compatible features together.
fn combinations() -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let mut all = vec![(vec![], vec![])];
    all.extend(FEATURES.map(|(component, values)| (vec![component], values.to_vec())));
    let together = &FEATURES[..FEATURES.len() - 2];
    all.push((
        together.iter().map(|(component, _)| *component).collect(),
        together.iter().flat_map(|(_, values)| values.to_vec()).collect(),
    ));
    for (_, values) in &mut all {
        values.splice(0..0, WITHOUT_CERTIFICATES);
    }
    all
}

#[test]
fn every_component_is_tested() {
    let folders = fs::read_dir(deploy().join("components")).unwrap();
    let there: BTreeSet<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, FEATURES.map(|(component, _)| component.to_owned()).into());
}

#[test]
fn kustomize_and_helm_render_the_same() {
    let Some(tools) = tools() else { return };
    for (components, values) in combinations() {
        println!("{components:?}");
        assert_same(&tools.kustomize(&components).unwrap(), &tools.helm(&values).unwrap());
    }
}

/// Fields that the API server keeps also when they are `false`, 0 or empty: pointers in Go types.
const KEPT: [&str; 3] = ["allowPrivilegeEscalation", "runAsUser", "selfSigned"];

/// Paths of fields that the API server returns in another form: it drops `false`, 0, empty texts, lists and objects, and writes
/// quantities in their canonical form. `kubectl apply` would find a difference each time.
fn not_as_returned(value: &Value, path: &str, found: &mut Vec<String>) {
    let is_dropped = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if is_dropped(value) && !KEPT.contains(&name.as_str()) {
                    found.push(path);
                } else if let ("requests" | "limits", Value::Object(quantities)) = (name.as_str(), value) {
                    let is_canonical = |text: &Value| {
                        let text = text.as_str()?;
                        Some(text.parse::<Quantity>().ok()?.to_string() == text)
                    };
                    let others = quantities.iter().filter(|(_, text)| is_canonical(text) != Some(true));
                    found.extend(others.map(|(name, text)| format!("{path}.{name}={text}")));
                } else {
                    not_as_returned(value, &path, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| not_as_returned(item, path, found)),
        _ => {}
    }
}

#[test]
fn applied_twice_nothing_changes() {
    let Some(tools) = tools() else { return };
    let check = |yaml: &str| {
        let mut found = Vec::new();
        for object in objects(yaml).unwrap() {
            not_as_returned(&object, object["kind"].as_str().unwrap(), &mut found);
        }
        found
    };
    for (components, values) in combinations() {
        println!("{components:?}");
        assert_eq!(check(&tools.kustomize(&components).unwrap()), [""; 0]);
        assert_eq!(check(&tools.helm(&values).unwrap()), [""; 0]);
    }
    // The check must be able to fail.
    let wrong = tools
        .kustomize(&[])
        .unwrap()
        .replace("hostPID: true", "hostPID: false")
        .replace("cpu: 30m", "cpu: '0.03'")
        .replace("description: Node agents of Snug", "globalDefault: false");
    let dropped = ["PriorityClass.globalDefault", "DaemonSet.spec.template.spec.hostPID"];
    let quantity = "DaemonSet.spec.template.spec.containers.resources.requests.cpu=\"0.03\"";
    let found: BTreeSet<String> = check(&wrong).into_iter().collect();
    assert_eq!(found, [dropped[0], dropped[1], quantity].map(str::to_owned).into());
}

#[test]
fn rendered_objects_are_valid_in_every_version() {
    let Some(tools) = tools() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut write = |name: String, yaml: &str| {
        let of_kubernetes = |object: &Value| {
            !matches!(object["apiVersion"].as_str(), Some("monitoring.coreos.com/v1" | "cert-manager.io/v1"))
        };
        let documents = objects(yaml).unwrap().into_iter().filter(of_kubernetes);
        let text: Vec<String> = documents.map(|object| object.to_string()).collect();
        let file = folder.path().join(name);
        fs::write(&file, text.join("\n---\n")).unwrap();
        files.push(file.display().to_string());
    };
    for (components, _) in combinations() {
        write(format!("{}.yaml", components.join("+")), &tools.kustomize(&components).unwrap());
    }
    for overlay in fs::read_dir(deploy().join("overlays")).unwrap() {
        let overlay = overlay.unwrap();
        let name = format!("overlay-{}.yaml", overlay.file_name().display());
        write(name, &tools.kustomize_folder(&overlay.path()).unwrap());
    }
    let mut arguments = vec!["--strict".to_owned()];
    arguments.extend(VERSIONS.flat_map(|minor| ["-k".to_owned(), format!("1.{minor}")]));
    arguments.extend(files.iter().cloned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = tools.run("kubernetes-validate", &arguments).unwrap();
    let passed = printed.lines().filter(|line| line.contains(" passed for resource ")).count();
    assert!(!printed.contains("WARN"), "{printed}");
    assert!(passed >= files.len() * VERSIONS.count() * 7, "{passed} of {} files", files.len());

    // The check must be able to fail.
    let wrong = tools.kustomize(&[]).unwrap().replace("hostPID", "hostPid");
    let file = folder.path().join("wrong.yaml");
    fs::write(&file, wrong).unwrap();
    let error = tools.run("kubernetes-validate", &["--strict", "-k", "1.30", &file.display().to_string()]);
    assert!(error.unwrap_err().to_string().contains("hostPid"));
}

#[test]
fn the_image_is_named_in_one_place() {
    let Some(tools) = tools() else { return };
    let image = |yaml: &str| -> Value {
        let all = by_name(yaml);
        all["\"DaemonSet\" \"snug-agent\""]["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let set = ["--set", "image.repository=registry.example/a/b", "--set-string", "image.tag=7"];
    assert_eq!(image(&tools.helm(&set).unwrap()), "registry.example/a/b:7");

    let kustomization = tools.copy().join("base/kustomization.yaml");
    let base = fs::read_to_string(&kustomization).unwrap();
    let renamed = base
        .replace("newName: snug.example/snug-agent", "newName: registry.example/a/b")
        .replace("newTag: 0.1.0", "newTag: '7'");
    // In a release, the tag of the image is this version.
    let released = concat!("snug.example/snug-agent:", env!("CARGO_PKG_VERSION"));
    assert_eq!(image(&tools.helm(&WITHOUT_CERTIFICATES).unwrap()), released);
    assert_eq!(image(&tools.kustomize(&[]).unwrap()), released);
    fs::write(&kustomization, renamed).unwrap();
    assert_eq!(image(&tools.kustomize(&[]).unwrap()), "registry.example/a/b:7");
}

/// The variables of the manifests are loaded by the agent's configuration, which refuses unknown ones.
#[test]
fn the_agent_knows_every_variable() {
    let Some(tools) = tools() else { return };
    let (_, mut values) = combinations().pop().unwrap();
    values.extend(["--set", "config.slow-interval=20s", "--set", "config.max-series=1000"]);
    let daemon_set = by_name(&tools.helm(&values).unwrap()).remove("\"DaemonSet\" \"snug-agent\"").unwrap();
    let env = daemon_set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let pairs: Vec<(String, String)> = env
        .iter()
        .map(|one| {
            let name = one["name"].as_str().unwrap().to_owned();
            let otherwise = if one["valueFrom"].is_null() { "" } else { "node1" };
            (name, one["value"].as_str().unwrap_or(otherwise).to_owned())
        })
        .collect();
    assert!(pairs.len() >= 10, "{pairs:?}");
    let missing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let given = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
    let request = snug_agent::config::load(["snug-agent".into()], given, missing).unwrap();
    let snug_agent::config::Request::Run(loaded) = request else { panic!("it would not run") };
    assert_eq!(loaded.config.slow_interval.as_secs(), 20);
    assert!(loaded.config.tls_listen.is_some() && loaded.config.token_review, "who may read is configured");
    assert_eq!(loaded.config.listen, None, "with hostNetwork, loopback is the node's");
    assert!(loaded.config.owner_lookup && loaded.config.kube_state_metrics && loaded.config.process_metrics);
}

/// The fields of a certificate that say for what it is, as OpenSSL prints them.
fn described(pem: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("certificate");
    fs::write(&file, pem).unwrap();
    let printed =
        Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&file).output().unwrap();
    assert!(printed.status.success());
    String::from_utf8(printed.stdout).unwrap()
}

#[test]
fn the_chart_makes_certificates_with_which_agents_and_clients_know_each_other() {
    let Some(tools) = tools() else { return };
    let rendered = by_name(&tools.helm(&["--set", "certificates.days=10"]).unwrap());
    let data = |secret: &str, key: &str| {
        let text = rendered[&format!("\"Secret\" \"{secret}\"")]["data"][key].as_str().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("base64");
        fs::write(&file, text).unwrap();
        String::from_utf8(Command::new("base64").arg("-d").arg(&file).output().unwrap().stdout).unwrap()
    };
    let agent = described(&data("snug-agent-tls", "tls.crt"));
    assert!(agent.contains("DNS:snug-agent.snug.svc") && agent.contains("TLS Web Server"), "{agent}");
    assert!(described(&data("snug-agent-client", "tls.crt")).contains("TLS Web Client"));
    // The certificate of an agent must not pass as that of a client: the authorities differ.
    assert_ne!(data("snug-agent-tls", "ca.crt"), data("snug-agent-client", "ca.crt"));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: String| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let server = tls::ServerTls::new(tls::ServerFiles {
        certificate: write("tls.crt", data("snug-agent-tls", "tls.crt")),
        key: write("tls.key", data("snug-agent-tls", "tls.key")),
        client_authorities: Some(write("client-ca.crt", data("snug-agent-client", "ca.crt"))),
        requires_client_certificate: true,
    });
    assert!(server.reload().unwrap(), "the agent can use them");
    let client = tls::TlsFiles {
        authorities: Some(write("ca.crt", data("snug-agent-tls", "ca.crt"))),
        certificate: Some(write("client.crt", data("snug-agent-client", "tls.crt"))),
        key: Some(write("client.key", data("snug-agent-client", "tls.key"))),
    };
    client.client().unwrap();
}

/// Runs openssl on a file in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Whether a server takes a client for one with a certificate; an error if it refuses the client.
fn handshake(server: &tls::ServerTls, client: &tls::TlsFiles) -> io::Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, server) = (listener.local_addr()?, server.current().unwrap());
    let config = Arc::new(client.client().unwrap());
    let connecting = thread::spawn(move || {
        let name = "snug-agent.snug.svc".try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(config, name).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
    });
    let mut connection = rustls::ServerConnection::new(server).unwrap();
    let mut stream = listener.accept()?.0;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    connecting.join().unwrap();
    Ok(connection.peer_certificates().is_some())
}

/// There is no cert-manager here. This makes Secrets of its shape from the component's Certificates: its keys are in PKCS#1, which is
/// SEC 1 for ECDSA, unless a Certificate says otherwise.
#[test]
fn agents_can_use_secrets_of_the_shape_of_cert_managers() {
    let Some(tools) = tools() else { return };
    let rendered = by_name(&tools.kustomize(&["cert-manager"]).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    for name in ["snug-agent-tls", "snug-agent-client"] {
        let spec = &rendered[&format!("\"Certificate\" \"{name}\"")]["spec"];
        assert_eq!((&spec["secretName"], &spec["privateKey"]["algorithm"]), (&name.into(), &"ECDSA".into()));
        assert!(spec["privateKey"]["encoding"].is_null());
        let names = spec["dnsNames"].as_array().into_iter().flatten();
        let names: Vec<String> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let usages = spec["usages"].as_array().unwrap().iter();
        params.extended_key_usages = usages
            .filter_map(|usage| match usage.as_str()? {
                "server auth" => Some(rcgen::ExtendedKeyUsagePurpose::ServerAuth),
                "client auth" => Some(rcgen::ExtendedKeyUsagePurpose::ClientAuth),
                _ => None,
            })
            .collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("pkcs8.key"), key.serialize_pem()).unwrap();
        openssl(&path(name), "ec -in pkcs8.key -out tls.key");
        assert!(fs::read_to_string(path(name).join("tls.key")).unwrap().contains("BEGIN EC PRIVATE KEY"));
        fs::write(path(name).join("tls.crt"), certificate).unwrap();
        fs::write(path(name).join("ca.crt"), &authority).unwrap();
    }

    // The kubelet makes files of the Secrets.
    let pod = &rendered["\"DaemonSet\" \"snug-agent\""]["spec"]["template"]["spec"];
    let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "tls").unwrap();
    for source in volume["projected"]["sources"].as_array().unwrap() {
        for item in source["secret"]["items"].as_array().unwrap() {
            let of = |field: &str| item[field].as_str().unwrap();
            let secret = path(source["secret"]["name"].as_str().unwrap());
            fs::copy(secret.join(of("key")), path(of("path"))).unwrap();
        }
    }
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    let file = |name: &str| {
        let variable = variables.iter().find(|variable| variable["name"] == name).unwrap();
        path(variable["value"].as_str().unwrap().strip_prefix("/etc/snug/tls/").unwrap())
    };
    let server = tls::ServerTls::new(tls::ServerFiles {
        certificate: file("SNUG_TLS_CERTIFICATE"),
        key: file("SNUG_TLS_KEY"),
        client_authorities: Some(file("SNUG_TLS_CLIENT_CA")),
        requires_client_certificate: true,
    });
    assert!(server.reload().unwrap());
    let client = |secret: &str| tls::TlsFiles {
        authorities: Some(path("snug-agent-tls/ca.crt")),
        certificate: Some(path(secret).join("tls.crt")),
        key: Some(path(secret).join("tls.key")),
    };
    assert!(handshake(&server, &client("snug-agent-client")).unwrap());
    let refused = handshake(&server, &client("snug-agent-tls")).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "an agent does not pass as a client: {refused}");

    // A Certificate without a section for its key.
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=snug-agent -keyout pkcs8.key -out tls.crt",
    );
    openssl(folder.path(), "rsa -in pkcs8.key -traditional -out tls.key");
    assert!(fs::read_to_string(path("tls.key")).unwrap().contains("BEGIN RSA PRIVATE KEY"));
    assert!(server.reload().unwrap());
}

/// Fields of Chart.yaml by the rules of Artifact Hub: <https://artifacthub.io/docs/topics/annotations/helm/>.
#[test]
fn the_chart_passes_lint_and_has_what_artifact_hub_shows() {
    let Some(tools) = tools() else { return };
    let chart = tools.copy().join("helm/snug-agent");
    let printed = tools.run("helm", &["lint", "--strict", &chart.display().to_string()]).unwrap();
    assert!(printed.contains("0 chart(s) failed") && !printed.contains("[WARNING]"), "{printed}");
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart.join("Chart.yaml")).unwrap()).unwrap();
    for field in ["description", "home", "sources", "keywords", "maintainers", "kubeVersion"] {
        assert!(!chart[field].is_null(), "{field}");
    }
    let annotation = |name: &str| chart["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap();
    assert_eq!((annotation("category"), annotation("license")), ("monitoring-logging", "Apache-2.0 OR MIT"));
    let links: Value = serde_saphyr::from_str(annotation("links")).unwrap();
    for link in links.as_array().unwrap() {
        let path = link["url"].as_str().unwrap().split_once("/blob/main/").unwrap().1;
        assert!(deploy().join("..").join(path).is_file(), "{link}");
    }
}

#[test]
fn the_chart_refuses_unknown_values() {
    let Some(tools) = tools() else { return };
    for (value, named) in [
        ("confg.slow-interval=1s", "confg"),
        ("runtime=docker", "runtime"),
        ("config.Slow=1s", "Slow"),
        ("config.listen=0.0.0.0:1", "listen"),
        ("ownerLookup=yes", "ownerLookup"),
        ("networkPolicy.namespaces=monitoring", "namespaces"),
        ("priorityClass.value=2000000000", "value"),
        ("config.tls-listen=0.0.0.0:1", "tls-listen"),
        ("certificates.source=mine", "source"),
    ] {
        let error = tools.helm(&["--set", value]).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("schema"), "{value}: {error}");
    }
}

#[test]
fn recommendations_are_a_component_that_kustomize_applies() {
    let Some(tools) = tools() else { return };
    let folder = tempfile::tempdir_in(tools.copy()).unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("sizes")).unwrap();
    let component = include_str!("../../cli/tests/golden/kustomize.yaml");
    fs::write(path("sizes/kustomization.yaml"), component).unwrap();
    let deployment = |name: &str, kind: &str, containers: Value| {
        serde_json::json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "namespace": "shop" },
            "spec": { "template": { "spec": { "containers": containers } } },
        })
    };
    let limited = serde_json::json!({ "limits": { "cpu": "2", "memory": "1Gi" } });
    let app = serde_json::json!({ "name": "app", "image": "a", "resources": limited });
    let all = [
        deployment("web", "Deployment", serde_json::json!([app, { "name": "proxy" }, { "name": "other" }])),
        deployment("young", "Deployment", serde_json::json!([{ "name": "app" }])),
        deployment("ledger", "StatefulSet", serde_json::json!([{ "name": "db" }])),
    ];
    let names: Vec<String> = (0..all.len()).map(|number| format!("{number}.json")).collect();
    for (name, object) in names.iter().zip(&all) {
        fs::write(path(name), object.to_string()).unwrap();
    }
    let kustomization = serde_json::json!({ "resources": names, "components": ["sizes"] });
    fs::write(path("kustomization.yaml"), kustomization.to_string()).unwrap();
    let built = by_name(&tools.kustomize_folder(folder.path()).unwrap());
    let containers = &built["\"Deployment\" \"web\""]["spec"]["template"]["spec"]["containers"];
    let of = |name: &str| containers.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(
        of("app")["resources"]["limits"],
        serde_json::json!({ "memory": "392Mi" }),
        "no CPU limit is left"
    );
    assert_eq!(of("app")["image"], "a");
    assert_eq!(of("proxy")["resources"]["requests"]["cpu"], "25m");
    assert!(of("other").get("resources").is_none());
}
