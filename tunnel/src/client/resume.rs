//! Keeps a link under a tunnel: when the line is lost, dials until the tunnel is resumed or over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::frame::{Hello, HelloStatus, Secret};

use super::dialer::{Dialer, backoff};
use super::links::Names;
use super::{BACKOFF_MAX, ConnectError};
use crate::environment::Refused;
use crate::handle::{EndCause, TunnelHandle};

/// A link that held for so long was no failure: the pauses begin anew after it. A server that drops what it has accepted does so sooner.
const STEADY_AFTER: Duration = Duration::from_millis(100);

/// What is shown to carry on with a tunnel, and where.
pub(super) struct Ticket {
    pub(super) id: [u8; 16],
    pub(super) secret: Secret,
    /// The start of the server's program that holds the tunnel.
    pub(super) instance: [u8; 16],
    /// Where the tunnel was begun: the index of a route.
    pub(super) route: usize,
    /// What the server can do.
    pub(super) features: u64,
    pub(super) names: Names,
}

/// Why an attempt did not resume the tunnel.
enum Failure {
    /// The next may.
    Attempt(ConnectError),
    /// None will.
    Final(Refused),
}

impl Dialer {
    /// For as long as `tunnel` lives.
    pub(super) async fn keep(self: Arc<Self>, tunnel: TunnelHandle, ticket: Arc<Ticket>) {
        let mut waits = backoff().waits(rand::random::<f64>);
        let mut generation = 0;
        while tunnel.is_up() {
            let attached = Instant::now();
            tunnel.becomes_attached(false).await;
            if attached.elapsed() >= STEADY_AFTER {
                waits.reset();
            }
            while tunnel.is_up() && !tunnel.is_attached() {
                let pause = waits.next().unwrap_or(BACKOFF_MAX);
                tokio::select! {
                    () = async {
                        tokio::time::sleep(pause).await;
                        self.resume(&tunnel, &ticket, &mut generation).await;
                    } => {}
                    _ = tunnel.ended() => {}
                }
            }
        }
    }

    /// One attempt over each route: two names may lead to the same server over different lines.
    async fn resume(&self, tunnel: &TunnelHandle, ticket: &Ticket, generation: &mut u64) {
        let site = self.site_of(ticket.route);
        let mut routes: Vec<usize> = (0..self.config.routes.len()).collect();
        // The one that it was begun over first, then others to the same server.
        routes.sort_by_key(|route| (*route != ticket.route, self.site_of(*route) != site));
        for route in routes {
            // Each attempt has a generation of its own: of one that failed, the server may have seen more than this side.
            *generation += 1;
            match self.resume_over(route, tunnel, ticket, *generation).await {
                Ok(()) => {
                    self.note_error(None);
                    tunnel.set_sought(false);
                    return;
                }
                Err(Failure::Attempt(error)) => {
                    tracing::warn!(peer = %tunnel.peer(), %error, "the tunnel is not resumed");
                    self.note_error(Some(error.to_string()));
                }
                Err(Failure::Final(refused)) => {
                    return tunnel.close(EndCause::LinkLost(format!(
                        "the line was lost, and the tunnel cannot be resumed: {refused}"
                    )));
                }
            }
        }
        tunnel.set_sought(true);
    }

    async fn resume_over(
        &self,
        route: usize,
        tunnel: &TunnelHandle,
        ticket: &Ticket,
        generation: u64,
    ) -> Result<(), Failure> {
        let way = self.route(route).map_err(Failure::Attempt)?;
        let greeted = self
            .greet(way, |session| Hello {
                tunnel: Some(ticket.id),
                generation,
                proof: Some(session.prove(&ticket.secret, generation, 0)),
                ..self.environment.hello()
            })
            .await
            .map_err(Failure::Attempt)?;
        let hello = greeted.hello;
        let is_same = hello.instance == ticket.instance;
        let (status, message) = if !hello.status.is_accepted() {
            (hello.status, hello.message)
        } else if is_same && hello.tunnel == Some(ticket.id) && greeted.peer.name == **tunnel.peer()
        {
            let before = tunnel.resumes();
            ticket.names.begin(generation, route);
            tunnel.attach(greeted.link, generation);
            tunnel.resumed_after(before).await;
            return Ok(());
        } else {
            let message = "it has accepted another tunnel than was asked for".to_owned();
            (HelloStatus::UnknownTunnel, message)
        };
        let refused = Refused { status, message };
        // Another server knows nothing of the tunnel; the one that had it, and does not any more, was restarted.
        if (is_same || self.site_of(route) == self.site_of(ticket.route)) && is_final(status) {
            Err(Failure::Final(refused))
        } else {
            Err(Failure::Attempt(refused.into()))
        }
    }
}

/// Whether a server that answers like this will not give another answer within the window.
fn is_final(status: HelloStatus) -> bool {
    match status {
        HelloStatus::UnknownTunnel
        | HelloStatus::Version
        | HelloStatus::IdentityRefused
        | HelloStatus::Draining
        | HelloStatus::ProofWrong => true,
        HelloStatus::Accepted | HelloStatus::Limit | HelloStatus::Other(_) => false,
    }
}
