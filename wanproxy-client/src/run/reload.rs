//! SIGHUP on a client edge: everything is read and every new socket bound before anything changes.

use edge::admin::configured_token;
use edge::cli::Failure;
use edge::config::{ClientConfig, Dedup};
use edge::credentials::ClientCredentials;
use edge::lifecycle;
use edge::reach::Policy;

use super::{Edge, no_quotas};
use crate::listener::has_transparent;

impl Edge {
    /// Reads configuration and credentials anew and uses them.
    pub(super) fn reload_all(&mut self) -> Result<(), Failure> {
        let config = self.args.load()?;
        let credentials = ClientCredentials::read(&config.identity, config.name.as_ref())?;
        let token = configured_token(config.admin.as_ref())?;
        let services = self.domains.services(&config.listen)?;
        let listeners = self.listeners.prepare(services)?;

        // From here on nothing can fail.
        self.warn_of_what_waits(&config);
        self.listeners.apply(listeners, &self.uplink);
        self.uplink.own().set_marks(has_transparent(&config.listen));
        self.domains.set_rates(&config.listen);
        self.observed.set_services(&self.listeners);
        self.credentials.replace(credentials);
        self.reached.set_policy(Policy::of_accept(&config.accept));
        self.uplink.set_connect_wait(config.tunnel.connect_wait);
        self.log.set_level(config.log.level);
        if self.config.history.size != config.history.size {
            let memory = &self.config.memory;
            lifecycle::resize_histories(&self.sources, &config.history, memory, no_quotas());
        }
        if let Some(admin) = &self.admin {
            admin.set_token(token);
        }
        self.config = config;
        Ok(())
    }

    /// Names what was changed and takes effect only at the next start.
    fn warn_of_what_waits(&self, new: &ClientConfig) {
        let old = &self.config;
        let isolated_without_domain = new
            .listen
            .iter()
            .any(|service| service.dedup == Dedup::Isolated && self.domains.of(service).is_none());
        let changes = [
            (
                "[tunnel] server, links or path",
                old.tunnel.paths != new.tunnel.paths,
            ),
            (
                "[tunnel] heartbeat",
                old.tunnel.heartbeat != new.tunnel.heartbeat,
            ),
            (
                "[tunnel] resume_window",
                old.tunnel.resume_window != new.tunnel.resume_window,
            ),
            (
                "[history] directory",
                old.history.directory != new.history.directory,
            ),
            ("[codec]", old.codec != new.codec),
            ("[pools]", old.pools != new.pools),
            ("[memory]", old.memory != new.memory),
            (
                "[admin] bind",
                old.admin.as_ref().map(|admin| &admin.bind)
                    != new.admin.as_ref().map(|admin| &admin.bind),
            ),
            ("[log] format", old.log.format != new.log.format),
            (
                "dedup = \"isolated\" of a new service, which goes without dedup until then",
                isolated_without_domain,
            ),
        ];
        for (what, _) in changes.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!(what, "changed; takes effect at the next start");
        }
    }
}
