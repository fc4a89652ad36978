//! Finds what of a block's plain bytes the histories already have.

use std::ops::Range;

use super::Continuation;
use super::extend::{backward, forward};
use crate::anchor::{Candidate, Density, Scanner, Selector, WINDOW_BYTES};
use crate::block::COPY_MIN;
use crate::domain::{Domain, Log};
use crate::history::reader::Reader;
use crate::index::Hint;
use crate::policy::MATCH_MIN_BYTES;

/// A stretch of the plain bytes that a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// First plain byte.
    pub start: usize,
    /// Behind the last.
    pub end: usize,
    /// The log.
    pub log: Log,
    /// The position of the first byte there.
    pub position: u64,
    /// Bytes of the same run in earlier blocks of the stream.
    pub run_before_bytes: u64,
}

impl Match {
    /// The position that would continue it.
    pub const fn next_position(&self) -> u64 {
        self.position + (self.end - self.start) as u64
    }

    /// Bytes of its run up to its end.
    pub const fn run_bytes(&self) -> u64 {
        self.run_before_bytes + (self.end - self.start) as u64
    }
}

/// Where copies came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub log: Log,
    /// The diagonal: this position held the plain byte at this offset. None for a place from an earlier block.
    diagonal: Option<(usize, u64)>,
    /// Behind the last source there.
    pub next_position: u64,
}

/// The search and its scratch, kept from block to block.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    scanner: Scanner,
    candidates: Vec<Candidate>,
    /// Of the stretch at hand: keys, and offsets behind their windows.
    keys: Vec<u64>,
    ends: Vec<usize>,
    hints: Vec<Hint>,
    /// All anchors seen in this block: key and offset behind the window, ascending.
    pub anchors: Vec<(u64, usize)>,
    /// Offsets behind the windows of the sparse candidates, ascending: the anchors, should the block go raw.
    pub sparse: Vec<Candidate>,
    /// What was scanned; ascending, not touching.
    pub scanned: Vec<Range<usize>>,
    /// What was found; ascending, not overlapping.
    pub matches: Vec<Match>,
    /// Places that were left for that of the last match, the newest first.
    pub places: [Option<Place>; PLACES],
    /// Keys looked up.
    pub lookups: u64,
    /// What was found by them.
    pub hits: u64,
    yields: Yields,
}

/// Stretches scanned at once: short ones behind a copy, where the next is likely near; long ones where nothing is found. Four lanes need some
/// hundred bytes each to pay, and all keys of a stretch are looked up together.
const STRETCH_MIN_BYTES: usize = 4096;
const STRETCH_MAX_BYTES: usize = 32_768;

/// A candidate this long is taken without looking at older ones.
const GOOD_ENOUGH_BYTES: usize = 1024;

/// Candidates of one key that are compared; older ones hardly ever hold more.
const CANDIDATES_MAX: usize = 4;

/// Keys of a block that are compared in any case.
const KEYS_IN_ANY_CASE: usize = 16;

/// Places that are gone back to: two are what was changed once, the third is for what was found elsewhere meanwhile.
pub(crate) const PLACES: usize = 3;

/// Bytes of a copy whose place is worth going back to.
const PLACE_MIN_BYTES: usize = 256;

/// Copied bytes a compared key below which a block is poor: it is full of windows that stood somewhere before and go on otherwise (records of a log).
const POOR_BYTES: usize = 48;

/// Of a poor block one key in so many is compared, with one candidate: copies at the minimum's length cost as many bytes as they save.
const POOR_KEYS: usize = 4;

/// What comparing has brought in this block.
#[derive(Debug, Default)]
struct Yields {
    keys: usize,
    copied_bytes: usize,
}

impl Yields {
    /// How many candidates of the next key are worth comparing; none: the key is passed over.
    fn candidates(&mut self) -> Option<usize> {
        self.keys += 1;
        if self.keys <= KEYS_IN_ANY_CASE || self.copied_bytes >= self.keys * POOR_BYTES {
            Some(CANDIDATES_MAX)
        } else {
            self.keys.is_multiple_of(POOR_KEYS).then_some(1)
        }
    }
}

