//! `run`: the client edge at work.

mod observed;
mod reload;
mod services;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge::admin::{Access, AdminServer, Token};
use edge::cli::Failure;
use edge::config::ClientConfig;
use edge::credentials::ClientCredentials;
use edge::lifecycle::{self, Listening, Resources, Running, Signals};
use edge::log::Log;
use edge::metrics::{Refusals, Sources};
use edge::os;
use tokio::sync::mpsc;
use tunnel::client::{Connector, ConnectorConfig};
use tunnel::environment::Environment;
use tunnel::histories::Lean;

use crate::cli::ConfigArgs;
use crate::listener::{Listener, Uplink};
use observed::Client;
use services::{Domains, bind, name_of_admin};

/// How long the tunnel may take to say goodbye, once nothing more is carried.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the pools' workers may finish what they are at.
const POOLS_TIMEOUT: Duration = Duration::from_millis(200);
/// How long connections may take to write their last lines of the log, after the tunnel has drained.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(250);

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration or the credentials are wrong, or a socket cannot be had.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    lifecycle::run(run_async(args, config))
}

async fn run_async(args: &ConfigArgs, config: ClientConfig) -> Result<(), Failure> {
    let log = Log::start(&config.log);
    let mut signals = Signals::install()
        .map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")))?;
    let descriptors = os::raise_descriptor_limit();
    let credentials = Arc::new(ClientCredentials::load(
        &config.identity,
        config.name.as_ref(),
    )?);
    let token = config
        .admin
        .as_ref()
        .map(edge::config::AdminConfig::token)
        .transpose()
        .map_err(Failure::of_configured)?
        .flatten();

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
    let environment = Environment {
        resume_window: config.tunnel.resume_window,
        ..lifecycle::environment(&name, Lean::Receiving, config.tunnel.heartbeat, &resources)
    };
    let sources = Arc::new(Sources {
        edge: "client",
        name: name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started: Instant::now(),
        counters: environment.counters.clone(),
        pools: environment.pools.clone(),
        budget: environment.budget.clone(),
        histories: environment.histories.clone(),
        refusals: Refusals::default(),
        reload_success: AtomicBool::new(true),
        certificate_expiry_seconds: AtomicU64::new(0),
    });
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
                Access {
                    bind,
                    token: token.map(Token::new),
                },
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
            mut all_done,
            ..
        } = self;
        drop((listeners, admin, observed));
        if let Some(tunnel) = uplink.connector().present() {
            uplink.connector().reconnect("this program ends");
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, tunnel.ended()).await;
        }
        drop(uplink);
        let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, all_done.recv()).await;
        sources.pools.destroy(POOLS_TIMEOUT).await;
    }
}
