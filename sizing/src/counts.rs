//! Lists of counts in the narrowest integers that hold them all. A snapshot has hundreds of thousands of such lists, and most counts of an hour
//! fit into one or two bytes.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

/// Counts, each a `u64` to its users.
#[derive(Clone)]
pub(crate) enum CompactCounts {
    One(Box<[u8]>),
    Two(Box<[u16]>),
    Four(Box<[u32]>),
    Eight(Box<[u64]>),
}

/// Runs an expression on the list of whichever width.
macro_rules! on {
    ($counts:expr, $list:ident => $result:expr) => {
        match $counts {
            CompactCounts::One($list) => $result,
            CompactCounts::Two($list) => $result,
            CompactCounts::Four($list) => $result,
            CompactCounts::Eight($list) => $result,
        }
    };
}

/// Adds to the counts of a list until one does not fit, whose place is returned.
fn add_all<N>(mine: &mut [N], theirs: impl Iterator<Item = u64>) -> Option<usize>
where
    N: Copy + TryFrom<u64> + Into<u64>,
{
    mine.iter_mut().zip(theirs).position(|(mine, more)| {
        let sum = N::try_from((*mine).into().saturating_add(more));
        sum.map(|sum| *mine = sum).is_err()
    })
}

/// A list with so many zeros before and behind it.
fn padded<N: Copy + Default>(list: &[N], before: usize, behind: usize) -> Box<[N]> {
    let mut all = Vec::with_capacity(before + list.len() + behind);
    all.resize(before, N::default());
    all.extend_from_slice(list);
    all.resize(all.len() + behind, N::default());
    all.into_boxed_slice()
}

fn widened<N: Copy + Into<M>, M>(list: &[N]) -> Box<[M]> {
    list.iter().map(|count| (*count).into()).collect()
}

impl CompactCounts {
    pub(crate) fn new(counts: &[u64]) -> Self {
        let largest = counts.iter().copied().max().unwrap_or(0);
        // `as` loses nothing here.
        match largest {
            0..=0xff => Self::One(counts.iter().map(|count| *count as u8).collect()),
            0x100..=0xffff => Self::Two(counts.iter().map(|count| *count as u16).collect()),
            0x1_0000..=0xffff_ffff => Self::Four(counts.iter().map(|count| *count as u32).collect()),
            _ => Self::Eight(counts.into()),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        on!(self, list => list.len())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The count at a place; 0 behind the end.
    pub(crate) fn get(&self, at: usize) -> u64 {
        match self {
            Self::One(list) => list.get(at).map_or(0, |count| u64::from(*count)),
            Self::Two(list) => list.get(at).map_or(0, |count| u64::from(*count)),
            Self::Four(list) => list.get(at).map_or(0, |count| u64::from(*count)),
            Self::Eight(list) => list.get(at).map_or(0, |count| *count),
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = u64> + DoubleEndedIterator + Clone + '_ {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Adds zeros before and behind the counts.
    pub(crate) fn pad(&mut self, before: usize, behind: usize) {
        if before > 0 || behind > 0 {
            on!(self, list => *list = padded(list, before, behind));
        }
    }

    /// Adds other counts from a place on, as far as this list goes. Sums saturate.
    pub(crate) fn add(&mut self, mut from: usize, other: &(impl Iterator<Item = u64> + Clone)) {
        let mut done = 0;
        while let Some(place) = {
            let more = other.clone().skip(done);
            on!(self, list => list.get_mut(from..).and_then(|mine| add_all(mine, more)))
        } {
            (from, done) = (from + place, done + place);
            *self = match self {
                Self::One(list) => Self::Two(widened(list)),
                Self::Two(list) => Self::Four(widened(list)),
                Self::Four(list) => Self::Eight(widened(list)),
                // Every sum fits.
                Self::Eight(_) => return,
            };
        }
    }
}

impl Default for CompactCounts {
    fn default() -> Self {
        Self::One(Box::default())
    }
}

/// By their values, whatever their width.
impl PartialEq for CompactCounts {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for CompactCounts {}

impl fmt::Debug for CompactCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for CompactCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for CompactCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CompactCountsVisitor)
    }
}

struct CompactCountsVisitor;

impl<'de> Visitor<'de> for CompactCountsVisitor {
    type Value = CompactCounts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of counts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<CompactCounts, A::Error> {
        let Some(one) = list.next_element::<u64>()? else { return Ok(CompactCounts::default()) };
        // Most lists are shorter than this, and then take one allocation, of their final size.
        let mut first = [one; 64];
        for at in 1..first.len() {
            match list.next_element()? {
                Some(count) => first[at] = count,
                None => return Ok(CompactCounts::new(&first[..at])),
            }
        }
        let mut all = first.to_vec();
        while let Some(count) = list.next_element()? {
            all.push(count);
        }
        Ok(CompactCounts::new(&all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Vec<u64>> {
        let count = prop_oneof![0..300_u64, 0..70_000_u64, 0..1_u64 << 33, any::<u64>()];
        prop::collection::vec(count, 0..100)
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_list(mut plain in counts(), more in counts(), from in 0..100_usize, pad in (0..9_usize, 0..9_usize)) {
            let mut compact = CompactCounts::new(&plain);
            let text = serde_json::to_string(&compact).unwrap();
            prop_assert_eq!(&text, &serde_json::to_string(&plain).unwrap());
            prop_assert_eq!(&serde_json::from_str::<CompactCounts>(&text).unwrap(), &compact);
            compact.add(from, &more.iter().copied());
            compact.pad(pad.0, pad.1);
            plain.iter_mut().skip(from).zip(&more).for_each(|(mine, more)| *mine = mine.saturating_add(*more));
            let padded = [vec![0; pad.0], plain, vec![0; pad.1]].concat();
            prop_assert_eq!(compact.iter().collect::<Vec<_>>(), padded.clone());
            // Whatever the width.
            prop_assert_eq!(compact, CompactCounts::new(&padded));
        }
    }

    #[test]
    fn small_counts_are_small() {
        let bytes = |largest: u64| on!(CompactCounts::new(&[0, largest]), list => size_of_val(&*list));
        let largest = [0, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX];
        assert_eq!(largest.map(bytes), [2, 2, 4, 4, 8, 8, 16, 16]);
    }
}
