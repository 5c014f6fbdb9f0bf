//! CPU or memory, to treat both alike.

use std::fmt;

use serde::Serialize;

use crate::{quantity::Quantity, workload::Resources};

/// CPU in millicores, or memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Millicores.
    Cpu,
    /// Bytes.
    Memory,
}

impl Resource {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    /// The request of this resource.
    pub const fn request(self, values: &Resources) -> Option<u64> {
        match self {
            Self::Cpu => values.cpu_request,
            Self::Memory => values.memory_request,
        }
    }

    /// The limit of this resource.
    pub const fn limit(self, values: &Resources) -> Option<u64> {
        match self {
            Self::Cpu => values.cpu_limit,
            Self::Memory => values.memory_limit,
        }
    }

    /// What amounts that were worked out are rounded to: a millicore, a mebibyte.
    pub(super) const fn unit(self) -> u64 {
        match self {
            Self::Cpu => 1,
            Self::Memory => 1 << 20,
        }
    }

    pub(super) const fn request_mut(self, values: &mut Resources) -> &mut Option<u64> {
        match self {
            Self::Cpu => &mut values.cpu_request,
            Self::Memory => &mut values.memory_request,
        }
    }

    pub(super) const fn limit_mut(self, values: &mut Resources) -> &mut Option<u64> {
        match self {
            Self::Cpu => &mut values.cpu_limit,
            Self::Memory => &mut values.memory_limit,
        }
    }

    pub(super) const fn both_mut(self, values: &mut Resources) -> [&mut Option<u64>; 2] {
        match self {
            Self::Cpu => [&mut values.cpu_request, &mut values.cpu_limit],
            Self::Memory => [&mut values.memory_request, &mut values.memory_limit],
        }
    }

    /// An amount as a Kubernetes quantity.
    pub const fn quantity(self, amount: u64) -> Quantity {
        match self {
            Self::Cpu => Quantity::from_millicores(amount),
            Self::Memory => Quantity::from_bytes(amount),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        })
    }
}
