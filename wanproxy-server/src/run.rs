//! `run`: the server edge at work.

mod observed;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge::admin::{Access, AdminServer, configured_token};
use edge::cli::Failure;
use edge::config::{AdminConfig, Bind, ServerConfig};
use edge::credentials::ServerCredentials;
use edge::lan::LanListener;
use edge::lifecycle::{self, Handover, LastSecond, Listening, Resources, Running, Start};
use edge::log::Log;
use edge::metrics::Sources;
use edge::os;
use edge::reach::{Policy, Streams, history_quotas};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tunnel::environment::Environment;
use tunnel::histories::Lean;
use tunnel::server::Acceptor;

use crate::cli::{ConfigArgs, RunArgs};
use crate::reverse::{Downlink, Reverse};

use observed::Server;

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration or the credentials are wrong, or a socket cannot be had.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    lifecycle::run(run_async(args, config))
}

async fn run_async(args: &RunArgs, config: ServerConfig) -> Result<(), Failure> {
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

    may_speak_for_clients(&config)?;
    let mut handover = Handover::begin(args.handover.as_deref()).await?;
    let socket = bind("tunnels", config.tunnel.listen)?;
    let admin_socket = config.admin.as_ref().map(bind_admin).transpose()?;
    let address = local_address(&socket)?;
    let mut ready = vec![Listening {
        name: "tunnel".to_owned(),
        kind: "tunnel",
        address: Bind::Tcp(address),
    }];

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
        Lean::Sending,
        config.tunnel.heartbeat,
        &resources,
        history_quotas(&config.client),
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
    let (carrying, all_done) = mpsc::channel(1);
    let policy = Policy::new(&config.client);
    let streams = Streams::new(policy, sources.clone(), carrying.clone());
    streams.clone().start(arriving);
    let acceptor = Arc::new(Acceptor::start(
        socket,
        credentials.clone(),
        environment,
        incoming,
    ));

    let downlink = Downlink::new(
        acceptor.clone(),
        streams.clone(),
        config.tunnel.connect_wait,
        carrying,
    );
    let mut reverse = Reverse::new(downlink.clone());
    let listeners = reverse.prepare(&config.listen)?;
    reverse.apply(listeners);
    ready.extend(reverse.listeners().listening());
    let observed = Arc::new(Server::new(
        sources.clone(),
        credentials.clone(),
        acceptor.clone(),
        &reverse,
    ));
    let admin = match admin_socket {
        Some(socket) => {
            let bind = socket.bound().map_err(has_no_address)?;
            ready.push(Listening {
                name: "admin".to_owned(),
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
        None => None,
    };
    tracing::info!(name, version = env!("CARGO_PKG_VERSION"), %address, clients = config.client.len(), descriptors, "server edge started");
    if config.client.is_empty() {
        tracing::warn!("there is no [[client]] section, so no client may reach anything");
    }
    let successors = handover.listen()?;
    lifecycle::announce(&ready);

    let mut edge = Edge {
        args: args.config.clone(),
        config,
        log,
        credentials,
        acceptor,
        streams,
        downlink,
        reverse,
        observed,
        admin,
        sources,
        all_done,
    };
    let result = lifecycle::attend(&mut signals, successors, &mut edge).await;
    edge.end().await;
    result
}

/// Where clients may have connections come from their own addresses, this program must be allowed to make such.
fn may_speak_for_clients(config: &ServerConfig) -> Result<(), Failure> {
    if config.client.iter().all(|client| client.source.is_empty()) {
        return Ok(());
    }
    os::may_have_foreign_addresses().map_err(|error| {
        Failure::Failed(format!(
            "source in [[client]] needs the capability CAP_NET_ADMIN ({error}); run as root, or with AmbientCapabilities=CAP_NET_ADMIN in the systemd unit, or after setcap cap_net_admin+ep on the program; or remove source"
        ))
    })
}

fn bind(what: &str, address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    os::listen(address)
        .map_err(|error| Failure::Failed(format!("cannot listen on {address} for {what}: {error}")))
}

fn bind_admin(admin: &AdminConfig) -> Result<LanListener, Failure> {
    LanListener::open(&admin.bind).map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {} for the admin endpoint: {error}",
            admin.bind
        ))
    })
}

fn has_no_address(error: std::io::Error) -> Failure {
    Failure::Failed(format!("a listening socket has no address: {error}"))
}

fn local_address(socket: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    socket.local_addr().map_err(has_no_address)
}

/// The running edge.
struct Edge {
    args: ConfigArgs,
    config: ServerConfig,
    log: Log,
    credentials: Arc<ServerCredentials>,
    acceptor: Arc<Acceptor>,
    streams: Arc<Streams>,
    downlink: Arc<Downlink>,
    reverse: Reverse,
    observed: Arc<Server>,
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

    fn files(&self) -> Vec<PathBuf> {
        let next = self.args.load().ok().map(|next| next.files());
        lifecycle::files_behind(self.args.config.clone(), self.config.files(), next)
    }

    fn release(&mut self) -> impl Future<Output = ()> + 'static {
        self.admin = None;
        lifecycle::release_histories(self.sources.clone())
    }

    async fn drain(&mut self) {
        self.reverse.close();
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
        may_speak_for_clients(&config)?;
        let listeners = self.reverse.prepare(&config.listen)?;

        // From here on nothing can fail.
        self.warn_of_what_waits(&config);
        self.credentials.replace(credentials);
        // Tunnels of clients that would not be let in now are ended; the others do not notice.
        self.acceptor
            .end_where(|tunnel| self.credentials.refusal(&tunnel.peer_chain()));
        self.reverse.apply(listeners);
        self.observed.set_services(&self.reverse);
        self.downlink.set_connect_wait(config.tunnel.connect_wait);
        self.streams.set_policy(Policy::new(&config.client));
        self.log.set_level(config.log.level);
        let rooms = |config: &ServerConfig| {
            let quotas = config.client.iter().map(|c| (c.name.clone(), c.history));
            (config.history.size, quotas.collect::<Vec<_>>())
        };
        if rooms(&self.config) != rooms(&config) {
            let quotas = history_quotas(&config.client);
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
                old.admin.as_ref().map(|admin| &admin.bind)
                    != new.admin.as_ref().map(|admin| &admin.bind),
            ),
            ("[log] format", old.log.format != new.log.format),
        ];
        for (what, _) in changes.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!(what, "changed; takes effect at the next start");
        }
    }

    /// Ends what is left, each step within its time.
    async fn end(self) {
        let last = LastSecond::new();
        let Self {
            acceptor,
            streams,
            downlink,
            reverse,
            observed,
            admin,
            sources,
            all_done,
            ..
        } = self;
        drop((reverse, admin, observed));
        let tunnels = acceptor.tunnels();
        acceptor.end_where(|_| Some("this program ends".to_owned()));
        last.say_goodbye(&tunnels).await;
        drop((downlink, acceptor, streams));
        last.end(all_done, &sources).await;
    }
}
