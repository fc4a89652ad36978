//! What keeps a domain's bytes from being dropped, and when both sides drop them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use codec::domain::{Domain, Log};
use codec::encoder::Uses;

use super::jobs::JobId;

/// A peer that does not answer Floor in this time is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of one domain: what blocks under way use, and the floors that wait for them.
#[derive(Debug, Default)]
pub(super) struct Floors {
    /// Positions used by blocks not yet acknowledged, and by how many: of the own history, of the mirror.
    pins: [BTreeMap<u64, usize>; 2],
    /// Encode jobs under way, whose uses are not known yet.
    encoding: BTreeSet<JobId>,
    own: Option<Floor>,
    mirror: Option<Floor>,
}

/// A floor that is to be raised once nothing below it is used.
#[derive(Debug, Clone, Copy)]
struct Floor {
    position: u64,
    /// Jobs before this one may use what lies below.
    jobs_from: JobId,
    /// When Floor was sent; own history only.
    sent: Option<Instant>,
    /// The peer has answered, or was waited for long enough.
    is_answered: bool,
}

impl Floors {
    pub(super) fn job_started(&mut self, job: JobId) {
        self.encoding.insert(job);
    }

    pub(super) fn job_ended(&mut self, job: JobId) {
        self.encoding.remove(&job);
    }

    pub(super) fn pin(&mut self, uses: Uses) {
        for (counts, position) in self.pins.iter_mut().zip([uses.own, uses.mirror]) {
            if let Some(position) = position {
                *counts.entry(position).or_default() += 1;
            }
        }
    }

    pub(super) fn unpin(&mut self, uses: Uses) {
        for (counts, position) in self.pins.iter_mut().zip([uses.own, uses.mirror]) {
            let Some(position) = position else { continue };
            if let Some(count) = counts.get_mut(&position) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&position);
                }
            }
        }
    }

    /// The peer has said Floor. Jobs from `next_job` on copy nothing from below it.
    pub(super) fn peer_will_drop(&mut self, domain: &Domain, position: u64, next_job: JobId) {
        domain.retire_below(Log::Mirror, position);
        self.mirror = Some(Floor {
            position,
            jobs_from: next_job,
            sent: None,
            is_answered: false,
        });
    }

    /// The peer has said Floored.
    pub(super) fn peer_has_dropped(&mut self, position: u64) {
        if let Some(floor) = self
            .own
            .as_mut()
            .filter(|floor| floor.sent.is_some() && floor.position == position)
        {
            floor.is_answered = true;
        }
    }

    /// Drops the mirror below the peer's floor if nothing uses it; returns the floor, to be answered.
    pub(super) fn raise_mirror(&mut self, domain: &Domain) -> Option<u64> {
        let floor = self
            .mirror
            .filter(|floor| self.is_free(Log::Mirror, floor))?;
        self.mirror = None;
        domain.drop_below(Log::Mirror, floor.position);
        Some(floor.position)
    }

    /// Moves the own history's floor one step on: wanted, said, dropped. Returns it when it is to be said.
    pub(super) fn raise_own(
        &mut self,
        domain: &Domain,
        next_job: JobId,
        now: Instant,
    ) -> Option<u64> {
        if self.own.is_none() {
            let position = domain.floor_wanted()?;
            // Else jobs that start while the peer answers would copy what it has dropped by then.
            domain.retire_below(Log::Own, position);
            self.own = Some(Floor {
                position,
                jobs_from: next_job,
                sent: None,
                is_answered: false,
            });
        }
        if let Some(floor) = &mut self.own {
            floor.is_answered |= floor.sent.is_some_and(|sent| now >= sent + PATIENCE);
        }
        let mut floor = self.own.filter(|floor| self.is_free(Log::Own, floor))?;
        if floor.is_answered {
            domain.drop_below(Log::Own, floor.position);
            self.own = None;
            return None;
        }
        if floor.sent.is_some() {
            return None;
        }
        floor.sent = Some(now);
        self.own = Some(floor);
        Some(floor.position)
    }

    /// The Floor, or its answer, may have been lost with the line.
    pub(super) fn ask_again(&mut self) {
        if let Some(floor) = self.own.as_mut().filter(|floor| !floor.is_answered) {
            floor.sent = None;
        }
    }

    /// When the peer's answer is waited for no longer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let floor = self.own.filter(|floor| !floor.is_answered)?;
        floor.sent.map(|sent| sent + PATIENCE)
    }

    /// Whether nothing under way uses `log` below the floor.
    fn is_free(&self, log: Log, floor: &Floor) -> bool {
        let [own, mirror] = &self.pins;
        let pins = match log {
            Log::Own => own,
            Log::Mirror => mirror,
        };
        let is_old_job = self
            .encoding
            .first()
            .is_some_and(|job| *job < floor.jobs_from);
        !is_old_job
            && pins
                .first_key_value()
                .is_none_or(|(lowest, _)| *lowest >= floor.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::domain::DomainConfig;

    fn domain() -> Domain {
        Domain::in_memory(DomainConfig {
            own_capacity_bytes: 1 << 20,
            mirror_capacity_bytes: 1 << 20,
            index_capacity_bytes: 1 << 16,
            epoch: [1; 16],
        })
    }

    #[test]
    fn a_floor_waits_for_what_uses_the_bytes_below() {
        let domain = domain();
        let mut floors = Floors::default();
        let uses = Uses {
            own: None,
            mirror: Some(5),
        };
        floors.pin(uses);
        floors.job_started(JobId(1));
        floors.peer_will_drop(&domain, 10, JobId(2));
        assert_eq!(floors.raise_mirror(&domain), None);
        floors.unpin(uses);
        assert_eq!(floors.raise_mirror(&domain), None, "the job may use it yet");
        floors.job_ended(JobId(1));
        floors.job_started(JobId(2));
        assert_eq!(floors.raise_mirror(&domain), Some(10));
        assert_eq!(floors.raise_mirror(&domain), None, "once");
    }

    #[test]
    fn a_peer_that_does_not_answer_is_waited_for_ten_seconds() {
        let (domain, start) = (domain(), Instant::now());
        let mut floors = Floors {
            own: Some(Floor {
                position: 10,
                jobs_from: JobId(1),
                sent: None,
                is_answered: false,
            }),
            ..Floors::default()
        };
        assert_eq!(floors.raise_own(&domain, JobId(1), start), Some(10));
        assert_eq!(floors.raise_own(&domain, JobId(1), start), None);
        assert_eq!(floors.deadline(), Some(start + PATIENCE));
        let uses = Uses {
            own: Some(3),
            mirror: None,
        };
        floors.pin(uses);
        assert_eq!(floors.raise_own(&domain, JobId(1), start + PATIENCE), None);
        assert_eq!(
            floors.deadline(),
            None,
            "a deadline that has passed must not come again"
        );
        assert!(floors.own.is_some(), "what is in use stays");
        floors.unpin(uses);
        assert_eq!(floors.raise_own(&domain, JobId(1), start + PATIENCE), None);
        assert!(floors.own.is_none());
    }
}
