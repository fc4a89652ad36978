//! The endpoint of a running edge, as the commands `status` and `history` use it.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::{AskError, Status, Token, ask, configured_token, order, summary};
use crate::cli::{self, Failure};
use crate::config::{AdminConfig, Bind};

/// Where a running edge is asked.
#[derive(Clone, Debug)]
pub struct Endpoint {
    bind: Bind,
    token: Option<Token>,
}

impl Endpoint {
    /// The endpoint of `admin`. `file` is the configuration, for messages.
    ///
    /// # Errors
    /// There is none to ask, or its token cannot be read.
    pub fn of(file: &Path, admin: Option<&AdminConfig>) -> Result<Self, Failure> {
        let Some(config) = admin else {
            return Err(Failure::Usage(format!(
                "{} has no [admin] section; add it with bind = \"127.0.0.1:9900\" and start the edge anew",
                file.display()
            )));
        };
        if !config.bind.is_fixed() {
            return Err(Failure::Usage(format!(
                "{}: [admin] bind has port 0, so nobody knows where to ask; give it a port",
                file.display()
            )));
        }
        Ok(Self {
            bind: config.bind.clone(),
            token: configured_token(admin)?,
        })
    }

    /// Does anybody listen there? A program that listens and does not answer as an edge does counts: asking it says what is wrong.
    pub fn is_there(&self) -> bool {
        !matches!(
            ask(&self.bind, self.token.as_ref(), "/healthz"),
            Err(AskError::Unreachable { .. })
        )
    }

    /// Where it is asked.
    pub fn address(&self) -> &Bind {
        &self.bind
    }

    /// GETs `path`: its text, and what that says.
    ///
    /// # Errors
    /// It does not answer, or not what was asked.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<(String, T), Failure> {
        read(ask(&self.bind, self.token.as_ref(), path))
    }

    /// POSTs to `path`: the answer's text, and what that says.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn order<T: DeserializeOwned>(&self, path: &str) -> Result<(String, T), Failure> {
        read(order(&self.bind, self.token.as_ref(), path))
    }
}

fn read<T: DeserializeOwned>(answer: Result<String, AskError>) -> Result<(String, T), Failure> {
    let text = answer.map_err(|error| Failure::Failed(error.to_string()))?;
    let value = serde_json::from_str(&text)
        .map_err(|error| Failure::Failed(format!("the admin endpoint's answer cannot be read: {error}; do both programs have one version?")))?;
    Ok((text, value))
}

/// Asks the endpoint of `admin`, prints its status as JSON or for people, and returns it. `file` is the configuration, for messages.
///
/// # Errors
/// There is no endpoint to ask, it does not answer, or standard output is gone.
pub fn print_status(
    file: &Path,
    admin: Option<&AdminConfig>,
    json: bool,
) -> Result<Status, Failure> {
    let (answer, status) = Endpoint::of(file, admin)?.ask("/api/status")?;
    if json {
        cli::print(&format!("{}\n", answer.trim_end()))?;
    } else {
        cli::print(&summary(&status))?;
    }
    Ok(status)
}
