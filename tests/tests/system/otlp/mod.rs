//! The OTLP export, with a receiver that is built on OpenTelemetry's own definitions and shares no code with the agent.

pub(crate) mod receiver;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use snug_tests::{
    agent::{Agent, command, eventually, run_to_end},
    exposition::Sample,
};

use self::receiver::{ARRIVES, Point, Receiver, agent, prepared};
use crate::{cannot_run, container, container::pod_list};

fn otlp_points(agent: &Agent, outcome: &str) -> Result<f64> {
    agent
        .scrape("/metrics")?
        .value("snug_agent_otlp_items_total", &[("signal", "metrics"), ("outcome", outcome)])
}

#[test]
fn grpc_and_http_exports_have_the_same_values_as_prometheus() -> Result<()> {
    if !prepared() {
        return Ok(());
    }
    for (protocol, compression) in [("grpc", "gzip"), ("grpc", "none"), ("http", "gzip"), ("http", "none")] {
        let mut container = match container() {
            Ok(container) => container,
            Err(why) => return cannot_run(why),
        };
        container.be_busy()?;
        let folder = tempfile::tempdir()?;
        let pods = folder.path().join("pods.json");
        fs::write(&pods, pod_list(&[container.pod("shop", "web", "app")]))?;
        let receiver = Receiver::start(protocol, &[])?;
        let spoken = if protocol == "grpc" { "grpc" } else { "http/protobuf" };
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.endpoint("http")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", spoken),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret,X-Tenant=a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=test,host.name=mine"),
        ];
        let agent = agent(&variables, &["--pods-file", &pods.to_string_lossy()])?;
        let this: &[(&str, &str)] = &[("id", &container.path)];
        let read = || {
            let page = agent.scrape("/metrics")?;
            ensure!(
                !page
                    .all("snug_container_tasks", &[("id", &container.path), ("container", "app")])
                    .is_empty()
            );
            Ok::<_, anyhow::Error>(page)
        };
        let first = eventually(ARRIVES, "the container has its name", || Ok(read().ok()))?;
        let since = first.value("snug_container_cpu_usage_seconds_total", this)?;
        let sent = |receiver: &Receiver| -> Result<Option<Vec<Point>>> {
            let points = receiver.points()?.into_iter();
            let own = points.filter(|point| point.of("snug.cgroup.path") == container.path);
            let named: Vec<Point> = own.filter(|point| point.of("k8s.container.name") == "app").collect();
            let later =
                named.iter().rfind(|point| point.metric == "container.cpu.time" && point.value > since);
            let time = later.map(|point| point.time);
            Ok(time.map(|time| named.into_iter().filter(|point| point.time == time).collect()))
        };
        let part = |name: &str| name.ends_with("_bucket") || name.ends_with("_sum");
        // Some values arrive later than others: wait until an export and a scrape show the same state.
        let (points, until) =
            eventually(ARRIVES, "an export has as many points as there are series", || {
                let Some(points) = sent(&receiver)? else { return Ok(None) };
                let page = read()?;
                let ours = |sample: &&Sample| {
                    sample.label("id") == container.path && sample.name.starts_with("snug_container_")
                };
                let series = page.0.iter().filter(ours).filter(|sample| !part(&sample.name)).count();
                let whole = page.has("snug_container_cpu_window_cores_sum") && points.len() == series;
                Ok(whole.then_some((points, page)))
            })?;

        let request = receiver.requests()?.pop().context("no request")?;
        let path = if protocol == "grpc" { "grpc" } else { "http /v1/metrics" };
        assert_eq!((&*request.protocol, &*request.answer), (path, "ok"));
        assert_eq!(request.headers["authorization"], "Bearer s3cret");
        assert_eq!(request.headers["x-tenant"], "a");
        if protocol == "http" {
            let encoding = request.headers.get("content-encoding").map(String::as_str);
            assert_eq!(encoding, (compression == "gzip").then_some("gzip"));
        }

        let one = |metric: &str| {
            let found: Vec<&Point> = points.iter().filter(|point| point.metric == metric).collect();
            ensure!(found.len() == 1, "{metric}: {found:?}");
            Ok(found[0])
        };
        let cpu = one("container.cpu.time")?;
        let bound = until.value("snug_container_cpu_usage_seconds_total", this)?;
        assert!(since < cpu.value && cpu.value <= bound, "{since} {cpu:?} {bound}");
        assert_eq!((&*cpu.unit, &*cpu.kind), ("s", "sum"));
        assert_eq!((cpu.temporality.as_deref(), cpu.monotonic), (Some("cumulative"), Some(true)));
        assert!(cpu.start < cpu.time && cpu.time - cpu.start < 60_000_000_000, "{cpu:?}");
        let windows = one("snug.container.cpu_window")?;
        assert_eq!((&*windows.kind, &*windows.unit), ("exponential_histogram", "{cpu}"));
        let histogram = windows.histogram.clone().context("no histogram")?;
        let counted = histogram.zero_count + histogram.buckets.iter().sum::<u64>();
        assert_eq!((histogram.scale, counted as f64), (3, windows.value), "{histogram:?}");
        // Each value is in its bucket, so the sum is between the sums of the bounds.
        let bound = |index: i32| (f64::from(index) / 8.0).exp2();
        let sum_of = |upper: i32| -> f64 {
            let indices = (histogram.offset + upper)..;
            indices.zip(&histogram.buckets).map(|(index, count)| bound(index) * *count as f64).sum()
        };
        assert!(sum_of(0) <= histogram.sum && histogram.sum <= sum_of(1), "{histogram:?}");
        let created =
            one("snug.container.created")?.value - until.value("snug_container_created_seconds", this)?;
        assert!(created.abs() < 1e-5, "{created}");
        for (name, value) in [
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "web-5d4f8c7b9c-x7k2p"),
            ("k8s.deployment.name", "web"),
            ("k8s.cluster.name", "test"),
            ("host.name", "mine"),
            ("container.id", &container.id),
            ("container.image.name", "example.org/web"),
            ("os.type", "linux"),
        ] {
            assert_eq!(cpu.of(name), value, "{name}");
        }
        assert_eq!((&*cpu.scope, &*cpu.schema), ("snug-agent", "https://opentelemetry.io/schemas/1.44.0"));
        let ips: BTreeSet<String> = points
            .iter()
            .filter(|point| point.metric == "container.network.io")
            .map(|point| {
                format!("{} {}", point.attributes["network.type"], point.attributes["network.io.direction"])
            })
            .collect();
        assert_eq!(ips.len(), 4, "{ips:?}");

        // The agent sends the rest when it stops.
        let before = receiver.requests()?.len();
        let ended = agent.end_by(Signal::TERM)?;
        assert!(ended.status.success(), "{}", ended.log);
        eventually(ARRIVES, "the last export", || Ok((receiver.requests()?.len() > before).then_some(())))?;
    }
    Ok(())
}

