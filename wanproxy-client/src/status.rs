//! `status`: what a running client edge does.

use edge::admin;
use edge::cli::Failure;
use edge::config::ClientConfig;

use crate::cli::StatusArgs;

/// Asks the admin endpoint of the configuration and prints its answer.
///
/// # Errors
/// The configuration is wrong or has no endpoint, the edge is not reachable, or no tunnel is up.
pub fn status(args: &StatusArgs) -> Result<(), Failure> {
    let config = ClientConfig::load(&args.config)?;
    if args.watch {
        return admin::watch_status(&args.config, config.admin.as_ref(), args.json);
    }
    let status = admin::print_status(&args.config, config.admin.as_ref(), args.json)?;
    if status.has_tunnel() {
        Ok(())
    } else {
        Err(Failure::Failed(
            "no tunnel is up; see the edge's log".to_owned(),
        ))
    }
}
