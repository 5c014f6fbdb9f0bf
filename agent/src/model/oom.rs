//! OOM kills.

/// Whose limit an OOM kill was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OomScope {
    /// The container's own.
    Container,
    /// Its pod's.
    Pod,
    /// Of another cgroup above it.
    Ancestor,
    /// None: the node ran out of memory.
    Node,
}

impl OomScope {
    pub const ALL: [Self; 4] = [Self::Container, Self::Pod, Self::Ancestor, Self::Node];

    /// The name in the `limit` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Ancestor => "ancestor",
            Self::Node => "node",
        }
    }
}

/// An OOM kill.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKill {
    /// When, seconds since the Unix epoch.
    pub at_unix: f64,
    /// Whose limit.
    pub scope: OomScope,
    /// Memory charged to the cgroup whose limit it was (the victim's own for the node), bytes.
    pub usage_bytes: u64,
    /// That limit, bytes; `None` = none.
    pub limit_bytes: Option<u64>,
    /// The victim's process id.
    pub pid: u32,
    /// The victim's name.
    pub comm: String,
}