#[test]
fn the_sum_of_deltas_equals_the_counter_in_prometheus() -> Result<()> {
    if !prepared() {
        return Ok(());
    }
    let receiver = Receiver::start("http", &[])?;
    let variables = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*format!("{}/v1/metrics", receiver.endpoint("http"))),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
    ];
    let agent = agent(&variables, &[])?;
    let mut container = match container() {
        Ok(container) => container,
        Err(why) => return cannot_run(why),
    };
    container.be_busy()?;
    let of_container = [("snug.cgroup.path", &*container.path)];
    for (series, labels, metric, resource) in [
        (
            "snug_container_cpu_usage_seconds_total",
            &[("id", &*container.path)][..],
            "container.cpu.time",
            &of_container[..],
        ),
        ("snug_agent_passes_total", &[], "snug.agent.passes", &[]),
    ] {
        let read = || agent.scrape("/metrics")?.value(series, labels);
        let reported = eventually(ARRIVES, "a value", || Ok(read().ok().filter(|value| *value > 0.2)))?;
        let points = eventually(ARRIVES, "the deltas reach the sum", || {
            let all = receiver.points()?.into_iter();
            let points: Vec<Point> = all.filter(|point| point.is(metric, resource)).collect();
            let sum: f64 = points.iter().map(|point| point.value).sum();
            Ok((sum >= reported).then_some(points))
        })?;
        let sum: f64 = points.iter().map(|point| point.value).sum();
        assert!(sum <= read()? + 1e-6, "{metric}: {sum} of {}", read()?);
        assert!(
            points.iter().all(|point| point.temporality.as_deref() == Some("delta") && point.value >= 0.0)
        );
        let gaps = points.windows(2).filter(|pair| pair[0].time != pair[1].start);
        assert_eq!(gaps.count(), 0, "each begins where the one before ended");
    }
    Ok(())
}

