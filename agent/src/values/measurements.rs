//! Sets of measurements.

use super::Measurement;

/// A set of [`Measurement`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measurements(u16);

impl Measurements {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// All measurements.
    pub const ALL: Self = Self::new(&Measurement::ALL);

    /// Measurements that the eBPF programs do not have.
    pub const ONLY_IN_FILES: Self = Self::new(&[Measurement::SlowRows, Measurement::Spec]);

    /// The set of the listed measurements.
    pub const fn new(list: &[Measurement]) -> Self {
        let (mut bits, mut rest) = (0, list);
        while let [first, tail @ ..] = rest {
            bits |= 1 << *first as u16;
            rest = tail;
        }
        Self(bits)
    }

    /// Whether `measurement` is in the set.
    pub const fn contains(self, measurement: Measurement) -> bool {
        self.0 & (1 << measurement as u16) != 0
    }

    /// The set with `measurement` in it.
    #[must_use]
    pub const fn with(self, measurement: Measurement) -> Self {
        Self(self.0 | 1 << measurement as u16)
    }

    /// The set without `measurement`.
    #[must_use]
    pub const fn without(self, measurement: Measurement) -> Self {
        Self(self.0 & !(1 << measurement as u16))
    }

    /// The set without what is in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Of the set, `measurement` alone.
    #[must_use]
    pub const fn only(self, measurement: Measurement) -> Self {
        Self(self.0 & (1 << measurement as u16))
    }

    /// What is in either set.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Measurement> for Measurements {
    fn from_iter<I: IntoIterator<Item = Measurement>>(measurements: I) -> Self {
        measurements.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let mut set = Measurements::NONE;
        assert!(set.is_empty());
        for measurement in Measurement::ALL {
            assert!(!set.contains(measurement));
            set = set.with(measurement);
            assert!(set.contains(measurement));
        }
        assert_eq!(set, Measurements::ALL);
        assert_eq!(Measurement::ALL.into_iter().collect::<Measurements>(), set);
        let set = set.without(Measurement::Swap);
        assert!(!set.contains(Measurement::Swap) && set.contains(Measurement::Pids));
        let rest = set.minus(Measurements::new(&[Measurement::Pids, Measurement::Swap]));
        assert_eq!(rest, set.without(Measurement::Pids));
    }
}
