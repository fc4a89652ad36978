//! Several links: which one a block goes over, and what becomes of it when that one is lost.
//!
//! The *first* link, the oldest that lives, carries all that is not a block: Opens in their order, ends of streams, and what has no number. Blocks are
//! striped over all. Each is bound to a link before it is encoded, to the one over which it would arrive soonest, for what it may refer to
//! depends on it: to what was acknowledged, or went whole before it over the same link. Until the peer knows a stream, its blocks follow its
//! Open over the first link. Bytes of a stream are put in order by their offsets at the other end; so are Finish, and Reset, that overtake them.
//!
//! When a link is lost, what it carried and is not acknowledged goes again over one other, in order and before what is new there; so do blocks that
//! were encoded for it and have not begun. The order on that link is then one that keeps all references legal.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::block::Span;
use codec::domain::{Domain, Log};
use codec::encoder::Avoid;
use codec::frame::{DomainId, StreamId};
use codec::ranges::RangeSet;

use super::encode::{AHEAD, AHEAD_BEYOND_THREADS};
use super::link::LinkState;
use super::retention::SentBlock;
use super::scheduler::{Scheduler, Turn};
use super::stream::Outgoing;
use super::transmit::Sink;
use super::{LinkId, Tunnel};

/// A link whose rate is not known is taken to be as fast as the fastest that is known, or as this: a guess, until it was busy for a while.
const RATE_GUESS_BYTES_PER_S: u64 = 1 << 20;

/// Ranges that an encoder is told to avoid, one by one; beyond, it avoids all that is newer. More would cost more than they give.
const AVOID_RANGES_MAX: usize = 256;

/// Whose turn it is on a link that is not the first, and what has begun on it.
#[derive(Debug, Default)]
pub(super) struct Lane {
    scheduler: Scheduler,
    /// Of the streams in the round.
    turns: HashMap<StreamId, Turn>,
    /// Blocks of which some fragments were handed to the link.
    currents: HashMap<StreamId, Box<Outgoing>>,
}

/// Append ranges of blocks that are not acknowledged, by domain and link.
#[derive(Debug, Default)]
pub(super) struct UnderWay(BTreeMap<DomainId, BTreeMap<LinkId, RangeSet>>);

impl UnderWay {
    pub(super) fn begin(&mut self, domain: DomainId, link: LinkId, append: Span) {
        let of_link = self.0.entry(domain).or_default().entry(link).or_default();
        of_link.insert(append.range());
    }

    /// The block was acknowledged or refused.
    pub(super) fn end(&mut self, block: &SentBlock, link: LinkId) {
        if let (Some(domain), Some(append)) = (block.domain, block.append)
            && let Some(of_domain) = self.0.get_mut(&domain)
            && let Some(of_link) = of_domain.get_mut(&link)
        {
            of_link.remove(append.range());
            if of_link.is_empty() {
                of_domain.remove(&link);
            }
        }
    }

    fn move_to(&mut self, from: LinkId, to: LinkId) {
        for of_domain in self.0.values_mut() {
            if let Some(moved) = of_domain.remove(&from) {
                of_domain.entry(to).or_default().insert_all(&moved);
            }
        }
    }

    /// What is under way on other links than `link`.
    fn beside(&self, domain: DomainId, link: LinkId) -> RangeSet {
        let of_domain = self.0.get(&domain).into_iter().flatten();
        let mut beside = RangeSet::new();
        for (_, ranges) in of_domain.filter(|(other, _)| **other != link) {
            beside.insert_all(ranges);
        }
        beside
    }
}

impl Tunnel {
    // ---- before a block is encoded ----

    /// The link over which a block of so many bytes would arrive soonest.
    pub(super) fn link_for(&self, bytes: u64, now: Instant) -> LinkId {
        if self.links.len() < 2 {
            return self.first_link;
        }
        let fastest = self
            .links
            .iter()
            .filter_map(|link| link.path.rate_bytes_per_s());
        let guess = fastest.max().unwrap_or(RATE_GUESS_BYTES_PER_S).max(1);
        let best = self.links.iter().min_by_key(|link| {
            let is_full = !self.has_room_on(link);
            let takes = self.delivery_time(link, bytes, guess);
            (link.path.is_doubtful(now), is_full, takes)
        });
        best.map_or(self.first_link, |link| link.id)
    }

