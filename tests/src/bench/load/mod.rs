//! The loads: what an application on the near side does through the pair, towards the origin on the far side.

mod bulk;
mod crowd;
mod ping;
mod short;

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub(super) use bulk::{Bulk, Direction, bulk};
pub(super) use crowd::Crowd;
pub(super) use ping::{Pings, ping};
pub(super) use short::short_connections;

use super::exchange::Purpose;

async fn open(entrance: SocketAddr, purpose: Purpose, transfer: u64) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(entrance).await?;
    connection.set_nodelay(true)?;
    connection.write_all(&purpose.greeting(transfer)).await?;
    Ok(connection)
}
