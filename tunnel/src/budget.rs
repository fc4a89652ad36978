//! One memory budget for the whole process: whatever a peer or an application can make an edge keep is charged to it first.
//!
//! ```text
//! total ─┬─ a quarter: only for sending (data read from applications, blocks kept until they are acknowledged)
//!        └─ the rest: credit and what came by it, histories and their index; sending may use what is free of it, too
//! ```
//!
//! The last eighth of it is for admitting streams, and not for their growth.
//!
//! A [`Charge`] is a permit for bytes of one [`Use`]; its drop gives them back. Charges are made through the account that pays: the whole
//! budget, the [`IdentityShare`] of a peer, or the [`StreamShare`] of a stream, each of which bounds the sum below it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an admitted stream has for itself in each direction, however much others use. A stream works with it, slowly.
pub const STREAM_RESERVE_BYTES: usize = 16 * 1024;

/// One part in so many of the budget is only for sending: credit that was promised can never keep an edge from reading its own side.
pub const SEND_DIVISOR: usize = 4;

/// One part in so many of the budget, and of an identity's share, is only for admitting streams: what those that are there hold back, because nobody
/// reads what they bring or takes what they send, keeps no new one out.
pub const ADMISSION_DIVISOR: usize = 8;

/// One part in so many of the budget is the most that one stream may hold: sixteen greedy streams fill it, one does not.
pub const STREAM_SHARE_DIVISOR: usize = 16;

/// How much of what is free a charge may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// All of it.
    All,
    /// Not what is kept for admitting streams.
    Growth,
}

impl Claim {
    fn of(self, limit_bytes: usize) -> usize {
        match self {
            Self::All => limit_bytes,
            Self::Growth => limit_bytes - limit_bytes / ADMISSION_DIVISOR,
        }
    }
}

/// What bytes are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Read from an application, not yet in a block that was handed to a link.
    Send,
    /// Encoded blocks that were sent and not acknowledged.
    Retained,
    /// Promised to a peer and not yet received.
    Credit,
    /// Received and not yet taken by the application.
    Undelivered,
    /// Blocks that wait for ranges that others fill.
    Parked,
    /// What belongs to a stream that has ended and is still in a job.
    Detached,
    /// Histories kept in memory.
    History,
    /// Anchors of all histories.
    Index,
}

impl Use {
    /// All uses, in the order in which snapshots list them.
    pub const ALL: [Self; 8] = [
        Self::Send,
        Self::Retained,
        Self::Credit,
        Self::Undelivered,
        Self::Parked,
        Self::Detached,
        Self::History,
        Self::Index,
    ];

    /// The value of the label `use` of `wanproxy_memory_bytes`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Retained => "retained",
            Self::Credit => "credit",
            Self::Undelivered => "undelivered",
            Self::Parked => "parked",
            Self::Detached => "detached",
            Self::History => "history",
            Self::Index => "index",
        }
    }

    /// Whether it may use the quarter that is for sending.
    #[must_use]
    pub fn is_sending(self) -> bool {
        matches!(self, Self::Send | Self::Retained)
    }
}

/// The budget of the process. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    root: Arc<Account>,
}

impl Budget {
    /// A budget of `total_bytes`, all of it free.
    #[must_use]
    pub fn new(total_bytes: usize) -> Self {
        let vault = Arc::new(Vault {
            total_bytes,
            not_sending_limit_bytes: total_bytes - total_bytes / SEND_DIVISOR,
            ledger: Mutex::new(Ledger::default()),
        });
        Self {
            root: Account::new(&vault, None, total_bytes, total_bytes),
        }
    }

    /// Charges `bytes` of `usage` to nobody in particular. `None` if they are not free.
    #[must_use]
    pub fn try_charge(&self, usage: Use, bytes: usize) -> Option<Charge> {
        Charge::new(&self.root, usage, bytes, Claim::All)
    }

    /// The share of one identity: all that its tunnels and streams hold together stays within `limit_bytes`.
    #[must_use]
    pub fn identity_share(&self, limit_bytes: usize) -> IdentityShare {
        IdentityShare {
            account: Account::new(
                &self.root.vault,
                Some(self.root.clone()),
                limit_bytes,
                Claim::Growth.of(limit_bytes),
            ),
        }
    }