    fn delivery_time(&self, link: &LinkState, bytes: u64, rate_guess: u64) -> Duration {
        let rate = link.path.rate_bytes_per_s().unwrap_or(rate_guess).max(1);
        let unsent = link
            .path
            .line
            .as_ref()
            .map_or(0, |line| line.last().unsent_bytes);
        let ahead = self.jobs.ahead_of(link.id).bytes;
        let waiting = link.path.backlog_bytes() as u64 + unsent + ahead + bytes;
        let micros = u128::from(waiting) * 1_000_000 / u128::from(rate);
        let line_time = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        line_time.saturating_add(link.path.rtt_or_guess() / 2)
    }

    /// Whether more blocks should be made ahead of the link.
    fn has_room_on(&self, link: &LinkState) -> bool {
        let ahead = self.jobs.ahead_of(link.id);
        ahead.blocks < self.config.codec_threads + AHEAD_BEYOND_THREADS
            || ahead.bytes < link.path.bytes_in(AHEAD).unwrap_or(0)
    }

    /// Whether more blocks should be made ahead of any link.
    pub(super) fn has_link_with_room(&self) -> bool {
        self.links.iter().any(|link| self.has_room_on(link))
    }

    /// What a block for `link` may not refer to.
    pub(super) fn avoid(
        &self,
        (id, domain): &(DomainId, Arc<Domain>),
        link: LinkId,
    ) -> Option<Arc<Avoid>> {
        if self.links.len() < 2 {
            return None;
        }
        // What is reserved from now on may go whole over another link while the block is encoded.
        let mut from = domain.tail(Log::Own);
        let mut ranges = self.under_way.beside(*id, link);
        if let Some(first_beyond) = ranges.iter().nth(AVOID_RANGES_MAX) {
            from = first_beyond.start;
            ranges.remove(from..u64::MAX);
        }
        Some(Arc::new(Avoid { ranges, from }))
    }

    // ---- sending over a link that is not the first ----

    /// The stream has a block for `link`, or, on the first one, anything to send.
    pub(super) fn activate_on(&mut self, link: LinkId, id: StreamId) {
        if link == self.first_link {
            return self.activate(id);
        }
        let Some(index) = self.links.iter().position(|state| state.id == link) else {
            return;
        };
        let quantum = self.quantum_bytes_on(index);
        if let (Some(stream), Some(state)) = (self.streams.get(&id), self.links.get_mut(index))
            && stream.send.is_ready_for(link)
        {
            let turn = state.lane.turns.entry(id).or_insert(Turn::new());
            let quantum = quantum.saturating_mul(i64::from(stream.weight));
            let is_urgent = stream.send.recent.is_light();
            state.lane.scheduler.activate(id, turn, quantum, is_urgent);
        }
    }

    /// Whether a stream has a block for the link and need not wait.
    pub(super) fn may_transmit_block(&mut self, index: usize, now: Instant) -> bool {
        let head = self.next_sender_of_blocks(index);
        head.is_some_and(|(id, is_urgent)| self.held_back_on(index, is_urgent, id, now).is_none())
    }

    /// The stream whose turn it is on the link, and whether it sent little of late.
    fn next_sender_of_blocks(&mut self, index: usize) -> Option<(StreamId, bool)> {
        let has_number = self.retention.has_room();
        let LinkState { id: link, lane, .. } = self.links.get_mut(index)?;
        // An idle stream is met twice before it leaves, one that waits for a number once.
        for _ in 0..2 * lane.scheduler.len() {
            let id = lane.scheduler.head()?;
            let turn = lane.turns.entry(id).or_insert(Turn::new());
            let has_begun = lane.currents.contains_key(&id);
            match self.streams.get(&id) {
                None => {
                    lane.scheduler.forget_head();
                    lane.turns.remove(&id);
                }
                Some(stream) if !has_begun && !stream.send.is_ready_for(*link) => {
                    lane.scheduler.idle(turn);
                    if !turn.is_listed() {
                        lane.turns.remove(&id);
                    }
                }
                Some(_) if !has_begun && !has_number => lane.scheduler.rotate(turn),
                Some(_) => return Some((id, lane.scheduler.head_is_urgent())),
            }
        }
        None
    }

