use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt as _,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::patterns::{DroppableLabel, Pattern};

fn load_from(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Request, ConfigErrors> {
    let args = std::iter::once("snug-agent").chain(args.iter().copied()).map(OsString::from);
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load(args, env, |_| file.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into()))
}

fn loaded(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Loaded {
    match load_from(args, env, file) {
        Ok(Request::Run(loaded)) => *loaded,
        Ok(Request::Print(text)) => panic!("printed: {text}"),
        Err(errors) => panic!("{errors}"),
    }
}

/// The configuration without any option.
pub(crate) fn defaults() -> Config {
    loaded(&[], &[], None).config
}

fn errors(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Vec<String> {
    match load_from(args, env, file) {
        Err(ConfigErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
        Ok(request) => panic!("taken: {request:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    let Loaded { config, origins, file } = loaded(&[], &[], None);
    assert_eq!(config.listen, Some("127.0.0.1:9750".parse().unwrap()));
    assert_eq!(config.proc_root, Path::new("/proc"));
    assert_eq!(config.data_dir, None);
    assert_eq!(config.sample_interval, Duration::from_millis(100));
    assert_eq!(config.max_series, 200_000);
    assert_eq!(config.source, SourceChoice::Auto);
    assert!(!config.ebpf_stats && config.kubelet_metrics);
    assert!(config.metrics_allow.is_empty());
    assert!(origins.values().all(|origin| *origin == OptionOrigin::Default));
    assert_eq!((origins.len(), file), (OPTIONS.len(), None));
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let file = "sample-interval = \"400ms\"\nmax-series = 7\nlog = \"warn\"\n";
    let env = [("SNUG_SAMPLE_INTERVAL", "300ms"), ("SNUG_MAX_SERIES", "8")];
    let Loaded { config, origins, .. } = loaded(&["--sample-interval", "200ms"], &env, Some(file));
    assert_eq!(config.sample_interval, Duration::from_millis(200));
    assert_eq!(config.max_series, 8);
    assert_eq!(config.log, "warn");
    assert_eq!(origins["sample-interval"], OptionOrigin::Flag("sample-interval".into()));
    assert_eq!(origins["max-series"], OptionOrigin::Variable("SNUG_MAX_SERIES".into()));
    assert_eq!(origins["log"].to_string(), "/etc/snug/agent.toml:3");
}

#[test]
fn every_kind_of_value_is_read_from_every_place() {
    let file = r#"
listen = "[::1]:9750"
ebpf-stats = true
kubelet-metrics = "off"
metrics-deny = ["snug_io_*", "container_fs_*"]
namespaces-allow = "prod-*,web"
drop-labels = ["image"]
source = "files"
log-format = "json"
max-cgroups = 64
"#;
    let config = loaded(
        &["--metrics-allow=snug_*", "--metrics-allow", "up,down"],
        &[("SNUG_EBPF_LOG", "warn")],
        Some(file),
    )
    .config;
    assert_eq!(config.listen, Some("[::1]:9750".parse().unwrap()));
    assert!(config.ebpf_stats && !config.kubelet_metrics);
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::as_text).collect::<Vec<_>>();
    assert_eq!(texts(&config.metrics_allow), ["snug_*", "up", "down"]);
    assert_eq!(texts(&config.metrics_deny), ["snug_io_*", "container_fs_*"]);
    assert_eq!(texts(&config.namespaces_allow), ["prod-*", "web"]);
    assert!(
        config.namespaces_allow[0].matches("prod-eu") && !config.namespaces_allow[0].matches("preprod-eu")
    );
    assert_eq!(config.drop_labels, [DroppableLabel::Image]);
    assert_eq!(
        (config.source, config.log_format, config.ebpf_log),
        (SourceChoice::Files, LogFormat::Json, EbpfLog::Warn)
    );
    assert_eq!(config.max_cgroups, 64);
}

#[test]
fn an_empty_text_unsets_an_optional_value() {
    let config = loaded(&["--data-dir", ""], &[], Some("data-dir = \"/var/lib/snug\"\n")).config;
    assert_eq!(config.data_dir, None);
}

#[test]
fn all_errors_are_reported_at_once_with_origin_value_and_allowed_values() {
    let file = "listen = \"nowhere\"\nmax-cgroups = 1\nsampl-interval = \"1s\"\nslow-interval = 2.5\n";
    let all = errors(
        &["--sample-intervall", "50ms", "--log", "inof", "--working-set-interval", "1h"],
        &[("SNUG_SORCE", "files"), ("SNUG_MAX_SERIES", "-1")],
        Some(file),
    );
    let expect = |parts: &[&str]| {
        assert!(
            all.iter().any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} not in {all:#?}"
        );
    };
    expect(&["--sample-intervall: there is no option", "did you mean \"--sample-interval\"?"]);
    expect(&["--log: log = \"inof\"", "is not a log level", "allowed: off, error"]);
    expect(&["--working-set-interval", "\"1h\"", "too long", "500ms to 1m"]);
    expect(&["SNUG_SORCE: there is no option", "SNUG_SOURCE"]);
    expect(&["SNUG_MAX_SERIES: max-series = \"-1\"", "whole number from 0"]);
    expect(&["/etc/snug/agent.toml:1: listen = \"nowhere\"", "IP address"]);
    expect(&["/etc/snug/agent.toml:2: max-cgroups = \"1\"", "too small", "64 to 65536"]);
    expect(&["/etc/snug/agent.toml:3: there is no option \"sampl-interval\"", "sample-interval"]);
    expect(&["/etc/snug/agent.toml:4: slow-interval = (a float)"]);
    assert_eq!(all.len(), 9, "{all:#?}");
}

#[test]
fn an_error_in_an_overridden_value_is_reported() {
    let all = errors(&["--source", "files"], &[("SNUG_SOURCE", "disk")], None);
    assert_eq!(
        all,
        ["SNUG_SOURCE: source = \"disk\" is refused: no such choice; allowed: auto, kernel, files"]
    );
}

#[test]
fn a_wrong_command_line_is_reported_and_the_rest_is_still_read() {
    let all = errors(&["stray", "--listen", "--max-series", "x", "--log=info", "--log=warn"], &[], None);
    assert_eq!(all.len(), 4, "{all:#?}");
    assert!(all[0].contains("'stray'"), "{all:#?}");
    assert!(all[1].contains("--listen <ADDRESS>"), "{all:#?}");
    assert!(all[2].contains("--log: given 2 times"), "{all:#?}");
    assert!(all[3].contains("max-series"), "{all:#?}");
}

#[test]
fn a_negative_number_is_a_value_not_a_flag() {
    let all = errors(&["--max-series", "-1"], &[], None);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(all[0].starts_with("--max-series: max-series = \"-1\" is refused"), "{all:#?}");
}

#[test]
fn intervals_must_be_in_order() {
    let all = errors(&["--sample-interval", "1s"], &[("SNUG_WORKING_SET_INTERVAL", "500ms")], None);
    assert_eq!(all.len(), 1);
    assert!(all[0].contains("working-set-interval = 500ms (SNUG_WORKING_SET_INTERVAL)"), "{all:?}");
    assert!(all[0].contains("sample-interval = 1s (--sample-interval)"), "{all:?}");
}

#[test]
fn an_invalid_file_is_reported_by_line() {
    let all = errors(&[], &[], Some("log = \"info\"\nlisten = = 3\nlog = \"warn\"\n"));
    assert!(all.iter().any(|line| line.starts_with("/etc/snug/agent.toml:2: not TOML:")), "{all:#?}");
    assert!(
        all.iter().any(|line| line.starts_with("/etc/snug/agent.toml:3: not TOML: duplicate key")),
        "{all:#?}"
    );
}

#[test]
fn a_named_file_must_exist() {
    for (args, env, by) in [
        (&["--config", "/x.toml"][..], &[][..], "--config"),
        (&[], &[("SNUG_CONFIG", "/x.toml")], "SNUG_CONFIG"),
    ] {
        let all = errors(args, env, None);
        assert_eq!(all.len(), 1);
        assert!(all[0].starts_with("/x.toml: cannot be read:") && all[0].ends_with(by), "{all:?}");
    }
}

#[test]
fn variables_that_are_not_options() {
    let env =
        [("SNUG_CACHE_DIR", "/tmp"), ("SNUG_AGENT_SERVICE_HOST", "10.0.0.1"), ("SNUGGLE", "1"), ("PATH", "")];
    loaded(&[], &env, None);
    let all = errors(&[], &[("SNUG_ZZZ", "1")], None);
    assert_eq!(all, ["SNUG_ZZZ: there is no option \"SNUG_ZZZ\""]);
}

#[test]
fn values_must_be_text() {
    let bad = OsString::from_vec(vec![0xff]);
    let name = OsString::from("snug-agent");
    let not_found = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let ConfigErrors(all) =
        load([name, "--log".into(), bad.clone()], [(OsString::from("SNUG_LISTEN"), bad)], not_found)
            .unwrap_err();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|error| matches!(error, ConfigError::NotText { .. })));
}

#[test]
fn what_check_config_prints_is_a_configuration_file_with_the_same_meaning() {
    let args = [
        "--listen",
        "[::1]:1",
        "--metrics-deny",
        "a*,b?",
        "--max-series=0",
        "--data-dir=/d",
        "--ebpf-stats=on",
    ];
    let env = [("SNUG_LOG", "info,snug_agent=debug")];
    let before = loaded(&args, &env, None).config;
    let checked: Vec<&str> = args.iter().copied().chain(["--check-config"]).collect();
    let Ok(Request::Print(text)) = load_from(&checked, &env, None) else { panic!("not printed") };
    assert!(
        text.contains("# --listen") && text.contains("# SNUG_LOG") && text.contains("# default"),
        "{text}"
    );
    assert_eq!(loaded(&[], &[], Some(&text)).config, before, "{text}");
}

#[test]
fn help_manual_and_version_are_printed() {
    let printed = |flag| match load_from(&[flag], &[], None) {
        Ok(Request::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(printed("--help").contains("--working-set-interval"));
    let manual = printed("--man");
    assert!(manual.contains(".TH snug-agent 8 "), "{manual}");
    for spec in OPTIONS {
        let flag = format!("--{}", spec.key).replace('-', "\\-");
        assert!(manual.contains(&flag), "{flag}");
    }
    assert_eq!(printed("--version").trim(), format!("snug-agent {}", env!("CARGO_PKG_VERSION")));
}

fn wild_arg() -> impl Strategy<Value = OsString> {
    prop_oneof![
        any::<Vec<u8>>().prop_map(OsString::from_vec),
        "-{0,2}[a-z=<> -]{0,12}".prop_map(OsString::from),
        (0..OPTIONS.len(), "=?.{0,6}").prop_map(|(at, rest)| format!("--{}{rest}", OPTIONS[at].key).into()),
    ]
}

fn wild_variable() -> impl Strategy<Value = (OsString, OsString)> {
    let name = prop_oneof![
        "SNUG_[A-Z_]{0,12}".prop_map(OsString::from),
        (0..OPTIONS.len()).prop_map(|at| OPTIONS[at].variable().into()),
        any::<Vec<u8>>().prop_map(|mut bytes| {
            bytes.splice(0..0, *b"SNUG_");
            OsString::from_vec(bytes)
        }),
    ];
    (name, any::<Vec<u8>>().prop_map(OsString::from_vec))
}

fn wild_file() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        ".{0,10}",
        "\"[a-z0-9*,.:]{0,10}\"",
        "-?[0-9]{1,22}",
        "\\[\"?[a-z]{0,3}\"?,?\\]",
        "\\{a=1\\}"
    ];
    let line = (0..OPTIONS.len(), value).prop_map(|(at, value)| format!("{} = {value}\n", OPTIONS[at].key));
    prop_oneof![any::<String>(), proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())]
}

proptest! {
    #[test]
    fn wild_input_is_refused_with_a_message_or_taken(
        args in proptest::collection::vec(wild_arg(), 0..6),
        env in proptest::collection::vec(wild_variable(), 0..4),
        file in wild_file(),
    ) {
        let args = std::iter::once(OsString::from("snug-agent")).chain(args);
        match load(args, env, |_| Ok(file.clone())) {
            Ok(_) => {}
            Err(errors) => prop_assert!(!errors.0.is_empty() && !errors.to_string().is_empty()),
        }
    }

    #[test]
    fn durations_within_bounds_survive_a_round_trip(millis in 50_u64..=1000) {
        let text = humantime::format_duration(Duration::from_millis(millis)).to_string();
        let args = [OsStr::new("snug-agent"), OsStr::new("--sample-interval"), OsStr::new(&text)].map(OsString::from);
        match load(args, [], |_| Err(io::ErrorKind::NotFound.into())) {
            Ok(Request::Run(loaded)) => prop_assert_eq!(loaded.config.sample_interval, Duration::from_millis(millis)),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn only_loopback_is_served_without_an_identity() {
    let config = loaded(&[], &[], None).config;
    assert!(config.listen.is_some_and(|address| address.ip().is_loopback()));
    assert_eq!((config.tls_listen, config.probe_listen), (None, None));
    for address in ["0.0.0.0:9750", "[::]:9750", "10.0.0.1:9750", "[::ffff:10.0.0.1]:9750"] {
        let all = errors(&["--listen", address], &[], None);
        assert_eq!(all.len(), 1, "{all:#?}");
        assert!(all[0].contains("listen (--listen) is no loopback address"), "{all:#?}");
        assert!(all[0].contains("tls-listen") && all[0].contains("listen-insecure"), "{all:#?}");
        loaded(&["--listen", address, "--listen-insecure", "on"], &[], None);
    }
    for address in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        loaded(&["--listen", address], &[], None);
    }
    assert_eq!(loaded(&["--listen", "off"], &[], None).config.listen, None);
}

#[test]
fn tls_needs_a_certificate_and_somebody_to_admit() {
    let tls = ["--tls-listen", "0.0.0.0:9751"];
    let files = ["--tls-certificate", "/c", "--tls-key", "/k"];
    let all = errors(&tls, &[], None);
    assert!(all[0].contains("requires tls-certificate and tls-key"), "{all:#?}");
    assert!(all[1].contains("admits nobody"), "{all:#?}");
    assert_eq!(errors(&[&tls[..], &files].concat(), &[], None).len(), 1);
    for identity in [["--tls-client-ca", "/ca"], ["--bearer-token-file", "/t"], ["--token-review", "on"]] {
        let config = loaded(&[&tls[..], &files, &identity].concat(), &[], None).config;
        assert_eq!(config.token_audiences, ["snug-agent"], "a token is of use here alone");
    }
    let none = loaded(&["--token-audiences", ""], &[], None).config;
    assert!(none.token_audiences.is_empty());
    let all = errors(&["--token-allowed-age", "20m"], &[], None);
    assert!(all[0].contains("token-outage-age = 600s") && all[0].contains("--token-allowed-age"), "{all:#?}");
}

#[test]
fn neither_the_current_configuration_nor_errors_show_secrets() {
    let secret = "s3cr3t";
    let env = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20s3cr3t"),
        ("SNUG_OTLP_LOGS_HEADERS", "x=s3cr3t"),
        ("SNUG_OTLP_ENDPOINT", "https://user:s3cr3t@collector:4318/?key=s3cr3t"),
    ];
    let Ok(Request::Print(text)) = load_from(&["--check-config"], &env, None) else { panic!("not printed") };
    assert!(text.contains("Authorization=***") && text.contains("https://***@collector:4318/"), "{text}");
    assert!(!text.contains(secret), "{text}");
    let file = "otlp-headers = [\"Authorization: s3cr3t\"]\notlp-logs-endpoint = \"ftp://a:s3cr3t@b\"\n";
    let env = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer s3cr3t"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "Authorization: Bearer s3cr3t=="),
        ("SNUG_OTLP_ENDPOINT", "user:s3cr3t@collector"),
    ];
    let all = errors(&["--otlp-headers", "s3cr3t"], &env, Some(file));
    assert_eq!(all.len(), 6, "{all:#?}");
    assert!(all.iter().all(|error| !error.contains(secret)), "{all:#?}");
}
