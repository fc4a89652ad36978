//! Pairs of a connector and an acceptor, lines between them that can be cut, and what tests do with streams.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::frame::{DomainId, Target};
use tokio::io::{AsyncReadExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tunnel::budget::Budget;
use tunnel::client::{Connector, ConnectorConfig, DomainSpec, Route};
use tunnel::environment::{ClientIdentity, Environment, VERSIONS};
use tunnel::handle::TunnelHandle;
use tunnel::histories::{Histories, HistoriesConfig, Lean};
use tunnel::pool::{Pools, PoolsConfig};
use tunnel::server::Acceptor;
use tunnel::state::{Limits, OpenSpec};
use tunnel::stream::{IncomingStream, RecvHalf, SendHalf, StreamError, StreamHandle};

use crate::identities::Authority;

/// No test waits longer for anything; none should come near.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The default of `inline_below`.
pub const INLINE_BELOW_BYTES: usize = 16 * 1024;

/// Runs a test on a runtime of its own, which does not wait for the pools' workers at the end as a dropped one would.
pub fn on_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await });
    runtime.shutdown_background();
    done.unwrap();
}

/// Looks until it holds. What brings it about has the processor meanwhile.
pub async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub fn environment(name: &str, inline_below_bytes: usize) -> Environment {
    let threads = NonZeroUsize::new(2).unwrap();
    let config = PoolsConfig {
        codec_threads: threads,
        crypto_threads: threads,
        storage_threads: threads,
        resolve_threads: threads,
        queue: NonZeroUsize::new(256).unwrap(),
    };
    Environment {
        versions: VERSIONS,
        instance: rand::random(),
        name: name.to_owned(),
        pools: Arc::new(Pools::start(&tokio::runtime::Handle::current(), config)),
        budget: Arc::new(Budget::new(256 << 20)),
        histories: Arc::new(Histories::new(HistoriesConfig::in_memory(
            Lean::Sending,
            64 << 20,
        ))),
        counters: Arc::default(),
        inline_below_bytes,
        heartbeat: Duration::from_secs(5),
        resume_window: Duration::ZERO,
        limits: Limits::default(),
        level: tunnel::state::LevelChoice::Fixed(codec::policy::Level::default()),
        tune: |socket| socket.set_nodelay(true).unwrap(),
        prepare: Arc::new(|_, _| {}),
        sample: |_| None,
    }
}

/// A server edge that accepts.
pub struct Server {
    pub acceptor: Acceptor,
    pub incoming: mpsc::UnboundedReceiver<IncomingStream>,
    pub address: SocketAddr,
}

impl Server {
    pub async fn start(authority: &Authority, environment: Environment) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_server, incoming) = mpsc::unbounded_channel();
        let acceptor = Acceptor::start(listener, authority.server(), environment, to_server);
        Self {
            acceptor,
            incoming,
            address,
        }
    }

    /// The next stream that a client opens, accepted.
    pub async fn accept(&mut self) -> StreamHandle {
        self.incoming.recv().await.unwrap().accept(None).unwrap()
    }

    /// Waits until as many tunnels are up.
    pub async fn has_tunnels(&self, count: usize) {
        until(|| self.acceptor.tunnels().len() == count).await;
    }

    /// Sends back what comes, on every stream.
    pub fn echo_all(mut self) -> Acceptor {
        tokio::spawn(async move {
            while let Some(incoming) = self.incoming.recv().await {
                tokio::spawn(echo(incoming.accept(None).unwrap()));
            }
        });
        self.acceptor
    }
}

pub fn connect(
    servers: &[SocketAddr],
    identity: Arc<dyn ClientIdentity>,
    environment: Environment,
) -> Connector {
    let config = ConnectorConfig {
        routes: Route::to_servers(servers.iter().map(SocketAddr::to_string)),
        links_per_route: 1,
        domains: vec![DomainSpec {
            id: DomainId::SHARED,
            name: String::new(),
        }],
    };
    let (to_client, _) = mpsc::unbounded_channel();
    Connector::start(config, identity, environment, to_client)
}

/// A client and its server.
pub struct Pair {
    pub connector: Connector,
    pub server: Server,
}

impl Pair {
    pub async fn tunnel(&self) -> TunnelHandle {
        self.connector.tunnel(PATIENCE).await.unwrap()
    }
}

pub async fn pair(client: &str, inline_below_bytes: usize) -> Pair {
    pair_of(
        environment(client, inline_below_bytes),
        environment("hq", inline_below_bytes),
    )
    .await
}

