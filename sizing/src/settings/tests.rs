use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn picked(arguments: &[&str], environment: &[(&str, Option<&str>)]) -> Vec<(String, String)> {
    pick(arguments.iter().copied(), environment.iter().copied()).into_iter().collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn settings_are_found_in_arguments_and_in_variables() {
    assert_eq!(
        picked(
            &["sh", "-c", "exec java -Xmx256m \"-Xmx512m\" -XX:MaxRAMPercentage=75.0 -jar app.jar"],
            &[
                ("JAVA_TOOL_OPTIONS", Some("-XX:ActiveProcessorCount=2 -Dpassword=hunter2")),
                ("GOMEMLIMIT", None),
                ("WEB_CONCURRENCY", Some("4")),
                ("PASSWORD", Some("512")),
            ],
        ),
        pairs(&[
            ("-XX:MaxRAMPercentage", "75.0"),
            ("-Xmx", "512m"),
            ("GOMEMLIMIT", ""),
            ("JAVA_TOOL_OPTIONS -XX:ActiveProcessorCount", "2"),
            ("WEB_CONCURRENCY", "4"),
            ("java", ""),
        ])
    );
    assert_eq!(
        picked(&["/usr/bin/node", "--max_old_space_size", "1536", "app.js"], &[]),
        pairs(&[("--max-old-space-size", "1536"), ("node", "")])
    );
    assert_eq!(
        picked(&["agent", "--role", "node"], &[("NODE_OPTIONS", Some("--max-old-space-size=900"))]),
        pairs(&[("NODE_OPTIONS --max-old-space-size", "900")]),
        "the name of a program among the arguments of another one"
    );
}

#[test]
fn a_value_may_be_that_of_another_variable() {
    let environment = [("HEAP", Some("1g")), ("SECRET", None), ("WORD", Some("hunter2"))];
    assert_eq!(picked(&["java", "-Xmx$(HEAP)"], &environment), pairs(&[("-Xmx", "1g"), ("java", "")]));
    assert_eq!(picked(&["-Xmx${HEAP}"], &environment), pairs(&[("-Xmx", "1g")]));
    for unknown in ["-Xmx$(SECRET)", "-Xmx$(WORD)", "-Xmx$(ABSENT)"] {
        assert_eq!(picked(&[unknown], &environment), pairs(&[("-Xmx", "")]), "{unknown}");
    }
}

#[test]
fn a_limit_that_is_off_is_none() {
    assert_eq!(picked(&[], &[("GOMEMLIMIT", Some("off"))]), []);
}

#[test]
fn meanings() {
    for (name, value, expected) in [
        ("-Xmx", "512m", Meaning::Heap(Runtime::Jvm, 512 * MIB)),
        ("JAVA_OPTS -Xmx", "2G", Meaning::Heap(Runtime::Jvm, 2048 * MIB)),
        ("-Xmx", "1048576", Meaning::Heap(Runtime::Jvm, MIB)),
        ("-Xmx", "99999999999t", Meaning::Unknown),
        ("-XX:MaxRAMPercentage", "75.0", Meaning::HeapShare(Runtime::Jvm, 0.75)),
        ("-XX:MaxRAMPercentage", "0", Meaning::Unknown),
        ("-XX:MaxRAMPercentage", "NaN", Meaning::Unknown),
        ("-XX:MaxRAMFraction", "2", Meaning::HeapShare(Runtime::Jvm, 0.5)),
        ("--max-old-space-size", "1536", Meaning::Heap(Runtime::Node, 1536 * MIB)),
        ("GOMEMLIMIT", "1800MiB", Meaning::Heap(Runtime::Go, 1800 * MIB)),
        ("GOMEMLIMIT", "1800m", Meaning::Unknown),
        ("GOMEMLIMIT", "9223372036854775807", Meaning::Unknown),
        ("DOTNET_GCHeapHardLimit", "C800000", Meaning::Heap(Runtime::DotNet, 200 * MIB)),
        ("COMPlus_GCHeapHardLimit", "0xC800000", Meaning::Heap(Runtime::DotNet, 200 * MIB)),
        ("DOTNET_GCHeapHardLimitPercent", "32", Meaning::HeapShare(Runtime::DotNet, 0.5)),
        ("GOMAXPROCS", "4", Meaning::Threads(4)),
        ("WEB_CONCURRENCY", "4", Meaning::Workers(4)),
        ("java", "", Meaning::Program(Runtime::Jvm)),
        ("JAVA_OPTS", "", Meaning::Unknown),
    ] {
        assert_eq!(meaning(name, value), expected, "{name}={value}");
    }
}

#[test]
fn images_suggest_runtimes() {
    for (image, runtime) in [
        ("node", Some(Runtime::Node)),
        ("registry:5000/library/node:22@sha256:00", Some(Runtime::Node)),
        ("eclipse-temurin:21-jre", Some(Runtime::Jvm)),
        ("mcr.microsoft.com/dotnet/aspnet:8.0", Some(Runtime::DotNet)),
        ("quay.io/prometheus/node-exporter", None),
        ("", None),
    ] {
        assert_eq!(runtime_of_image(image), runtime, "{image}");
    }
}

/// Arguments and variables in which settings are likely.
fn environment() -> impl Strategy<Value = (Vec<String>, Vec<(String, Option<String>)>)> {
    let name = prop_oneof![
        prop::sample::select(VARIABLES.to_vec()).prop_map(str::to_owned),
        prop::sample::select(ARGUMENT_VARIABLES.to_vec()).prop_map(str::to_owned),
        "[A-Z_]{1,8}",
    ];
    let argument = (prop::sample::select(ARGUMENTS.to_vec()), "[=]?[a-zA-Z0-9$(){}._ -]{0,12}")
        .prop_map(|(name, value)| format!("{name}{value}"));
    let word = prop_oneof![argument, Just("java".to_owned()), Just("sh".to_owned()), any::<String>()];
    (prop::collection::vec(word.clone(), 0..6), prop::collection::vec((name, prop::option::of(word)), 0..6))
}

proptest! {
    #[test]
    fn only_known_names_and_numbers_are_kept((arguments, variables) in environment()) {
        let variables = || variables.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        for (name, value) in pick(arguments.iter().map(String::as_str), variables()) {
            let parts: Vec<&str> = name.split(' ').collect();
            let is_known = match parts[..] {
                [one] => {
                    VARIABLES.contains(&one)
                        || ARGUMENT_VARIABLES.contains(&one)
                        || ARGUMENTS.contains(&one)
                        || PROGRAMS.iter().any(|(program, _)| *program == one)
                }
                [variable, argument] => ARGUMENT_VARIABLES.contains(&variable) && ARGUMENTS.contains(&argument),
                _ => false,
            };
            prop_assert!(is_known, "{name}");
            prop_assert!(value.is_empty() || known(&name, &value).is_some(), "{name}={value}");
        }
    }
}
