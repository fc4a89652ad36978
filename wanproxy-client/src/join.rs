//! `join`: an invite becomes a client's directory.

use std::time::SystemTime;

use edge::cli::Failure;
use edge::identity;

use crate::cli::JoinArgs;

/// Writes the configuration and the credentials, and says what to do next.
///
/// # Errors
/// The invite cannot be used, or a file is in the way; nothing is changed then.
pub fn join(args: &JoinArgs) -> Result<(), Failure> {
    let joined = identity::join(&args.invite, &args.dir, SystemTime::now())?;
    let (name, dir) = (&joined.name, args.dir.display());
    let done = if joined.renewed {
        format!("Replaced the credentials of \"{name}\" in {dir}; client.toml is as it was.")
    } else {
        format!("Wrote client.toml and the credentials of \"{name}\" into {dir}.")
    };
    edge::cli::print(&format!(
        "{done}\nIt connects to {} and must do so before {}, to replace the invite's key by one of its own.\n\
         Next: wanproxy-client check --config {}\n",
        joined.server,
        identity::date(joined.expires),
        args.dir.join("client.toml").display()
    ))
}
