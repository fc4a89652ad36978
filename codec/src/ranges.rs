//! Sets of positions or numbers as sorted, disjoint, half-open ranges: acknowledgements, holes, coverage.

use std::collections::{BTreeMap, btree_map};
use std::ops::Range;

/// A set of `u64` values (positions in bytes, or numbers), kept as maximal half-open ranges: touching ranges are one.
///
/// The value `u64::MAX` cannot be in a set. Memory and time follow the count of ranges, never their lengths; the caller bounds
/// that count ([`RangeSet::range_count`]) where the ranges come from a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start of each range and its end; the ranges are not empty, do not overlap and do not touch.
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ends: BTreeMap::new(),
        }
    }

    /// Adds all of `range`; an empty or reversed range adds nothing.
    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.ends.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.ends.range(start..=end).next() {
            end = end.max(next_end);
            self.ends.remove(&next);
        }
        self.ends.insert(start, end);
    }

    /// Adds one value.
    pub fn insert_value(&mut self, value: u64) {
        self.insert(value..value.saturating_add(1));
    }

    /// Takes all of `range` out; an empty or reversed range takes nothing.
    pub fn remove(&mut self, range: Range<u64>) {
        let Range { start, end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.ends.range(..start).next_back()
            && before_end > start
        {
            self.ends.insert(before, start);
            if before_end > end {
                self.ends.insert(end, before_end);
                return;
            }
        }
        while let Some((&next, &next_end)) = self.ends.range(start..end).next() {
            self.ends.remove(&next);
            if next_end > end {
                self.ends.insert(end, next_end);
            }
        }
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        self.ends
            .range(..=value)
            .next_back()
            .is_some_and(|(_, &end)| end > value)
    }

    /// Whether all of `range` is in the set; true for an empty range.
    #[must_use]
    pub fn contains_range(&self, range: &Range<u64>) -> bool {
        range.start >= range.end
            || self
                .ends
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, &end)| end >= range.end)
    }

    /// Whether any value of `range` is in the set.
    #[must_use]
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        self.within(range.clone()).next().is_some()
    }

    /// What the set holds inside `range`, in ascending order, cut to it.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let Range { start, end } = range;
        // Reversed bounds would panic in BTreeMap::range.
        let end = end.max(start);
        let first = self
            .ends
            .range(..start)
            .next_back()
            .filter(|&(_, &held_end)| held_end > start && start < end);
        first
            .into_iter()
            .chain(self.ends.range(start..end))
            .map(move |(&s, &e)| s.max(start)..e.min(end))
    }

    /// What the set does not hold inside `range`, in ascending order.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = range.end;
        let mut at = range.start;
        let mut held = self.within(range);
        std::iter::from_fn(move || {
            while at < end {
                let from = at;
                let Some(next) = held.next() else {
                    at = end;
                    return Some(from..end);
                };
                at = next.end;
                if next.start > from {
                    return Some(from..next.start);
                }
            }
            None
        })
    }

    /// The lowest value at or above `from` that is not in the set.
    #[must_use]
    pub fn lowest_gap(&self, from: u64) -> u64 {
        match self.ends.range(..=from).next_back() {
            Some((_, &end)) if end > from => end,
            _ => from,
        }
    }

    /// The values that are in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (few, many) = if self.ends.len() <= other.ends.len() {
            (self, other)
        } else {
            (other, self)
        };
        few.iter().flat_map(|range| many.within(range)).collect()
    }

    /// Adds all of `other`.
    pub fn insert_all(&mut self, other: &Self) {
        for range in other.iter() {
            self.insert(range);
        }
    }

    /// Takes all of `other` out.
    pub fn remove_all(&mut self, other: &Self) {
        for range in other.iter() {
            self.remove(range);
        }
    }

    /// The ranges, ascending; `rev()` gives them from the highest.
    pub fn iter(&self) -> Iter<'_> {
        let range: fn((&u64, &u64)) -> Range<u64> = |(&start, &end)| start..end;
        self.ends.iter().map(range)
    }

    /// The lowest range.
    #[must_use]
    pub fn first(&self) -> Option<Range<u64>> {
        self.iter().next()
    }

    /// The highest range.
    #[must_use]
    pub fn last(&self) -> Option<Range<u64>> {
        self.iter().next_back()
    }

    /// How many separate ranges there are.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.ends.len()
    }

    /// How many values there are: the sum of the ranges' lengths.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.ends.clear();
    }
}

