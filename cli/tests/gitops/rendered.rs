//! What kustomize and helm render, before and after a change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;
use serde_json::Value;
use snug_sizing::quantity::Quantity;

use super::{
    Repository, code, error,
    history::{Used, snapshot, used},
    text, tools,
};

/// Requests and limits by object and container, and everything else.
struct Rendered {
    resources: BTreeMap<String, Value>,
    rest: BTreeMap<String, Value>,
}

fn rendered(yaml: &str, namespace: &str) -> Rendered {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let (mut resources, mut rest) = (BTreeMap::new(), BTreeMap::new());
    for mut object in all.into_iter().filter(|object| !object.is_null()) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!(
            "{}/{}/{}",
            object["metadata"]["namespace"].as_str().unwrap_or(namespace),
            text(&object["kind"]),
            text(&object["metadata"]["name"])
        );
        let spec = match object["kind"].as_str().unwrap_or_default() {
            "CronJob" => object.pointer_mut("/spec/jobTemplate/spec/template/spec"),
            _ => object.pointer_mut("/spec/template/spec"),
        };
        if let Some(spec) = spec {
            for list in ["initContainers", "containers"] {
                for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    let key = format!("{name} {}", container["name"].as_str().unwrap());
                    let own = container.as_object_mut().unwrap().remove("resources").unwrap_or_default();
                    resources.insert(key, own);
                }
            }
        }
        assert!(rest.insert(name.clone(), object).is_none(), "{name} twice");
    }
    Rendered { resources, rest }
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output =
        Command::new(tools().unwrap().join(program)).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", error(&output));
    text(&output)
}

/// A program that renders manifests, its arguments, and the namespace of what names none.
type Render<'r> = (&'r str, &'r [&'r str], &'r str);

/// What `snug recommend` recommends for each container: its key as in [`Rendered`], and the values.
fn recommended(history: &Path) -> BTreeMap<String, Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_snug"))
        .args(["recommend", "-o", "json", "--file", history.to_str().unwrap()])
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&text(&output)).unwrap();
    let of_one = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        let key =
            format!("{}/{}/{} {}", text("namespace"), text("owner"), text("workload"), text("container"));
        (key, entry["quantities"].clone())
    };
    report["recommendations"].as_array().unwrap().iter().map(of_one).collect()
}

/// Millicores and bytes of requests and limits.
fn amounts(resources: &Value) -> BTreeMap<String, i128> {
    let mut found = BTreeMap::new();
    for part in ["requests", "limits"] {
        for (name, value) in resources[part].as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let quantity: Quantity = text.parse().unwrap();
            found.insert(format!("{part}.{name}"), quantity.nanos());
        }
    }
    found
}

