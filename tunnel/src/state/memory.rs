//! The tunnel's part of the memory budget for sending.

use crate::budget::{Budget, Charge, IdentityShare, Use};

/// The budget is charged in steps of this size, so that its lock is taken once for many small writes.
const STEP_BYTES: usize = 256 << 10;

/// One identity's tunnels hold at most this part of the budget: half, so that one busy branch leaves the others room.
const IDENTITY_DIVISOR: usize = 2;

/// Growth that a new stream is offered leaves half of the identity's part free: it may never be used.
const OFFERED_KEEPS_FREE_DIVISOR: usize = 2;

/// What the tunnel holds for sending. What a stream's window may hold is charged by the stream.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) identity: IdentityShare,
    identity_limit_bytes: usize,
    /// Plain bytes queued or being encoded.
    pub(super) queued: Purse,
    /// Encoded bytes not yet acknowledged.
    pub(super) retained: Purse,
    /// Blocks that wait for ranges to be filled.
    pub(super) parked: Purse,
}

impl Memory {
    pub(super) fn new(budget: &Budget) -> Self {
        let identity_limit_bytes = budget.total_bytes() / IDENTITY_DIVISOR;
        let identity = budget.identity_share(identity_limit_bytes);
        let purse = |usage| Purse::new(&identity, usage);
        Self {
            queued: purse(Use::Send),
            retained: purse(Use::Retained),
            parked: purse(Use::Parked),
            identity_limit_bytes,
            identity,
        }
    }

    /// The tunnel is over: everything is given back.
    pub(super) fn clear(&mut self) {
        for purse in [&mut self.queued, &mut self.retained, &mut self.parked] {
            purse.charge = None;
            purse.used_bytes = 0;
        }
    }

    /// Whether a stream that is new, or has woken up, may be offered `bytes` more of window. What a stream has shown it uses is bounded by the budget alone.
    pub(super) fn may_offer(&self, bytes: u64) -> bool {
        let keeps_free = self.identity_limit_bytes / OFFERED_KEEPS_FREE_DIVISOR;
        let used = (self.identity.used_bytes() + keeps_free) as u64;
        used.saturating_add(bytes) <= self.identity_limit_bytes as u64
    }
}

/// Bytes of one use that come and go in small pieces.
///
/// What was read already is taken even if the budget has just been used up by others; it is then a debt, and nothing is free until it is
/// paid.
#[derive(Debug)]
pub(super) struct Purse {
    identity: IdentityShare,
    usage: Use,
    charge: Option<Charge>,
    used_bytes: usize,
}

impl Purse {
    fn new(identity: &IdentityShare, usage: Use) -> Self {
        Self {
            identity: identity.clone(),
            usage,
            charge: None,
            used_bytes: 0,
        }
    }

    fn charged_bytes(&self) -> usize {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    fn try_grow(&mut self, bytes: usize) -> bool {
        match &mut self.charge {
            Some(charge) => charge.try_grow(bytes),
            None => {
                self.charge = self.identity.try_charge(self.usage, bytes);
                self.charge.is_some()
            }
        }
    }

    /// How many bytes are free, up to `wanted`; charges the budget for them.
    pub(super) fn free_bytes(&mut self, wanted: usize) -> usize {
        let free = self.charged_bytes().saturating_sub(self.used_bytes);
        if free >= wanted {
            return wanted;
        }
        let debt = self.used_bytes.saturating_sub(self.charged_bytes());
        let missing = (wanted - free).saturating_add(debt);
        if self.try_grow(missing.next_multiple_of(STEP_BYTES)) || self.try_grow(missing) {
            return wanted;
        }
        free
    }

    /// Whether `bytes` more could be taken; charges nothing.
    pub(super) fn has_free(&mut self, bytes: usize) -> bool {
        let before = self.charged_bytes();
        let free = self.free_bytes(bytes) >= bytes;
        let grown = self.charged_bytes() - before;
        if let Some(charge) = &mut self.charge {
            charge.release(grown);
        }
        free
    }

    /// Takes `bytes`, charged for or not.
    pub(super) fn take(&mut self, bytes: usize) {
        let _ = self.free_bytes(bytes);
        self.used_bytes += bytes;
    }

    /// Takes `bytes` only if the budget has them.
    pub(super) fn try_take(&mut self, bytes: usize) -> bool {
        let free = self.free_bytes(bytes) >= bytes;
        if free {
            self.used_bytes += bytes;
        }
        free
    }

    /// Gives `bytes` back.
    pub(super) fn give(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.used_bytes, "gives back more than was taken");
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        let idle = self.charged_bytes().saturating_sub(self.used_bytes);
        if (self.used_bytes == 0 || idle > 2 * STEP_BYTES)
            && let Some(charge) = &mut self.charge
        {
            charge.release(idle);
        }
    }

    /// Gives back what is charged and not in use.
    pub(super) fn trim(&mut self) {
        if self.used_bytes == 0 {
            self.charge = None;
        }
    }

    /// What is in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_before_anything_is_free() {
        let budget = Budget::new(1 << 20);
        let mut memory = Memory::new(&budget);
        assert_eq!(memory.queued.free_bytes(100), 100);
        memory.queued.take(600 << 10);
        assert_eq!(
            memory.queued.free_bytes(1),
            0,
            "half of the budget is the identity's"
        );
        memory.queued.give(400 << 10);
        assert_eq!(memory.queued.free_bytes(100 << 10), 100 << 10);
        memory.queued.give(200 << 10);
        assert_eq!(budget.snapshot().used_for(Use::Send), 0);
    }

    #[test]
    fn what_must_not_be_a_debt_is_refused() {
        let budget = Budget::new(1 << 20);
        let mut memory = Memory::new(&budget);
        assert!(memory.parked.try_take(400 << 10));
        assert!(!memory.parked.try_take(100 << 10));
        assert_eq!(memory.parked.used_bytes(), 400 << 10);
    }
}
