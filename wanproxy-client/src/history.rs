//! `history`: what is remembered.

use edge::cli::Failure;
use edge::config::{ClientConfig, DEFAULT_CLIENT_FILE};
use edge::history::{HistoryCommand, Subject};
use tunnel::histories::Lean;

/// Shows, verifies or clears the histories of a client edge, whether it runs or not.
///
/// # Errors
/// The configuration is wrong, the histories cannot be had, or are damaged.
pub fn history(command: &HistoryCommand) -> Result<(), Failure> {
    let file = command.file(DEFAULT_CLIENT_FILE);
    let config = ClientConfig::load(&file)?;
    command.run(Subject {
        file: &file,
        history: &config.history,
        admin: config.admin.as_ref(),
        lean: Lean::Receiving,
    })
}
