//! Rules about whose series are read: clusters, scrapes, labels, and parts of the history.

use std::collections::BTreeSet;

use super::*;
use crate::{
    advice::CommandRule,
    prometheus::{
        discover::{CLUSTER, ENVIRONMENT},
        reader::Period,
    },
};

/// Two clusters, and the label that names them.
fn two_clusters() -> impl Strategy<Value = (Vec<Model>, Vec<Model>, &'static str)> {
    let names: Vec<&str> = CLUSTER.into_iter().chain(ENVIRONMENT).collect();
    (models(), models(), prop::sample::select(names))
}

fn namespaces(models: &[Model]) -> BTreeSet<&str> {
    models.iter().map(|model| model.namespace).collect()
}

/// What is read of each cluster.
fn read_each(
    series: &SeriesInMemory,
    namespaces: &[&str],
    label: Option<&str>,
) -> Result<Vec<PrometheusHistory>, PrometheusError> {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    gather::read_each(&Reader::new(series), &Selection { matchers: Vec::new(), namespaces }, HOUR, label)
}

#[test]
fn metrics_of_several_clusters_are_never_added_up() {
    // A label of an environment is of a cluster only where one namespace has several.
    let applies = |(one, other, label): &(Vec<Model>, Vec<Model>, &str)| {
        CLUSTER.contains(label) || !namespaces(one).is_disjoint(&namespaces(other))
    };
    CommandRule::OneCluster.prove(&two_clusters(), applies, |(one, other, label)| {
        let mut both = cluster(one, &format!("{label}=prod"), HOUR);
        add_cluster(&mut both, other, &Scrape::new(&format!("{label}=dev")), HOUR);
        let alone = |models: &[Model]| {
            read(&cluster(models, "", HOUR), "", HOUR)
                .map(|history| evidence(&history))
                .map_err(|error| error.to_string())
        };
        match read(&both, "", HOUR) {
            Err(PrometheusError::SeveralClusters { choices, .. }) => {
                let wanted = ["dev", "prod"].map(|name| format!("{label}=\"{name}\""));
                assert_eq!(choices, wanted, "the choices");
            }
            other => return Err(format!("{other:?}")),
        }
        // Each choice is that cluster alone.
        let chosen = read(&both, &format!("{label}=prod"), HOUR).map_err(|error| error.to_string())?;
        same(&evidence(&chosen), &alone(one)?)?;
        // Labels that name clusters are found; others are named by the user.
        let named = (!CLUSTER.contains(label)).then_some(*label);
        if named.is_some() {
            let found = read_each(&both, &[], None);
            let is_refused = matches!(found, Err(PrometheusError::SeveralClusters { .. }));
            assert!(is_refused, "{label} may be of something else: {found:?}");
        }
        let found = read_each(&both, &[], named).map_err(|error| error.to_string())?;
        let [dev, prod] = found.as_slice() else { return Err(format!("{} results", found.len())) };
        assert_eq!((dev.cluster.as_str(), prod.cluster.as_str()), ("dev", "prod"));
        same(&evidence(dev), &alone(other)?)?;
        same(&evidence(prod), &alone(one)?)
    });
}

