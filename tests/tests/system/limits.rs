//! Series that limits drop are counted.

use std::fs;

use anyhow::Result;
use snug_tests::{agent::Agent, exposition::Page};

use crate::{cannot_run, container, container::pod_list};

/// The second scrape of an endpoint, which counts the series that the first one dropped.
fn cut(agent: &Agent, endpoint: &str, reason: &str) -> Result<f64> {
    agent.text(endpoint)?;
    agent.scrape("/metrics")?.value("snug_agent_series_cut", &[("endpoint", endpoint), ("reason", reason)])
}

fn of_things(page: &Page) -> usize {
    page.0.iter().filter(|sample| !sample.name.starts_with("snug_agent_")).count()
}

#[test]
fn denied_families_namespaces_and_labels_are_dropped() -> Result<()> {
    let (shop, secret) = match (container(), container()) {
        (Ok(shop), Ok(secret)) => (shop, secret),
        (Err(why), _) | (_, Err(why)) => return cannot_run(why),
    };
    let folder = tempfile::tempdir()?;
    let pods = folder.path().join("pods.json");
    fs::write(&pods, pod_list(&[shop.pod("shop", "web", "app"), secret.pod("secret-1", "safe", "app")]))?;
    let pods = pods.to_string_lossy();
    let whole = Agent::start(["--pods-file", &pods])?;
    let all = whole.scrape("/metrics")?;
    assert!(all.has("snug_container_cpu_usage_seconds_total") && all.has("snug_container_tasks"));
    assert!(all.0.iter().any(|sample| sample.label("namespace") == "secret-1"));
    assert!(
        all.all("snug_container_info", &[("id", &shop.path)]).iter().all(|s| s.labels.contains_key("image"))
    );
    for reason in ["family", "namespace", "cap"] {
        for endpoint in ["/metrics", "/metrics/cadvisor"] {
            assert_eq!(cut(&whole, endpoint, reason)?, 0.0, "{endpoint} {reason}");
        }
    }

    let limited = Agent::start([
        "--pods-file",
        &pods,
        "--metrics-deny",
        "snug_container_cpu_*,container_memory_*",
        "--namespaces-deny",
        "secret-*",
        "--drop-labels",
        "image,workload",
    ])?;
    let page = limited.scrape("/metrics")?;
    let kubelet = limited.scrape("/metrics/cadvisor")?;
    assert!(!page.0.iter().any(|sample| sample.name.starts_with("snug_container_cpu_")));
    assert!(!kubelet.0.iter().any(|sample| sample.name.starts_with("container_memory_")));
    assert!(page.has("snug_container_tasks") && kubelet.has("container_threads"));
    for page in [&page, &kubelet] {
        assert!(!page.0.iter().any(|sample| sample.label("namespace") == "secret-1"));
        assert!(page.0.iter().any(|sample| sample.label("namespace") == "shop"));
        assert!(!page.0.iter().any(|sample| sample.labels.contains_key("image")));
    }
    let of_shop = page.all("snug_container_tasks", &[("id", &shop.path)]);
    assert_eq!(of_shop.len(), 1);
    assert!(of_shop.iter().all(|sample| !sample.labels.contains_key("workload")), "{of_shop:?}");
    for endpoint in ["/metrics", "/metrics/cadvisor"] {
        for reason in ["family", "namespace"] {
            assert!(cut(&limited, endpoint, reason)? > 0.0, "{endpoint} {reason}");
        }
        assert_eq!(cut(&limited, endpoint, "cap")?, 0.0);
    }
    Ok(())
}

#[test]
fn no_scrape_holds_more_series_than_allowed() -> Result<()> {
    let agent = Agent::start(["--max-series", "10"])?;
    for endpoint in ["/metrics", "/metrics/cadvisor"] {
        let cut = cut(&agent, endpoint, "cap")?;
        assert!(cut > 0.0, "{endpoint}: {cut}");
        let page = agent.scrape(endpoint)?;
        // Series about the health of the scrape come on top.
        let on_top = ["container_scrape_error", "machine_scrape_error"];
        let on_top: usize = on_top.iter().map(|family| page.all(family, &[]).len()).sum();
        let series = of_things(&page) - on_top;
        assert_eq!(series, 10, "{endpoint}");
    }
    let page = agent.scrape("/metrics")?;
    assert_eq!(page.value("snug_agent_series", &[("endpoint", "/metrics")])?, 10.0);
    assert!(page.has("snug_agent_program_info"), "the agent's own are never cut");
    Ok(())
}