    /// The size of the budget.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.root.vault.total_bytes
    }

    /// What is charged now, for each use.
    #[must_use]
    pub fn snapshot(&self) -> BudgetSnapshot {
        BudgetSnapshot {
            total_bytes: self.total_bytes(),
            used_bytes: self.root.vault.lock().by_use,
        }
    }
}

/// A budget's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSnapshot {
    /// The size of the budget.
    pub total_bytes: usize,
    /// What is charged, in the order of [`Use::ALL`].
    pub used_bytes: [usize; Use::ALL.len()],
}

impl BudgetSnapshot {
    /// What is charged for `usage`.
    #[must_use]
    pub fn used_for(&self, usage: Use) -> usize {
        self.used_bytes[usage as usize]
    }
}

/// The share of one identity in the budget. Clones are the same share.
#[derive(Clone, Debug)]
pub struct IdentityShare {
    account: Arc<Account>,
}

impl IdentityShare {
    /// Charges `bytes` of `usage` to the identity. `None` if they are not free, or beyond its share.
    #[must_use]
    pub fn try_charge(&self, usage: Use, bytes: usize) -> Option<Charge> {
        Charge::new(&self.account, usage, bytes, Claim::Growth)
    }

    /// Admits a stream: reserves [`STREAM_RESERVE_BYTES`] for it in each direction. `None` if they are not free: the stream is refused.
    #[must_use]
    pub fn admit(&self) -> Option<StreamShare> {
        let vault = &self.account.vault;
        // A budget so small that a sixteenth of it is below the reserve still admits streams.
        let limit_bytes = (vault.total_bytes / STREAM_SHARE_DIVISOR).max(2 * STREAM_RESERVE_BYTES);
        let account = Account::new(vault, Some(self.account.clone()), limit_bytes, limit_bytes);
        let reserve = |usage| Charge::new(&account, usage, STREAM_RESERVE_BYTES, Claim::All);
        let reserved = [reserve(Use::Send)?, reserve(Use::Credit)?];
        Some(StreamShare {
            account,
            _reserved: reserved,
        })
    }

    /// What the identity holds.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.account.used_bytes()
    }
}

/// The share of one admitted stream. Its reserve is given back when it is dropped, its growth when the charges for it are.
#[derive(Debug)]
pub struct StreamShare {
    account: Arc<Account>,
    _reserved: [Charge; 2],
}

impl StreamShare {
    /// Charges `bytes` of `usage` beyond the reserve. `None` if they are not free, or beyond the stream's or the identity's share: the
    /// stream then goes on with what it has.
    #[must_use]
    pub fn try_charge(&self, usage: Use, bytes: usize) -> Option<Charge> {
        Charge::new(&self.account, usage, bytes, Claim::Growth)
    }

    /// What the stream holds, its reserve included.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.account.used_bytes()
    }
}

/// A permit for bytes of one use, paid by one account. Its drop gives them back.
#[must_use]
pub struct Charge {
    account: Arc<Account>,
    usage: Use,
    bytes: usize,
}

impl Charge {
    /// How many bytes it is for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they are used for.
    #[must_use]
    pub fn usage(&self) -> Use {
        self.usage
    }

    /// Charges `bytes` more, or returns false and changes nothing.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let grown = self.account.try_charge(self.usage, bytes, Claim::Growth);
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Gives back `bytes`, or all where it holds fewer. Returns how many.
    pub fn release(&mut self, bytes: usize) -> usize {
        let released = bytes.min(self.bytes);
        self.bytes -= released;
        self.account.release(self.usage, released);
        released
    }

