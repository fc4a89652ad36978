//! What `/api/status` and `status --json` say. The keys are a contract.

use serde::{Deserialize, Serialize};

/// An edge at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `client` or `server`.
    pub edge: String,
    /// The edge's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Since the start, in seconds.
    pub uptime_seconds: f64,
    /// The tunnels; on a client also one that is not up.
    pub tunnels: Vec<TunnelStatus>,
    /// The services, in the order of the config, then those learnt from clients.
    pub services: Vec<ServiceStatus>,
    /// What the tunnel saves.
    pub savings: Savings,
    /// What the codec made of the bytes sent.
    pub codec: CodecBytes,
    /// What the other edges' codecs made of the bytes received.
    #[serde(default)]
    pub codec_received: CodecBytes,
    /// The histories.
    pub history: HistoryStatus,
    /// Long jobs.
    pub jobs: Vec<JobStatus>,
    /// Memory.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// The pools of threads.
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
}

/// One tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// The other edge's name; before the first tunnel the server's address.
    pub peer: String,
    /// `up`, `detached` (the line is lost and may come back), `draining` or `connecting`.
    pub state: String,
    /// Its links.
    pub links: Vec<LinkStatus>,
    /// How often it was resumed.
    pub resumes: u64,
    /// Plain bytes both ways.
    pub lan_bytes: u64,
    /// Bytes on the WAN both ways.
    pub wan_bytes: u64,
    /// What the codec made of the bytes sent to this peer.
    pub codec: CodecBytes,
    /// What its codec made of the bytes received from it.
    #[serde(default)]
    pub codec_received: CodecBytes,
    /// Since when it is in this state, in seconds since the epoch, give or take a second.
    #[serde(default)]
    pub since_unix_seconds: Option<u64>,
    /// Why there is none yet: what the last attempt met.
    #[serde(default)]
    pub error: Option<String>,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The other end's address.
    pub address: String,
    /// The smoothed round trip in milliseconds, when it was measured.
    pub rtt_ms: Option<f64>,
    /// Bytes written to TCP.
    pub sent_bytes: u64,
    /// Bytes read from TCP.
    pub received_bytes: u64,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its kind; `remote` for a service of the other edge.
    pub kind: String,
    /// Where it listens; empty for a service of the other edge.
    pub bind: String,
    /// Streams open now.
    pub open: u64,
    /// Streams since the start.
    pub total: u64,
    /// Plain bytes read from the LAN.
    pub lan_bytes_to_wan: u64,
    /// Plain bytes written to the LAN.
    pub lan_bytes_from_wan: u64,
    /// What they took on the WAN.
    pub wan_bytes_to_wan: u64,
    /// What they took on the WAN.
    pub wan_bytes_from_wan: u64,
    /// What the codec made of the bytes sent.
    pub codec: CodecBytes,
    /// What the other edges' codecs made of the bytes received.
    #[serde(default)]
    pub codec_received: CodecBytes,
}

/// Bytes that the LAN side saw against bytes on the WAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Savings {
    /// Plain bytes both ways.
    pub lan_bytes: u64,
    /// Bytes on the WAN both ways.
    pub wan_bytes: u64,
    /// The first by the second; nothing before the first byte.
    pub ratio: Option<f64>,
}

impl Savings {
    /// From sums in bytes.
    pub fn new(lan_bytes: u64, wan_bytes: u64) -> Self {
        Self {
            lan_bytes,
            wan_bytes,
            ratio: ratio(lan_bytes, wan_bytes),
        }
    }
}

/// `lan` by `wan`, rounded to hundredths; nothing when there was nothing.
pub fn ratio(lan_bytes: u64, wan_bytes: u64) -> Option<f64> {
    (wan_bytes > 0).then(|| (lan_bytes as f64 / wan_bytes as f64 * 100.0).round() / 100.0)
}

/// Plain bytes sent, by what the codec made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecBytes {
    /// Sent as references to earlier bytes.
    pub copied: u64,
    /// Sent compressed.
    pub compressed: u64,
    /// Sent as they were.
    pub raw: u64,
}

