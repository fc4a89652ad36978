//! What a block adds to its sender's history: the same on both sides.

use std::ops::Range;

use bytes::Bytes;

use crate::anchor::{Candidate, Density, Scanner, Selector, WINDOW_BYTES};
use crate::frame::StreamId;

/// The bytes that a block appends, and their anchors.
#[derive(Debug, Clone)]
pub struct Append {
    stream: StreamId,
    plain: Bytes,
    /// The appended stretches of `plain`, ascending, not touching.
    runs: Vec<Range<usize>>,
    /// Key, and offset in the append just behind the window; ascending.
    anchors: Vec<(u64, u32)>,
    length: u32,
}

/// Scratch for the search of anchors.
#[derive(Debug, Default)]
pub(crate) struct AppendScanner {
    pub scanner: Scanner,
    candidates: Vec<Candidate>,
}

impl Append {
    /// How many bytes are appended.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// The stream that the block belongs to.
    pub(crate) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Memory that it holds on to, in bytes, beyond the plain bytes it shares with the block.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.runs.len() * size_of::<Range<usize>>()
            + self.anchors.len() * size_of::<(u64, u32)>()
    }

    /// The append of `runs` of `plain`, a block of `stream`, whose anchors are yet to be added.
    pub(crate) fn new(stream: StreamId, plain: Bytes, runs: Vec<Range<usize>>) -> Self {
        let length = runs.iter().map(|run| run.len()).sum::<usize>();
        let length = u32::try_from(length).unwrap_or_default();
        Self {
            stream,
            plain,
            runs,
            anchors: Vec::new(),
            length,
        }
    }

    /// Adds the anchors of all runs by scanning them.
    pub(crate) fn scan(&mut self, density: Density, scratch: &mut AppendScanner) {
        let mut start = 0;
        for run in &self.runs {
            let Some(bytes) = self.plain.get(run.clone()) else {
                continue;
            };
            scratch.candidates.clear();
            scratch
                .scanner
                .scan(bytes, 0..bytes.len(), density, &mut scratch.candidates);
            let mut select = Selector::new(density);
            for candidate in scratch
                .candidates
                .iter()
                .filter(|candidate| select.accepts(**candidate))
            {
                if let Some(key) = candidate.key(bytes) {
                    self.anchors.push((key, start + candidate.end));
                }
            }
            start += u32::try_from(run.len()).unwrap_or_default();
        }
    }

    /// Adds those of `anchors` (key, offset in plain just behind the window; ascending) whose windows lie in one run.
    pub(crate) fn take_anchors(&mut self, anchors: impl Iterator<Item = (u64, usize)>) {
        let mut runs = self.runs.iter();
        let mut run = runs.next();
        let mut start = 0;
        for (key, end) in anchors {
            while let Some(past) = run.filter(|run| run.end < end) {
                start += past.len();
                run = runs.next();
            }
            let Some(run) = run else { return };
            if run.start + WINDOW_BYTES <= end
                && let Ok(offset) = u32::try_from(start + end - run.start)
            {
                self.anchors.push((key, offset));
            }
        }
    }

    /// The appended stretches of the plain bytes.
    pub(crate) fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.runs
            .iter()
            .filter_map(|run| self.plain.get(run.clone()))
    }

    pub(crate) fn anchors(&self) -> impl Iterator<Item = (u64, u32)> + Clone {
        self.anchors.iter().copied()
    }
}

/// Adds `range` to ascending ranges, joining it with the last one where they touch.
pub(crate) fn push_run(runs: &mut Vec<Range<usize>>, range: Range<usize>) {
    match runs.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end == range.start => last.end = range.end,
        _ => runs.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::NEVER_THINNED;

    #[test]
    fn anchors_found_before_are_those_found_by_scanning() {
        let plain: Bytes = include_bytes!("append.rs")
            .iter()
            .copied()
            .cycle()
            .take(20_000)
            .collect();
        let whole = std::iter::once(0..plain.len()).collect::<Vec<_>>();
        let mut scanned = Append::new(StreamId(1), plain.clone(), whole);
        scanned.scan(Density::Dense, &mut AppendScanner::default());
        assert!(scanned.anchors.len() > 50);
        let found: Vec<(u64, usize)> = scanned
            .anchors()
            .map(|(key, end)| (key, end as usize))
            .collect();

        let mut cut = Append::new(
            StreamId(1),
            plain.clone(),
            vec![10..40, 100..9000, 9005..20_000],
        );
        cut.take_anchors(found.iter().copied());
        assert_eq!(cut.length(), 30 + 8900 + 10_995);
        let laid: Vec<u8> = cut.parts().flatten().copied().collect();
        for (key, offset) in cut.anchors() {
            let whole = crate::anchor::key(&laid, offset as usize);
            assert!([whole, whole.map(|key| key & NEVER_THINNED)].contains(&Some(key)));
        }
        let inside = found
            .iter()
            .filter(|(_, end)| (132..=9000).contains(end) || (9037..=20_000).contains(end))
            .count();
        assert_eq!(cut.anchors.len(), inside);
    }

    #[test]
    fn runs_join() {
        let mut runs = Vec::new();
        for range in [0..5, 5..5, 5..9, 10..12] {
            push_run(&mut runs, range);
        }
        assert_eq!(runs, [0..9, 10..12]);
    }
}