/// Writes the recommendations, and asserts that the rendered objects differ in the resources of containers with history alone, and
/// have the recommended values, unless a remark says that the container was not changed; that a second run changes nothing; and that
/// the diff is what was written. Returns the containers that changed, and the remarks.
fn apply(
    repository: &Repository,
    history: &[Used],
    options: &[&str],
    render: &[Render<'_>],
) -> (Vec<String>, String) {
    let file = snapshot(history);
    let recommended = recommended(file.path());
    let all = |repository: &Repository| -> Vec<Rendered> {
        let of_one = |(program, arguments, namespace): &Render<'_>| {
            rendered(&run(program, arguments, repository.path()), namespace)
        };
        render.iter().map(of_one).collect()
    };
    let (before, old) = (all(repository), repository.files());
    let shown = repository.snug(file.path(), &[&["diff"], options].concat());
    let remarks = error(&shown);
    assert!(matches!(code(&shown), 0 | 3), "{remarks}");
    assert_eq!(repository.files(), old, "without --write");
    let written = repository.snug(file.path(), &[&["diff", "--write"], options].concat());
    assert_eq!(text(&written), text(&shown));
    let mut changed = Vec::new();
    for (before, after) in before.iter().zip(all(repository)) {
        assert_eq!(before.rest, after.rest, "only resources differ");
        assert_eq!(before.resources.keys().collect::<Vec<_>>(), after.resources.keys().collect::<Vec<_>>());
        for (name, old) in &before.resources {
            let (old, new) = (amounts(old), amounts(&after.resources[name]));
            if new != old {
                changed.push(name.clone());
            }
            let title = name.replace('/', " ");
            let parts: Vec<&str> = title.split(' ').collect();
            let title = format!("{}/{} {}", parts[0], parts[2], parts[3]);
            let is_named = remarks.lines().any(|line| line.contains(&title) && line.contains("not changed"));
            match recommended.get(name).filter(|_| !is_named) {
                Some(wanted) => assert_eq!(new, amounts(wanted), "{name}\n{}{remarks}", text(&shown)),
                None => assert_eq!(new, old, "{name}\n{}{remarks}", text(&shown)),
            }
        }
    }
    let again = repository.snug(file.path(), &[&["diff", "--write"], options].concat());
    assert_eq!(text(&again), "", "a second run changes nothing");
    // git applies the shown diff, to the same end.
    let new = repository.files();
    let patched = Repository { folder: tempfile::tempdir().unwrap() };
    for (path, bytes) in &old {
        let path = patched.path().join(path.strip_prefix(repository.path()).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    if !text(&shown).is_empty() {
        patched.write("shown.diff", &text(&shown));
        let applied =
            Command::new("git").args(["apply", "shown.diff"]).current_dir(patched.path()).output().unwrap();
        assert!(applied.status.success(), "{}{}", error(&applied), text(&shown));
        std::fs::remove_file(patched.path().join("shown.diff")).unwrap();
    }
    let bytes = |all: Vec<(PathBuf, Vec<u8>)>| all.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    assert!(bytes(patched.files()) == bytes(new), "the diff is what was written");
    changed.sort();
    (changed, remarks)
}

#[test]
fn a_chart_with_a_value_for_each_service() {
    if tools().is_none() {
        return;
    }
    let repository = Repository::new("boutique-chart");
    let history = [
        used("shop Deployment/frontend server", 0.4, 90),
        used("shop Deployment/adservice server", 0.05, 400),
    ];
    let render = [("helm", &["template", "onlineboutique", ".", "--namespace", "shop"][..], "shop")];
    let (changed, remarks) = apply(&repository, &history, &["--default-namespace", "shop"], &render);
    assert_eq!(changed, ["shop/Deployment/adservice server", "shop/Deployment/frontend server"], "{remarks}");
    assert!(remarks.contains("no value of the chart sets the resources of the container redis"), "{remarks}");
}

#[test]
fn one_base_in_three_environments() {
    if tools().is_none() {
        return;
    }
    let render: Vec<Render<'_>> = vec![
        ("kustomize", &["build", "overlays/dev"], "dev"),
        ("kustomize", &["build", "overlays/staging"], "staging"),
        ("kustomize", &["build", "overlays/production"], "production"),
    ];
    let repository = Repository::new("podinfo-deploy");
    let history = [
        used("production Deployment/backend backend", 0.5, 300),
        used("production CronJob/backup-daily backup", 0.02, 90),
        used("staging Deployment/backend backend", 0.1, 80),
    ];
    let (changed, remarks) = apply(&repository, &history, &[], &render);
    let expected = [
        "production/CronJob/backup-daily backup",
        "production/Deployment/backend backend",
        "staging/Deployment/backend backend",
    ];
    assert_eq!(changed, expected, "{remarks}");
    assert!(
        repository
            .read("overlays/production/kustomization.yaml")
            .contains("patches:\n- patch: |\n    apiVersion: apps/v1\n")
    );
    assert!(!repository.read("overlays/dev/kustomization.yaml").contains("patches"));

    // The largest value of all, for all.
    let repository = Repository::new("podinfo-deploy");
    let file = snapshot(&history);
    let shown = repository.snug(file.path(), &["diff", "--write", "--overlays", "largest"]);
    assert!(text(&shown).contains("the largest of those that share it, with "), "{}", text(&shown));
    for (environment, (program, arguments, namespace)) in ["dev", "staging", "production"].iter().zip(&render)
    {
        let after = rendered(&run(program, arguments, repository.path()), namespace);
        let own = amounts(&after.resources[&format!("{environment}/Deployment/backend backend")]);
        let largest = amounts(&recommended(file.path())["production/Deployment/backend backend"]);
        assert_eq!(own["requests.memory"], largest["requests.memory"], "{environment}");
    }
}

#[test]
fn overlays_with_patches_and_prefixes() {
    if tools().is_none() {
        return;
    }
    let repository = Repository::new("springboot");
    let history = [
        used("default Deployment/production-sbdemo sbdemo", 0.5, 900),
        used("default Deployment/staging-sbdemo sbdemo", 0.1, 300),
    ];
    let render = [
        ("kustomize", &["build", "overlays/production"][..], "default"),
        ("kustomize", &["build", "overlays/staging"], "default"),
    ];
    let (changed, remarks) = apply(&repository, &history, &["--default-namespace", "default"], &render);
    assert_eq!(
        changed,
        ["default/Deployment/production-sbdemo sbdemo", "default/Deployment/staging-sbdemo sbdemo"],
        "{remarks}"
    );
    let patch = repository.read("overlays/production/memorylimit_patch.yaml");
    assert!(!patch.contains("1250Mi") && patch.contains("MEM_TOTAL_MB"), "{patch}");
}

#[test]
fn operations_of_json_patches() {
    if tools().is_none() {
        return;
    }
    let repository = Repository::new("json-patches");
    let api = used("prod Deployment/api-v2 api", 0.5, 700);
    let history =
        [api, used("prod Deployment/api-v2 cache", 0.1, 90), used("staging Deployment/api cache", 0.01, 30)];
    let render = [
        ("kustomize", &["build", "overlays/prod"][..], "prod"),
        ("kustomize", &["build", "overlays/staging"], "staging"),
    ];
    let (changed, remarks) = apply(&repository, &history, &[], &render);
    let expected =
        ["prod/Deployment/api-v2 api", "prod/Deployment/api-v2 cache", "staging/Deployment/api cache"];
    assert_eq!(changed, expected, "{remarks}");
    let kustomization = repository.read("overlays/prod/kustomization.yaml");
    assert!(kustomization.contains("# twice the peak of last winter"), "{kustomization}");
    assert!(!kustomization.contains("1Gi"), "{kustomization}");
}

#[test]
fn releases_with_inline_values() {
    if tools().is_none() {
        return;
    }
    let repository = Repository::new("podinfo-releases");
    let history = [
        used("podinfo Deployment/podinfo podinfo", 0.3, 120),
        used("preview Deployment/podinfo-preview podinfo", 0.05, 40),
        used("podinfo Deployment/podinfo-redis redis", 0.05, 40),
    ];
    let file = snapshot(&history);
    let (before, old) = (repository.read("charts/podinfo/values.yaml"), repository.read("apps/podinfo.yaml"));
    let shown = repository.snug(file.path(), &["diff", "--write"]);
    let (diff, remarks) = (text(&shown), error(&shown));
    println!("{diff}{remarks}");
    assert_eq!(
        repository.read("charts/podinfo/values.yaml"),
        before,
        "the chart is that of several releases"
    );
    let new = repository.read("apps/podinfo.yaml");
    assert!(new != old && new.contains("# measured by hand"), "{new}");
    for remark in [
        "no value of the chart sets the resources of the container redis",
        "the chart cert-manager is not among the files",
    ] {
        assert!(remarks.contains(remark), "{remarks}");
    }
    assert_eq!(text(&repository.snug(file.path(), &["diff"])), "", "a second run changes nothing");
    // The values as Flux and Argo CD give them to helm.
    let release: Vec<Value> = serde_saphyr::from_multiple(&new).unwrap();
    let application: Value = serde_saphyr::from_str(&repository.read("apps/argo.yaml")).unwrap();
    let inline = application["spec"]["source"]["helm"]["values"].as_str().unwrap().to_owned();
    assert!(inline.contains("# Each pull request gets one."));
    for (name, namespace, values) in [
        ("podinfo", "podinfo", release[0]["spec"]["values"].to_string()),
        ("podinfo-preview", "preview", inline),
    ] {
        repository.write("values.txt", &values);
        let arguments =
            ["template", name, "./charts/podinfo", "--namespace", namespace, "--values", "values.txt"];
        let after = rendered(&run("helm", &arguments, repository.path()), namespace);
        let key = format!("{namespace}/Deployment/{name} podinfo");
        assert_eq!(amounts(&after.resources[&key]), amounts(&recommended(file.path())[&key]), "{diff}");
    }
}

#[test]
fn values_files_of_environments() {
    if tools().is_none() {
        return;
    }
    let repository = Repository::new("podinfo-releases/charts/podinfo");
    let history = [used("prod Deployment/web-podinfo podinfo", 0.3, 120)];
    let options = ["--release", "web", "--default-namespace", "prod", "--values", "values-prod.yaml"];
    let arguments = ["template", "web", ".", "--namespace", "prod", "--values", "values-prod.yaml"];
    // values-prod.yaml has an empty mapping or none: the values are added to it, and the defaults of the chart stay.
    let defaults = repository.read("values.yaml");
    let (changed, remarks) = apply(&repository, &history, &options, &[("helm", &arguments, "prod")]);
    assert_eq!(changed, ["prod/Deployment/web-podinfo podinfo"], "{remarks}");
    assert_eq!(repository.read("values.yaml"), defaults);
}

/// Resources in several styles.
const STYLES: [&str; 6] = [
    "",
    "        resources: {}\n",
    "        resources:\n          limits:\n            cpu: '2' # two\n            memory: 1Gi\n",
    "        resources: {limits: {memory: 512Mi}, requests: {cpu: 100m}}\n",
    "        # why\n        resources:\n          requests:\n            cpu: 1\n          limits: # none\n",
    "        resources:\n          limits: {cpu: \"1\"}\n",
];

/// A patch of an overlay: none, strategic in a file or as text, or JSON 6902.
fn patch(kind: usize) -> (&'static str, &'static str) {
    let strategic = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        resources:\n          limits:\n            memory: 2Gi # more\n";
    match kind {
        1 => ("patches:\n- path: patch.yaml\n", strategic),
        2 => (
            "patches:\n- target: {kind: Deployment}\n  patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {name: any}\n    spec:\n      template:\n        spec:\n          containers:\n          - name: app\n            resources:\n              limits:\n                cpu: null\n                memory: 700Mi\n",
            "",
        ),
        3 => (
            "patches:\n- target: {kind: Deployment, name: web}\n  patch: |-\n    - op: add\n      path: /spec/template/spec/containers/0/resources\n      value:\n        limits: {memory: 300Mi}\n",
            "",
        ),
        4 => ("patchesStrategicMerge:\n- patch.yaml\n", strategic),
        _ => ("", ""),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn random_overlays_of_a_base(
        style in 0..STYLES.len(),
        overlays in prop::collection::vec((0..5_usize, any::<bool>(), prop::option::of((1..40_u32, 10..400_u64))), 1..4),
        is_largest in any::<bool>(),
    ) {
        if tools().is_none() {
            return Ok(());
        }
        let repository = Repository { folder: tempfile::tempdir().unwrap() };
        let folder = |name: &str| std::fs::create_dir_all(repository.path().join(name)).unwrap();
        folder("base");
        repository.write("base/kustomization.yaml", "resources: [web.yaml]\n");
        let resources = STYLES[style];
        repository.write(
            "base/web.yaml",
            &format!("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        image: web:1\n{resources}"),
        );
        let mut history = Vec::new();
        let mut folders = Vec::new();
        for (number, (kind, has_prefix, usage)) in overlays.iter().enumerate() {
            let name = format!("overlay-{number}");
            folder(&name);
            let (patches, file) = patch(*kind);
            let prefix = if *has_prefix { "namePrefix: my-\n" } else { "" };
            repository.write(
                &format!("{name}/kustomization.yaml"),
                &format!("# {name}\nnamespace: n{number}\n{prefix}resources:\n- ../base\n{patches}"),
            );
            if !file.is_empty() {
                repository.write(&format!("{name}/patch.yaml"), file);
            }
            let workload = if *has_prefix { "my-web" } else { "web" };
            if let Some((cpu, memory)) = usage {
                history.push(used(&format!("n{number} Deployment/{workload} app"), f64::from(*cpu) / 20.0, *memory));
            }
            folders.push(name);
        }
        // With one overlay, there is nothing to choose.
        let options: &[&str] = if is_largest && overlays.len() == 1 { &["--overlays", "largest"] } else { &[] };
        let arguments: Vec<[&str; 2]> = folders.iter().map(|folder| ["build", folder.as_str()]).collect();
        let render: Vec<Render<'_>> = arguments.iter().map(|arguments| ("kustomize", &arguments[..], "")).collect();
        apply(&repository, &history, options, &render);
    }
}
