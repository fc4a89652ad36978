//! What the demo starts: an origin, the pair of edges with a line between them, and a second line of the same kind that
//! leads to the origin directly.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Options;
use super::files::Sample;
use super::progress::Progress;
use crate::fetch::{Request, fetch};
use crate::line::Line;
use crate::origin::{Content, HttpOrigin};
use crate::pair::Pair;

/// Name of the client edge's listener.
const LISTENER: &str = "origin";

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    origin: HttpOrigin,
    direct: Line,
    pair: Pair,
}

/// How a file comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    Tunnel,
}

/// A file that the origin offers.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    path: String,
    bytes: u64,
    hash: u128,
}

/// What one transfer took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    /// Bytes of the file, as the application received them.
    pub(super) lan_bytes: u64,
    /// Bytes on the line in both directions, counted by the line.
    pub(super) wan_bytes: u64,
}

impl Stage {
    /// Starts everything; the tunnel is up then.
    pub(super) async fn set(options: &Options) -> Result<Self> {
        let origin = HttpOrigin::start().context("cannot start the origin")?;
        let direct =
            Line::start(origin.address(), options.line()).context("cannot start the line")?;
        let pair = Pair::builder()
            .forward(LISTENER, origin.address())
            .socks5()
            .line(options.line())
            .show_build()
            .start()
            .await?;
        Ok(Self {
            origin,
            direct,
            pair,
        })
    }

    /// Lets the origin serve `bytes` at `path`.
    pub(super) fn offer(&self, path: &str, bytes: &Bytes) -> Offer {
        self.origin.put(path, Content::Bytes(bytes.clone()));
        Offer {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            hash: xxh3_128(bytes),
        }
    }

    /// Fetches an offer and checks its hash.
    pub(super) async fn transfer(
        &self,
        way: Way,
        offer: &Offer,
        name: &str,
        label: &str,
        progress: &Progress,
    ) -> Result<Measured> {
        let (line, address) = match way {
            Way::Direct => (&self.direct, self.direct.address()),
            Way::Tunnel => (self.pair.line()?, self.tunnel_address()?),
        };
        let shown = progress.begin(name, label, offer.bytes);
        let mut hash = Xxh3::new();
        let before = line.bytes();
        let began = Instant::now();
        let request = Request::get(&offer.path);
        let fetched = fetch(address, &request, |chunk| {
            hash.update(chunk);
            shown.advance(chunk.len() as u64);
        });
        let lan_bytes = match fetched.await {
            Ok(bytes) => bytes,
            Err(error) => bail!(
                "{name} ({label}) was not transferred: {error}; the client logged: {}",
                self.pair.client().last_log_lines()
            ),
        };
        let took = began.elapsed();
        let wan_bytes = line.bytes().since(&before).total();
        if lan_bytes != offer.bytes || hash.digest128() != offer.hash {
            bail!("{name} ({label}) arrived with other bytes than it was sent with");
        }
        shown.end(took);
        Ok(Measured {
            seconds: took.as_secs_f64(),
            lan_bytes,
            wan_bytes,
        })
    }

    /// Where everything listens, for someone who wants to try it by hand.
    pub(super) fn addresses(&self, samples: &[Sample]) -> Result<String> {
        let mut text = String::from("still running; Ctrl-C ends it\n");
        for (index, sample) in samples.iter().enumerate() {
            text += &format!(
                "  {}: /{index}/original and /{index}/changed\n",
                sample.name
            );
        }
        let client = self.pair.client();
        text += &format!(
            "  through the tunnel  http://{}/0/original\n",
            self.tunnel_address()?
        );
        text += &format!(
            "  directly            http://{}/0/original\n",
            self.direct.address()
        );
        text += &format!("  SOCKS5 proxy        {}\n", client.address("socks5")?);
        text += &format!(
            "  client status       http://{}/api/status\n",
            client.admin_address()?
        );
        text += &format!(
            "  server status       http://{}/api/status",
            self.pair.server().admin_address()?
        );
        Ok(text)
    }

    fn tunnel_address(&self) -> Result<SocketAddr> {
        self.pair.client().address(LISTENER)
    }
}
