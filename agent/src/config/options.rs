//! The one table of options. Flags, variables, the file, `--help` and `docs/configuration.md` all come from it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    inputs::Inputs,
    kinds::{
        Address, Choice, Count, Directives, DurationRange, FilePath, Kind, Labels, Millis, NodeName,
        Optional, Pairs, Patterns, Switch, Url,
    },
};
use crate::patterns::{DroppableLabel, Pattern};

/// Where measurements may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// The kernel programs where they work, files for the rest.
    Auto,
    /// As auto, but the kernel programs are believed without a comparison with the files.
    Kernel,
    /// Only cgroup files; no kernel program is loaded.
    Files,
}

/// Whether to ask the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesChoice {
    /// In a pod, unless there is a pods file; or with a kubeconfig.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The least severe message of the kernel programs that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EbpfLog {
    /// None.
    Off,
    /// Errors.
    Error,
    /// Warnings and above.
    Warn,
    /// Information and above.
    Info,
    /// Debugging and above.
    Debug,
    /// Everything.
    Trace,
}

/// The form of the agent's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object on each line.
    Json,
}

/// Where events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC.
    Grpc,
    /// Protobuf in HTTP requests.
    HttpProtobuf,
}

/// How what is sent by OTLP is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpCompression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
}

/// What a counter's value is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// The counter's beginning.
    Cumulative,
    /// The export before.
    Delta,
}

const SOURCES: &[(&str, SourceChoice)] =
    &[("auto", SourceChoice::Auto), ("kernel", SourceChoice::Kernel), ("files", SourceChoice::Files)];
const KUBERNETES: &[(&str, KubernetesChoice)] =
    &[("auto", KubernetesChoice::Auto), ("on", KubernetesChoice::On), ("off", KubernetesChoice::Off)];
const EBPF_LOGS: &[(&str, EbpfLog)] = &[
    ("off", EbpfLog::Off),
    ("error", EbpfLog::Error),
    ("warn", EbpfLog::Warn),
    ("info", EbpfLog::Info),
    ("debug", EbpfLog::Debug),
    ("trace", EbpfLog::Trace),
];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const EVENT_LOGS: &[(&str, EventLog)] = &[("off", EventLog::Off), ("stdout", EventLog::Stdout)];

const PROTOCOLS: &[(&str, OtlpProtocol)] =
    &[("http/protobuf", OtlpProtocol::HttpProtobuf), ("grpc", OtlpProtocol::Grpc)];
const COMPRESSIONS: &[(&str, OtlpCompression)] =
    &[("none", OtlpCompression::None), ("gzip", OtlpCompression::Gzip)];
const TEMPORALITIES: &[(&str, Temporality)] =
    &[("cumulative", Temporality::Cumulative), ("delta", Temporality::Delta)];

