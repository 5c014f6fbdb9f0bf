//! Who may read the agents: certificates, tokens that the API server reviews, and forwarded ports.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use snug_tests::{
    agent::{Process, eventually},
    exposition,
    tls::Identity,
};

use crate::node::{Node, SOON, node};

/// Short, so that the test sees them end.
const AGES: [(&str, &str); 3] =
    [("SNUG_TOKEN_ALLOWED_AGE", "3s"), ("SNUG_TOKEN_DENIED_AGE", "1s"), ("SNUG_TOKEN_OUTAGE_AGE", "20s")];

fn account(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": "default" } })
}

/// A token of a service account.
fn token(node: &Node, account: &str, audience: &str) -> Result<String> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": [audience] },
    });
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let response: Value = serde_json::from_str(&node.create_raw(&path, &request)?)?;
    Ok(response["status"]["token"].as_str().context("no token")?.to_owned())
}

/// A Prometheus that scrapes the agent with a token and verifies its certificate. Killed when dropped.
struct Prometheus {
    address: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(node: &Node, token: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("token"), token)?;
        let config = json!({
            "global": { "scrape_interval": "1s" },
            "scrape_configs": [{
                "job_name": "snug", "scheme": "https",
                "authorization": { "credentials_file": path("token") },
                "tls_config": { "ca_file": node.tls()?.authority, "server_name": "snug-agent.snug.svc" },
                "static_configs": [{ "targets": [node.address(9751)?.to_string()] }],
            }],
        });
        fs::write(path("prometheus.yml"), config.to_string())?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::spawn(&mut command)?;
        Ok(Self { address, _process: process, _folder: folder })
    }

    /// The value of the only result of a query.
    fn query(&self, query: &str) -> Result<Option<String>> {
        let url = format!("http://{}/api/v1/query?query={query}", self.address);
        let Ok(mut response) = ureq::get(url).call() else { return Ok(None) };
        let response: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
        Ok(response["data"]["result"][0]["value"][1].as_str().map(str::to_owned))
    }
}

