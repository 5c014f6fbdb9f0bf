//! Events for tests.

use std::sync::Arc;

use super::{
    ContainerKind, Event, EventDetails, Init, Level, Names, OomKill, OomScope, Runtime, Subject, Termination,
    TerminationReason, Throttled,
};

/// One of each kind, of a container in a pod; the eviction is of the pod.
pub(crate) fn one_of_each() -> Arc<[Arc<Event>]> {
    let of_pod = Names {
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        workload_kind: "StatefulSet".to_owned(),
        workload: "web".to_owned(),
        ..Names::default()
    };
    let of_container = Names {
        container: "main".to_owned(),
        image: "example/app:1".to_owned(),
        kind: Some(ContainerKind::App),
        ..of_pod.clone()
    };
    let pod = Subject::from_status(&Arc::new(of_pod), "uid-1", "");
    let container = Subject {
        names: Some(Arc::new(of_container)),
        pod_uid: "uid-1".into(),
        id: "aaaa".into(),
        runtime: Runtime::Containerd,
        level: Level::Container,
        path: "/kubepods/poduid-1/aaaa".into(),
    };
    let throttled = Throttled { seconds: 10.0, periods: 100, throttled_periods: 40 };
    let kill = OomKill {
        at_unix: 1_700_000_000.0,
        scope: OomScope::Container,
        usage_bytes: 1024,
        limit_bytes: Some(1024),
        pid: 7,
        comm: "java".to_owned(),
    };
    let ended = Termination {
        reason: TerminationReason::OomKilled,
        exit_code: 137,
        signal: Some(9),
        ended_unix: 1_700_000_002.5,
        init: Some(Init { pid: 7, comm: "java".to_owned(), started_unix: 1_700_000_000.0, contained: true }),
    };
    let at_unix = 1_700_000_000.25;
    [
        (&container, EventDetails::OomKill(kill)),
        (&container, EventDetails::Termination(ended)),
        (&container, EventDetails::ThrottlingStart(throttled)),
        (&container, EventDetails::ThrottlingEnd(throttled)),
        (&pod, EventDetails::Eviction("The node was low on resource: memory.".into())),
        (&container, EventDetails::ImagePullFailure("ErrImagePull".into())),
    ]
    .into_iter()
    .zip(1..)
    .map(|((subject, details), sequence)| {
        Arc::new(Event { sequence, at_unix, subject: subject.clone(), details })
    })
    .collect()
}
