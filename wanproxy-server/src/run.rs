//! `run`: the server edge at work.

mod observed;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge::admin::{Access, AdminServer, configured_token};
use edge::cli::Failure;
use edge::config::ServerConfig;
use edge::credentials::ServerCredentials;
use edge::lifecycle::{self, Listening, Resources, Running, Start};
use edge::log::Log;
use edge::metrics::Sources;
use edge::os;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tunnel::environment::{Environment, ServerIdentity};
use tunnel::histories::Lean;
use tunnel::server::Acceptor;

use crate::cli::ConfigArgs;
use crate::policy::{self, Policy};
use observed::Server;
use streams::Streams;

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration or the credentials are wrong, or a socket cannot be had.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    lifecycle::run(run_async(args, config))
}

async fn run_async(args: &ConfigArgs, config: ServerConfig) -> Result<(), Failure> {
    let Start {
        log,
        mut signals,
        descriptors,
    } = Start::new(&config.log)?;
    let credentials = Arc::new(ServerCredentials::load(
        &config.identity,
        config.name.as_ref(),
    )?);
    let token = configured_token(config.admin.as_ref())?;

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
    let environment = lifecycle::environment(
        &name,
        Lean::Sending,
        config.tunnel.heartbeat,
        &resources,
        policy::history_quotas(&config.client),
    )
    .await;
    let environment = Environment {
        resume_window: config.tunnel.resume_window,
        ..environment
    };
    let sources = Arc::new(Sources::new(
        "server",
        env!("CARGO_PKG_VERSION"),
        &environment,
    ));
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
            Some(AdminServer::start(socket, Access { bind, token }, observed))
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
        let token = configured_token(config.admin.as_ref())?;

        // From here on nothing can fail.
        self.warn_of_what_waits(&config);
        self.credentials.replace(credentials);
        // Tunnels of clients that would not be let in now are ended; the others do not notice.
        self.acceptor
            .end_where(|tunnel| self.credentials.check_client(&tunnel.peer_chain()).err());
        self.streams.set_policy(Policy::new(&config.client));
        self.log.set_level(config.log.level);
        let rooms = |config: &ServerConfig| {
            let quotas = config.client.iter().map(|c| (c.name.clone(), c.history));
            (config.history.size, quotas.collect::<Vec<_>>())
        };
        if rooms(&self.config) != rooms(&config) {
            let quotas = policy::history_quotas(&config.client);
            let memory = &self.config.memory;
            lifecycle::resize_histories(&self.sources, &config.history, memory, quotas);
        }
        if let Some(admin) = &self.admin {
            admin.set_token(token);
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
            (
                "[history] directory",
                old.history.directory != new.history.directory,
            ),
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
            all_done,
            ..
        } = self;
        drop(admin);
        let tunnels = acceptor.tunnels();
        acceptor.end_where(|_| Some("this program ends".to_owned()));
        lifecycle::say_goodbye(&tunnels).await;
        drop((acceptor, streams));
        lifecycle::end(all_done, &sources).await;
    }
}
