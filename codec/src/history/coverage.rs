//! What a side says that it holds of a log, and what two sides hold in common.

use std::ops::Range;

use crate::block::POSITION_MAX;
use crate::frame::{COVERAGE_EPOCHS_MAX, COVERAGE_HOLES_MAX, Coverage, Epoch};
use crate::ranges::RangeSet;

/// The claim for a log of which `held` is held: bounded as the wire wants it, the newest part being kept.
pub(crate) fn claim(mut floor: u64, tail: u64, epochs: &[Epoch], held: &RangeSet) -> Coverage {
    let epochs = epochs
        .get(epochs.len().saturating_sub(COVERAGE_EPOCHS_MAX)..)
        .unwrap_or_default()
        .to_vec();
    if let Some(first) = epochs.first() {
        floor = floor.max(first.start.min(tail));
    }
    let mut holes: RangeSet = held.gaps(floor..tail).collect();
    let forgotten = holes.iter().rev().nth(COVERAGE_HOLES_MAX);
    if let Some(forgotten) = forgotten {
        floor = forgotten.end;
        holes.remove(0..floor);
    }
    Coverage {
        floor,
        tail,
        epochs,
        holes,
    }
}

/// What a claimant holds, by its own word.
pub(crate) fn held(coverage: &Coverage) -> RangeSet {
    coverage.holes.gaps(coverage.floor..coverage.tail).collect()
}

/// The positions of two logs that mean the same bytes: inside epochs that both know with equal id and start.
pub(crate) fn common_epochs(ours: &[Epoch], theirs: &[Epoch]) -> RangeSet {
    let spans = |epochs: &[Epoch]| -> Vec<(Epoch, Range<u64>)> {
        let ends = epochs
            .iter()
            .skip(1)
            .map(|next| next.start)
            .chain([POSITION_MAX]);
        epochs
            .iter()
            .zip(ends)
            .map(|(epoch, end)| (*epoch, epoch.start..end))
            .collect()
    };
    let theirs = spans(theirs);
    let same = |(epoch, range): (Epoch, Range<u64>)| {
        let other = theirs.iter().find(|(other, _)| *other == epoch)?;
        Some(range.start..range.end.min(other.1.end))
    };
    spans(ours).into_iter().filter_map(same).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(id: u8, start: u64) -> Epoch {
        Epoch {
            id: [id; 16],
            start,
        }
    }

    fn ranges(set: &RangeSet) -> Vec<Range<u64>> {
        set.iter().collect()
    }

    #[test]
    fn epochs_are_common_by_id_and_start_up_to_the_earlier_end() {
        let ours = [epoch(1, 0), epoch(2, 100), epoch(3, 200), epoch(5, 400)];
        let theirs = [
            epoch(1, 0),
            epoch(2, 100),
            epoch(4, 150),
            epoch(3, 201),
            epoch(5, 400),
        ];
        assert_eq!(
            ranges(&common_epochs(&ours, &theirs)),
            [0..150, 400..POSITION_MAX]
        );
        assert_eq!(ranges(&common_epochs(&ours, &[])), []);
    }

    #[test]
    fn a_claim_keeps_the_newest_when_it_must_choose() {
        let whole: RangeSet = (0..3000).map(|n| n * 10..n * 10 + 5).collect();
        let said = claim(0, 30_000, &[epoch(1, 0)], &whole);
        assert_eq!(said.holes.range_count(), COVERAGE_HOLES_MAX);
        assert_eq!(said.tail, 30_000);
        assert!(
            ranges(&held(&said))
                .iter()
                .all(|range| whole.contains_range(range))
        );
        assert!(held(&said).contains_range(&(29_990..29_995)));

        let epochs: Vec<Epoch> = (0..100).map(|n| epoch(n, u64::from(n) * 10)).collect();
        let whole: RangeSet = std::iter::once(0..1000).collect();
        let said = claim(0, 1000, &epochs, &whole);
        assert_eq!((said.epochs.len(), said.floor), (COVERAGE_EPOCHS_MAX, 360));
    }
}
