//! The domains of a tunnel: who holds their histories, what both sides agreed on, and what is pinned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::domain::{Domain, Lease, Log};
use codec::encoder::Uses;
use codec::frame::{Coverage, CoverageFrame, DomainId, Frame, HistorySide};

use super::floors::Floors;
use super::jobs::JobId;
use super::{Event, Violation};

/// Domains of one tunnel.
pub(super) const DOMAINS_MAX: usize = 16;

/// A lease that another tunnel holds is asked for again this often: after a reconnect the old tunnel may end a moment later here than
/// there, and until then nothing is found again.
const LEASE_RETRY: Duration = Duration::from_millis(100);

/// What a block keeps from being dropped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pins {
    pub(super) domain: Option<DomainId>,
    pub(super) uses: Uses,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Domains {
    attached: BTreeMap<DomainId, Attached>,
    /// Claims of the peer for domains that are not attached here, or whose histories another tunnel holds.
    early: BTreeMap<DomainId, Early>,
    lease_retry: Option<Instant>,
}

#[derive(Debug, Default)]
struct Early {
    own: Option<Coverage>,
    mirror: Option<Coverage>,
    quota_bytes: Option<u64>,
}

#[derive(Debug)]
struct Attached {
    name: String,
    domain: Arc<Domain>,
    lease: Option<Lease>,
    /// The peer has said what it holds of our history.
    own_agreed: bool,
    /// The peer has said what it holds of its own.
    mirror_agreed: bool,
    /// What the peer said last of its own history and of its mirror: after a lost line it may say the same again, which changes nothing.
    heard: [Option<Coverage>; 2],
    /// What the peer was told last as Quota.
    offered_bytes: u64,
    floors: Floors,
}

impl Domains {
    /// Holds `domain` from now on, if no other tunnel does. Returns what to send.
    pub(super) fn attach(
        &mut self,
        id: DomainId,
        name: String,
        domain: Arc<Domain>,
        now: Instant,
    ) -> Vec<Frame> {
        if self.attached.contains_key(&id) || self.attached.len() >= DOMAINS_MAX {
            return Vec::new();
        }
        // The wire has no empty name.
        let name = if name.is_empty() {
            "shared".to_owned()
        } else {
            name
        };
        let attached = Attached {
            name,
            domain,
            lease: None,
            own_agreed: false,
            mirror_agreed: false,
            heard: [None, None],
            offered_bytes: 0,
            floors: Floors::default(),
        };
        self.attached.insert(id, attached);
        self.try_leases(now)
    }

    pub(super) fn is_attached(&self, id: DomainId) -> bool {
        self.attached.contains_key(&id)
    }