/// The ranges of a [`RangeSet`], from both ends.
pub type Iter<'a> = std::iter::Map<btree_map::Iter<'a, u64, u64>, fn((&u64, &u64)) -> Range<u64>>;

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

impl Extend<Range<u64>> for RangeSet {
    fn extend<I: IntoIterator<Item = Range<u64>>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The values' space of the property tests: small, so that ranges touch, nest and overlap often.
    const SPACE: u64 = 64;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..SPACE, 0..SPACE).prop_map(|(a, b)| a..b)
    }

    fn edits() -> impl Strategy<Value = Vec<(bool, Range<u64>)>> {
        proptest::collection::vec((any::<bool>(), range()), 0..40)
    }

    fn build(edits: &[(bool, Range<u64>)]) -> (RangeSet, BTreeSet<u64>) {
        let (mut set, mut naive) = (RangeSet::new(), BTreeSet::new());
        for (add, range) in edits {
            if *add {
                set.insert(range.clone());
                naive.extend(range.clone());
            } else {
                set.remove(range.clone());
                naive.retain(|value| !range.contains(value));
            }
        }
        (set, naive)
    }

    fn values(ranges: impl Iterator<Item = Range<u64>>) -> BTreeSet<u64> {
        ranges.flatten().collect()
    }

    #[test]
    fn touching_ranges_merge() {
        let mut set: RangeSet = [5..7, 1..3, 3..5].into_iter().collect();
        assert_eq!((set.range_count(), set.first()), (1, Some(1..7)));
        set.remove(2..6);
        assert_eq!(set.iter().collect::<Vec<_>>(), [1..2, 6..7]);
        set.insert_value(u64::MAX);
        set.insert(u64::MAX - 1..u64::MAX);
        assert_eq!(set.last(), Some(u64::MAX - 1..u64::MAX));
        assert_eq!(set.lowest_gap(u64::MAX - 1), u64::MAX);
        set.remove(0..u64::MAX);
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_set(edits in edits(), probe in range()) {
            let (set, naive) = build(&edits);
            prop_assert_eq!(values(set.iter()), naive.clone());
            prop_assert_eq!(set.len_bytes(), naive.len() as u64);
            prop_assert_eq!(set.is_empty(), naive.is_empty());
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.iter().all(|r| r.start < r.end));
            prop_assert!(ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.end < b.start), "maximal: {:?}", ranges);
            for value in 0..=SPACE {
                prop_assert_eq!(set.contains(value), naive.contains(&value));
            }
            prop_assert_eq!(set.lowest_gap(probe.start), (probe.start..).find(|v| !naive.contains(v)).unwrap_or_default());
            let inside: BTreeSet<u64> = naive.iter().copied().filter(|v| probe.contains(v)).collect();
            prop_assert_eq!(set.overlaps(&probe), !inside.is_empty());
            let length = probe.end.saturating_sub(probe.start);
            prop_assert_eq!(set.contains_range(&probe), inside.len() as u64 == length);
            prop_assert_eq!(values(set.within(probe.clone())), inside.clone());
            prop_assert_eq!(values(set.gaps(probe.clone())), probe.clone().filter(|v| !inside.contains(v)).collect::<BTreeSet<_>>());
        }

        #[test]
        fn set_algebra(a in edits(), b in edits()) {
            let ((a, naive_a), (b, naive_b)) = (build(&a), build(&b));
            prop_assert_eq!(values(a.intersect(&b).iter()), &naive_a & &naive_b);
            let mut union = a.clone();
            union.insert_all(&b);
            prop_assert_eq!(values(union.iter()), &naive_a | &naive_b);
            let mut difference = a.clone();
            difference.remove_all(&b);
            prop_assert_eq!(values(difference.iter()), &naive_a - &naive_b);
            prop_assert_eq!(a.iter().collect::<RangeSet>(), a);
        }
    }
}
