//! An edge, and frames for it.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known};
use codec::frame::{
    Coverage, CoverageFrame, Data, DomainId, Epoch, Frame, FrameCodec, HistorySide, Open, Reason,
    StreamId, Target,
};
use codec::ranges::RangeSet;

use crate::state_support::{Setting, config, domain};
use tokio_util::codec::Decoder;
use tunnel::budget::{Budget, Use};
use tunnel::metrics::Registry;
use tunnel::state::{CodecScratch, Event, Limits, LinkId, Side, Tunnel, Violation};

pub const LINK: u64 = 7;

/// A server edge, and what it says.
pub struct Edge {
    pub tunnel: Tunnel,
    pub budget: Arc<Budget>,
    pub now: Instant,
}

/// The peer here speaks version 1, whose blocks say every field.
pub fn older() -> Setting {
    Setting {
        blocks: BlockVersion::One,
        ..Setting::default()
    }
}

impl Edge {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let now = Instant::now();
        let budget = Arc::new(Budget::new(64 << 20));
        let setting = Setting { limits, ..older() };
        let mut tunnel = Tunnel::new(
            config(Side::Server, &setting),
            budget.clone(),
            Arc::new(Registry::new()),
            now,
        );
        tunnel.link_up(LinkId::from(LINK), now);
        Self {
            tunnel,
            budget,
            now,
        }
    }

    /// An edge that holds the shared domain, with a peer that claims the same epoch of its own history.
    pub fn with_domain() -> Self {
        let mut edge = Self::new();
        edge.tunnel.attach_domain(
            DomainId::SHARED,
            String::new(),
            domain(16 << 20, 5),
            edge.now,
        );
        for side in [HistorySide::Own, HistorySide::Mirror] {
            let epochs = vec![Epoch {
                id: [9; 16],
                start: 0,
            }];
            let coverage = Coverage {
                floor: 0,
                tail: 0,
                epochs,
                holes: RangeSet::new(),
            };
            edge.hear(Frame::Coverage(CoverageFrame {
                domain: DomainId::SHARED,
                name: "shared".to_owned(),
                side,
                coverage,
            }))
            .unwrap();
        }
        edge.hear(Frame::Quota {
            domain: DomainId::SHARED,
            bytes: 16 << 20,
        })
        .unwrap();
        edge
    }

    pub fn hear(&mut self, frame: Frame) -> Result<(), Violation> {
        self.tunnel
            .handle_frame(LinkId::from(LINK), frame, self.now)
    }

    /// Runs all jobs; what they find out comes as an event.
    pub fn work(&mut self) -> Option<Violation> {
        let mut scratch = CodecScratch::default();
        while let Some((_, job)) = self.tunnel.poll_job(self.now) {
            let done = job.run(&mut scratch);
            self.tunnel.handle_job(done, self.now);
        }
        std::iter::from_fn(|| self.tunnel.poll_event()).find_map(|event| match event {
            Event::Violated(violation) => Some(violation),
            _ => None,
        })
    }

    pub fn says(&mut self) -> Vec<Frame> {
        let mut out = Vec::new();
        self.tunnel
            .poll_transmit(LinkId::from(LINK), 1 << 20, self.now, &mut out);
        let mut bytes: BytesMut = out.iter().flat_map(|slice| slice.iter().copied()).collect();
        std::iter::from_fn(|| FrameCodec.decode(&mut bytes).unwrap()).collect()
    }

    pub fn offends(mut self, frame: Frame) -> Violation {
        let violation = self.hear(frame).unwrap_err();
        assert!(self.tunnel.is_over());
        assert!(self.tunnel.poll_timeout().is_none() && self.says().is_empty());
        for usage in Use::ALL {
            assert_eq!(self.budget.snapshot().used_for(usage), 0, "{usage:?}");
        }
        violation
    }
}

pub fn numbers(range: std::ops::Range<u64>) -> RangeSet {
    std::iter::once(range).collect()
}

pub fn open(number: u64, stream: u64) -> Frame {
    let target = Target::Name {
        host: "a".to_owned(),
        port: 1,
    };
    Frame::Open(Open {
        number,
        stream: StreamId(stream),
        domain: None,
        target,
        service: String::new(),
        source: None,
        weight: NonZeroU16::MIN,
    })
}

pub fn finish(number: u64, stream: u64, offset: u64) -> Frame {
    Frame::Finish {
        number,
        stream: StreamId(stream),
        offset,
    }
}

pub fn reset(number: u64, stream: u64) -> Frame {
    Frame::Reset {
        number,
        stream: StreamId(stream),
        reason: Reason::Cancelled,
    }
}

pub fn header(stream: u64, stream_offset: u64, plain_length: u32) -> BlockHeader {
    BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(stream),
        stream_offset,
        plain_length,
        body: BodyKind::Raw,
        domain: None,
        append: None,
        prefix: None,
        diagonals: [None, None],
        inner_length: 0,
        replaces: None,
        checksum: None,
    }
}

pub fn fragment(number: u64, offset: u64, last: bool, bytes: impl Into<Bytes>) -> Frame {
    Frame::Data(Data {
        number,
        offset,
        last,
        bytes: bytes.into(),
    })
}

pub fn block(number: u64, header: &BlockHeader, body: &[u8]) -> Frame {
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    bytes.extend_from_slice(body);
    fragment(number, 0, true, bytes.freeze())
}

pub fn raw(number: u64, stream: u64, offset: u64, body: &[u8]) -> Frame {
    block(
        number,
        &header(stream, offset, u32::try_from(body.len()).unwrap()),
        body,
    )
}

pub fn opened_edge() -> Edge {
    let mut edge = Edge::new();
    edge.hear(open(1, 1)).unwrap();
    edge.tunnel.accept(StreamId(1), None, edge.now);
    edge
}
