//! Further links of a tunnel: one for each path, dialed again whenever it is lost while the tunnel is up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::frame::{FEATURE_LINKS, Hello, HelloStatus};

use super::dialer::{Dialer, backoff};
use super::resume::Ticket;
use super::{BACKOFF_MAX, ConnectError};
use crate::environment::Refused;
use crate::handle::{LinkName, TunnelHandle};

/// A link that held for so long was no failure: the pauses begin anew after it.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// A path that leads to another server than the tunnel's is tried this often: what is configured, or a name's address, may change.
const ELSEWHERE_PAUSE: Duration = Duration::from_secs(60);

/// What the links of one tunnel are called.
pub(super) struct Names(Mutex<Present>);

struct Present {
    generation: u64,
    /// Of the next further link in this generation.
    next_index: u64,
    /// The route of the generation's first link, while that link lives.
    first: Option<usize>,
}

impl Names {
    /// Of a tunnel whose first link goes over this route.
    pub(super) fn new(route: usize) -> Self {
        Self(Mutex::new(Present {
            generation: 0,
            next_index: 1,
            first: Some(route),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tunnel carries on in `generation`, whose first link goes over `route`.
    pub(super) fn begin(&self, generation: u64, route: usize) {
        *self.lock() = Present {
            generation,
            next_index: 1,
            first: Some(route),
        };
    }

    /// The first link, if it goes over `route`.
    fn first_of(&self, route: usize) -> Option<LinkName> {
        let present = self.lock();
        let generation = present.generation;
        (present.first == Some(route)).then_some(LinkName {
            generation,
            index: 0,
        })
    }

    fn next(&self) -> LinkName {
        let mut present = self.lock();
        let index = present.next_index;
        present.next_index += 1;
        LinkName {
            generation: present.generation,
            index,
        }
    }

    /// A link is lost.
    fn lose(&self, name: LinkName) {
        let mut present = self.lock();
        if name.index == 0 && name.generation == present.generation {
            present.first = None;
        }
    }
}

impl Dialer {
    /// Sees to the further links of a tunnel, where there may be any.
    pub(super) fn stripe(self: &Arc<Self>, tunnel: &TunnelHandle, ticket: &Arc<Ticket>) {
        let site = self.site_of(ticket.route);
        let mut slots = Vec::new();
        for (route, _) in self
            .config
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.site == site)
        {
            slots.extend((0..self.config.links_per_route.max(1)).map(|nth| (route, nth == 0)));
        }
        if slots.len() < 2 || ticket.features & FEATURE_LINKS == 0 {
            return;
        }
        for (route, may_be_first) in slots {
            let (tunnel, ticket) = (tunnel.clone(), ticket.clone());
            tokio::spawn(self.clone().tend(tunnel, ticket, route, may_be_first));
        }
    }

    /// Keeps a link up over one route for as long as the tunnel takes streams.
    async fn tend(
        self: Arc<Self>,
        tunnel: TunnelHandle,
        ticket: Arc<Ticket>,
        route: usize,
        may_be_first: bool,
    ) {
        let mut waits = backoff().waits(rand::random::<f64>);
        while tunnel.is_up() && !tunnel.is_draining() {
            tunnel.becomes_attached(true).await;
            let first = ticket.names.first_of(route).filter(|_| may_be_first);
            let attempt = match first {
                Some(first) => Ok(first),
                None => self.join(&tunnel, &ticket, route).await,
            };
            let mut pause = None;
            match attempt {
                Ok(name) => {
                    let since = Instant::now();
                    tunnel.lost_link(name).await;
                    ticket.names.lose(name);
                    if since.elapsed() >= STEADY_AFTER {
                        waits.reset();
                    }
                }
                Err(error) => {
                    if tunnel.is_attached() {
                        tracing::warn!(peer = %tunnel.peer(), %error, "a path gives no further link");
                    }
                    if matches!(&error, ConnectError::Refused(refused) if refused.status == HelloStatus::UnknownTunnel)
                    {
                        pause = Some(ELSEWHERE_PAUSE);
                    }
                }
            }
            let pause = pause.unwrap_or_else(|| waits.next().unwrap_or(BACKOFF_MAX));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = tunnel.unusable() => {}
            }
        }
    }

    async fn join(
        &self,
        tunnel: &TunnelHandle,
        ticket: &Ticket,
        route: usize,
    ) -> Result<LinkName, ConnectError> {
        let name = ticket.names.next();
        let greeted = self
            .greet(self.route(route)?, |session| Hello {
                tunnel: Some(ticket.id),
                generation: name.generation,
                link_index: name.index,
                proof: Some(session.prove(&ticket.secret, name.generation, name.index)),
                ..self.environment.hello()
            })
            .await?;
        let hello = greeted.hello;
        if !hello.status.is_accepted() {
            return Err(refused(hello.status, hello.message));
        }
        let is_same = hello.instance == ticket.instance
            && hello.tunnel == Some(ticket.id)
            && greeted.peer.name == **tunnel.peer();
        if !is_same {
            let message = "it has accepted another tunnel than was asked for".to_owned();
            return Err(refused(HelloStatus::UnknownTunnel, message));
        }
        if !tunnel.join(greeted.link, name).await {
            let message = "the tunnel has lost its line meanwhile".to_owned();
            return Err(refused(HelloStatus::Limit, message));
        }
        Ok(name)
    }
}

fn refused(status: HelloStatus, message: String) -> ConnectError {
    Refused { status, message }.into()
}
