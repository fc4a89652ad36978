//! Names to addresses in pool `resolve`, so that a slow name server holds neither I/O threads nor other jobs.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::pool::{Job, JobName, Pool, Priority, Step, StepContext};

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 16;

/// Why a name gave no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver failed, or the name does not exist, or `HOST:PORT` is not of that form.
    #[error("{0}")]
    Lookup(#[from] std::io::Error),
    /// The name exists and has no address.
    #[error("the name has no address")]
    NoAddress,
    /// The pool was closed.
    #[error("the resolve pool has stopped")]
    PoolStopped,
}

struct ResolveJob {
    host_and_port: String,
}

impl Job for ResolveJob {
    type Output = std::io::Result<Vec<SocketAddr>>;

    fn name(&self) -> JobName {
        JobName {
            who: "dialer".into(),
            why: "resolve",
        }
    }

    fn step(&mut self, _cx: &mut StepContext<'_>) -> Step<Self::Output> {
        Step::Finished(
            self.host_and_port
                .to_socket_addrs()
                .map(|all| all.take(ADDRESSES_MAX).collect()),
        )
    }
}

/// The addresses of `HOST:PORT`, in the resolver's order, at least one and at most 16. An address literal is not looked up.
pub async fn resolve(pool: &Pool, host_and_port: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Ok(address) = host_and_port.parse() {
        return Ok(vec![address]);
    }
    let job = ResolveJob {
        host_and_port: host_and_port.to_owned(),
    };
    let addresses = crate::pool::run(pool, job, Priority::First)
        .await
        .ok_or(ResolveError::PoolStopped)??;
    if addresses.is_empty() {
        Err(ResolveError::NoAddress)
    } else {
        Ok(addresses)
    }
}
