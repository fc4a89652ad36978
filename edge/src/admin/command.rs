//! The `status` command of both programs.

use std::path::Path;

use super::{Status, Token, ask, summary};
use crate::cli::{self, Failure};
use crate::config::AdminConfig;

/// Asks the endpoint of `admin`, prints its status as JSON or for people, and returns it. `file` is the configuration, for messages.
///
/// # Errors
/// There is no endpoint to ask, it does not answer, or standard output is gone.
pub fn print_status(
    file: &Path,
    admin: Option<&AdminConfig>,
    json: bool,
) -> Result<Status, Failure> {
    let Some(admin) = admin else {
        return Err(Failure::Usage(format!(
            "{} has no [admin] section; add it with bind = \"127.0.0.1:9900\" and start the edge anew",
            file.display()
        )));
    };
    if admin.bind.port() == 0 {
        return Err(Failure::Usage(format!(
            "{}: [admin] bind has port 0, so nobody knows where to ask; give it a port",
            file.display()
        )));
    }
    let token = admin
        .token()
        .map_err(Failure::of_configured)?
        .map(Token::new);
    let answer = ask(admin.bind, token.as_ref(), "/api/status")
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let status: Status = serde_json::from_str(&answer)
        .map_err(|error| Failure::Failed(format!("the admin endpoint's answer cannot be read: {error}; do both programs have one version?")))?;
    if json {
        cli::print(&format!("{}\n", answer.trim_end()))?;
    } else {
        cli::print(&summary(&status))?;
    }
    Ok(status)
}
