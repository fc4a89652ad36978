//! `check`: is everything there that `run` needs, and what would it do?

use std::time::SystemTime;

use edge::cli::Failure;
use edge::credentials::check_name;
use edge::identity::{Authority, Identity, Revocations, Role, date};

use crate::cli::ConfigArgs;

/// Checks configuration and credentials without any network, and prints what they mean.
///
/// # Errors
/// The first thing that `run` would refuse.
pub fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let now = SystemTime::now();
    let identity =
        Identity::load(&config.identity, Role::Server, now).map_err(Failure::of_configured)?;
    check_name(&identity, &config.identity, config.name.as_ref())
        .map_err(Failure::of_configured)?;
    let own = identity.own;
    let clients = match &config.identity.ca_key {
        Some(ca_key) => {
            let authority =
                Authority::open(&config.identity.ca, ca_key).map_err(Failure::of_configured)?;
            authority.list(now).map_err(Failure::of_configured)?;
            "It would renew its clients' certificates."
        }
        None => "It would not renew its clients' certificates: that needs ca_key in [identity].",
    };
    Revocations::load(&config.identity.authority_directory()).map_err(Failure::of_configured)?;
    if let Some(admin) = &config.admin {
        admin.token().map_err(Failure::of_configured)?;
    }
    let mut text = format!(
        "{} is valid.\nThis edge is \"{}\", with a certificate that ends on {} (serial {}, key {}).\n{clients}\n",
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