    /// One fragment for a link that is not the first. False when nothing can be sent.
    pub(super) fn transmit_block(
        &mut self,
        index: usize,
        sink: &mut Sink<'_>,
        now: Instant,
    ) -> bool {
        let Some((id, is_urgent)) = self.next_sender_of_blocks(index) else {
            return false;
        };
        if let Some(until) = self.held_back_on(index, is_urgent, id, now) {
            if let Some(link) = self.links.get_mut(index) {
                link.hold(until, now);
            }
            return false;
        }
        let Some(mut block) = self.present_block(index, id) else {
            return false;
        };
        self.activity.touch(id, now);
        if is_urgent {
            self.light.touch(id, now);
        }
        let most = self.fragment_bytes(index, id, now);
        let (bytes, is_last) = block.send(most, sink);
        let number = block.number;
        let quantum = self.quantum_bytes_on(index);
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        stream.count_sent(bytes);
        if let Some(link) = self.links.get_mut(index) {
            link.pacer.sent(bytes, now);
            let lane = &mut link.lane;
            if !is_last {
                lane.currents.insert(id, block);
            }
            if let Some(turn) = lane.turns.get_mut(&id) {
                let quantum = quantum.saturating_mul(i64::from(stream.weight));
                lane.scheduler.sent(turn, bytes, quantum);
            }
        }
        if is_last {
            self.went_whole(number, now);
        }
        true
    }

    /// The stream's block that has begun on the link, or the next one for it.
    fn present_block(&mut self, index: usize, id: StreamId) -> Option<Box<Outgoing>> {
        let LinkState { id: link, lane, .. } = self.links.get_mut(index)?;
        if let Some(begun) = lane.currents.remove(&id) {
            return Some(begun);
        }
        let link = *link;
        let block = self.streams.get_mut(&id)?.send.take_ready_for(link)?;
        let begun = self.begin_block(id, block, link, Some(link));
        self.want_encode(id);
        // It may have been the last, and Finish goes over the first link.
        self.activate(id);
        begun
    }

    // ---- when a link is lost ----

    /// A link is lost that was the `index`th, and others live: what it carried, and what was for it, is another's.
    pub(super) fn leave_link(&mut self, lost: LinkId, index: usize, now: Instant) {
        if index > 0 {
            let to = self.link_for(0, now);
            let to = self.links.iter().position(|state| state.id == to);
            return self.move_link(lost, to.unwrap_or(0));
        }
        // Opens keep their order: they follow to the link that is the first from now on.
        let Some(first) = self.links.first_mut() else {
            return;
        };
        self.first_link = first.id;
        let Lane { currents, .. } = std::mem::take(&mut first.lane);
        self.scheduler = Scheduler::default();
        for stream in self.streams.values_mut() {
            stream.turn = Turn::new();
            stream.send.current = None;
        }
        for (id, block) in currents {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.send.current = Some(block);
            }
        }
        self.move_link(lost, 0);
        self.speak_again(now);
    }

    /// What was handed to the link `from` and is not acknowledged goes again over the one at index `to`; what was encoded for `from` is for that one.
    pub(super) fn move_link(&mut self, from: LinkId, to: usize) {
        let Some(state) = self.links.get_mut(to) else {
            return;
        };
        let link = state.id;
        state.again.extend(self.retention.move_to(from, link));
        self.under_way.move_to(from, link);
        self.jobs.move_ahead(from, link);
        // In a fixed order: what tests see shall not depend on a hash.
        let mut ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                let slots = stream.send.pipeline.iter_mut();
                slots
                    .filter(|slot| slot.link() == from)
                    .for_each(|slot| slot.bind(link));
            }
            self.activate_on(link, id);
        }
    }
}