/// Variables of OpenTelemetry's specification that options have besides their own, which wins.
const STANDARD_VARIABLES: &[(&str, &str)] = &[
    ("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("otlp-metrics-endpoint", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
    ("otlp-logs-endpoint", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
    ("otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("otlp-headers", "OTEL_EXPORTER_OTLP_HEADERS"),
    ("otlp-compression", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ("otlp-timeout", "OTEL_EXPORTER_OTLP_TIMEOUT"),
    ("otlp-certificate", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ("otlp-client-certificate", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
    ("otlp-client-key", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
    ("otlp-metrics-protocol", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"),
    ("otlp-metrics-headers", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"),
    ("otlp-metrics-compression", "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION"),
    ("otlp-metrics-timeout", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"),
    ("otlp-metrics-certificate", "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE"),
    ("otlp-metrics-client-certificate", "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE"),
    ("otlp-metrics-client-key", "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY"),
    ("otlp-logs-protocol", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"),
    ("otlp-logs-headers", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"),
    ("otlp-logs-compression", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION"),
    ("otlp-logs-timeout", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"),
    ("otlp-logs-certificate", "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE"),
    ("otlp-logs-client-certificate", "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE"),
    ("otlp-logs-client-key", "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY"),
    ("otlp-temporality", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"),
    ("otlp-interval", "OTEL_METRIC_EXPORT_INTERVAL"),
    ("otlp-resource-attributes", "OTEL_RESOURCE_ATTRIBUTES"),
];

const FAMILIES: Patterns =
    Patterns { of: "metric families", has: |c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':') };
const NAMESPACES: Patterns =
    Patterns { of: "namespaces", has: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' };

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A row of the table, without its value's type.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key: `--key` on the command line, `key = …` in the file.
    pub key: &'static str,
    /// The heading it stands under.
    pub group: &'static str,
    /// What stands for its value in `--help`.
    pub placeholder: &'static str,
    /// The default as a flag would give it.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether it takes several values.
    pub list: bool,
    pub(super) allowed: fn() -> String,
}

impl OptionSpec {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("SNUG_{}", self.key.replace('-', "_").to_ascii_uppercase())
    }

    /// The variable of OpenTelemetry's specification that says the same.
    pub fn standard_variable(&self) -> Option<&'static str> {
        STANDARD_VARIABLES.iter().find(|(key, _)| *key == self.key).map(|(_, variable)| *variable)
    }

    /// What is allowed, as a phrase.
    pub fn allowed(&self) -> String {
        (self.allowed)()
    }
}

const fn is_list<K: Kind>(_: &K) -> bool {
    K::LIST
}

macro_rules! options {
    ($($group:literal {
        $( $(#[doc = $help:literal])+ $key:literal $field:ident: $type:ty = $default:literal, $placeholder:literal, $kind:expr; )+
    })+) => {
        /// The configuration that the agent runs with. There is no default but the table's.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config { $($( $(#[doc = $help])+ pub $field: $type, )+)+ }

        /// Every option.
        pub const OPTIONS: &[OptionSpec] = &[$($( OptionSpec {
            key: $key,
            group: $group,
            placeholder: $placeholder,
            default: $default,
            help: concat!($($help),+).trim_ascii(),
            list: is_list(&$kind),
            allowed: || $kind.allowed(),
        }, )+)+];

        impl Config {
            /// Reads every option; mistakes are left in the inputs.
            pub(super) fn read(inputs: &mut Inputs) -> Option<Self> {
                $($( let $field: Option<$type> = inputs.read($key, $default, &$kind); )+)+
                Some(Self { $($( $field: $field?, )+)+ })
            }

            /// Keys and values as the file would have them, in the table's order; `None` when not set.
            pub(super) fn shown(&self) -> Vec<(&'static str, Option<toml::Value>)> {
                let Self { $($( $field, )+)+ } = self;
                vec![$($( ($key, $kind.show($field)), )+)+]
            }
        }

        #[cfg(test)]
        pub(super) const FIELDS: &[(&str, &str)] = &[$($( ($key, stringify!($field)), )+)+];
    };
}

options! {
    "Node" {
        /// Address that /metrics, /metrics/cadvisor, /metrics/resource, /api/v1, /healthz and /readyz are served on.
        "listen" listen: SocketAddr = "127.0.0.1:9750", "ADDRESS", Address;
        /// Name of this node in the metrics. None: the host's name.
        "node-name" node_name: Option<String> = "", "NAME", Optional(NodeName);
        /// Whether to watch this node's pods at the API server. auto: in a pod, and without pods-file.
        "kubernetes" kubernetes: KubernetesChoice = "auto", "CHOICE", Choice(KUBERNETES);
        /// Kubeconfig for reaching the API server from outside a pod, its current context. None: the pod's service account.
        "kubeconfig" kubeconfig: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Ask the API server for owners that pods do not tell: the CronJob of a Job, the owner of a ReplicaSet whose name
        /// does not tell. Takes the right to get jobs and replicasets; one read for each.
        "owner-lookup" owner_lookup: bool = "off", "SWITCH", Switch;
        /// File with the names of pods and containers, for hosts without a cluster. None: containers go by their id.
        "pods-file" pods_file: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Directory for the history and for a sign of life, by which the next agent knows how long it was away. None:
        /// the history ends with the agent, and that time is not reported.
        "data-dir" data_dir: Option<PathBuf> = "", "DIR", Optional(FilePath);
        /// How long the history keeps what containers used, by the hour.
        "history-age" history_age: Duration = "30days", "DURATION", DurationRange(ms(3_600_000)..=ms(31_536_000_000));
        /// How long it keeps the course of each hour, too, minute by minute.
        "history-minutes-age" history_minutes_age: Duration = "6h", "DURATION", DurationRange(ms(3_600_000)..=ms(604_800_000));
        /// Size of the history's files, MiB; beyond it the oldest hours go. In memory, without data-dir, at most 8.
        "history-mebibytes" history_mebibytes: u32 = "256", "NUMBER", Count(1..=1_048_576);
        /// Root of the cgroup hierarchies. None: wherever the mount table says.
        "cgroup-root" cgroup_root: Option<PathBuf> = "", "DIR", Optional(FilePath);
        /// The host's proc file system.
        "proc-root" proc_root: PathBuf = "/proc", "DIR", FilePath;
        /// The host's /run, where container runtimes keep their bundles: these name containers before the API server does.
        "run-root" run_root: PathBuf = "/run", "DIR", FilePath;
        /// The runtime's CRI socket, such as /run/containerd/containerd.sock: names containers that nothing else names.
        /// Whoever can write to it is as good as root on the node. None: it is not used.
        "cri-socket" cri_socket: Option<PathBuf> = "", "FILE", Optional(FilePath);
    }
    "Measuring" {
        /// Time between snapshots of CPU time. 100ms is the kernel's default CFS period.
        "sample-interval" sample_interval: Duration = "100ms", "DURATION", DurationRange(ms(50)..=ms(1000));
        /// Time between snapshots of all else: memory with its working set, throttling, pressure, tasks (five times
        /// it where cgroup v1 keeps tasks in a hierarchy of their own). The kernel keeps their sums and peaks itself. Not shorter than sample-interval.
        "working-set-interval" working_set_interval: Duration = "1s", "DURATION", DurationRange(ms(500)..=ms(60_000));
        /// Time between reads of memory.stat, io.stat and user and system CPU time; four times it of a cgroup at rest, and of shares. Not shorter than
        /// working-set-interval.
        "slow-interval" slow_interval: Duration = "15s", "DURATION", DurationRange(ms(1000)..=ms(300_000));
        /// Cgroups of one hierarchy that fit into the kernel's table; those beyond are counted as lost.
        "max-cgroups" max_cgroups: u32 = "8192", "NUMBER", Count(64..=65_536);
        /// Where measurements come from. auto: kernel programs once they have proved equal to the cgroup files, and files
        /// for what they cannot do here. kernel: the same without the proof. files: no kernel programs.
        "source" source: SourceChoice = "auto", "SOURCE", Choice(SOURCES);
        /// Trace how long tasks wait for a CPU, by container (Linux 6.12). Adds some hundred nanoseconds to each wake-up and
        /// switch of tasks on the node.
        "runqueue" runqueue: bool = "off", "SWITCH", Switch;
        /// CPU time that this may take, all CPUs together, in thousandths of one core. Beyond it tracing pauses for a minute, then longer.
        "runqueue-millicores" runqueue_millicores: u32 = "20", "NUMBER", Count(1..=100_000);
        /// Least severe message of the kernel programs to log.
        "ebpf-log" ebpf_log: EbpfLog = "off", "LEVEL", Choice(EBPF_LOGS);
        /// Let the kernel count runs and run time of eBPF programs. This holds for every program on the node and adds
        /// some tens of nanoseconds to each run.
        "ebpf-stats" ebpf_stats: bool = "on", "SWITCH", Switch;
    }
    "Metrics" {
        /// Serve the kubelet's container metrics on /metrics/cadvisor and /metrics/resource.
        "kubelet-metrics" kubelet_metrics: bool = "on", "SWITCH", Switch;
        /// Count processes, their file descriptors and sockets for /metrics/cadvisor. Reads a directory of each process
        /// on the host once in slow-interval, which takes the right to trace them (CAP_SYS_PTRACE).
        "process-metrics" process_metrics: bool = "off", "SWITCH", Switch;
        /// Export pods, owners, requests, limits, restarts and reasons on /metrics under kube-state-metrics' names too, so
        /// that what joins with them needs Snug alone. Not beside a kube-state-metrics that is scraped.
        "kube-state-metrics" kube_state_metrics: bool = "off", "SWITCH", Switch;
        /// Give histograms buckets with fixed bounds as well, for a Prometheus that scrapes no native histograms: 20 series
        /// for each container. Without, text has their sum and count.
        "classic-histograms" classic_histograms: bool = "off", "SWITCH", Switch;
        /// Export what each of 16 CPU quotas would have done: 48 series for each container.
        "cpu-ladder" cpu_ladder: bool = "off", "SWITCH", Switch;
        /// Export how each container's memory use is spread over time: 4 series for each container, as native histograms 2.
        "memory-histograms" memory_histograms: bool = "off", "SWITCH", Switch;
        /// Metric families to export. Empty: all.
        "metrics-allow" metrics_allow: Vec<Pattern> = "", "PATTERNS", FAMILIES;
        /// Metric families to leave out; wins over metrics-allow.
        "metrics-deny" metrics_deny: Vec<Pattern> = "", "PATTERNS", FAMILIES;
        /// Namespaces to export. Empty: all. Cgroups without a namespace are exported whatever this says.
        "namespaces-allow" namespaces_allow: Vec<Pattern> = "", "PATTERNS", NAMESPACES;
        /// Namespaces to leave out; wins over namespaces-allow.
        "namespaces-deny" namespaces_deny: Vec<Pattern> = "", "PATTERNS", NAMESPACES;
        /// Labels to leave out of every family that is about containers or pods.
        "drop-labels" drop_labels: Vec<DroppableLabel> = "", "LABELS", Labels;
        /// Series that one scrape returns at most; those beyond are left out and counted. 0: no cap.
        "max-series" max_series: u32 = "200000", "NUMBER", Count(0..=u32::MAX);
        /// Workload containers with counters of their own; those beyond are folded into one.
        "max-workloads" max_workloads: u32 = "4096", "NUMBER", Count(1..=1_000_000);
    }
    "OpenTelemetry" {
        /// Base URL of the OTLP receiver that metrics are sent to; over HTTP /v1/metrics is added. None: nothing is sent.
        "otlp-endpoint" otlp_endpoint: Option<String> = "", "URL", Optional(Url);
        /// Whole URL for metrics, where it is another. Also without otlp-endpoint.
        "otlp-metrics-endpoint" otlp_metrics_endpoint: Option<String> = "", "URL", Optional(Url);
        /// Send events (OOM kills, terminations, throttling, evictions, missing images) as log records, too; over HTTP to
        /// otlp-endpoint with /v1/logs. Off for a receiver that takes metrics alone, such as Prometheus.
        "otlp-events" otlp_events: bool = "on", "SWITCH", Switch;
        /// Send what the agent itself logs as log records, too.
        "otlp-log" otlp_log: bool = "off", "SWITCH", Switch;
        /// Whole URL for log records, where it is another. Also without otlp-endpoint.
        "otlp-logs-endpoint" otlp_logs_endpoint: Option<String> = "", "URL", Optional(Url);
        /// How OTLP is spoken.
        "otlp-protocol" otlp_protocol: OtlpProtocol = "http/protobuf", "PROTOCOL", Choice(PROTOCOLS);
        /// Headers to send along, such as a token.
        "otlp-headers" otlp_headers: Vec<(String, String)> = "", "PAIRS", Pairs;
        /// How requests are compressed.
        "otlp-compression" otlp_compression: OtlpCompression = "none", "CHOICE", Choice(COMPRESSIONS);
        /// Time in which the receiver must have answered a request.
        "otlp-timeout" otlp_timeout: Duration = "10s", "DURATION", Millis(ms(10)..=ms(300_000));
        /// Certificates, in PEM, that the receiver's must be signed by. None: the host's, else Mozilla's.
        "otlp-certificate" otlp_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Certificate, in PEM, by which the agent shows who it is. Takes otlp-client-key.
        "otlp-client-certificate" otlp_client_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// The private key to it, in PEM.
        "otlp-client-key" otlp_client_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Whether counters are sent since their beginning or since the export before.
        "otlp-temporality" otlp_temporality: Temporality = "cumulative", "CHOICE", Choice(TEMPORALITIES);
        /// Time between exports.
        "otlp-interval" otlp_interval: Duration = "60s", "DURATION", Millis(ms(1000)..=ms(3_600_000));
        /// Attributes of all resources, such as k8s.cluster.name.
        "otlp-resource-attributes" otlp_resource_attributes: Vec<(String, String)> = "", "PAIRS", Pairs;
    }
    "OpenTelemetry, where one signal is sent otherwise" {
        /// How OTLP is spoken for metrics.
        "otlp-metrics-protocol" otlp_metrics_protocol: Option<OtlpProtocol> = "", "PROTOCOL", Optional(Choice(PROTOCOLS));
        /// Headers to send along with metrics, in place of otlp-headers.
        "otlp-metrics-headers" otlp_metrics_headers: Option<Vec<(String, String)>> = "", "PAIRS", Optional(Pairs);
        /// How requests with metrics are compressed.
        "otlp-metrics-compression" otlp_metrics_compression: Option<OtlpCompression> = "", "CHOICE", Optional(Choice(COMPRESSIONS));
        /// Time in which the receiver must have answered a request with metrics.
        "otlp-metrics-timeout" otlp_metrics_timeout: Option<Duration> = "", "DURATION", Optional(Millis(ms(10)..=ms(300_000)));
        /// Certificates, in PEM, that those of the receiver of metrics must be signed by.
        "otlp-metrics-certificate" otlp_metrics_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Certificate, in PEM, by which the agent shows who it is to the receiver of metrics.
        "otlp-metrics-client-certificate" otlp_metrics_client_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// The private key to it, in PEM.
        "otlp-metrics-client-key" otlp_metrics_client_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// How OTLP is spoken for log records.
        "otlp-logs-protocol" otlp_logs_protocol: Option<OtlpProtocol> = "", "PROTOCOL", Optional(Choice(PROTOCOLS));
        /// Headers to send along with log records, in place of otlp-headers.
        "otlp-logs-headers" otlp_logs_headers: Option<Vec<(String, String)>> = "", "PAIRS", Optional(Pairs);
        /// How requests with log records are compressed.
        "otlp-logs-compression" otlp_logs_compression: Option<OtlpCompression> = "", "CHOICE", Optional(Choice(COMPRESSIONS));
        /// Time in which the receiver must have answered a request with log records.
        "otlp-logs-timeout" otlp_logs_timeout: Option<Duration> = "", "DURATION", Optional(Millis(ms(10)..=ms(300_000)));
        /// Certificates, in PEM, that those of the receiver of log records must be signed by.
        "otlp-logs-certificate" otlp_logs_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Certificate, in PEM, by which the agent shows who it is to the receiver of log records.
        "otlp-logs-client-certificate" otlp_logs_client_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// The private key to it, in PEM.
        "otlp-logs-client-key" otlp_logs_client_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
    }
    "Logging" {
        /// What the agent logs to standard error.
        "log" log: String = "info", "DIRECTIVES", Directives;
        /// Form of the log.
        "log-format" log_format: LogFormat = "text", "FORMAT", Choice(LOG_FORMATS);
        /// Where events are written, a line of JSON each with fields of the Elastic Common Schema and of OpenTelemetry.
        "event-log" event_log: EventLog = "off", "CHOICE", Choice(EVENT_LOGS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_field_names_with_dashes() {
        for (key, field) in FIELDS {
            assert_eq!(*key, field.replace('_', "-"));
        }
        let mut keys: Vec<_> = FIELDS.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), OPTIONS.len());
    }

    #[test]
    fn variables_are_upper_case() {
        let spec = OPTIONS.iter().find(|spec| spec.key == "working-set-interval").unwrap();
        assert_eq!(spec.variable(), "SNUG_WORKING_SET_INTERVAL");
    }
}