    /// Takes `bytes` out of it as a charge of their own. `None` where it holds fewer.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Self {
            account: self.account.clone(),
            usage: self.usage,
            bytes,
        })
    }

    /// Takes `other` in.
    ///
    /// # Errors
    /// Gives it back where it is for another use or paid by another account.
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        if self.usage != other.usage || !Arc::ptr_eq(&self.account, &other.account) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Puts the bytes to another use, or returns false and changes nothing: what was charged for sending is not lent to credit.
    #[must_use]
    pub fn try_convert(&mut self, usage: Use) -> bool {
        let converted = self.account.vault.lock().try_convert(
            &self.account.vault,
            self.usage,
            usage,
            self.bytes,
        );
        if converted {
            self.usage = usage;
        }
        converted
    }

    fn new(account: &Arc<Account>, usage: Use, bytes: usize, claim: Claim) -> Option<Self> {
        account.try_charge(usage, bytes, claim).then(|| Self {
            account: account.clone(),
            usage,
            bytes,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.usage, self.bytes);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("usage", &self.usage)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Who pays: the whole, an identity or a stream.
struct Account {
    vault: Arc<Vault>,
    parent: Option<Arc<Account>>,
    limit_bytes: usize,
    /// The same for the growth of what was admitted.
    growth_limit_bytes: usize,
    /// What it and those below it hold. Changed with the ledger locked, so that a chain of accounts changes at once.
    used_bytes: AtomicUsize,
}

impl Account {
    fn new(
        vault: &Arc<Vault>,
        parent: Option<Arc<Self>>,
        limit_bytes: usize,
        growth_limit_bytes: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            vault: vault.clone(),
            parent,
            limit_bytes,
            growth_limit_bytes,
            used_bytes: AtomicUsize::new(0),
        })
    }

    fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The account and those above it.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |account| account.parent.as_deref())
    }

    fn try_charge(&self, usage: Use, bytes: usize, claim: Claim) -> bool {
        let mut ledger = self.vault.lock();
        let fits = self.chain().all(|account| {
            let limit_bytes = match claim {
                Claim::All => account.limit_bytes,
                Claim::Growth => account.growth_limit_bytes,
            };
            let used_bytes = account.used_bytes().checked_add(bytes);
            used_bytes.is_some_and(|used_bytes| used_bytes <= limit_bytes)
        });
        if !fits || !ledger.try_add(&self.vault, usage, bytes, claim) {
            return false;
        }
        for account in self.chain() {
            account.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        true
    }

    fn release(&self, usage: Use, bytes: usize) {
        let mut ledger = self.vault.lock();
        ledger.subtract(&self.vault, usage, bytes);
        for account in self.chain() {
            account.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Every charge keeps its account, so the last to go leaves it empty.
        debug_assert_eq!(
            self.used_bytes(),
            0,
            "an account was closed with charges on it"
        );
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("limit_bytes", &self.limit_bytes)
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}

/// The budget's size and its books.
struct Vault {
    total_bytes: usize,
    not_sending_limit_bytes: usize,
    // A lock and not one atomic a use: a charge is checked against several sums and must never be seen half made. It is held for a few
    // additions, once for a block or a step of credit.
    ledger: Mutex<Ledger>,
}

impl Vault {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Ledger {
    by_use: [usize; Use::ALL.len()],
    used_bytes: usize,
    not_sending_bytes: usize,
}

impl Ledger {
    fn try_add(&mut self, vault: &Vault, usage: Use, bytes: usize, claim: Claim) -> bool {
        let free =
            |limit_bytes: usize, used_bytes| claim.of(limit_bytes).saturating_sub(used_bytes);
        if bytes > free(vault.total_bytes, self.used_bytes) {
            return false;
        }
        if !usage.is_sending() {
            if bytes > free(vault.not_sending_limit_bytes, self.not_sending_bytes) {
                return false;
            }
            self.not_sending_bytes += bytes;
        }
        self.used_bytes += bytes;
        self.by_use[usage as usize] += bytes;
        self.assert_conserved(vault);
        true
    }

    fn subtract(&mut self, vault: &Vault, usage: Use, bytes: usize) {
        if !usage.is_sending() {
            self.not_sending_bytes -= bytes;
        }
        self.used_bytes -= bytes;
        self.by_use[usage as usize] -= bytes;
        self.assert_conserved(vault);
    }

    fn try_convert(&mut self, vault: &Vault, from: Use, to: Use, bytes: usize) -> bool {
        self.subtract(vault, from, bytes);
        let converted = self.try_add(vault, to, bytes, Claim::All);
        if !converted {
            let restored = self.try_add(vault, from, bytes, Claim::All);
            debug_assert!(restored, "what was just given back is free");
        }
        converted
    }

    fn assert_conserved(&self, vault: &Vault) {
        debug_assert_eq!(self.by_use.iter().sum::<usize>(), self.used_bytes);
        debug_assert!(self.used_bytes <= vault.total_bytes);
        debug_assert!(self.not_sending_bytes <= vault.not_sending_limit_bytes);
        debug_assert_eq!(
            Use::ALL
                .into_iter()
                .filter(|usage| !usage.is_sending())
                .map(|usage| self.by_use[usage as usize])
                .sum::<usize>(),
            self.not_sending_bytes
        );
    }
}

#[cfg(test)]
mod tests;
