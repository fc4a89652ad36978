//! Two ends of one domain and the little of a tunnel that stands between them: what the core's tests share.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(
    dead_code,
    clippy::indexing_slicing,
    reason = "each test program uses a part of it"
)]

pub mod desk;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use codec::block::{BlockHeader, BlockVersion, Known, Span};
use codec::cache::PageCache;
use codec::decoder::{Decoded, Decoder};
use codec::domain::{Domain, DomainConfig, Lease, Log, Place};
use codec::encoder::{Continuation, EncodeRequest, Encoded, Encoder};
use codec::error::DecodeError;
use codec::frame::{DomainId, StreamId};
use codec::policy::{Habit, Level};
use codec::storage::Storage;

/// One end: a domain, a worker, and what it remembers of its streams.
pub struct End {
    pub domain: Arc<Domain>,
    pub lease: Option<Lease>,
    pub encoder: Encoder,
    pub decoder: Decoder,
    pub level: Level,
    pub version: BlockVersion,
    /// Every block has come, and been acknowledged, before the next one goes.
    pub in_turns: bool,
    /// What the peer has of this end's, and this end of the peer's.
    said: Progress,
    heard: Progress,
    streams: HashMap<u64, (u64, Option<Continuation>, Habit)>,
}

/// How far blocks have come.
#[derive(Default)]
struct Progress {
    offsets: HashMap<u64, u64>,
    append_position: u64,
}

impl Progress {
    fn known(&self, stream: StreamId) -> Known {
        Known {
            stream_offset: self.offsets.get(&stream.0).copied().unwrap_or_default(),
            append_position: self.append_position,
        }
    }

    fn add(&mut self, header: &BlockHeader) {
        let end = header.stream_offset + u64::from(header.plain_length);
        self.offsets.insert(header.stream.0, end);
        if let Some(append) = header.append {
            self.append_position = append.end();
        }
    }
}

/// A block on its way: header and body as bytes, and what its sender keeps.
pub struct Flight {
    pub encoded: Encoded,
    pub header: Bytes,
    pub body: Bytes,
    pub plain: Bytes,
}

pub fn config(capacity_bytes: u64, epoch: u8) -> DomainConfig {
    DomainConfig {
        own_capacity_bytes: capacity_bytes,
        mirror_capacity_bytes: capacity_bytes,
        index_capacity_bytes: capacity_bytes / 8,
        epoch: [epoch; 16],
    }
}

pub fn place(storage: &Arc<dyn Storage>, dir: &str, cache: &Arc<PageCache>) -> Place {
    Place {
        storage: Arc::clone(storage),
        dir: dir.into(),
        peer: format!("the peer of {dir}"),
        name: String::new(),
        cache: Arc::clone(cache),
    }
}

impl End {
    pub fn new(capacity_bytes: u64, epoch: u8) -> Self {
        Self::of(Arc::new(Domain::in_memory(config(capacity_bytes, epoch))))
    }

    /// An end whose histories are on disk, as the last one left them; what was set aside is an error.
    pub fn on_disk(
        storage: &Arc<dyn Storage>,
        dir: &str,
        config: DomainConfig,
        cache: &Arc<PageCache>,
    ) -> Self {
        let (domain, warnings) = Domain::open(config, place(storage, dir, cache)).unwrap();
        assert_eq!(warnings, [""; 0]);
        while domain.load_index_step() {}
        Self::of(Arc::new(domain))
    }

    /// A tunnel's end on a domain that may have been used before.
    pub fn of(domain: Arc<Domain>) -> Self {
        let lease = domain.try_lease();
        assert!(lease.is_some(), "the domain is free");
        Self {
            lease,
            ..Self::sharing(domain)
        }
    }

    /// Another worker on a domain that a tunnel holds.
    pub fn sharing(domain: Arc<Domain>) -> Self {
        Self {
            domain,
            lease: None,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            level: Level::default(),
            version: BlockVersion::Two,
            in_turns: false,
            said: Progress::default(),
            heard: Progress::default(),
            streams: HashMap::new(),
        }
    }

    /// Encodes the next bytes of a stream.
    pub fn encode(&mut self, stream: u64, plain: &Bytes) -> Encoded {
        let (offset, hint, habit) = self.streams.entry(stream).or_default();
        let encoded = self.encoder.encode(EncodeRequest {
            version: self.version,
            stream: StreamId(stream),
            stream_offset: *offset,
            plain: plain.clone(),
            domain: Some((DomainId::SHARED, Arc::clone(&self.domain))),
            may_copy: true,
            may_append: true,
            level: self.level,
            hint: *hint,
            habit: *habit,
            replaces: None,
            avoid: None,
        });
        *offset += plain.len() as u64;
        *hint = encoded.continuation;
        *habit = encoded.habit;
        encoded
    }

    /// Hands a block to the link: it gets its position, and is committed at once.
    pub fn send(&mut self, stream: u64, plain: &Bytes) -> Flight {
        let mut encoded = self.encode(stream, plain);
        let position = Some(encoded.append_length())
            .filter(|length| *length > 0)
            .and_then(|length| self.domain.reserve(length));
        let (header, body) = encoded.wire(position, self.said.known(StreamId(stream)));
        if self.in_turns {
            self.said.add(encoded.header());
        }
        if let Some(position) = position {
            self.domain
                .commit(position, &encoded.take_append().unwrap());
        }
        Flight {
            encoded,
            header,
            body,
            plain: plain.clone(),
        }
    }