#[test]
fn failed_requests_are_retried_and_refused_ones_are_counted() -> Result<()> {
    if !prepared() {
        return Ok(());
    }
    for (protocol, busy, refused) in
        [("http", "503,429", "400"), ("grpc", "UNAVAILABLE,ABORTED", "INVALID_ARGUMENT")]
    {
        let answers = format!("{busy},partial:3,{refused}");
        let receiver = Receiver::start(protocol, &["--answers", &answers])?;
        let spoken = if protocol == "grpc" { "grpc" } else { "http/protobuf" };
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.endpoint("http")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", spoken),
        ];
        let agent = agent(&variables, &[])?;
        let taken = |receiver: &Receiver| {
            let requests = receiver.requests()?;
            let times = requests.iter().filter(|request| request.answer == "ok").count();
            Ok((times >= 3).then_some(requests))
        };
        let requests = eventually(ARRIVES, "requests are taken", || taken(&receiver))?;
        let failures =
            agent.scrape("/metrics")?.value("snug_agent_otlp_failures_total", &[("signal", "metrics")])?;
        assert_eq!(failures, 3.0, "{protocol}: two to be tried again, one refused");
        assert_eq!(otlp_points(&agent, "dropped")?, 0.0, "{protocol}");
        let partial =
            requests.iter().find(|request| request.answer == "partial:3").context("none in part")?;
        assert!(otlp_points(&agent, "rejected")? > 3.0, "those of the refused request, too");
        assert!(otlp_points(&agent, "sent")? >= partial.points.len() as f64 - 3.0);
        let log = agent.log();
        assert!(log.contains("not these") && log.contains("refused a request"), "{log}");
        assert!(log.contains("accepts all items again"), "{log}");

        // The receiver stops and restarts at the same address: no record from between is lost.
        let port = receiver.port.to_string();
        drop(receiver);
        eventually(ARRIVES, "something waits", || {
            let page = agent.scrape("/metrics")?;
            Ok((page.value("snug_agent_otlp_waiting_bytes", &[("signal", "metrics")])? > 0.0).then_some(()))
        })?;
        let back = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let receiver = Receiver::start(protocol, &["--port", &port])?;
        eventually(ARRIVES, "what waited arrives", || {
            let points = receiver.points()?;
            let earlier =
                |point: &Point| point.metric == "snug.agent.passes" && u128::from(point.time) < back;
            Ok(points.iter().any(earlier).then_some(()))
        })?;
        assert_eq!(otlp_points(&agent, "dropped")?, 0.0, "{protocol}");
    }
    Ok(())
}

/// Files with a key and a certificate for `localhost` that an authority has signed.
pub(crate) fn signed(folder: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (cert_file, key_file) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    fs::write(&cert_file, parameters.signed_by(&key, issuer)?.pem())?;
    fs::write(&key_file, key.serialize_pem())?;
    Ok((cert_file.to_string_lossy().into_owned(), key_file.to_string_lossy().into_owned()))
}

/// A file with the certificate of an authority, and the authority.
pub(crate) fn authority(folder: &Path, name: &str) -> Result<(String, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = folder.join(format!("{name}.crt"));
    fs::write(&file, parameters.self_signed(&key)?.pem())?;
    Ok((file.to_string_lossy().into_owned(), Issuer::new(parameters, key)))
}

#[test]
fn mutual_tls_authenticates_both_sides() -> Result<()> {
    if !prepared() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (ours, issuer) = authority(folder.path(), "ours")?;
    let (others, _) = authority(folder.path(), "others")?;
    let (certificate, key) = signed(folder.path(), "server", &issuer)?;
    let (client_certificate, client_key) = signed(folder.path(), "client", &issuer)?;
    for (protocol, spoken) in [("grpc", "grpc"), ("http", "http/protobuf")] {
        let secured = ["--certificate", &certificate, "--key", &key, "--client-authority", &ours];
        let receiver = Receiver::start(protocol, &secured)?;
        let endpoint = receiver.endpoint("https");
        let base = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", spoken),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &client_certificate),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &client_key),
        ];
        let trusting = agent(&[&base[..], &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &ours)]].concat(), &[])?;
        eventually(ARRIVES, "it arrives", || Ok((!receiver.points()?.is_empty()).then_some(())))
            .with_context(|| format!("{}\n{}", trusting.log(), receiver.process.log()))?;
        assert!(!trusting.log().contains("WARN otlp"), "{}", trusting.log());
        drop(trusting);

        let doubtful = agent(&[&base[..], &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &others)]].concat(), &[])?;
        eventually(ARRIVES, "it says whom it does not trust", || {
            let log = doubtful.log();
            Ok((log.contains("cannot be reached") && log.contains("certificate")).then_some(()))
        })?;
        assert!(
            doubtful.scrape("/metrics")?.value("snug_agent_otlp_failures_total", &[("signal", "metrics")])?
                >= 1.0
        );
        let absent =
            agent(&[&base[..], &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")]].concat(), &[])?;
        eventually(ARRIVES, "it names the file", || {
            Ok(absent.log().contains("/nowhere.pem cannot be used").then_some(()))
        })?;
        assert!(absent.text("/healthz")?.contains("ok"), "and goes on measuring");
    }
    Ok(())
}

#[test]
fn the_error_for_an_invalid_variable_names_it() -> Result<()> {
    let mut command = command(["--listen", "127.0.0.1:0"])?;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "token"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often"),
        // An empty variable counts as unset.
        ("OTEL_EXPORTER_OTLP_COMPRESSION", ""),
    ] {
        command.env(name, value);
    }
    let ended = run_to_end(command)?;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.log);
    for name in ["ENDPOINT", "PROTOCOL", "HEADERS"] {
        assert!(ended.log.contains(&format!("OTEL_EXPORTER_OTLP_{name}")), "{name}: {}", ended.log);
    }
    assert!(
        ended.log.contains("OTEL_METRIC_EXPORT_INTERVAL") && ended.log.contains("often"),
        "{}",
        ended.log
    );
    assert!(!ended.log.contains("COMPRESSION"), "{}", ended.log);
    Ok(())
}
