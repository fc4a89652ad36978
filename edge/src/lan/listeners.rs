//! All listeners of an edge, and how a reload changes them: everything new is bound before anything changes, and a listener that stays keeps
//! its socket.

use std::sync::Arc;

use super::LanListener;
use super::listener::{Carry, Listener};
use super::socket::cannot_listen;
use crate::cli::Failure;
use crate::config::{Bind, ListenConfig, Rate};
use crate::lifecycle::Listening;
use crate::metrics::OwnService;

/// See the module.
pub struct Listeners<C: Carry>(Vec<Listener<C>>);

/// What is ready to take the place of the present listeners, in the order of the configuration.
pub struct Prepared<C: Carry>(Vec<(ListenConfig, C::Service, Socket)>);

enum Socket {
    /// A new one, at this address.
    Fresh(LanListener, Bind),
    /// That of the present listener.
    Kept,
}

impl<C: Carry> Default for Listeners<C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<C: Carry> Listeners<C> {
    /// Binds what is not there yet; nothing else changes before [`apply`](Self::apply).
    ///
    /// # Errors
    /// An address cannot be had; the line says whose it was to be.
    pub fn prepare(
        &self,
        services: Vec<(ListenConfig, C::Service)>,
    ) -> Result<Prepared<C>, Failure> {
        let next = |(config, service): (ListenConfig, C::Service)| {
            let socket = if let Some(place) = place_of(&self.0, &config) {
                if let Some(listener) = self.0.get(place) {
                    C::refit(&listener.socket, &config)?;
                }
                Socket::Kept
            } else {
                let socket = C::open(&config)?;
                let address = socket
                    .bound()
                    .map_err(|error| cannot_listen(&config.name, &config.bind, &error))?;
                Socket::Fresh(socket, address)
            };
            Ok::<_, Failure>((config, service, socket))
        };
        let prepared = services.into_iter().map(next).collect::<Result<_, _>>()?;
        Ok(Prepared(prepared))
    }

    /// Uses what was prepared; new connections are for `carry`. Listeners that are not in it close their sockets; their connections go on.
    pub fn apply(&mut self, prepared: Prepared<C>, carry: &Arc<C>) {
        let mut before = std::mem::take(&mut self.0);
        for (config, service, socket) in prepared.0 {
            match socket {
                Socket::Fresh(socket, address) => {
                    let listener = Listener::start(socket, address, config, service, carry.clone());
                    self.0.push(listener);
                }
                Socket::Kept => {
                    if let Some(place) = place_of(&before, &config) {
                        let mut listener = before.swap_remove(place);
                        listener.replace(config, service);
                        self.0.push(listener);
                    }
                }
            }
        }
    }

    /// The rate of the service of this name.
    pub fn rate_of(&self, name: &str) -> Option<Rate> {
        let mut all = self.0.iter();
        all.find(|listener| listener.config.name == name)?
            .config
            .rate
    }

    /// Closes all sockets.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `listening` lines, in the order of the configuration.
    pub fn listening(&self) -> Vec<Listening> {
        let line = |listener: &Listener<C>| Listening {
            name: listener.config.name.clone(),
            kind: listener.config.kind.as_str(),
            address: listener.address.clone(),
        };
        self.0.iter().map(line).collect()
    }

    /// The services for status, in the order of the configuration.
    pub fn services(&self) -> Vec<OwnService> {
        let service = |listener: &Listener<C>| OwnService {
            name: listener.config.name.clone(),
            kind: listener.config.kind.as_str(),
            bind: listener.address.to_string(),
        };
        self.0.iter().map(service).collect()
    }
}

/// A listener is known by its name and its address; all else may change under it.
fn place_of<C: Carry>(listeners: &[Listener<C>], config: &ListenConfig) -> Option<usize> {
    listeners.iter().position(|listener| {
        listener.config.name == config.name && listener.config.bind == config.bind
    })
}