    /// The first fragment arrives.
    pub fn register(&mut self, flight: &Flight) -> BlockHeader {
        let mut first = Bytes::from([flight.header.as_ref(), flight.body.as_ref()].concat());
        let known = |stream, _| self.heard.known(stream);
        let header = BlockHeader::decode(&mut first, self.version, known).unwrap();
        if self.in_turns {
            self.heard.add(&header);
        }
        assert_eq!(first, flight.body, "the header ends where the body begins");
        if let Some(append) = header.append {
            self.domain.register(append).unwrap();
        }
        header
    }

    pub fn decode(&mut self, header: &BlockHeader, body: &Bytes) -> Result<Decoded, DecodeError> {
        self.decoder
            .decode(Some(&self.domain), header, &pieces(body))
    }

    /// The answer to a Refuse: the bytes again, without copies, prefix or append. `None` if they are no longer there.
    pub fn repeat(&mut self, flight: &Flight, number: u64) -> Option<Flight> {
        let header = flight.encoded.header().clone();
        let rebuilt = self
            .decoder
            .rebuild(Some(&self.domain), &header, &pieces(&flight.body));
        let plain = match rebuilt {
            Ok(plain) => plain,
            Err(DecodeError::Refused { .. }) => return None,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(plain, flight.plain, "the sender rebuilds what it sent");
        let mut encoded = self.encoder.encode(EncodeRequest {
            version: self.version,
            stream: header.stream,
            stream_offset: header.stream_offset,
            plain: plain.clone(),
            domain: Some((DomainId::SHARED, Arc::clone(&self.domain))),
            may_copy: true,
            may_append: true,
            level: self.level,
            hint: None,
            habit: Habit::default(),
            replaces: Some(number),
            avoid: None,
        });
        assert_eq!(encoded.append_length(), 0);
        let (header, body) = encoded.wire(None, Known::default());
        Some(Flight {
            encoded,
            header,
            body,
            plain,
        })
    }

    pub fn lose(&self, log: Log, span: Span) {
        self.domain.lose(log, span.position, u64::from(span.length));
    }
}

/// A body in two pieces, as fragments come.
pub fn pieces(body: &Bytes) -> [Bytes; 2] {
    let middle = body.len() / 3;
    [body.slice(..middle), body.slice(middle..)]
}

/// What both ends say to each other when a tunnel comes up.
pub fn agree(a: &End, b: &End) {
    let said = [a, b].map(|end| (end.domain.claim(Log::Own), end.domain.claim(Log::Mirror)));
    for (end, peer, (own, mirror)) in [(a, b, &said[1]), (b, a, &said[0])] {
        end.domain.agree(Log::Own, mirror);
        end.domain.agree(Log::Mirror, own);
        end.domain.set_quota(peer.domain.quota_offer());
    }
    // The announcements of new epochs.
    a.domain.agree(Log::Mirror, &b.domain.claim(Log::Own));
    b.domain.agree(Log::Mirror, &a.domain.claim(Log::Own));
}

pub fn pair(capacity_bytes: u64) -> [End; 2] {
    let ends = [End::new(capacity_bytes, 1), End::new(capacity_bytes, 2)];
    let [a, b] = &ends;
    agree(a, b);
    ends
}

/// Sends `plain` in blocks over a perfect line, checks it, and returns the bytes on the wire.
pub fn transfer(
    from: &mut End,
    to: &mut End,
    stream: u64,
    plain: &[u8],
    block_bytes: usize,
) -> u64 {
    let mut wire = 0;
    for (at, chunk) in plain.chunks(block_bytes).enumerate() {
        let flight = from.send(stream, &Bytes::copy_from_slice(chunk));
        wire += (flight.header.len() + flight.body.len()) as u64;
        let header = to.register(&flight);
        let decoded = to.decode(&header, &flight.body).unwrap();
        assert_eq!(decoded.plain, flight.plain, "block {at}");
        assert!(decoded.stored, "block {at}");
        assert_eq!(decoded.tally, flight.encoded.tally, "block {at}");
        drop_as_agreed(from, to);
    }
    wire
}

/// Floor and Floored, at once.
pub fn drop_as_agreed(owner: &End, peer: &End) {
    if let Some(floor) = owner.domain.floor_wanted() {
        owner.domain.drop_below(Log::Own, floor);
        peer.domain.drop_below(Log::Mirror, floor);
    }
}

/// Bytes that depend on seed and offset alone, and do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let words = length.div_ceil(8) as u64;
    (0..words)
        .flat_map(|at| mix(at ^ seed.rotate_left(40)).to_le_bytes())
        .take(length)
        .collect()
}

/// Lines of words, which do.
pub fn text(length: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "branch", "tunnel", "history", "of", "the", "a", "mirror", "anchor", "byte", "copies",
        "and", "line", "server", "is", "exactly", "position",
    ];
    let mut out = Vec::with_capacity(length + 32);
    let mut at = seed << 32;
    while out.len() < length {
        let random = mix(at);
        out.extend_from_slice(WORDS[(random % 16) as usize].as_bytes());
        out.extend_from_slice(
            if random >> 8 & 7 == 0 {
                format!(" {}\n", random >> 40).into_bytes()
            } else {
                b" ".to_vec()
            }
            .as_slice(),
        );
        at += 1;
    }
    out.truncate(length);
    out
}

pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
