//! cgroup hierarchies and their files.