impl Finder {
    /// Forgets the last block.
    pub fn clear(&mut self) {
        self.anchors.clear();
        self.sparse.clear();
        self.scanned.clear();
        self.matches.clear();
        self.places = [None; PLACES];
        (self.lookups, self.hits) = (0, 0);
        self.yields = Yields::default();
    }

    /// Fills `matches`, `anchors`, `sparse` and `scanned` for `plain`. False if a page has to be read from disk and the reader must not wait.
    pub fn find(
        &mut self,
        reader: &mut Reader<'_>,
        domain: &Domain,
        plain: &[u8],
        density: Density,
        hint: Option<Continuation>,
    ) -> bool {
        let tails = [Log::Own, Log::Mirror].map(|log| domain.read(log).tail());
        if let Some(hint) = hint {
            self.places = hint.places.map(|place| {
                let (log, next_position) = place?;
                Some(Place {
                    log,
                    diagonal: None,
                    next_position,
                })
            });
        }
        let mut at = hint.map_or(0, |hint| self.follow(reader, plain, hint));
        at = self.go_on(reader, plain, at);
        let mut stretch = STRETCH_MIN_BYTES;
        let mut select = Selector::new(density);
        while at < plain.len() && !reader.is_stuck() {
            let end = plain.len().min(at + stretch);
            self.scan(plain, at..end, &mut select);
            self.hints.clear();
            domain.look_up(&self.keys, &mut self.hints);
            self.lookups += self.keys.len() as u64;
            let found = self.matches.len();
            let covered = self.compare(reader, plain, tails);
            stretch = if self.matches.len() > found {
                STRETCH_MIN_BYTES
            } else {
                STRETCH_MAX_BYTES.min(2 * stretch)
            };
            at = end.max(covered);
        }
        self.hits = self.matches.len() as u64;
        !reader.is_stuck()
    }

    /// Whether the stream goes on as the source of its last copy does; returns where that ends.
    fn follow(&mut self, reader: &mut Reader<'_>, plain: &[u8], hint: Continuation) -> usize {
        let end = forward(reader, hint.log, hint.position, plain);
        if end < COPY_MIN as usize {
            return 0;
        }
        reader.paid(end as u64);
        self.matches.push(Match {
            start: 0,
            end,
            log: hint.log,
            position: hint.position,
            run_before_bytes: hint.run_bytes,
        });
        end
    }

    /// Behind a copy that ended at `at`: whether the bytes go on where an earlier copy did. What was changed once lies in two places, what stayed and what was
    /// put in, and a repeat goes from one to the other. Returns where that ends.
    fn go_on(&mut self, reader: &mut Reader<'_>, plain: &[u8], mut at: usize) -> usize {
        while let Some(rest) = plain
            .get(at..)
            .filter(|rest| rest.len() >= COPY_MIN as usize)
        {
            let mut best: Option<(Match, usize)> = None;
            for (number, place) in self.places.iter().enumerate() {
                let Some(place) = place else { continue };
                let along = place
                    .diagonal
                    .and_then(|(offset, position)| position.checked_add((at - offset) as u64));
                for position in [Some(place.next_position), along].into_iter().flatten() {
                    let end = at + forward(reader, place.log, position, rest);
                    if best.is_none_or(|(best, _)| end > best.end) {
                        let found = Match {
                            start: at,
                            end,
                            log: place.log,
                            position,
                            run_before_bytes: 0,
                        };
                        best = Some((found, number));
                    }
                }
            }
            let Some((found, number)) =
                best.filter(|(found, _)| found.end - at >= COPY_MIN as usize)
            else {
                break;
            };
            if let Some(place) = self.places.get_mut(number) {
                *place = None;
            }
            reader.paid((found.end - at) as u64);
            self.push(found);
            at = found.end;
        }
        at
    }

    /// Adds a match; the place of the last one is remembered, unless this one goes on there.
    fn push(&mut self, found: Match) {
        if let Some(last) = self.matches.last() {
            let goes_on = last.log == found.log
                && (last.next_position() == found.position
                    || last.position + (found.start - last.start) as u64 == found.position);
            let is_long = last.end - last.start >= PLACE_MIN_BYTES;
            if !goes_on && is_long {
                // Takes the place of one that is not there any more, or of the oldest.
                let free = self.places.iter().position(Option::is_none);
                let newer = ..=free.unwrap_or(PLACES - 1);
                if let Some(newer) = self.places.get_mut(newer) {
                    newer.rotate_right(1);
                }
                if let Some(first) = self.places.first_mut() {
                    *first = Some(Place {
                        log: last.log,
                        diagonal: Some((last.start, last.position)),
                        next_position: last.next_position(),
                    });
                }
            }
        }
        self.matches.push(found);
    }

