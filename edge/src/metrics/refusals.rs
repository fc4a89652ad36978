//! Counts what the policy and its limits have refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Refusals by reason. The reasons are words of the program, so they need no bound.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<&'static str, u64>>);

impl Refusals {
    /// Counts one.
    pub fn count(&self, reason: &'static str) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(reason)
            .or_default() += 1;
    }

    /// The counts so far.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(reason, count)| (*reason, *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_for_itself() {
        let refusals = Refusals::default();
        refusals.count("loopback");
        refusals.count("denied");
        refusals.count("loopback");
        assert_eq!(refusals.counts(), [("denied", 1), ("loopback", 2)]);
    }
}
