//! The one line that the log has for each stream, when it ends.

use std::net::SocketAddr;
use std::time::Duration;

use tunnel::state::StreamSummary;

use crate::admin::ratio;
use crate::relay::{Outcome, Report};

/// What is known of a stream when it has ended.
#[derive(Clone, Debug)]
pub struct StreamLine<'a> {
    /// The service that took it.
    pub service: &'a str,
    /// The other edge.
    pub peer: &'a str,
    /// On a client edge: the application's address.
    pub application: Option<SocketAddr>,
    /// Where it went.
    pub target: &'a str,
    /// What the relay carried.
    pub report: &'a Report,
    /// What the tunnel says of it; nothing when the tunnel ended first.
    pub summary: Option<&'a StreamSummary>,
    /// From the accept to the end.
    pub duration: Duration,
}

impl StreamLine<'_> {
    /// Writes the line.
    pub fn write(&self) {
        let Report {
            to_wan_bytes,
            from_wan_bytes,
            outcome,
        } = *self.report;
        let (wan_to, wan_from) = self.summary.map_or((0, 0), |summary| {
            (summary.wan_to_wan_bytes, summary.wan_from_wan_bytes)
        });
        let (result, reason) = result(outcome);
        tracing::info!(
            service = self.service,
            peer = self.peer,
            application = self.application.map(tracing::field::display),
            target_address = self.target,
            lan_to_wan_bytes = to_wan_bytes,
            lan_from_wan_bytes = from_wan_bytes,
            wan_to_wan_bytes = wan_to,
            wan_from_wan_bytes = wan_from,
            ratio = ratio(
                to_wan_bytes.saturating_add(from_wan_bytes),
                wan_to.saturating_add(wan_from)
            ),
            duration_ms = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            result,
            reason = reason.map(tracing::field::debug),
            "stream ended"
        );
    }
}

fn result(outcome: Outcome) -> (&'static str, Option<codec::frame::Reason>) {
    match outcome {
        Outcome::Finished => ("finished", None),
        Outcome::LanFailed => ("reset by the application's side", None),
        Outcome::PeerReset(reason) => ("reset by the other edge", Some(reason)),
    }
}