#[test]
fn clusters_are_read_one_by_one_only_where_a_label_tells_all_of_them_apart() {
    let model = |namespace| Model { namespace, workload: 1, cores: 0.5, memory: 100.0, limit: 256.0 };
    let names = |found: Result<Vec<PrometheusHistory>, PrometheusError>| {
        found
            .map(|all| all.into_iter().map(|it| it.cluster).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    let mut both = cluster(&[model("shop")], "cluster=prod", HOUR);
    assert_eq!(names(read_each(&both, &[], None)).unwrap(), [""], "one cluster needs no name");
    assert_eq!(names(read_each(&both, &[], Some("cluster"))).unwrap(), ["prod"]);
    add_cluster(&mut both, &[model("data")], &Scrape::new("cluster=dev"), HOUR);
    assert_eq!(names(read_each(&both, &[], None)).unwrap(), ["dev", "prod"]);
    assert_eq!(names(read_each(&both, &["shop"], None)).unwrap(), [""], "the other has no such namespace");
    assert_eq!(names(read_each(&both, &["shop", "data"], None)).unwrap(), ["dev", "prod"]);
    // A series without the label.
    let mut unlabelled = both.clone();
    add_cluster(&mut unlabelled, &[model("shop")], &Scrape::new(""), HOUR);
    for label in [None, Some("cluster")] {
        let error = names(read_each(&unlabelled, &[], label)).unwrap_err();
        assert!(error.contains("--match 'cluster=\"\"'") && error.contains("--cluster-label"), "{error}");
    }
    // Two labels tell clusters apart only together.
    let mut tenants = cluster(&[model("shop")], "cluster=a,tenant_id=1", HOUR);
    add_cluster(&mut tenants, &[model("shop")], &Scrape::new("cluster=a,tenant_id=2"), HOUR);
    add_cluster(&mut tenants, &[model("shop")], &Scrape::new("cluster=b,tenant_id=1"), HOUR);
    let error = names(read_each(&tenants, &[], None)).unwrap_err();
    assert!(error.contains("--match 'cluster=\"a\",tenant_id=\"2\"'"), "{error}");
    // One that has ended a while ago is left out, and said.
    let mut gone = cluster(&[model("shop")], "cluster=old", HOUR);
    gone.cut(NOW - 1200);
    gone.extend(both);
    let found = read_each(&gone, &[], None).unwrap();
    assert!(found[0].missing.iter().any(|it| it.contains("\"old\"")), "{:?}", found[0].missing);
    assert_eq!(names(Ok(found)).unwrap(), ["dev", "prod"]);
}

#[test]
fn rows_from_a_partial_result_say_so_with_a_low_confidence() {
    use snug_sizing::engine::{self, Confidence, Context, Policy, Profile, Reason};
    CommandRule::PartialRows.prove(
        &(models(), "[a-z ]{1,20}"),
        |_| true,
        |(models, why)| {
            let partial = Some(why.clone());
            let series = SeriesInMemory { partial, ..cluster(models, "", 2 * HOUR) };
            let history = read(&series, "", 2 * HOUR).map_err(|error| error.to_string())?;
            for one in history.snapshot.evidence() {
                let policy = Policy::new(Profile::Standard.risk());
                let found =
                    engine::recommend(one, &policy, Context::default()).map_err(|error| error.to_string())?;
                let is_said =
                    |it: &Reason| matches!(it, Reason::Partial { why: said } if said.contains(why.as_str()));
                if found.confidence != Confidence::Low || !found.reasons.iter().any(is_said) {
                    return Err(format!("{:?} {:?}", found.confidence, found.reasons));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn containers_that_labels_do_not_tell_apart_get_no_advice() {
    // Labels that say nothing of clusters, IDs of cgroups, and how much more one container uses than the other.
    let labels = prop::sample::select(vec!["tier", "landscape", "instance"]);
    let ids = prop::sample::select(vec![Some("pod1"), Some("pod2"), None]);
    let cases = (model(), labels, ids, 1.0..9.0_f64);
    // The same cgroup and a label of the scrape: the same container.
    let applies = |(model, label, id, times): &(Model, &str, Option<&str>, f64)| {
        let apart = model.cores * (times - 1.0) * 30.0 * HOUR as f64;
        let is_same_cgroup = *label == "instance" && *id == Some("pod1");
        let is_clear = apart > 60.0 && *times > 1.1;
        !is_same_cgroup && (is_clear || *id == Some("pod2"))
    };
    CommandRule::NothingAmbiguous.prove(&cases, applies, |(model, label, id, times)| {
        let scrape = |name: &str, id| Scrape { id, ..Scrape::new(&format!("{label}={name}")) };
        let mut both = SeriesInMemory::at(NOW);
        let first = id.and(Some("pod1"));
        add_cluster(&mut both, std::slice::from_ref(model), &scrape("a", first), HOUR);
        let other = Model { cores: model.cores * times, ..model.clone() };
        add_cluster(&mut both, &[other], &scrape("b", *id), HOUR);
        match read(&both, "", HOUR) {
            Err(PrometheusError::Ambiguous { choices, container, .. }) => {
                assert_eq!(choices, ["a", "b"].map(|name| format!("{label}=\"{name}\"")), "the choices");
                assert_eq!(container, format!("{}/{}/app", model.namespace, model.pod()));
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_container_that_is_scraped_several_times_counts_once() {
    let scrapes = prop::collection::vec((0..INTERVAL, any::<bool>()), 2..4);
    let names = prop::sample::select(vec!["job", "instance", "replica", "prometheus_replica", "service"]);
    let cases = (models(), scrapes, names);
    CommandRule::ScrapedTwice.prove(
        &cases,
        |_| true,
        |(models, scrapes, name)| {
            let mut series = SeriesInMemory::at(NOW);
            for (number, (phase, is_overwritten)) in scrapes.iter().enumerate() {
                let labels = format!("{name}=s{number}");
                let scrape =
                    Scrape { phase: *phase, is_overwritten: *is_overwritten, ..Scrape::new(&labels) };
                kubelet(&mut series, models, &scrape, HOUR);
                state(&mut series, models, &Scrape::new(&labels), HOUR);
            }
            compare(&series, &cluster(models, "", HOUR))
        },
    );
}

#[test]
fn labels_of_the_target_do_not_count() {
    let cases = (models(), any::<bool>(), any::<bool>());
    let applies = |(_, kubelet, state): &(Vec<Model>, bool, bool)| *kubelet || *state;
    CommandRule::ExportedLabels.prove(&cases, applies, |(models, of_kubelet, of_state)| {
        let scrape = |is_overwritten: &bool| Scrape { is_overwritten: *is_overwritten, ..Scrape::new("") };
        let mut series = SeriesInMemory::at(NOW);
        kubelet(&mut series, models, &scrape(of_kubelet), HOUR);
        state(&mut series, models, &scrape(of_state), HOUR);
        let right = cluster(models, "", HOUR);
        compare(&series, &right)?;
        // Namespaces are those of the series, too.
        let selection = Selection { matchers: Vec::new(), namespaces: vec![models[0].namespace.to_owned()] };
        let read = |series: &SeriesInMemory| {
            gather::read(&Reader::new(series), &selection, HOUR)
                .map(|history| evidence(&history))
                .map_err(|error| error.to_string())
        };
        same(&read(&series)?, &read(&right)?)
    });
}

#[test]
fn the_same_question_a_moment_later_has_the_same_answer() {
    let cases = (models(), 0..3600_u64, 1..10_u64);
    let window = 4 * INTERVAL;
    let applies =
        |(_, at, later): &(Vec<Model>, u64, u64)| (NOW + at) / window == (NOW + at + later) / window;
    CommandRule::AlignedWindows.prove(&cases, applies, |(models, at, later)| {
        let read = |now: u64| {
            let series = SeriesInMemory { now, ..cluster(models, "", HOUR) };
            let history = read(&series, "", HOUR).map_err(|error| error.to_string())?;
            let mut text = Vec::new();
            history.snapshot.write(&mut text).unwrap();
            String::from_utf8(text).map_err(|error| error.to_string())
        };
        let (one, other) = (read(NOW + at)?, read(NOW + at + later)?);
        if one == other { Ok(()) } else { Err(format!("{one}\n{other}")) }
    });
}

#[test]
fn periods_are_whole_hours_and_windows() {
    for (min_window, wanted) in [(8, 8), (40, 40), (60, 60), (64, 72), (240, 240), (3601, 7200)] {
        let period = Period::new(NOW + 7, 24 * HOUR, min_window);
        assert_eq!(period.window, wanted, "{min_window}");
        assert_eq!(
            (
                period.from % HOUR,
                period.hours_end % HOUR,
                period.end % wanted,
                (period.end - period.from) % wanted
            ),
            (0, 0, 0, 0)
        );
        assert!(period.end > NOW - wanted && period.from + 24 * HOUR <= NOW);
    }
}

#[test]
fn a_query_that_is_too_large_is_cut_into_smaller_parts() {
    let cases = (models(), HOUR..3 * HOUR);
    CommandRule::SmallerParts.prove(
        &cases,
        |_| true,
        |(models, longest)| {
            let whole = cluster(models, "", 3 * HOUR);
            let limited = SeriesInMemory { longest: *longest, ..whole.clone() };
            let read = |series: &SeriesInMemory| {
                read(series, "", 3 * HOUR)
                    .map(|history| evidence(&history))
                    .map_err(|error| error.to_string())
            };
            let (parts, right) = (read(&limited)?, read(&whole)?);
            let queries = limited.queries.borrow().len();
            assert!(queries <= 30 + 3 * 20 + 8, "{queries} queries");
            if parts == right { Ok(()) } else { Err(format!("{parts:?}\n{right:?}")) }
        },
    );
}

#[test]
fn a_query_that_is_too_large_even_for_an_hour_is_an_error() {
    let models = [Model { namespace: "shop", workload: 1, cores: 0.5, memory: 100.0, limit: 256.0 }];
    let series = SeriesInMemory { longest: 1000, ..cluster(&models, "", 3 * HOUR) };
    let error = read(&series, "", 3 * HOUR).unwrap_err().to_string();
    assert!(error.contains("even for 1h") && error.contains("-n NAMESPACE"), "{error}");
}
