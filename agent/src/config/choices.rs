//! The options whose value is one of several words, and these words.

/// Where measurements may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// eBPF programs where they work, cgroup files for the rest.
    Auto,
    /// As auto, but without verifying the eBPF programs against the cgroup files.
    Kernel,
    /// Only cgroup files; no eBPF program is loaded.
    Files,
}

/// Whether to watch pods at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesChoice {
    /// In a pod, unless there is a pods file; or with a kubeconfig.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The lowest level at which messages of the eBPF programs are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EbpfLog {
    /// None.
    Off,
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
    /// Human-readable lines.
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

/// The OTLP transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    /// Protobuf in HTTP requests.
    HttpProtobuf,
}

/// The compression of OTLP requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpCompression {
    /// Not at all.
    None,
    Gzip,
}

/// The aggregation temporality of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Since the counter started.
    Cumulative,
    /// Since the previous export.
    Delta,
}

pub(super) const SOURCES: &[(&str, SourceChoice)] =
    &[("auto", SourceChoice::Auto), ("kernel", SourceChoice::Kernel), ("files", SourceChoice::Files)];
pub(super) const KUBERNETES: &[(&str, KubernetesChoice)] =
    &[("auto", KubernetesChoice::Auto), ("on", KubernetesChoice::On), ("off", KubernetesChoice::Off)];
pub(super) const EBPF_LOGS: &[(&str, EbpfLog)] = &[
    ("off", EbpfLog::Off),
    ("error", EbpfLog::Error),
    ("warn", EbpfLog::Warn),
    ("info", EbpfLog::Info),
    ("debug", EbpfLog::Debug),
    ("trace", EbpfLog::Trace),
];
pub(super) const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(super) const EVENT_LOGS: &[(&str, EventLog)] = &[("off", EventLog::Off), ("stdout", EventLog::Stdout)];

pub(super) const PROTOCOLS: &[(&str, OtlpProtocol)] =
    &[("http/protobuf", OtlpProtocol::HttpProtobuf), ("grpc", OtlpProtocol::Grpc)];
pub(super) const COMPRESSIONS: &[(&str, OtlpCompression)] =
    &[("none", OtlpCompression::None), ("gzip", OtlpCompression::Gzip)];
pub(super) const TEMPORALITIES: &[(&str, Temporality)] =
    &[("cumulative", Temporality::Cumulative), ("delta", Temporality::Delta)];
