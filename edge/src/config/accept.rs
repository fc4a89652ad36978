//! `[[accept]]`: what reverse listeners of the server may reach behind a client edge.

use super::document::{Keys, Section};
use super::error::ConfigError;
use super::policy::Rule;
use super::server::MAX_RULES;

/// All `[[accept]]` sections as one: what one denies, none allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptConfig {
    /// What may be reached. Nothing that is not here.
    pub allow: Vec<Rule>,
    /// What may not be reached although it is allowed.
    pub deny: Vec<Rule>,
}

const ACCEPT: Keys = Keys {
    offered: &["allow", "deny"],
    later: &[],
};

/// Sections; their rules are walked for each stream.
const MAX_SECTIONS: usize = 64;

impl AcceptConfig {
    pub(crate) fn read(top: &Section<'_>) -> Result<Self, ConfigError> {
        let mut accept = Self::default();
        for section in top.sections("accept", MAX_SECTIONS, &ACCEPT)? {
            accept
                .allow
                .extend(section.list("allow", MAX_RULES, str::parse)?);
            accept
                .deny
                .extend(section.list("deny", MAX_RULES, str::parse)?);
        }
        Ok(accept)
    }
}