/// The histories together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// Bytes held, own and mirrors; on disk, what their files take.
    pub bytes: u64,
    /// The bound on it.
    pub capacity_bytes: u64,
    /// Memory of the indexes.
    pub index_bytes: u64,
    /// The part of lookups that led to a copy, 0 to 1; nothing before the first.
    pub hit_rate: Option<f64>,
    /// Memory of pages: cached, not written yet, or of histories in memory.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Bytes in memory that files still lack.
    #[serde(default)]
    pub unwritten_bytes: u64,
    /// The directory; nothing where they are in memory.
    #[serde(default)]
    pub directory: Option<String>,
    /// Why they are in memory although a directory is configured.
    #[serde(default)]
    pub excuse: Option<String>,
    /// The disk takes nothing at present.
    #[serde(default)]
    pub read_only: bool,
    /// Indexes are still being filled after the start.
    #[serde(default)]
    pub loading: bool,
    /// Pages that could not be read since the start, and are forgotten.
    #[serde(default)]
    pub damaged_pages: u64,
}

/// Memory of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Charged to the budget: data of streams under way.
    pub used_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Resident, as the system counts; nothing where it does not say.
    pub resident_bytes: Option<u64>,
}

/// One pool of threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Its threads.
    pub threads: u64,
    /// Jobs that run now.
    pub running: u64,
    /// Jobs that wait for a thread.
    pub queued: u64,
}

/// One long job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The token by which it is asked for.
    pub token: String,
    /// Whose it is.
    pub who: String,
    /// What it does.
    pub why: String,
    /// queued, running, syncing, stopping, finished or stopped.
    pub state: String,
    /// Bytes to be worked on, of jobs that know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes of them that are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<u64>,
    /// Pages found damaged, of a verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_pages: Option<u64>,
}

impl Status {
    /// Is a tunnel up?
    pub fn has_tunnel(&self) -> bool {
        self.tunnels.iter().any(|tunnel| tunnel.state == "up")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_contract() {
        let status = Status {
            tunnels: vec![TunnelStatus {
                links: vec![LinkStatus::default()],
                ..TunnelStatus::default()
            }],
            services: vec![ServiceStatus::default()],
            ..Status::default()
        };
        let expected = serde_json::json!({
            "edge": "", "name": "", "version": "", "uptime_seconds": 0.0,
            "tunnels": [{
                "peer": "", "state": "",
                "links": [{"address": "", "rtt_ms": null, "sent_bytes": 0, "received_bytes": 0}],
                "resumes": 0, "lan_bytes": 0, "wan_bytes": 0,
                "codec": {"copied": 0, "compressed": 0, "raw": 0},
                "codec_received": {"copied": 0, "compressed": 0, "raw": 0},
                "since_unix_seconds": null, "error": null
            }],
            "services": [{
                "name": "", "kind": "", "bind": "", "open": 0, "total": 0, "lan_bytes_to_wan": 0, "lan_bytes_from_wan": 0,
                "wan_bytes_to_wan": 0, "wan_bytes_from_wan": 0, "codec": {"copied": 0, "compressed": 0, "raw": 0},
                "codec_received": {"copied": 0, "compressed": 0, "raw": 0}
            }],
            "savings": {"lan_bytes": 0, "wan_bytes": 0, "ratio": null},
            "codec": {"copied": 0, "compressed": 0, "raw": 0},
                "codec_received": {"copied": 0, "compressed": 0, "raw": 0},
            "history": {
                "bytes": 0, "capacity_bytes": 0, "index_bytes": 0, "hit_rate": null, "memory_bytes": 0, "unwritten_bytes": 0, "directory": null, "excuse": null,
                "read_only": false, "loading": false, "damaged_pages": 0
            },
            "jobs": [],
            "memory": {"used_bytes": 0, "budget_bytes": 0, "resident_bytes": null},
            "pools": []
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Status>(expected).unwrap(), status);
    }

    #[test]
    fn a_ratio_needs_bytes_on_the_wan() {
        assert_eq!(Savings::new(0, 0).ratio, None);
        assert_eq!(Savings::new(1000, 3).ratio, Some(333.33));
        assert_eq!(Savings::new(0, 10).ratio, Some(0.0));
    }
}
