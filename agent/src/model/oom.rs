//! OOM kills.

/// The limit that an OOM kill enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OomScope {
    /// The limit of the container.
    Container,
    /// The limit of its pod.
    Pod,
    /// The limit of another ancestor.
    Ancestor,
    /// No limit: the node ran out of memory.
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

#[derive(Clone, Debug, PartialEq)]
pub struct OomKill {
    /// Time of the kill, seconds since the Unix epoch.
    pub at_unix: f64,
    pub scope: OomScope,
    /// Memory charged to the cgroup with the limit (for [`OomScope::Node`], to the victim's cgroup), bytes.
    pub usage_bytes: u64,
    /// The limit, bytes; `None` if there is none.
    pub limit_bytes: Option<u64>,
    /// The victim's process id.
    pub pid: u32,
    /// The command name of the victim.
    pub comm: String,
}