    /// Asks for the leases that are missing. Returns what to send.
    pub(super) fn try_leases(&mut self, now: Instant) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut missing = false;
        for (id, attached) in &mut self.attached {
            if attached.lease.is_none() {
                attached.lease = attached.domain.try_lease();
                missing |= attached.lease.is_none();
                if attached.lease.is_some() {
                    frames.extend(attached.introduce(*id));
                    if let Some(early) = self.early.remove(id) {
                        frames.extend(attached.catch_up(*id, early));
                    }
                }
            }
        }
        self.lease_retry = missing.then_some(now + LEASE_RETRY);
        frames
    }

    pub(super) fn lease_retry(&self) -> Option<Instant> {
        self.lease_retry
    }

    /// The peer's Coverage. Returns what to send, and what to tell the driver.
    pub(super) fn coverage(
        &mut self,
        frame: CoverageFrame,
    ) -> Result<(Vec<Frame>, Option<Event>), Violation> {
        let CoverageFrame {
            domain: id,
            name,
            side,
            coverage,
        } = frame;
        if let Some(attached) = self.attached.get_mut(&id)
            && attached.lease.is_some()
        {
            return Ok((
                attached.coverage(id, side, &coverage).into_iter().collect(),
                None,
            ));
        }
        let known = self.early.contains_key(&id);
        let early = self.early_mut(id)?;
        match side {
            HistorySide::Own => early.own = Some(coverage),
            HistorySide::Mirror => early.mirror = Some(coverage),
        }
        let offered = !known && !self.attached.contains_key(&id);
        Ok((
            Vec::new(),
            offered.then_some(Event::DomainOffered { domain: id, name }),
        ))
    }

    /// The peer's Quota.
    pub(super) fn quota(&mut self, id: DomainId, bytes: u64) -> Result<(), Violation> {
        match self.attached.get(&id) {
            Some(Attached {
                lease: Some(lease), ..
            }) => lease.domain().set_quota(bytes),
            _ => self.early_mut(id)?.quota_bytes = Some(bytes),
        }
        Ok(())
    }

    fn early_mut(&mut self, id: DomainId) -> Result<&mut Early, Violation> {
        let is_new = !self.early.contains_key(&id) && !self.attached.contains_key(&id);
        if is_new && self.early.len() + self.attached.len() >= DOMAINS_MAX {
            return Err(Violation::TooManyDomains);
        }
        Ok(self.early.entry(id).or_default())
    }

    /// The domain, if this tunnel holds its histories.
    pub(super) fn held(&self, id: DomainId) -> Option<&Arc<Domain>> {
        self.attached.get(&id)?.lease.as_ref().map(Lease::domain)
    }

    /// The domain for a block to be encoded, if both sides have agreed on it.
    pub(super) fn agreed(&self, id: DomainId) -> Option<&Arc<Domain>> {
        let attached = self.attached.get(&id)?;
        if attached.own_agreed && attached.mirror_agreed {
            attached.lease.as_ref().map(Lease::domain)
        } else {
            None
        }
    }

    fn floors(&mut self, id: DomainId) -> Option<&mut Floors> {
        self.attached
            .get_mut(&id)
            .map(|attached| &mut attached.floors)
    }

    /// An encode job may use anything until it comes back.
    pub(super) fn job_started(&mut self, id: DomainId, job: JobId) {
        if let Some(floors) = self.floors(id) {
            floors.job_started(job);
        }
    }

    /// The job came back; what it uses is pinned from now on.
    pub(super) fn job_ended(&mut self, id: DomainId, job: JobId) {
        if let Some(floors) = self.floors(id) {
            floors.job_ended(job);
        }
    }

    /// Keeps what a block uses until `unpin`.
    pub(super) fn pin(&mut self, pins: Pins) {
        if let Some(floors) = pins.domain.and_then(|id| self.floors(id)) {
            floors.pin(pins.uses);
        }
    }

    /// The block is acknowledged, or will never be sent.
    pub(super) fn unpin(&mut self, pins: Pins) {
        if let Some(floors) = pins.domain.and_then(|id| self.floors(id)) {
            floors.unpin(pins.uses);
        }
    }

    /// The peer will drop its history below `position`.
    pub(super) fn floor(
        &mut self,
        id: DomainId,
        position: u64,
        next_job: JobId,
    ) -> Result<(), Violation> {
        let held = self
            .attached
            .get_mut(&id)
            .filter(|attached| attached.lease.is_some());
        let Attached { domain, floors, .. } = held.ok_or(Violation::DomainNotHeld(id))?;
        floors.peer_will_drop(domain, position, next_job);
        Ok(())
    }

    /// The peer has dropped its mirror below `position`.
    pub(super) fn floored(&mut self, id: DomainId, position: u64) {
        if let Some(floors) = self.floors(id) {
            floors.peer_has_dropped(position);
        }
    }

    /// Raises the floors that nothing stands against any more. Returns what to send.
    pub(super) fn raise_floors(&mut self, next_job: JobId, now: Instant) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (id, attached) in &mut self.attached {
            let Attached {
                domain,
                floors,
                own_agreed,
                ..
            } = attached;
            frames.extend(floors.raise_mirror(domain).map(|position| Frame::Floored {
                domain: *id,
                position,
            }));
            if *own_agreed {
                frames.extend(floors.raise_own(domain, next_job, now).map(|position| {
                    Frame::Floor {
                        domain: *id,
                        position,
                    }
                }));
            }
        }
        frames
    }

    /// The line was lost: Floors that the peer has not answered are said again.
    pub(super) fn ask_again(&mut self) {
        for attached in self.attached.values_mut() {
            attached.floors.ask_again();
        }
    }

    /// Tells the peer again what our mirrors may hold, where that has changed: another size, or a disk that takes no more. Returns what to send.
    pub(super) fn renew_quotas(&mut self) -> Vec<Frame> {
        let held = self
            .attached
            .iter_mut()
            .filter(|(_, attached)| attached.lease.is_some());
        held.filter_map(|(id, attached)| {
            let has_changed = attached.domain.quota_offer() != attached.offered_bytes;
            has_changed.then(|| attached.quota(*id))
        })
        .collect()
    }

    /// When a floor that the peer has not answered is raised all the same.
    pub(super) fn floor_deadline(&self) -> Option<Instant> {
        self.attached
            .values()
            .filter_map(|attached| attached.floors.deadline())
            .min()
    }
}

