//! `run`: the client edge at work.

mod observed;
mod reload;
mod services;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge::admin::{Access, AdminServer, configured_token};
use edge::cli::Failure;
use edge::config::ClientConfig;
use edge::credentials::ClientCredentials;
use edge::lifecycle::{self, Listening, Resources, Running, Start};
use edge::log::Log;
use edge::metrics::Sources;
use tokio::sync::mpsc;
use tunnel::client::{Connector, ConnectorConfig};
use tunnel::environment::Environment;
use tunnel::histories::{Lean, QuotaOf};

use crate::cli::ConfigArgs;
use crate::listener::{Listener, Uplink};
use observed::Client;
use services::{Domains, bind, name_of_admin};

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration or the credentials are wrong, or a socket cannot be had.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    lifecycle::run(run_async(args, config))
}

async fn run_async(args: &ConfigArgs, config: ClientConfig) -> Result<(), Failure> {
    let Start {
        log,
        mut signals,
        descriptors,
    } = Start::new(&config.log)?;
    let credentials = Arc::new(ClientCredentials::load(
        &config.identity,
        config.name.as_ref(),
    )?);
    let token = configured_token(config.admin.as_ref())?;

    let mut sockets = Vec::with_capacity(config.listen.len());
    for service in &config.listen {
        sockets.push(bind(&service.name, service.bind)?);
    }
    let admin_socket = config
        .admin
        .as_ref()
        .map(|admin| bind(name_of_admin(), admin.bind))
        .transpose()?;

    let domains = Domains::new(&config.listen);
    let services = config
        .listen
        .iter()
        .map(|service| domains.service(service))
        .collect::<Result<Vec<_>, _>>()?;
    let resources = Resources {
        pools: &config.pools,
        memory: &config.memory,
        history: &config.history,
        codec: &config.codec,
    };
    let name = credentials.name().to_string();
    let environment = lifecycle::environment(
        &name,
        Lean::Receiving,
        config.tunnel.heartbeat,
        &resources,
        no_quotas(),
    )
    .await;
    let environment = Environment {
        resume_window: config.tunnel.resume_window,
        ..environment
    };
    let sources = Arc::new(Sources::new(
        "client",
        env!("CARGO_PKG_VERSION"),
        &environment,
    ));
    let connector_config = ConnectorConfig {
        servers: config
            .tunnel
            .server
            .iter()
            .map(ToString::to_string)
            .collect(),
        domains: domains.specs(),
    };
    // The server opens no streams in this version; what it might open is refused by the closed receiver.
    let (incoming, _) = mpsc::unbounded_channel();
    let connector = Connector::start(connector_config, credentials.clone(), environment, incoming);
    let (uplink, all_done) = Uplink::new(connector, config.tunnel.connect_wait);
    let uplink = Arc::new(uplink);

    let mut listeners = Vec::with_capacity(sockets.len());
    for (socket, (service, serves)) in sockets.into_iter().zip(config.listen.iter().zip(services)) {
        let listener = Listener::start(socket, service.clone(), serves, uplink.clone());
        listeners.push(listener.map_err(|error| {
            Failure::Failed(format!("cannot listen for \"{}\": {error}", service.name))
        })?);
    }
    let observed = Arc::new(Client::new(
        sources.clone(),
        credentials.clone(),
        uplink.clone(),
        &config,
        &listeners,
    ));
    let mut ready: Vec<Listening> = listeners.iter().map(services::listening).collect();
    let admin = match (admin_socket, &config.admin) {
        (Some(socket), Some(_)) => {
            let bind = socket.local_addr().map_err(|error| {
                Failure::Failed(format!("cannot listen for the admin endpoint: {error}"))
            })?;
            ready.push(Listening {
                name: name_of_admin().to_owned(),
                kind: "admin",
                address: bind,
            });
            Some(AdminServer::start(
                socket,
                Access { bind, token },
                observed.clone(),
            ))
        }
        _ => None,
    };
    tracing::info!(
        name,
        version = env!("CARGO_PKG_VERSION"),
        services = listeners.len(),
        descriptors,
        "client edge started"
    );
    if listeners.is_empty() {
        tracing::warn!("there is no [[listen]] section, so nothing can be carried yet");
    }
    lifecycle::announce(&ready);

    let mut edge = Edge {
        args: args.clone(),
        config,
        log,
        credentials,
        uplink,
        domains,
        listeners,
        admin,
        observed,
        sources,
        all_done,
    };
    let result = lifecycle::attend(&mut signals, &mut edge).await;
    edge.end().await;
    result
}

/// A client has one peer, who may have all the room there is.
fn no_quotas() -> QuotaOf {
    Arc::new(|_| None)
}

/// The running edge.
struct Edge {
    args: ConfigArgs,
    config: ClientConfig,
    log: Log,
    credentials: Arc<ClientCredentials>,
    uplink: Arc<Uplink>,
    domains: Domains,
    listeners: Vec<Listener>,
    admin: Option<AdminServer>,
    observed: Arc<Client>,
    sources: Arc<Sources>,
    all_done: mpsc::Receiver<()>,
}

impl Running for Edge {
    async fn reload(&mut self) -> Result<(), String> {
        let result = self.reload_all();
        self.sources
            .reload_success
            .store(result.is_ok(), Ordering::Relaxed);
        result.map_err(|failure| failure.to_string())
    }

    async fn drain(&mut self) {
        self.listeners.clear();
        self.uplink.connector().drain().await;
    }

    async fn failed(&mut self) -> String {
        std::future::pending().await
    }

    fn drain_timeout(&self) -> Duration {
        self.config.tunnel.drain_timeout
    }
}

impl Edge {
    /// Ends what is left, each step within its time.
    async fn end(self) {
        let Self {
            uplink,
            listeners,
            observed,
            admin,
            sources,
            all_done,
            ..
        } = self;
        drop((listeners, admin, observed));
        let tunnels = uplink.connector().tunnels();
        uplink.connector().reconnect("this program ends");
        lifecycle::say_goodbye(&tunnels).await;
        drop(uplink);
        lifecycle::end(all_done, &sources).await;
    }
}
