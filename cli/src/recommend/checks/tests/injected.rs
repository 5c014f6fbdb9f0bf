//! Containers that a patch of the pod template cannot size.

use super::*;

/// Today's and the recommended CPU request of a container of the template and of an injected one, and whether an autoscaler or the
/// `min` of a LimitRange asks the pod for more.
fn cases() -> impl Strategy<Value = ([(u64, u64); 2], bool)> {
    let both = || (100..2000_u64, 10..2000_u64);
    (both(), both(), any::<bool>()).prop_map(|(app, proxy, is_autoscaled)| ([app, proxy], is_autoscaled))
}

fn of_pods(min: u64) -> Value {
    let limits = json!([{ "type": "Pod", "min": { "cpu": format!("{min}m") } }]);
    json!({ "limitranges": [{ "metadata": { "name": "least", "namespace": "shop" }, "spec": { "limits": limits } }] })
}

#[test]
fn what_the_pod_lacks_is_for_containers_that_a_patch_can_size() {
    // Of both, the pod asks for too little with the recommended request of the one and today's of the other.
    let wanted = |[app, proxy]: [(u64, u64); 2], is_autoscaled: bool| {
        let now = app.0 + proxy.0;
        if is_autoscaled { (now * 8).div_ceil(9) } else { now }
    };
    CommandRule::InjectedStays.prove(
        &cases(),
        |([app, proxy], is_autoscaled)| {
            // The injected one is larger, so it would get what is missing.
            app.1 + proxy.0 < wanted([*app, *proxy], *is_autoscaled) && proxy.1 > app.1
        },
        |([app, proxy], is_autoscaled)| {
            let objects = if *is_autoscaled { by_cpu() } else { of_pods(app.0 + proxy.0) };
            let mut entries = [
                entry("app", (app.0, MIB), (app.1, MIB)),
                entry("istio-proxy", (proxy.0, MIB), (proxy.1, MIB)),
            ];
            entries[1].in_template = InTemplate::No;
            warnings(&mut entries, &objects);
            let [of_app, of_proxy] =
                entries.each_ref().map(|entry| entry.recommended.cpu_request.unwrap_or(0));
            if of_proxy != proxy.1 {
                return Err(format!("the injected container gets {of_proxy}m instead of {}m", proxy.1));
            }
            // A patch leaves the other one as it is today.
            let is_enough = of_app + proxy.0 >= wanted([*app, *proxy], *is_autoscaled);
            if is_enough { Ok(()) } else { Err(format!("{of_app}m beside {}m", proxy.0)) }
        },
    );
}

#[test]
fn annotations_have_values_that_limit_ranges_allow() {
    let limits = json!([{ "type": "Container", "min": { "cpu": "50m" }, "max": { "memory": "2Mi" } }]);
    let metadata = json!({ "name": "range", "namespace": "shop" });
    let objects = json!({ "limitranges": [{ "metadata": metadata, "spec": { "limits": limits } }] });
    let mut entries = [entry("app", (100, MIB), (60, MIB)), entry("istio-proxy", (100, MIB), (20, 3 * MIB))];
    entries.iter_mut().for_each(|it| {
        (it.current.memory_limit, it.recommended.memory_limit) =
            (it.current.memory_request, it.recommended.memory_request);
    });
    entries[1].in_template = InTemplate::No;
    let texts = warnings(&mut entries, &objects);
    let of_proxy: Vec<&String> = texts.iter().filter(|text| text.starts_with("istio-proxy: ")).collect();
    assert!(of_proxy[0].contains("cpu 20m is below the LimitRange min 50m"), "{texts:?}");
    assert_eq!(entries[1].recommended.cpu_request, Some(50));
    assert_eq!(entries[1].recommended.memory_limit, Some(2 * MIB), "no less than today");
    assert!(Entry::refusal(&entries).is_none(), "the patch does not have it");
}
