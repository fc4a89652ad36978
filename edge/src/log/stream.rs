//! The one line that the log has for each stream, when it ends.

use std::time::{Duration, Instant};

use codec::frame::Target;
use tunnel::handle::TunnelHandle;
use tunnel::state::StreamSummary;
use tunnel::stream::StreamEnd;

use crate::admin::ratio;
use crate::lan::Application;
use crate::relay::{Outcome, Report};

/// A stream that this edge has opened and that has ended.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// The service that took it.
    pub service: &'a str,
    /// The application's address.
    pub application: Application,
    /// Where it went.
    pub target: &'a Target,
    /// The tunnel that carried it.
    pub tunnel: &'a TunnelHandle,
    /// When the application's connection was accepted.
    pub started: Instant,
}

impl Ended<'_> {
    /// Writes the stream's line once the tunnel knows what it has cost.
    pub async fn log(self, end: StreamEnd, report: &Report) {
        let summary = tokio::select! {
            biased;
            summary = end.summary() => summary,
            _ = self.tunnel.ended() => None,
        };
        let line = StreamLine {
            service: self.service,
            peer: self.tunnel.peer(),
            application: Some(self.application),
            target: &self.target.to_string(),
            report,
            summary: summary.as_ref(),
            duration: self.started.elapsed(),
        };
        line.write();
    }
}

/// What is known of a stream when it has ended.
#[derive(Clone, Debug)]
pub struct StreamLine<'a> {
    /// The service that took it.
    pub service: &'a str,
    /// The other edge.
    pub peer: &'a str,
    /// On the edge that listens: the application's address.
    pub application: Option<Application>,
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