impl Attached {
    fn introduce(&mut self, id: DomainId) -> Vec<Frame> {
        let quota = self.quota(id);
        vec![self.claim(id, Log::Own), self.claim(id, Log::Mirror), quota]
    }

    fn quota(&mut self, id: DomainId) -> Frame {
        self.offered_bytes = self.domain.quota_offer();
        Frame::Quota {
            domain: id,
            bytes: self.offered_bytes,
        }
    }

    fn claim(&self, id: DomainId, log: Log) -> Frame {
        let side = match log {
            Log::Own => HistorySide::Own,
            Log::Mirror => HistorySide::Mirror,
        };
        Frame::Coverage(CoverageFrame {
            domain: id,
            name: self.name.clone(),
            side,
            coverage: self.domain.claim(log),
        })
    }

    fn catch_up(&mut self, id: DomainId, early: Early) -> Vec<Frame> {
        if let Some(bytes) = early.quota_bytes {
            self.domain.set_quota(bytes);
        }
        let own = early
            .own
            .and_then(|coverage| self.coverage(id, HistorySide::Own, &coverage));
        let mirror = early
            .mirror
            .and_then(|coverage| self.coverage(id, HistorySide::Mirror, &coverage));
        own.into_iter().chain(mirror).collect()
    }

    /// What the peer calls its own history is our mirror, and the other way round.
    fn coverage(&mut self, id: DomainId, side: HistorySide, coverage: &Coverage) -> Option<Frame> {
        let (log, heard) = match (side, &mut self.heard) {
            (HistorySide::Own, [heard, _]) => (Log::Mirror, heard),
            (HistorySide::Mirror, [_, heard]) => (Log::Own, heard),
        };
        if heard.as_ref() == Some(coverage) {
            return None;
        }
        *heard = Some(coverage.clone());
        let agreed = self.domain.agree(log, coverage);
        match log {
            Log::Own => self.own_agreed = true,
            Log::Mirror => self.mirror_agreed = true,
        }
        agreed.announce.then(|| self.claim(id, Log::Own))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use codec::domain::DomainConfig;

    fn domain(seed: u8) -> Arc<Domain> {
        let config = DomainConfig {
            own_capacity_bytes: 1 << 20,
            mirror_capacity_bytes: 1 << 20,
            index_capacity_bytes: 1 << 16,
            epoch: [seed; 16],
        };
        Arc::new(Domain::in_memory(config))
    }

    /// Gives `frames` to one side; returns its answers.
    fn tell(domains: &mut Domains, frames: Vec<Frame>) -> Vec<Frame> {
        let mut answers = Vec::new();
        for frame in frames {
            match frame {
                Frame::Coverage(coverage) => answers.extend(domains.coverage(coverage).unwrap().0),
                Frame::Quota { domain, bytes } => domains.quota(domain, bytes).unwrap(),
                other => unreachable!("{other:?} has no place in an agreement"),
            }
        }
        answers
    }

    /// Carries frames both ways until nothing more is said; returns how many there were.
    fn talk(here: &mut Domains, there: &mut Domains, mut to_here: Vec<Frame>) -> usize {
        let mut said = 0;
        while !to_here.is_empty() {
            said += to_here.len();
            let to_there = tell(here, to_here);
            said += to_there.len();
            to_here = tell(there, to_there);
        }
        said
    }

    #[test]
    fn two_sides_agree_whoever_attaches_first() {
        let now = Instant::now();
        let (mut here, mut there) = (Domains::default(), Domains::default());
        let first = here.attach(DomainId::SHARED, String::new(), domain(1), now);
        assert!(here.agreed(DomainId::SHARED).is_none());
        let mut offered = Vec::new();
        for frame in first {
            match frame {
                Frame::Coverage(coverage) => offered.extend(there.coverage(coverage).unwrap().1),
                Frame::Quota { domain, bytes } => there.quota(domain, bytes).unwrap(),
                other => unreachable!("{other:?} has no place in an agreement"),
            }
        }
        assert_eq!(
            offered,
            [Event::DomainOffered {
                domain: DomainId::SHARED,
                name: "shared".to_owned()
            }]
        );
        let answer = there.attach(DomainId::SHARED, "shared".to_owned(), domain(2), now);
        assert!(there.agreed(DomainId::SHARED).is_some());
        assert!(talk(&mut here, &mut there, answer) < 10);
        let held = here.agreed(DomainId::SHARED).unwrap();
        assert!(
            held.reserve(100).is_some(),
            "what was agreed may be appended to"
        );
    }

    #[test]
    fn a_quota_that_has_changed_is_told_again_and_once() {
        let shared = domain(1);
        let mut here = Domains::default();
        let now = Instant::now();
        here.attach(DomainId::SHARED, String::new(), shared.clone(), now);
        assert_eq!(here.renew_quotas(), []);
        shared.set_capacity(1 << 20, 1 << 19);
        let told = here.renew_quotas();
        let bytes = shared.quota_offer();
        assert_eq!(bytes, 1 << 19);
        let domain = DomainId::SHARED;
        assert_eq!(told, [Frame::Quota { domain, bytes }]);
        assert_eq!(here.renew_quotas(), []);
        // Whoever does not hold the histories says nothing about them.
        let mut other = Domains::default();
        other.attach(DomainId::SHARED, String::new(), shared.clone(), now);
        shared.set_capacity(1 << 20, 1 << 20);
        assert_eq!(other.renew_quotas(), []);
        assert_eq!(here.renew_quotas().len(), 1);
    }

    #[test]
    fn another_tunnels_histories_are_taken_over_when_it_ends() {
        let now = Instant::now();
        let shared = domain(1);
        let lease = shared.try_lease();
        let mut here = Domains::default();
        assert!(
            here.attach(DomainId::SHARED, String::new(), shared, now)
                .is_empty()
        );
        assert!(here.held(DomainId::SHARED).is_none() && here.lease_retry().is_some());
        drop(lease);
        assert_eq!(here.try_leases(now).len(), 3);
        assert!(here.held(DomainId::SHARED).is_some() && here.lease_retry().is_none());
    }

    #[test]
    fn domains_that_a_peer_invents_are_bounded() {
        let mut here = Domains::default();
        let claim = |id| CoverageFrame {
            domain: DomainId(id),
            name: format!("c:{id}"),
            side: HistorySide::Own,
            coverage: Coverage::default(),
        };
        for id in 0..DOMAINS_MAX as u64 {
            assert!(here.coverage(claim(id)).unwrap().1.is_some());
            assert!(here.coverage(claim(id)).unwrap().1.is_none(), "said once");
        }
        assert_eq!(here.coverage(claim(99)), Err(Violation::TooManyDomains));
        assert_eq!(
            here.floor(DomainId(99), 1, JobId(0)),
            Err(Violation::DomainNotHeld(DomainId(99)))
        );
    }
}
