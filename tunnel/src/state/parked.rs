//! Blocks that wait for bytes which other blocks bring, by what they wait for: tens of thousands may wait, and each block that comes must find its own
//! among them without looking at the others.

use std::collections::BTreeSet;
use std::ops::Range;

use codec::frame::DomainId;

/// See the module. Each block waits for one position of a mirror; what else it lacks it says when it has that one.
#[derive(Debug, Default)]
pub(super) struct Parked(BTreeSet<(DomainId, u64, u64)>);

impl Parked {
    /// The block `number` waits for `position`.
    pub(super) fn insert(&mut self, domain: DomainId, position: u64, number: u64) {
        self.0.insert((domain, position, number));
    }

    /// Takes out the blocks that wait for a position in `range`, the lowest number first.
    pub(super) fn take(&mut self, domain: DomainId, range: &Range<u64>) -> Vec<u64> {
        if range.is_empty() {
            return Vec::new();
        }
        let found: Vec<_> = self
            .0
            .range((domain, range.start, 0)..(domain, range.end, 0))
            .copied()
            .collect();
        for waiting in &found {
            self.0.remove(waiting);
        }
        let mut numbers: Vec<_> = found.into_iter().map(|(_, _, number)| number).collect();
        numbers.sort_unstable();
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: DomainId = DomainId(0);
    const OTHER: DomainId = DomainId(3);

    #[test]
    fn whoever_waits_in_the_range_is_taken_once_and_nobody_else() {
        let mut parked = Parked::default();
        for (domain, position, number) in [
            (SHARED, 99, 1),
            (SHARED, 100, 9),
            (SHARED, 100, 2),
            (SHARED, 109, 3),
            (SHARED, 110, 4),
            (OTHER, 100, 5),
        ] {
            parked.insert(domain, position, number);
        }
        assert_eq!(parked.take(SHARED, &(100..100)), []);
        #[expect(clippy::reversed_empty_ranges, reason = "from a peer")]
        let reversed = parked.take(SHARED, &(110..100));
        assert_eq!(reversed, []);
        assert_eq!(parked.take(SHARED, &(100..110)), [2, 3, 9]);
        assert_eq!(parked.take(SHARED, &(100..110)), []);
        assert_eq!(parked.take(SHARED, &(0..u64::MAX)), [1, 4]);
        assert_eq!(parked.take(OTHER, &(0..u64::MAX)), [5]);
    }
}
