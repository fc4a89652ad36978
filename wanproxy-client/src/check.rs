//! `check`: is everything there that `run` needs, and what would it do?

use std::time::SystemTime;

use edge::cli::Failure;
use edge::credentials::check_name;
use edge::identity::{Identity, Role, date};
use edge::users::Users;

use crate::cli::ConfigArgs;

/// Checks configuration and credentials without any network, and prints what they mean.
///
/// # Errors
/// The first thing that `run` would refuse.
pub fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let now = SystemTime::now();
    let identity =
        Identity::load(&config.identity, Role::Client, now).map_err(Failure::of_configured)?;
    check_name(&identity, &config.identity, config.name.as_ref())
        .map_err(Failure::of_configured)?;
    let own = identity.own;
    if let Some(admin) = &config.admin {
        admin.token().map_err(Failure::of_configured)?;
    }
    for service in &config.listen {
        Users::load(&service.users).map_err(Failure::of_configured)?;
    }
    let life = match own.invite {
        Some(_) => {
            "an invite's key, which it replaces by its own at its first connection; the invite ends on"
        }
        None => "a certificate that it renews by itself before",
    };
    let mut text = format!(
        "{} is valid.\nThis edge is \"{}\", with {life} {} (serial {}, key {}).\n",
        args.config.display(),
        own.name,
        date(own.not_after),
        own.serial,
        own.pin
    );
    let history = edge::history::check(&config.history)?;
    for line in config.describe().into_iter().chain(history) {
        text.push_str(&line);
        text.push('\n');
    }
    edge::cli::print(&text)
}
