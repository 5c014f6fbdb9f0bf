//! The protocol buffer messages of the history.
//!
//! An older agent skips unknown fields, and a newer one uses the default for missing ones. To add a field:
//!
//! 1. Give it the next free number in its message, and never a number that another field had. A field that is no longer written keeps
//!    its number, in a comment.
//! 2. Its default (0, empty, `None`) must mean "not measured", because records of older agents lack the field.
//! 3. Convert it in both directions: `From<&…>` writes, `TryFrom` and `From<…>` read.
//! 4. Many numbers of one kind are one packed field. Values that belong together are packed fields of equal length, so that one more
//!    of them is one more field; one that is missing or shorter reads as zeros.
//!
//! Merging two records of a newer agent loses the unknown fields. Copying a record keeps them.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerHour {
    #[prost(uint32, tag = "1")]
    pub(super) workload_kind: u32,
    #[prost(uint64, tag = "2")]
    pub(super) replicas: u64,
    #[prost(uint32, tag = "3")]
    pub(super) role: u32,
    #[prost(uint64, tag = "4")]
    pub(super) seen: u64,
    #[prost(uint64, optional, tag = "5")]
    pub(super) cpu_request: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) cpu_limit: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) memory_request: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    pub(super) memory_limit: Option<u64>,
    #[prost(message, optional, tag = "9")]
    pub(super) record: Option<HourRecord>,
    #[prost(message, repeated, tag = "10")]
    pub(super) pods: Vec<Pod>,
    #[prost(message, optional, tag = "11")]
    pub(super) pod_resources: Option<Resources>,
    #[prost(string, tag = "12")]
    pub(super) image: String,
    #[prost(string, repeated, tag = "13")]
    pub(super) setting_names: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    pub(super) setting_values: Vec<String>,
    #[prost(uint64, tag = "15")]
    pub(super) memory_volumes: u64,
    #[prost(uint64, tag = "16")]
    pub(super) hugepages: u64,
    /// An empty name stands for `image`, so that the usual record has it once.
    #[prost(string, repeated, tag = "17")]
    pub(super) images: Vec<String>,
    #[prost(uint64, repeated, tag = "18")]
    pub(super) images_first_seen: Vec<u64>,
    /// The kernel's watermark from before the agent.
    #[prost(message, optional, tag = "19")]
    pub(super) earlier_peak: Option<Peak>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resources {
    #[prost(uint64, optional, tag = "1")]
    pub(super) cpu_request: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) cpu_limit: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) memory_request: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    pub(super) memory_limit: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HourRecord {
    #[prost(uint64, tag = "1")]
    pub(super) observed: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) cpu: Option<Histogram>,
    #[prost(message, optional, tag = "3")]
    pub(super) cpu_start: Option<Histogram>,
    #[prost(message, optional, tag = "4")]
    pub(super) minutes: Option<Histogram>,
    #[prost(message, optional, tag = "5")]
    pub(super) minutes_start: Option<Histogram>,
    #[prost(message, optional, tag = "6")]
    pub(super) peak: Option<Peak>,
    #[prost(message, optional, tag = "7")]
    pub(super) start_peak: Option<Peak>,
    #[prost(message, optional, tag = "8")]
    pub(super) working_set: Option<Histogram>,
    #[prost(message, repeated, tag = "9")]
    pub(super) kills: Vec<OomKill>,
    #[prost(message, optional, tag = "10")]
    pub(super) quota_what_if: Option<QuotaWhatIf>,
    #[prost(uint64, tag = "11")]
    pub(super) periods: u64,
    #[prost(uint64, tag = "12")]
    pub(super) throttled: u64,
    #[prost(uint64, tag = "13")]
    pub(super) starts: u64,
    #[prost(uint32, repeated, tag = "14")]
    pub(super) exit_codes: Vec<u32>,
    #[prost(uint64, repeated, tag = "15")]
    pub(super) exit_counts: Vec<u64>,
    #[prost(message, optional, tag = "16")]
    pub(super) waits: Option<Histogram>,
    #[prost(message, optional, tag = "17")]
    pub(super) unreclaimable: Option<Histogram>,
    #[prost(message, optional, tag = "18")]
    pub(super) stalled: Option<Stalled>,
    /// By step of the age, as [`snug_sizing::start_up`] has them.
    #[prost(uint64, repeated, tag = "19")]
    pub(super) age_observed_micros: Vec<u64>,
    #[prost(uint64, repeated, tag = "20")]
    pub(super) age_cpu_micros: Vec<u64>,
}

/// As [`snug_sizing::histogram::Histogram::exponential`] has it. An empty one is not written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) zero: u64,
    #[prost(sint32, tag = "2")]
    pub(super) first: i32,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) counts: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Peak {
    #[prost(uint64, tag = "1")]
    pub(super) bytes: u64,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
    #[prost(string, tag = "3")]
    pub(super) pod: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OomKill {
    #[prost(uint64, tag = "1")]
    pub(super) at: u64,
    #[prost(uint64, tag = "2")]
    pub(super) limit: u64,
    #[prost(string, tag = "3")]
    pub(super) pod: String,
}

/// Packed fields of equal length, one value for each quota.
#[derive(Clone, PartialEq, Message)]
pub(super) struct QuotaWhatIf {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) quotas: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(super) periods: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) throttled: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) delayed_millis: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stalled {
    #[prost(uint64, tag = "1")]
    pub(super) cpu_millis: u64,
    #[prost(uint64, tag = "2")]
    pub(super) memory_millis: u64,
    #[prost(uint64, tag = "3")]
    pub(super) io_millis: u64,
    #[prost(uint64, tag = "4")]
    pub(super) refaults: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pod {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) observed: u64,
    #[prost(uint64, tag = "3")]
    pub(super) cpu_millis: u64,
    #[prost(uint64, tag = "4")]
    pub(super) peak: u64,
    #[prost(string, tag = "5")]
    pub(super) node_class: String,
}

/// The minutes of an hour: packed fields of equal length, one value for each minute.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMinutes {
    /// The first minute since the Unix epoch, then the distance of each from the one before it.
    #[prost(uint32, repeated, tag = "1")]
    pub(super) steps: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    pub(super) observed_millis: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) cpu_millis: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) memory_peak: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) periods: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    pub(super) throttled: Vec<u64>,
}
