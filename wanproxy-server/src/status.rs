//! `status`: what a running server edge does.

use edge::admin;
use edge::cli::Failure;
use edge::config::ServerConfig;

use crate::cli::StatusArgs;

/// Asks the admin endpoint of the configuration and prints its answer.
///
/// # Errors
/// The configuration is wrong or has no endpoint, or the edge is not reachable.
pub fn status(args: &StatusArgs) -> Result<(), Failure> {
    let config = ServerConfig::load(&args.config)?;
    if args.watch {
        return admin::watch_status(&args.config, config.admin.as_ref(), args.json);
    }
    admin::print_status(&args.config, config.admin.as_ref(), args.json).map(drop)
}