    /// Finds the anchors that end in `range` and their keys.
    fn scan(&mut self, plain: &[u8], range: Range<usize>, select: &mut Selector) {
        self.candidates.clear();
        self.keys.clear();
        self.ends.clear();
        self.scanner
            .scan(plain, range.clone(), select.density(), &mut self.candidates);
        super::append::push_run(&mut self.scanned, range);
        for &candidate in &self.candidates {
            if candidate.sparse {
                self.sparse.push(candidate);
            }
            let end = candidate.end as usize;
            if select.accepts(candidate)
                && let Some(key) = candidate.key(plain)
            {
                self.keys.push(key);
                self.ends.push(end);
                self.anchors.push((key, end));
            }
        }
    }

    /// Adds the anchors in those parts of `runs` that were not scanned because a copy covers them.
    pub fn scan_rest(&mut self, plain: &[u8], runs: &[Range<usize>]) {
        let mut at = 0;
        let behind = std::iter::once(plain.len()..plain.len());
        for next in std::mem::take(&mut self.scanned).into_iter().chain(behind) {
            for run in runs {
                let range = at.max(run.start)..next.start.min(run.end);
                if !range.is_empty() {
                    self.scan(plain, range, &mut Selector::new(Density::Dense));
                }
            }
            at = next.end;
        }
        self.anchors.sort_unstable_by_key(|(_, end)| *end);
    }

    /// Goes through the hints of a stretch, in plain order; returns where the last match ends.
    fn compare(&mut self, reader: &mut Reader<'_>, plain: &[u8], tails: [u64; 2]) -> usize {
        let mut done = self.matches.last().map_or(0, |last| last.end);
        let all = std::mem::take(&mut self.hints);
        let mut hints = all.as_slice();
        while let Some(first) = hints.first().filter(|_| !reader.is_stuck()) {
            let same = hints
                .iter()
                .take_while(|hint| hint.key == first.key)
                .count();
            let (of_key, rest) = hints.split_at(same);
            hints = rest;
            let Some(&end) = self.ends.get(first.key as usize) else {
                continue;
            };
            if end <= done {
                continue;
            }
            let mut best: Option<Match> = None;
            let Some(candidates) = self.yields.candidates() else {
                continue;
            };
            for hint in of_key.iter().take(candidates) {
                let [own, mirror] = tails;
                let tail = if hint.log == Log::Own { own } else { mirror };
                let Some(position) = hint.position(tail) else {
                    continue;
                };
                let Some(found) = verify(reader, plain, done, end, hint.log, position) else {
                    continue;
                };
                if best.is_none_or(|best| found.end - found.start > best.end - best.start) {
                    best = Some(found);
                }
                if found.end - found.start >= GOOD_ENOUGH_BYTES {
                    break;
                }
            }
            if let Some(best) = best.filter(|best| best.end - best.start >= MATCH_MIN_BYTES) {
                self.yields.copied_bytes += best.end - best.start;
                reader.paid((best.end - best.start) as u64);
                self.push(best);
                done = self.go_on(reader, plain, best.end);
            }
        }
        self.hints = all;
        done
    }
}

/// Compares the window that ends at `end` with the bytes before `position`, and extends both ways, back to `done` at most.
fn verify(
    reader: &mut Reader<'_>,
    plain: &[u8],
    done: usize,
    end: usize,
    log: Log,
    position: u64,
) -> Option<Match> {
    let from = done.max(end - WINDOW_BYTES);
    let position = position.checked_sub((end - from) as u64)?;
    let ahead = forward(reader, log, position, plain.get(from..)?);
    if ahead < end - from {
        return None;
    }
    let behind = backward(reader, log, position, plain.get(done..from)?);
    Some(Match {
        start: from - behind,
        end: from + ahead,
        log,
        position: position - behind as u64,
        run_before_bytes: 0,
    })
}
