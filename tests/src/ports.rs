//! Ports that stay free until a program has them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpSocket;

/// Ports are taken from here up to where the system takes those that it chooses itself: one of these that is free stays so until a program
/// has it.
const FIRST_PORT: u16 = 20_000;

/// Ports between the first ones of two programs that were started one after the other: more than a program asks for.
const PROGRAM_STEP: u32 = 1009;

/// Where the system begins, if it does not say so.
const OUTGOING_PORTS: u16 = 32_768;

/// A port that nobody uses right now in the network namespace of this thread, neither for TCP nor for UDP, and that no other call has returned
/// lately. Nobody who lets the system choose gets it, so a program that has it can be ended and started again.
///
/// # Errors
/// When all are in use.
pub fn free_port() -> io::Result<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let ports = FIRST_PORT..outgoing_ports().max(FIRST_PORT + 1000);
    let span = u32::from(ports.end - ports.start);
    // Two runs on one machine begin far from each other.
    let start = std::process::id() % span * PROGRAM_STEP % span;
    for _ in ports.clone() {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % span;
        let port = ports.start + u16::try_from(tried).unwrap_or_default();
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn is_free(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    // Without the option by which a port with connections of an earlier listener counts as free: not every program sets it.
    let bound = TcpSocket::new_v4().and_then(|socket| socket.bind(address).map(|()| socket));
    bound.is_ok() && UdpSocket::bind(address).is_ok()
}

/// The first of the ports that the system gives to outgoing connections.
fn outgoing_ports() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let first = range.split_whitespace().next();
    first
        .and_then(|port| port.parse().ok())
        .unwrap_or(OUTGOING_PORTS)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_are_free_distinct_and_not_those_of_outgoing_connections() {
        let mut ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        let held: Vec<TcpListener> = ports
            .iter()
            .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).ok())
            .collect();
        // Whoever else is on this machine may have taken one since.
        assert!(held.len() > 40, "{held:?}");
        assert!(
            !held
                .iter()
                .any(|held| is_free(held.local_addr().unwrap().port()))
        );
        if outgoing_ports() > FIRST_PORT + 1000 {
            assert!(ports.iter().all(|port| *port < outgoing_ports()));
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }
}
