//! All listeners of an edge, and how a reload changes them: everything new is bound before anything changes, and a listener that stays keeps
//! its socket.

use std::sync::Arc;

use super::LanListener;
use super::listener::{Carry, Listener};
use crate::cli::Failure;
use crate::config::{ListenConfig, Rate};

/// See the module.
pub struct Listeners<S>(Vec<Listener<S>>);

/// What is ready to take the place of the present listeners.
pub struct Prepared<S>(Vec<Next<S>>);

enum Next<S> {
    /// A new socket.
    Fresh(Listener<S>),
    /// The same socket with what the service is now.
    Kept(ListenConfig, S),
}

impl<S> Default for Listeners<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Send + Sync + 'static> Listeners<S> {
    /// Binds what is not there yet and starts it; nothing else changes before [`apply`](Self::apply).
    ///
    /// # Errors
    /// An address cannot be had; the line says whose it was to be.
    pub fn prepare(
        &self,
        services: Vec<(ListenConfig, S)>,
        carry: &Arc<impl Carry<Service = S>>,
    ) -> Result<Prepared<S>, Failure> {
        let next = |(config, service): (ListenConfig, S)| {
            if self
                .0
                .iter()
                .any(|listener| is_same(&listener.config, &config))
            {
                return Ok(Next::Kept(config, service));
            }
            let (name, bind) = (config.name.clone(), config.bind.clone());
            let started = LanListener::open(&bind)
                .and_then(|socket| Listener::start(socket, config, service, carry.clone()));
            started.map(Next::Fresh).map_err(|error| {
                Failure::Failed(format!("cannot listen on {bind} for \"{name}\": {error}"))
            })
        };
        let prepared = services.into_iter().map(next).collect::<Result<_, _>>()?;
        Ok(Prepared(prepared))
    }

    /// Uses what was prepared. Listeners that are not in it close their sockets; their connections go on.
    pub fn apply(&mut self, prepared: Prepared<S>) {
        let mut before = std::mem::take(&mut self.0);
        for next in prepared.0 {
            match next {
                Next::Fresh(listener) => self.0.push(listener),
                Next::Kept(config, service) => {
                    let place = before
                        .iter()
                        .position(|listener| is_same(&listener.config, &config));
                    if let Some(place) = place {
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

    /// The listeners, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Listener<S>> {
        self.0.iter()
    }
}

/// A listener is known by its name and its address; all else may change under it.
fn is_same(one: &ListenConfig, other: &ListenConfig) -> bool {
    one.name == other.name && one.bind == other.bind
}
