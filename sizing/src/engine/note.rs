//! Remarks of the rules about memory and about settings of language runtimes, as data and as sentences.

use std::fmt;

use serde::Serialize;

use super::text::{bytes, percent};

/// What a rule did to the memory values, or what to mind about memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum MemoryNote {
    /// The limit is what a container needs to start.
    RuntimeMinimum { bytes: u64 },
    /// The limit covers memory that could not be reclaimed.
    Unreclaimable {
        /// Its peak, bytes.
        bytes: u64,
    },
    /// The limit covers the highest usage from before the agent.
    EarlierPeak {
        /// Bytes, with page cache.
        bytes: u64,
        /// The pod with the peak.
        pod: String,
        /// Days seen since.
        days: f64,
        /// Days after which the peak no longer counts.
        of_days: f64,
    },
    /// Usage reached the current limit with page cache, which is no need.
    PageCache {
        /// The current limit, bytes.
        limit: u64,
    },
    /// A lower value was found, but a value is lowered by a part at a time.
    LargestStep {
        /// The lower value, bytes.
        wanted: u64,
        /// The largest share by which a value is lowered at once.
        share: f64,
    },
    /// A higher value was found, but the risk at the current one is near the asked one.
    NearlyEnough {
        /// The higher value, bytes.
        wanted: u64,
        /// OOM kills per pod-day: asked, and expected at the current value.
        asked: f64,
        /// See `asked`.
        expected: f64,
    },
    /// Volumes in memory: their files count as memory of the container.
    Volumes {
        /// Sum of their size limits, bytes; `None` if one of them has none.
        bytes: Option<u64>,
    },
    /// Huge pages have limits of their own.
    HugePages {
        /// Their limit, bytes.
        bytes: u64,
    },
    /// On a node with swap, the container could use some until now.
    NoSwap,
    /// Most of the history is that of another image.
    NewImage {
        image: String,
        /// Days since it was first used.
        days: f64,
    },
}

impl MemoryNote {
    /// Whether the note tells why the values are what they are. The others are what to mind.
    pub const fn decides(&self) -> bool {
        matches!(
            self,
            Self::Unreclaimable { .. }
                | Self::EarlierPeak { .. }
                | Self::PageCache { .. }
                | Self::LargestStep { .. }
                | Self::NearlyEnough { .. }
        )
    }
}

impl fmt::Display for MemoryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuntimeMinimum { bytes: minimum } => {
                write!(f, "container runtimes need up to {} to start a container", bytes(*minimum))
            }
            Self::Unreclaimable { bytes: peak } => {
                write!(f, "{} of memory could not be reclaimed at its peak", bytes(*peak))
            }
            Self::EarlierPeak { bytes: peak, pod, days, of_days } => write!(
                f,
                "not lowered below {}, the highest usage in {pod} from before the agent, with page cache; {days:.1} of \
                 {of_days:.0} days are seen to know better",
                bytes(*peak)
            ),
            Self::PageCache { limit } => write!(
                f,
                "usage reached the limit of {} with page cache, which the kernel reclaims: only unreclaimable memory was counted",
                bytes(*limit)
            ),
            Self::LargestStep { wanted, share } => write!(
                f,
                "memory would be {}, but is lowered by at most {} at once: apply, observe and ask again",
                bytes(*wanted),
                percent(*share)
            ),
            Self::NearlyEnough { wanted, asked, expected } => write!(
                f,
                "memory unchanged, though {} was found: one OOM kill in {:.0} pod-days is expected, near the asked one in {:.0}, and a change \
                 restarts pods",
                bytes(*wanted),
                1.0 / expected,
                1.0 / asked
            ),
            Self::Volumes { bytes: Some(size) } => write!(
                f,
                "files in memory-backed volumes (up to {}) count as memory: the limit is not lowered below usage and these",
                bytes(*size)
            ),
            Self::Volumes { bytes: None } => f.write_str(
                "files in a memory-backed volume count as memory, and the volume has no sizeLimit: set one before lowering the limit",
            ),
            Self::HugePages { bytes: size } => write!(
                f,
                "huge pages (limit {}) are not part of the memory limit, and are not changed",
                bytes(*size)
            ),
            Self::NoSwap => f.write_str(
                "the memory request equals the limit: on a node with swap, Kubernetes then gives the container none",
            ),
            Self::NewImage { image, days } => write!(
                f,
                "the image {image} is {days:.1} days old; earlier usage is that of other images"
            ),
        }
    }
}

/// A setting of the language runtime that belongs to the values.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum SettingNote {
    /// The heap has a size of its own, and the limit covers it.
    Heap {
        /// Name of the setting.
        setting: String,
        value: String,
        /// Heap and overhead, bytes.
        needed: u64,
        /// Whether the limit would be lower without the setting.
        decides: bool,
    },
    /// The heap is a share of the memory limit.
    HeapShare {
        /// Name of the setting.
        setting: String,
        value: String,
        /// The share, above 0 and at most 1.
        share: f64,
    },
    /// The runtime takes its default heap or number of threads from the limits.
    FollowsLimits {
        /// The program or setting that shows the runtime.
        setting: String,
        /// What the runtime does.
        behaviour: &'static str,
    },
    /// The number of threads is set, so it does not follow the CPU limit.
    Threads {
        /// Name of the setting.
        setting: String,
        value: String,
    },
    /// Each worker has memory and CPU time of its own.
    Workers {
        /// Name of the setting.
        setting: String,
        value: String,
    },
    /// The value of a setting is not known.
    Unknown {
        /// Name of the setting.
        setting: String,
    },
}

impl SettingNote {
    /// Whether the note tells why the values are what they are. The others are what to mind.
    pub const fn decides(&self) -> bool {
        matches!(self, Self::Heap { decides: true, .. })
    }
}

impl fmt::Display for SettingNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heap { setting, value, needed, decides } => {
                write!(
                    f,
                    "{setting} {value} needs {} with its overhead: change the setting together with the memory limit",
                    bytes(*needed)
                )?;
                if *decides { f.write_str("; for a lower limit, lower the setting first") } else { Ok(()) }
            }
            Self::HeapShare { setting, value, share } => write!(
                f,
                "{setting} {value} makes the heap {} of the memory limit: usage follows the limit and is not the demand; change the \
                 setting together with the limit",
                percent(*share)
            ),
            Self::FollowsLimits { setting, behaviour } => write!(f, "{setting}: {behaviour}"),
            Self::Threads { setting, value } => write!(
                f,
                "{setting} {value} sets the number of threads: change it together with the CPU limit"
            ),
            Self::Workers { setting, value } => write!(
                f,
                "{setting} {value} sets the number of workers: memory and CPU usage grow with it, so change it together with the values"
            ),
            Self::Unknown { setting } => write!(
                f,
                "the value of {setting} is not known (it comes from another object, or is not a number): compare it with the limits"
            ),
        }
    }
}
