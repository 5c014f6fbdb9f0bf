//! The one table of options. Flags, variables, the file, `--help` and `docs/configuration.md` all come from it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    choices::{
        COMPRESSIONS, EBPF_LOGS, EVENT_LOGS, EbpfLog, EventLog, KUBERNETES, KubernetesChoice, LOG_FORMATS,
        LogFormat, OtlpCompression, OtlpProtocol, PROTOCOLS, SOURCES, SourceChoice, TEMPORALITIES,
        Temporality,
    },
    inputs::Inputs,
    kinds::{
        Address, Choice, Count, Directives, DurationRange, FilePath, Kind, Labels, Millis, NodeName,
        Optional, OrOff, Pairs, Patterns, Switch, Words,
    },
    secrets::{Headers, Url},
};
use crate::patterns::{DroppableLabel, Pattern};

const FAMILIES: Patterns =
    Patterns { subject: "metric families", allows: |c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':') };
const NAMESPACES: Patterns =
    Patterns { subject: "namespaces", allows: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' };
const CGROUPS: Patterns = Patterns { subject: "cgroup paths", allows: |c| !c.is_control() && c != ',' };

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An option of the table, without the type of its value.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key: `--key` on the command line, `key = …` in the file.
    pub key: &'static str,
    /// The heading in `--help` and in the documentation.
    pub group: &'static str,
    /// The placeholder of the value in `--help`.
    pub placeholder: &'static str,
    /// The default, as the value of a flag.
    pub default: &'static str,
    /// The help text.
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

    /// The variable of the OpenTelemetry specification that sets the same option. The option's own variable wins.
    pub fn standard_variable(&self) -> Option<String> {
        let of_otlp = self.key.strip_prefix("otlp-")?;
        let signal = of_otlp.strip_prefix("metrics-").or_else(|| of_otlp.strip_prefix("logs-"));
        match of_otlp {
            "temporality" => Some("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE".to_owned()),
            "interval" => Some("OTEL_METRIC_EXPORT_INTERVAL".to_owned()),
            "resource-attributes" => Some("OTEL_RESOURCE_ATTRIBUTES".to_owned()),
            _ => match signal.unwrap_or(of_otlp) {
                "endpoint" | "protocol" | "headers" | "compression" | "timeout" | "certificate"
                | "client-certificate" | "client-key" => {
                    Some(format!("OTEL_EXPORTER_{}", self.key.replace('-', "_").to_ascii_uppercase()))
                }
                _ => None,
            },
        }
    }

    /// The allowed values, as a phrase.
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
        /// The configuration that the agent runs with. Defaults are in the table alone.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config { $($( $(#[doc = $help])+ pub $field: $type, )+)+ }

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
            /// Reads every option and adds errors to the inputs.
            pub(super) fn read(inputs: &mut Inputs) -> Option<Self> {
                $($( let $field: Option<$type> = inputs.read($key, $default, &$kind); )+)+
                Some(Self { $($( $field: $field?, )+)+ })
            }

            /// The keys of the options that differ.
            pub fn differences(&self, other: &Self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $($( if self.$field != other.$field { keys.push($key); } )+)+
                keys
            }

            /// Keys and values in the form of the file, in the order of the table; `None` when not set.
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
        /// Name of this node in the metrics. None: the host name.
        "node-name" node_name: Option<String> = "", "NAME", Optional(NodeName);
        /// Whether to watch the pods of this node at the API server. auto: on with kubeconfig, and in a pod unless pods-file is set.
        "kubernetes" kubernetes: KubernetesChoice = "auto", "CHOICE", Choice(KUBERNETES);
        /// Kubeconfig with which to reach the API server from outside a pod. Its current context is used. None: the service
        /// account of the pod.
        "kubeconfig" kubeconfig: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Look up owners at the API server that cannot be derived from pods: the CronJob of a Job, and the owner of a
        /// ReplicaSet without a pod template hash in its name. Requires RBAC permission to get jobs and replicasets. Each owner
        /// is read once.
        "owner-lookup" owner_lookup: bool = "off", "SWITCH", Switch;
        /// File with the names of pods and containers, for hosts without a cluster. None: containers are identified by their id.
        "pods-file" pods_file: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Directory for the usage history and the heartbeat. From the heartbeat the agent computes its downtime after a
        /// restart. None: the history is lost when the agent stops, and downtime is not reported.
        "data-dir" data_dir: Option<PathBuf> = "", "DIR", Optional(FilePath);
        /// How long the usage history keeps hourly records of each container.
        "history-age" history_age: Duration = "30days", "DURATION", DurationRange(ms(3_600_000)..=ms(31_536_000_000));
        /// How long the usage history keeps values by the minute, besides the hourly records.
        "history-minutes-age" history_minutes_age: Duration = "6h", "DURATION", DurationRange(ms(3_600_000)..=ms(604_800_000));
        /// Maximum size of the usage history on disk, in MiB. Above it the oldest hours are deleted. Without data-dir the history
        /// is in memory and at most 8 MiB large.
        "history-mebibytes" history_mebibytes: u32 = "256", "NUMBER", Count(1..=1_048_576);
        /// Root of the cgroup hierarchies. None: the mount points in the mount table.
        "cgroup-root" cgroup_root: Option<PathBuf> = "", "DIR", Optional(FilePath);
        /// Paths of the containers, systemd units and LXC containers in which a Kubernetes node of its own runs (kind, k3s in
        /// Docker, systemd-nspawn), such as /docker/*. * does not match a slash. Whoever may create cgroups there can pass for any
        /// pod. Empty: what a container creates belongs to the container.
        "nested-nodes" nested_nodes: Vec<Pattern> = "", "PATHS", CGROUPS;
        /// The proc file system of the host.
        "proc-root" proc_root: PathBuf = "/proc", "DIR", FilePath;
        /// The /run directory of the host, where container runtimes keep their bundles. Bundles give the names of containers before
        /// the API server does.
        "run-root" run_root: PathBuf = "/run", "DIR", FilePath;
        /// CRI socket of the container runtime, such as /run/containerd/containerd.sock. The agent asks it for containers whose
        /// names no other source has. Write access to this socket is equivalent to root on the node. None: CRI is not used.
        "cri-socket" cri_socket: Option<PathBuf> = "", "FILE", Optional(FilePath);
    }
    "Access" {
        /// Loopback address to serve /metrics, /metrics/cadvisor, /metrics/resource, /api/v1, /healthz and /readyz on, without TLS, to
        /// everyone on this host. In a pod: to whoever may forward a port to the pod.
        "listen" listen: Option<SocketAddr> = "127.0.0.1:9750", "ADDRESS", OrOff(Address);
        /// Allow listen to be another address than a loopback address. Everyone who can connect to it can then read everything.
        "listen-insecure" listen_insecure: bool = "off", "SWITCH", Switch;
        /// Address to serve the same on over TLS, to clients with a certificate or a token. Requires tls-certificate, tls-key, and at
        /// least one of tls-client-ca, bearer-token-file and token-review.
        "tls-listen" tls_listen: Option<SocketAddr> = "", "ADDRESS", Optional(Address);
        /// Address to serve /healthz and /readyz on, and nothing else, to everyone who can connect.
        "probe-listen" probe_listen: Option<SocketAddr> = "", "ADDRESS", Optional(Address);
        /// Certificate of tls-listen in PEM, followed by those of intermediate authorities. This file and those of the next three
        /// options are read again when they change.
        "tls-certificate" tls_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Private key of tls-certificate, in PEM.
        "tls-key" tls_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Certificate authorities in PEM: every client with a certificate of one of them may read, also while the API server is down.
        "tls-client-ca" tls_client_ca: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// File with the bearer tokens of clients that may read, also while the API server is down: one on each line, of at least 16
        /// characters.
        "bearer-token-file" bearer_token_file: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Let the API server review bearer tokens: whose they are (TokenReview), and whether the owner may get nodes/metrics of this
        /// node (SubjectAccessReview). Requires RBAC permission to create tokenreviews and subjectaccessreviews.
        "token-review" token_review: bool = "off", "SWITCH", Switch;
        /// Audiences of which a reviewed token must have one. Empty: those of the API server, so that each client hands the agent a
        /// token that the API server itself accepts.
        "token-audiences" token_audiences: Vec<String> = "snug-agent", "AUDIENCES", Words { subject: "audiences" };
        /// How long a review that allows a token holds.
        "token-allowed-age" token_allowed_age: Duration = "2m", "DURATION", DurationRange(ms(1000)..=ms(3_600_000));
        /// How long a review that denies a token holds.
        "token-denied-age" token_denied_age: Duration = "10s", "DURATION", DurationRange(ms(1000)..=ms(300_000));
        /// How long a review that allows a token holds while the API server does not answer. Afterwards the token is refused. Not shorter
        /// than token-allowed-age.
        "token-outage-age" token_outage_age: Duration = "10m", "DURATION", DurationRange(ms(1000)..=ms(86_400_000));
    }
    "Measurement" {
        /// Interval between samples of CPU time. 100ms is the default CFS period of the kernel.
        "sample-interval" sample_interval: Duration = "100ms", "DURATION", DurationRange(ms(50)..=ms(1000));
        /// Interval between samples of memory and the working set, throttling, pressure and tasks. Tasks are sampled at five times
        /// this interval where cgroup v1 has a separate pids hierarchy. Not shorter than sample-interval.
        "working-set-interval" working_set_interval: Duration = "1s", "DURATION", DurationRange(ms(500)..=ms(60_000));
        /// Interval between reads of memory.stat, io.stat, and user and system CPU time. Scrapes have them read, too, at most three
        /// times per interval. CPU shares and idle cgroups are read in every fourth of these reads. Not shorter than
        /// working-set-interval.
        "slow-interval" slow_interval: Duration = "15s", "DURATION", DurationRange(ms(1000)..=ms(300_000));
        /// Maximum number of cgroups in the eBPF maps, for each hierarchy. Cgroups above it are not measured by eBPF, and are counted as lost.
        "max-cgroups" max_cgroups: u32 = "8192", "NUMBER", Count(64..=65_536);
        /// Source of measurements. auto: eBPF programs, after their values were verified against the cgroup files, and cgroup files
        /// for measurements that eBPF cannot provide on this host. kernel: the same without the verification. files: no eBPF
        /// programs.
        "source" source: SourceChoice = "auto", "SOURCE", Choice(SOURCES);
        /// Trace the run queue latency of tasks, by container. Requires Linux 6.1. Adds a few hundred nanoseconds to each wake-up
        /// and context switch on the node.
        "runqueue" runqueue: bool = "off", "SWITCH", Switch;
        /// CPU budget of runqueue, in millicores of all CPUs together. Above it tracing pauses, for a minute at first and then longer.
        "runqueue-millicores" runqueue_millicores: u32 = "20", "NUMBER", Count(1..=100_000);
        /// Count packets and bytes by container. Adds about 50 ns to each packet on the node (docs/performance.md). Off: TCP connections,
        /// retransmits and round trips are still counted.
        "packets" packets: bool = "on", "SWITCH", Switch;
        /// CPU budget of counting packets, in millicores of all CPUs together. Above it counting pauses, for a minute at first and then
        /// longer.
        "network-millicores" network_millicores: u32 = "500", "NUMBER", Count(1..=100_000);
        /// Log level of the eBPF programs.
        "ebpf-log" ebpf_log: EbpfLog = "off", "LEVEL", Choice(EBPF_LOGS);
        /// Let the kernel count runs and run time of eBPF programs. This switch holds for every eBPF program on the node, and adds
        /// about 40 ns to each run. Requires CAP_SYS_ADMIN.
        "ebpf-stats" ebpf_stats: bool = "off", "SWITCH", Switch;
    }
    "Metrics" {
        /// Serve container metrics under the names of the kubelet, on /metrics/cadvisor and /metrics/resource.
        "kubelet-metrics" kubelet_metrics: bool = "on", "SWITCH", Switch;
        /// Count processes, file descriptors and sockets for /metrics/cadvisor. Reads /proc/PID/fd of each process on the host once
        /// every slow-interval. Requires CAP_SYS_PTRACE.
        "process-metrics" process_metrics: bool = "off", "SWITCH", Switch;
        /// Also export pods, owners, requests, limits, restarts and reasons on /metrics under the names of kube-state-metrics, for
        /// queries that join with them. Keep this off if kube-state-metrics is scraped: joins would find every series twice.
        "kube-state-metrics" kube_state_metrics: bool = "off", "SWITCH", Switch;
        /// Add classic buckets to histograms, for a Prometheus that does not scrape native histograms: 20 series for each
        /// container. Off: the text formats have only the sum and count of a histogram.
        "classic-histograms" classic_histograms: bool = "off", "SWITCH", Switch;
        /// Export a simulation of 16 CPU quotas (periods, throttled periods, delayed CPU time): 48 series for each container.
        "cpu-ladder" cpu_ladder: bool = "off", "SWITCH", Switch;
        /// Export memory usage of each container as histograms: 2 series for each container as native histograms, 4 in text.
        "memory-histograms" memory_histograms: bool = "off", "SWITCH", Switch;
        /// Metric families to export. Empty: all.
        "metrics-allow" metrics_allow: Vec<Pattern> = "", "PATTERNS", FAMILIES;
        /// Metric families to leave out; wins over metrics-allow.
        "metrics-deny" metrics_deny: Vec<Pattern> = "", "PATTERNS", FAMILIES;
        /// Namespaces to export. Empty: all. Cgroups without a namespace are always exported.
        "namespaces-allow" namespaces_allow: Vec<Pattern> = "", "PATTERNS", NAMESPACES;
        /// Namespaces to leave out; wins over namespaces-allow.
        "namespaces-deny" namespaces_deny: Vec<Pattern> = "", "PATTERNS", NAMESPACES;
        /// Labels to leave out of all container and pod metrics.
        "drop-labels" drop_labels: Vec<DroppableLabel> = "", "LABELS", Labels;
        /// Maximum number of series in a scrape. Series above it are left out and counted. 0: no maximum.
        "max-series" max_series: u32 = "200000", "NUMBER", Count(0..=u32::MAX);
        /// Maximum number of rows in snug_workload_* metrics (a workload and a container name each). Those above it share one row.
        "max-workloads" max_workloads: u32 = "4096", "NUMBER", Count(1..=1_000_000);
    }
    "OpenTelemetry" {
        /// Base URL of the OTLP receiver. Over HTTP the agent appends /v1/metrics and /v1/logs. None: only signals with an endpoint of their own are sent.
        "otlp-endpoint" otlp_endpoint: Option<String> = "", "URL", Optional(Url);
        /// Full URL for metrics, in place of the one derived from otlp-endpoint. Also works without otlp-endpoint.
        "otlp-metrics-endpoint" otlp_metrics_endpoint: Option<String> = "", "URL", Optional(Url);
        /// Send events (OOM kills, terminations, throttling, evictions, image pull failures) as log records. Turn this off for a
        /// receiver that accepts only metrics, such as Prometheus.
        "otlp-events" otlp_events: bool = "on", "SWITCH", Switch;
        /// Also send the log of the agent as log records.
        "otlp-log" otlp_log: bool = "off", "SWITCH", Switch;
        /// Full URL for log records, in place of the one derived from otlp-endpoint. Also works without otlp-endpoint.
        "otlp-logs-endpoint" otlp_logs_endpoint: Option<String> = "", "URL", Optional(Url);
        /// OTLP transport.
        "otlp-protocol" otlp_protocol: OtlpProtocol = "http/protobuf", "PROTOCOL", Choice(PROTOCOLS);
        /// Headers of OTLP requests, such as an access token.
        "otlp-headers" otlp_headers: Vec<(String, String)> = "", "PAIRS", Headers;
        /// Compression of OTLP requests.
        "otlp-compression" otlp_compression: OtlpCompression = "none", "CHOICE", Choice(COMPRESSIONS);
        /// Timeout of an OTLP request.
        "otlp-timeout" otlp_timeout: Duration = "10s", "DURATION", Millis(ms(10)..=ms(300_000));
        /// CA certificates with which to verify the receiver, in PEM. None: the trust store of the host, or else Mozilla's.
        "otlp-certificate" otlp_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Client certificate for mutual TLS, in PEM. Requires otlp-client-key.
        "otlp-client-certificate" otlp_client_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Private key of otlp-client-certificate, in PEM.
        "otlp-client-key" otlp_client_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Aggregation temporality of counters: since they started, or since the previous export.
        "otlp-temporality" otlp_temporality: Temporality = "cumulative", "CHOICE", Choice(TEMPORALITIES);
        /// Interval between exports of metrics.
        "otlp-interval" otlp_interval: Duration = "60s", "DURATION", Millis(ms(1000)..=ms(3_600_000));
        /// Additional attributes of all OpenTelemetry resources, such as k8s.cluster.name.
        "otlp-resource-attributes" otlp_resource_attributes: Vec<(String, String)> = "", "PAIRS", Pairs;
    }
    "OpenTelemetry, by signal" {
        /// OTLP transport for metrics, in place of otlp-protocol.
        "otlp-metrics-protocol" otlp_metrics_protocol: Option<OtlpProtocol> = "", "PROTOCOL", Optional(Choice(PROTOCOLS));
        /// Headers of requests with metrics, in place of otlp-headers.
        "otlp-metrics-headers" otlp_metrics_headers: Option<Vec<(String, String)>> = "", "PAIRS", Optional(Headers);
        /// Compression of requests with metrics, in place of otlp-compression.
        "otlp-metrics-compression" otlp_metrics_compression: Option<OtlpCompression> = "", "CHOICE", Optional(Choice(COMPRESSIONS));
        /// Timeout of a request with metrics, in place of otlp-timeout.
        "otlp-metrics-timeout" otlp_metrics_timeout: Option<Duration> = "", "DURATION", Optional(Millis(ms(10)..=ms(300_000)));
        /// CA certificates with which to verify the receiver of metrics, in PEM, in place of otlp-certificate.
        "otlp-metrics-certificate" otlp_metrics_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Client certificate for the receiver of metrics, in PEM, in place of otlp-client-certificate.
        "otlp-metrics-client-certificate" otlp_metrics_client_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Private key of otlp-metrics-client-certificate, in PEM.
        "otlp-metrics-client-key" otlp_metrics_client_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// OTLP transport for log records, in place of otlp-protocol.
        "otlp-logs-protocol" otlp_logs_protocol: Option<OtlpProtocol> = "", "PROTOCOL", Optional(Choice(PROTOCOLS));
        /// Headers of requests with log records, in place of otlp-headers.
        "otlp-logs-headers" otlp_logs_headers: Option<Vec<(String, String)>> = "", "PAIRS", Optional(Headers);
        /// Compression of requests with log records, in place of otlp-compression.
        "otlp-logs-compression" otlp_logs_compression: Option<OtlpCompression> = "", "CHOICE", Optional(Choice(COMPRESSIONS));
        /// Timeout of a request with log records, in place of otlp-timeout.
        "otlp-logs-timeout" otlp_logs_timeout: Option<Duration> = "", "DURATION", Optional(Millis(ms(10)..=ms(300_000)));
        /// CA certificates with which to verify the receiver of log records, in PEM, in place of otlp-certificate.
        "otlp-logs-certificate" otlp_logs_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Client certificate for the receiver of log records, in PEM, in place of otlp-client-certificate.
        "otlp-logs-client-certificate" otlp_logs_client_certificate: Option<PathBuf> = "", "FILE", Optional(FilePath);
        /// Private key of otlp-logs-client-certificate, in PEM.
        "otlp-logs-client-key" otlp_logs_client_key: Option<PathBuf> = "", "FILE", Optional(FilePath);
    }
    "Logging" {
        /// Log level or tracing directives of the log of the agent, which goes to standard error.
        "log" log: String = "info", "DIRECTIVES", Directives;
        /// Format of the log.
        "log-format" log_format: LogFormat = "text", "FORMAT", Choice(LOG_FORMATS);
        /// Where to write events, as JSON lines with fields of the Elastic Common Schema and OpenTelemetry.
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