#[test]
fn only_who_has_a_certificate_or_a_permitted_token_may_read_also_while_the_api_server_is_away() {
    let Some(node) = node() else { return };
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "snug-metrics-reader" });
    let subject = json!({ "kind": "ServiceAccount", "name": "scraper", "namespace": "default" });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "scraper" },
        "roleRef": role, "subjects": [subject],
    });
    node.install_changed(&["token-reviews"], |object| {
        if object["kind"] == "DaemonSet" {
            let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap();
            env.extend(AGES.map(|(name, value)| json!({ "name": name, "value": value })));
        }
    })
    .unwrap();
    let _objects = node.apply(&[account("scraper"), account("other"), binding]).unwrap();
    let address = node.address(9751).unwrap();
    let tls = node.tls().unwrap();
    let status = |identity: Identity<'_>| tls.get(address, "/metrics", identity).map(|(status, _)| status);
    let until = |what: &str, identity: Identity<'_>, expected: u16| {
        eventually(SOON, what, || Ok((status(identity).ok() == Some(expected)).then_some(()))).unwrap();
    };
    until("a client with a certificate is served", Identity::Certificate, 200);

    let [scraper, other] = ["scraper", "other"].map(|account| token(&node, account, "snug-agent").unwrap());
    until("the permission is known", Identity::Token(&scraper), 200);
    assert_eq!(status(Identity::None).unwrap(), 401);
    assert_eq!(status(Identity::Token("made-up")).unwrap(), 401);
    assert_eq!(status(Identity::Token(&other)).unwrap(), 403, "known, and without the permission");
    let of_api = token(&node, "scraper", "https://kubernetes.default.svc").unwrap();
    assert_eq!(status(Identity::Token(&of_api)).unwrap(), 401, "for another audience");
    let valid_for = |seconds| node.signed_again(&scraper, seconds).unwrap();
    until("the test can sign tokens", Identity::Token(&valid_for(600)), 200);
    assert_eq!(status(Identity::Token(&valid_for(-120))).unwrap(), 401, "expired two minutes ago");
    // The API server allows for clocks that differ by a minute.
    let expiring = valid_for(-50);
    until("not expired for the API server", Identity::Token(&expiring), 200);
    until("a token expires while it is in use", Identity::Token(&expiring), 401);
    for path in ["/metrics/cadvisor", "/api/v1/containers", "/api/v1/evidence", "/", "/healthz"] {
        assert_eq!(tls.get(address, path, Identity::None).unwrap().0, 401, "{path}");
    }

    // The other ports of the pod.
    let local = node.address(9750).unwrap();
    assert!(TcpStream::connect_timeout(&local, Duration::from_secs(5)).is_err(), "only on loopback");
    let for_probes = node.address(9752).unwrap();
    let probe = |path: &str| {
        let url = format!("http://{for_probes}{path}");
        let client: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = client.get(url).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    };
    assert_eq!(probe("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(probe("/metrics").0, 404);

    // A real Prometheus.
    let prometheus = Prometheus::start(&node, &scraper).unwrap();
    eventually(SOON, "Prometheus has scraped the agent", || {
        Ok((prometheus.query("up")?.as_deref() == Some("1")).then_some(()))
    })
    .unwrap();
    assert!(prometheus.query("count(snug_container_cpu_usage_seconds_total)").unwrap().is_some());

    // An API server that does not answer.
    let frozen = node.freeze_api_server().unwrap();
    thread::sleep(Duration::from_secs(5));
    assert_eq!(status(Identity::Token(&scraper)).unwrap(), 200, "the last verdict holds");
    assert_eq!(status(Identity::Token("never-seen-before")).unwrap(), 503);
    until("the last verdict no longer holds", Identity::Token(&scraper), 503);
    assert_eq!(status(Identity::Certificate).unwrap(), 200, "certificates need no API server");
    assert_eq!(probe("/healthz").0, 200);
    drop(frozen);
    until("the API server answers again", Identity::Token(&scraper), 200);

    // An API server that is not there.
    let stopped = node.stop_api_server().unwrap();
    thread::sleep(Duration::from_secs(5));
    assert_eq!(status(Identity::Token(&scraper)).unwrap(), 200, "the last verdict holds");
    assert_eq!(status(Identity::Token("never-seen-either")).unwrap(), 503);
    assert_eq!(status(Identity::Certificate).unwrap(), 200, "certificates need no API server");
    stopped.start().unwrap();
    until("the API server is back", Identity::Token(&scraper), 200);
    let page = exposition::parse(&node.text_at(address, "/metrics").unwrap()).unwrap();
    let value = |name: &str| page.value(name, &[]).unwrap();
    assert!(
        value("snug_agent_token_reviews_total") >= 5.0
            && value("snug_agent_token_review_errors_total") >= 2.0
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(value("snug_agent_certificate_expiration_timestamp_seconds") > now);

    // Revoked: the account is deleted, and with it its tokens.
    node.kubectl(&["delete", "serviceaccount", "scraper"]).unwrap();
    until("a revoked token is refused", Identity::Token(&scraper), 401);
    let agent = node.agent().unwrap();
    let log = node.kubectl(&["-n", "snug", "logs", agent["metadata"]["name"].as_str().unwrap()]).unwrap();
    assert!(!log.contains(&scraper) && !log.contains(&other), "no token is in the log");
}

#[test]
fn whoever_may_forward_ports_reads_the_agent_through_the_api_server() {
    let Some(node) = node() else { return };
    let agent = node.agent().unwrap();
    let name = agent["metadata"]["name"].as_str().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut kubectl = node.command();
    kubectl.args(["-n", "snug", "port-forward", name, &format!("{port}:9750")]);
    let _forward = Process::spawn(kubectl.stdout(std::process::Stdio::null())).unwrap();
    let text = |path: &str| -> Result<String> {
        Ok(ureq::get(format!("http://localhost:{port}{path}")).call()?.body_mut().read_to_string()?)
    };
    eventually(SOON, "the port is forwarded", || Ok(text("/readyz").ok())).unwrap();
    let of_api = ["node", "containers?limit=1", "workloads", "events", "schema", "evidence"];
    let of_api = of_api.map(|resource| format!("/api/v1/{resource}"));
    let others = ["/healthz", "/metrics", "/metrics/cadvisor", "/metrics/resource"];
    for path in others.into_iter().chain(of_api.iter().map(String::as_str)) {
        assert!(!text(path).unwrap().is_empty(), "{path}");
    }
    let proxied = format!("/api/v1/namespaces/snug/pods/{name}:9750/proxy/metrics");
    assert!(
        node.kubectl(&["get", "--raw", &proxied]).is_err(),
        "the pod proxy connects to the pod's address"
    );
}
