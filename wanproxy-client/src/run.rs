//! `run`: the client edge at work.

mod observed;
mod reload;
mod services;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge::admin::{Access, AdminServer, configured_token};
use edge::cli::Failure;
use edge::config::ClientConfig;
use edge::credentials::ClientCredentials;
use edge::lan::{LanListener, Listeners};
use edge::lifecycle::{self, Handover, LastSecond, Listening, Resources, Running, Start};
use edge::log::Log;
use edge::metrics::Sources;
use edge::reach::{Policy, Streams};
use tokio::sync::mpsc;
use tunnel::client::{Connector, ConnectorConfig};
use tunnel::environment::Environment;
use tunnel::histories::{Lean, QuotaOf};

use crate::cli::{ConfigArgs, RunArgs};
use crate::listener::{OwnConnections, Uplink, has_transparent};
use observed::Client;
use services::Domains;

/// The name of the admin endpoint's socket in the `listening` lines.
const ADMIN: &str = "admin";

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration or the credentials are wrong, or a socket cannot be had.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    lifecycle::run(run_async(args, config))
}

async fn run_async(args: &RunArgs, config: ClientConfig) -> Result<(), Failure> {
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

    let mut handover = Handover::begin(args.handover.as_deref()).await?;
    let domains = Domains::new(&config.listen);
    let mut listeners = Listeners::<Uplink>::default();
    let prepared = listeners.prepare(domains.services(&config.listen)?)?;
    let admin_socket = config
        .admin
        .as_ref()
        .map(|admin| LanListener::open_for(ADMIN, &admin.bind))
        .transpose()?;

    domains.set_rates(&config.listen);
    let resources = Resources {
        pools: &config.pools,
        memory: &config.memory,
        history: &config.history,
        codec: &config.codec,
    };
    let name = credentials.name().to_string();
    handover.prepared().await?;
    let environment = lifecycle::environment(
        &name,
        Lean::Receiving,
        config.tunnel.heartbeat,
        &resources,
        no_quotas(),
    )
    .await;
    let own = Arc::new(OwnConnections::default());
    own.set_marks(has_transparent(&config.listen));
    let environment = Environment {
        resume_window: config.tunnel.resume_window,
        prepare: own.prepare(),
        ..environment
    };
    let sources = Arc::new(Sources::new(
        "client",
        env!("CARGO_PKG_VERSION"),
        &environment,
    ));
    let connector_config = ConnectorConfig {
        routes: config.tunnel.paths.routes(),
        links_per_route: config.tunnel.paths.links,
        domains: domains.specs(),
    };
    let (incoming, arriving) = mpsc::unbounded_channel();
    let connector = Connector::start(connector_config, credentials.clone(), environment, incoming);
    let (uplink, all_done) =
        Uplink::new(connector, config.tunnel.connect_wait, own, sources.clone());
    let uplink = Arc::new(uplink);
    let policy = Policy::of_accept(&config.accept);
    let reached = Streams::new(policy, sources.clone(), uplink.carrying());
    reached.clone().start(arriving);

    listeners.apply(prepared, &uplink);
    let observed = Arc::new(Client::new(
        sources.clone(),
        credentials.clone(),
        uplink.clone(),
        &config,
        &listeners,
    ));
    let mut ready = listeners.listening();
    let admin = match (admin_socket, &config.admin) {
        (Some(socket), Some(_)) => {
            let bind = socket.bound().map_err(|error| {
                Failure::Failed(format!("cannot listen for the admin endpoint: {error}"))
            })?;
            ready.push(Listening {
                name: ADMIN.to_owned(),
                kind: "admin",
                address: bind.clone(),
            });
            Some(AdminServer::start(
                socket,
                Access { bind, token },
                observed.clone(),
                log.journal(),
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
    let successors = handover.listen()?;
    lifecycle::announce(&ready);

    let mut edge = Edge {
        args: args.config.clone(),
        config,
        log,
        credentials,
        uplink,
        reached,
        domains,
        listeners,
        admin,
        observed,
        sources,
        all_done,
    };
    let result = lifecycle::attend(&mut signals, successors, &mut edge).await;
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
    /// What the server's reverse listeners reach here.
    reached: Arc<Streams>,
    domains: Domains,
    listeners: Listeners<Uplink>,
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

    fn files(&self) -> Vec<PathBuf> {
        let next = self.args.load().ok().map(|next| next.files());
        lifecycle::files_behind(self.args.config.clone(), self.config.files(), next)
    }

    fn release(&mut self) -> impl Future<Output = ()> + 'static {
        self.admin = None;
        lifecycle::release_histories(self.sources.clone())
    }

    async fn settle(&mut self) {
        self.listeners.clear();
        self.uplink.settled().await;
    }

    async fn drain(&mut self) {
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
        let last = LastSecond::new();
        let Self {
            uplink,
            reached,
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
        last.say_goodbye(&tunnels).await;
        drop((uplink, reached));
        last.end(all_done, &sources).await;
    }
}
