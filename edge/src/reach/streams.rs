//! Streams that the other edge opens: admitted, dialed, carried, and asked about again when the policy changes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::{StreamLine, Throttle};
use crate::metrics::Sources;
use crate::pace::{Pace, Paces, paced};
use crate::relay::relay;
use codec::frame::{Reason, Target};
use tokio::sync::{mpsc, watch};
use tunnel::stream::IncomingStream;

use super::dialer::{DialError, Dialed, Dialer};
use super::policy::{Admission, Approval, ClientPolicy, Place, Policy};

/// A client's refusals for one reason are logged once in this time.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// What all streams share.
pub struct Streams {
    policy: watch::Sender<Arc<Policy>>,
    admission: Arc<Admission>,
    dialer: Dialer,
    sources: Arc<Sources>,
    throttle: Throttle<(Arc<str>, &'static str)>,
    paces: Paces,
    carrying: mpsc::Sender<()>,
}

impl Streams {
    /// Serves streams as `policy` allows. `carrying` is held by this and by each of its streams.
    pub fn new(policy: Policy, sources: Arc<Sources>, carrying: mpsc::Sender<()>) -> Arc<Self> {
        Arc::new(Self {
            policy: watch::Sender::new(Arc::new(policy)),
            admission: Arc::default(),
            dialer: Dialer::new(sources.pools.clone()),
            sources,
            throttle: Throttle::new(REFUSAL_LOG_PERIOD),
            paces: Paces::default(),
            carrying,
        })
    }

    /// Serves what arrives, until nobody can send any more.
    pub fn start(self: Arc<Self>, mut arriving: mpsc::UnboundedReceiver<IncomingStream>) {
        tokio::spawn(async move {
            while let Some(incoming) = arriving.recv().await {
                let streams = self.clone();
                tokio::spawn(async move { streams.serve(incoming).await });
            }
        });
    }

    /// The rate that all streams of a peer keep to, whichever side has opened them.
    pub fn pace_of(&self, peer: &str) -> Arc<Pace> {
        let pace = self.paces.of(peer);
        pace.set_rate(self.policy.borrow().rate_of(peer));
        pace
    }

    /// Uses another policy. Running streams that it does not allow are reset, and keep to its rates.
    pub fn set_policy(&self, policy: Policy) {
        let policy = Arc::new(policy);
        let _ = self.policy.send_replace(policy.clone());
        // Only now: a stream that begins meanwhile sets the rate by the policy that it finds.
        self.paces.set_all(|peer| policy.rate_of(peer));
    }

    async fn serve(&self, incoming: IncomingStream) {
        let _carrying = self.carrying.clone();
        let started = Instant::now();
        let (client, target) = (incoming.peer.clone(), incoming.open.target.to_string());
        let mut policy = self.policy.subscribe();
        let present = policy.borrow_and_update().clone();
        let (_place, dialed) = match self.admit_and_dial(&incoming, &present).await {
            Ok(reached) => reached,
            Err(Refused { label, why, reason }) => {
                self.log_refusal(&client, &incoming, label, &why);
                incoming.refuse(reason);
                return;
            }
        };
        let Dialed { socket, approval } = dialed;
        let service = incoming.open.service.clone();
        let Some(stream) = incoming.accept(socket.local_address()) else {
            return;
        };
        let end = stream.end();
        let (send, receive) = stream.split();
        let (send, receive) = paced(send, receive, &[self.pace_of(&client)]);
        // Counted before the relay is dropped, which resets the stream and breaks the target's connection.
        let forbidden = async {
            let why = forbidden(&mut policy, &client, &approval).await;
            self.sources.refusals.count(why);
            tracing::warn!(
                peer = &*client,
                target_address = target,
                why,
                "stream reset: the new policy does not allow it"
            );
        };
        let report = tokio::select! {
            report = relay(socket, send, receive) => report,
            () = forbidden => return,
        };
        let summary = end.summary().await;
        let line = StreamLine {
            service: &service,
            peer: &client,
            application: None,
            target: &target,
            report: &report,
            summary: summary.as_ref(),
            duration: started.elapsed(),
        };
        line.write();
    }

