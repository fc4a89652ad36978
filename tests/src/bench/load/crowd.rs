//! Many connections that were used once and now wait.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bench::exchange::Purpose;

/// Connections that are opened at a time.
const OPENING: usize = 32;

/// One that is not open by then never will be.
const STALL: Duration = Duration::from_secs(20);

/// Connections of one source address: fewer than there are ports.
const PER_ADDRESS: usize = 10_000;

/// Open connections.
#[derive(Debug)]
pub(in crate::bench) struct Crowd {
    _connections: Vec<TcpStream>,
}

impl Crowd {
    /// Opens `count` connections, each of which has had one byte answered.
    pub(in crate::bench) async fn gather(entrance: SocketAddr, count: usize) -> io::Result<Self> {
        let room = Arc::new(Semaphore::new(OPENING));
        let mut opening = JoinSet::new();
        for number in 0..count {
            let room = Arc::clone(&room);
            opening.spawn(async move {
                let _permit = room.acquire_owned().await.map_err(io::Error::other)?;
                timeout(STALL, one(entrance, number)).await?
            });
        }
        let mut connections = Vec::with_capacity(count);
        while let Some(opened) = opening.join_next().await {
            connections.push(opened.map_err(io::Error::other)??);
        }
        Ok(Self {
            _connections: connections,
        })
    }
}

async fn one(entrance: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if entrance.ip().is_loopback() {
        let host = u8::try_from(1 + number / PER_ADDRESS).unwrap_or(u8::MAX);
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
    }
    let mut connection = socket.connect(entrance).await?;
    connection.write_all(&Purpose::Echo.greeting(0)).await?;
    connection.write_all(&[1]).await?;
    connection.read_u8().await?;
    Ok(connection)
}
