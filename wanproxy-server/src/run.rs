//! `run`: the server edge at work.

mod observed;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge::admin::{Access, AdminServer, Token};
use edge::cli::Failure;
use edge::config::{AdminConfig, ServerConfig};
use edge::credentials::ServerCredentials;
use edge::lifecycle::{self, Listening, Resources, Running, Signals};
use edge::log::Log;
use edge::metrics::{Refusals, Sources};
use edge::os;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tunnel::environment::{Environment, ServerIdentity};
use tunnel::histories::Lean;
use tunnel::server::Acceptor;

use crate::cli::ConfigArgs;
use crate::policy::Policy;
use observed::Server;
use streams::Streams;

/// How long tunnels may take to say goodbye, once nothing more is carried.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the pools' workers may finish what they are at.
const POOLS_TIMEOUT: Duration = Duration::from_millis(200);
/// How long streams may take to write their last lines of the log, after the tunnels have drained.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(250);

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration or the credentials are wrong, or a socket cannot be had.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    lifecycle::run(run_async(args, config))
}

async fn run_async(args: &ConfigArgs, config: ServerConfig) -> Result<(), Failure> {
    let log = Log::start(&config.log);
    let mut signals = Signals::install()
        .map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")))?;
    let descriptors = os::raise_descriptor_limit();
    let credentials = Arc::new(ServerCredentials::load(
        &config.identity,
        config.name.as_ref(),
    )?);
    let token = token(&config)?;

    let socket = bind("tunnels", config.tunnel.listen)?;
    let admin_socket = config
        .admin
        .as_ref()
        .map(|admin| bind("the admin endpoint", admin.bind))
        .transpose()?;
    let address = local_address(&socket)?;
    let mut ready = vec![Listening {
        name: "tunnel".to_owned(),
        kind: "tunnel",
        address,
    }];

    let resources = Resources {
        pools: &config.pools,
        memory: &config.memory,
        history: &config.history,
        codec: &config.codec,
    };
    let name = credentials.name().to_string();
    let environment = Environment {
        resume_window: config.tunnel.resume_window,
        ..lifecycle::environment(&name, Lean::Sending, config.tunnel.heartbeat, &resources)
    };
    let sources = Arc::new(Sources {
        edge: "server",
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
    let (incoming, arriving) = mpsc::unbounded_channel();
    let (streams, all_done) = Streams::new(Policy::new(&config.client), sources.clone());
    streams.clone().start(arriving);
    let acceptor = Arc::new(Acceptor::start(
        socket,
        credentials.clone(),
        environment,
        incoming,
    ));

    let observed = Arc::new(Server {
        sources: sources.clone(),
        credentials: credentials.clone(),
        acceptor: acceptor.clone(),
    });
    let admin = match admin_socket {
        Some(socket) => {
            let bind = local_address(&socket)?;
            ready.push(Listening {
                name: "admin".to_owned(),
                kind: "admin",
                address: bind,
            });
            Some(AdminServer::start(
                socket,
                Access {
                    bind,
                    token: token.map(Token::new),
                },
                observed,
            ))
        }
        None => None,
    };
    tracing::info!(name, version = env!("CARGO_PKG_VERSION"), %address, clients = config.client.len(), descriptors, "server edge started");
    if config.client.is_empty() {
        tracing::warn!("there is no [[client]] section, so no client may reach anything");
    }
    lifecycle::announce(&ready);

    let mut edge = Edge {
        args: args.clone(),
        config,
        log,
        credentials,
        acceptor,
        streams,
        admin,
        sources,
        all_done,
    };
    let result = lifecycle::attend(&mut signals, &mut edge).await;
    edge.end().await;
    result
}

fn bind(what: &str, address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    os::listen(address)
        .map_err(|error| Failure::Failed(format!("cannot listen on {address} for {what}: {error}")))
}

fn local_address(socket: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    socket
        .local_addr()
        .map_err(|error| Failure::Failed(format!("a listening socket has no address: {error}")))
}

fn token(config: &ServerConfig) -> Result<Option<String>, Failure> {
    Ok(config
        .admin
        .as_ref()
        .map(AdminConfig::token)
        .transpose()
        .map_err(Failure::of_configured)?
        .flatten())
}

/// The running edge.
struct Edge {
    args: ConfigArgs,
    config: ServerConfig,
    log: Log,
    credentials: Arc<ServerCredentials>,
    acceptor: Arc<Acceptor>,
    streams: Arc<Streams>,
    admin: Option<AdminServer>,
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
        self.acceptor.drain().await;
    }

    async fn failed(&mut self) -> String {
        std::future::pending().await
    }

    fn drain_timeout(&self) -> Duration {
        self.config.tunnel.drain_timeout
    }
}

impl Edge {
    /// Reads configuration, credentials, revocations and policy anew and uses them; everything is read before anything changes.
    fn reload_all(&mut self) -> Result<(), Failure> {
        let config = self.args.load()?;
        let credentials = ServerCredentials::read(&config.identity, config.name.as_ref())?;
        let token = token(&config)?;

        // From here on nothing can fail.
        self.warn_of_what_waits(&config);
        self.credentials.replace(credentials);
        // Tunnels of clients that would not be let in now are ended; the others do not notice.
        self.acceptor
            .end_where(|tunnel| self.credentials.check_client(&tunnel.peer_chain()).err());
        self.streams.set_policy(Policy::new(&config.client));
        self.log.set_level(config.log.level);
        if let Some(admin) = &self.admin {
            admin.set_token(token.map(Token::new));
        }
        self.config = config;
        Ok(())
    }

    /// Names what was changed and takes effect only at the next start.
    fn warn_of_what_waits(&self, new: &ServerConfig) {
        let old = &self.config;
        let changes = [
            ("[tunnel] listen", old.tunnel.listen != new.tunnel.listen),
            (
                "[tunnel] heartbeat",
                old.tunnel.heartbeat != new.tunnel.heartbeat,
            ),
            (
                "[tunnel] resume_window",
                old.tunnel.resume_window != new.tunnel.resume_window,
            ),
            ("[history]", old.history != new.history),
            ("[codec]", old.codec != new.codec),
            ("[pools]", old.pools != new.pools),
            ("[memory]", old.memory != new.memory),
            (
                "[admin] bind",
                old.admin.as_ref().map(|admin| admin.bind)
                    != new.admin.as_ref().map(|admin| admin.bind),
            ),
            ("[log] format", old.log.format != new.log.format),
        ];
        for (what, _) in changes.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!(what, "changed; takes effect at the next start");
        }
    }

    /// Ends what is left, each step within its time.
    async fn end(self) {
        let Self {
            acceptor,
            streams,
            admin,
            sources,
            mut all_done,
            ..
        } = self;
        drop(admin);
        let tunnels = acceptor.tunnels();
        acceptor.end_where(|_| Some("this program ends".to_owned()));
        let goodbye = async {
            for tunnel in &tunnels {
                tunnel.ended().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
        drop((acceptor, streams));
        let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, all_done.recv()).await;
        sources.pools.destroy(POOLS_TIMEOUT).await;
    }
}