    async fn admit_and_dial(
        &self,
        incoming: &IncomingStream,
        policy: &Policy,
    ) -> Result<(Place, Dialed), Refused> {
        let Some(client) = policy.of(&incoming.peer) else {
            return Err(Refused {
                label: Some("not_allowed"),
                why: "no [[client]] section names it".to_owned(),
                reason: Reason::Policy,
            });
        };
        let admitted = self.admission.admit(&incoming.peer, client, Instant::now());
        let place = admitted.map_err(|limit| Refused {
            label: Some(limit.label()),
            why: format!("{} is met", limit.label()),
            reason: Reason::Limit,
        })?;
        let source = incoming
            .open
            .source
            .map(|source| source.ip().to_canonical());
        let dialed = tokio::select! {
            dialed = self.dial(&incoming.open.target, client, source) => dialed,
            reason = incoming.cancelled() => return Err(Refused { label: None, why: "the client gave it up".to_owned(), reason }),
        };
        match dialed {
            Ok(dialed) => Ok((place, dialed)),
            Err(error) => {
                let label = match &error {
                    DialError::Policy(denial) => Some(denial.label()),
                    _ => None,
                };
                Err(Refused {
                    label,
                    why: error.to_string(),
                    reason: error.reason(),
                })
            }
        }
    }

    async fn dial(
        &self,
        target: &Target,
        client: &ClientPolicy,
        source: Option<IpAddr>,
    ) -> Result<Dialed, DialError> {
        if let Some(source) = source {
            client.check_source(source).map_err(DialError::Policy)?;
        }
        self.dialer.dial_from(target, &client.rules, source).await
    }

    /// What the policy refuses is counted, and logged once a minute for each client and reason; what could not be reached is a line each.
    fn log_refusal(
        &self,
        client: &Arc<str>,
        incoming: &IncomingStream,
        label: Option<&'static str>,
        why: &str,
    ) {
        let (target, service) = (&incoming.open.target, &incoming.open.service);
        match label {
            None => {
                tracing::info!(peer = &**client, service, target_address = %target, why, "stream refused")
            }
            Some(label) => {
                self.sources.refusals.count(label);
                if let Some(held_back) = self
                    .throttle
                    .admit(&(client.clone(), label), Instant::now())
                {
                    tracing::warn!(peer = &**client, service, target_address = %target, reason = label, why, held_back, "stream refused by policy");
                }
            }
        }
    }
}

/// A stream that is not served.
struct Refused {
    /// The policy's or the limit's word for it; nothing when the target could not be reached.
    label: Option<&'static str>,
    why: String,
    reason: Reason,
}

/// Resolves when a new policy does not allow the stream any more.
async fn forbidden(
    policy: &mut watch::Receiver<Arc<Policy>>,
    client: &str,
    approval: &Approval,
) -> &'static str {
    loop {
        if policy.changed().await.is_err() {
            // The program ends, and the stream with it.
            return std::future::pending().await;
        }
        let present = policy.borrow_and_update().clone();
        if let Err(denial) = present.recheck(client, approval) {
            return denial.label();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::super::policy::TcpApproval;
    use super::*;
    use crate::config::ServerConfig;

    fn policy(rule: &str) -> Arc<Policy> {
        let text = format!(
            "[tunnel]\nlisten = \"[::]:7443\"\n[[client]]\nname = \"*\"\nallow = [\"{rule}\"]\n"
        );
        Arc::new(Policy::new(
            &ServerConfig::parse(&text, Path::new("server.toml"))
                .unwrap()
                .client,
        ))
    }

    #[tokio::test]
    async fn only_a_policy_that_forbids_a_running_stream_ends_it() {
        let sender = watch::Sender::new(policy("10.0.0.0/8:*"));
        let mut receiver = sender.subscribe();
        let approval = Approval::Tcp(TcpApproval {
            name: None,
            address: "10.0.0.1:80".parse().unwrap(),
            source: None,
        });
        let waiting =
            tokio::spawn(async move { forbidden(&mut receiver, "branch-1", &approval).await });
        let _ = sender.send_replace(policy("10.0.0.0/16:80"));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let _ = sender.send_replace(policy("10.1.0.0/16:*"));
        assert_eq!(waiting.await.unwrap(), "not_allowed");
    }
}