pub async fn pair_of(client: Environment, server: Environment) -> Pair {
    let authority = Authority::new();
    let server = Server::start(&authority, server).await;
    let identity = authority.client(&client.name);
    let connector = connect(&[server.address], identity, client);
    Pair { connector, server }
}

/// What a line does.
#[derive(Clone, Copy)]
struct Way {
    to: SocketAddr,
    /// Whether connections are carried at all.
    is_open: bool,
    /// Each direction of a connection carries so many bytes and no more.
    limit: Option<u64>,
    /// Connections that were made before so many cuts are ended.
    cuts: u64,
    /// What becomes of them: both ends are closed, or stay open with nothing carried.
    falls_silent: bool,
}

/// A TCP relay between a client and a server.
pub struct Line {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Line {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way {
            to: server,
            is_open: true,
            limit: None,
            cuts: 0,
            falls_silent: false,
        });
        let ways = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let way = *ways.borrow();
                if way.is_open {
                    tokio::spawn(carry(client, way, ways.subscribe()));
                }
            }
        });
        Self { address, way }
    }

    /// Ends the connections that there are; later ones are carried.
    pub fn cut(&self) {
        self.way.send_modify(|way| {
            way.cuts += 1;
            way.falls_silent = false;
        });
    }

    /// Carries nothing more of the connections that there are; later ones are carried.
    pub fn silence(&self) {
        self.way.send_modify(|way| {
            way.cuts += 1;
            way.falls_silent = true;
        });
    }

    /// Later connections are closed at once.
    pub fn close(&self) {
        self.way.send_modify(|way| way.is_open = false);
    }

    /// Later connections are carried again.
    pub fn open(&self) {
        self.way.send_modify(|way| way.is_open = true);
    }

    /// Later connections lead elsewhere.
    pub fn retarget(&self, server: SocketAddr) {
        self.way.send_modify(|way| way.to = server);
    }

    /// Later connections end once a direction has carried so many bytes.
    pub fn limit(&self, bytes: Option<u64>) {
        self.way.send_modify(|way| way.limit = bytes);
    }
}

async fn carry(mut client: TcpStream, way: Way, mut ways: watch::Receiver<Way>) {
    let Ok(mut server) = TcpStream::connect(way.to).await else {
        return;
    };
    let carried = async {
        let Some(limit) = way.limit else {
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        };
        let (client_read, mut client_write) = client.split();
        let (server_read, mut server_write) = server.split();
        let (mut up, mut down) = (client_read.take(limit), server_read.take(limit));
        tokio::select! {
            _ = copy(&mut up, &mut server_write) => {}
            _ = copy(&mut down, &mut client_write) => {}
        }
    };
    let way = tokio::select! {
        () = carried => return,
        changed = ways.wait_for(|now| now.cuts > way.cuts) => *changed.unwrap(),
    };
    if way.falls_silent {
        std::future::pending::<()>().await;
    }
}

pub fn spec() -> OpenSpec {
    OpenSpec {
        domain: Some(DomainId::SHARED),
        target: Target::Name {
            host: "origin".to_owned(),
            port: 80,
        },
        service: "files".to_owned(),
        weight: NonZeroU16::MIN,
        source: None,
    }
}

/// Bytes that are a function of their offset, half of them noise.
pub fn payload(len: usize) -> Bytes {
    (0..len as u64)
        .map(|i| {
            if i / 4096 % 2 == 0 {
                (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
            } else {
                (i % 251) as u8
            }
        })
        .collect()
}

/// Sends all of it; stops where the stream is ended from the other side.
pub async fn send(half: &mut SendHalf, mut data: Bytes) -> Result<(), StreamError> {
    while !data.is_empty() {
        let room = half.ready().await?;
        half.send(data.split_to(room.min(data.len()).min(100_000)))?;
    }
    Ok(())
}

pub async fn send_all(mut half: SendHalf, data: Bytes) {
    send(&mut half, data).await.unwrap();
    half.finish();
}

/// Receives to the end; what came before a reset is lost to the caller.
pub async fn receive(half: &mut RecvHalf) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(data) = half.recv().await? {
        all.extend_from_slice(&data);
        half.consumed(data.len());
    }
    Ok(all)
}

pub async fn receive_all(mut half: RecvHalf) -> Vec<u8> {
    receive(&mut half).await.unwrap()
}

/// Sends back what comes until either direction ends.
pub async fn echo(handle: StreamHandle) {
    let (mut to, mut from) = handle.split();
    while let Ok(Some(data)) = from.recv().await {
        from.consumed(data.len());
        if send(&mut to, data).await.is_err() {
            return;
        }
    }
    to.finish();
}
