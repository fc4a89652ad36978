//! Frames in a stream of bytes: the `Encoder` and `Decoder` of a link.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::payload::{PayloadReader, require};
use super::{
    Ack, CoverageFrame, Data, DomainId, FieldProblem, Frame, FrameError, FrameKind, Hello, Open,
    Opened, RENEW_REQUEST_MAX_BYTES, Reason, Refuse, Renewed, StreamId,
};
use crate::block::POSITION_MAX;
use crate::varint::{self, VARINT_MAX_BYTES, VarintError};

/// Cuts a link's bytes into frames, and writes frames. It keeps no state, so one may serve any number of links.
///
/// A body of Data is a slice of the buffer that was read into, not a copy. Nothing is allocated for a frame beyond its type's
/// bound. After an error the link's bytes mean nothing any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    /// The next frame, or none if `source` does not hold a whole one yet.
    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((&code, rest)) = source.split_first() else {
            return Ok(None);
        };
        let kind = FrameKind::from_code(code).ok_or(FrameError::UnknownType(code))?;
        let (length_bytes, length_size) = match varint::peek(rest) {
            Ok(length) => length,
            Err(VarintError::Truncated) if rest.len() < VARINT_MAX_BYTES => return Ok(None),
            Err(problem) => return Err(FrameError::Length { kind, problem }),
        };
        let max_bytes = kind.payload_max();
        let length = usize::try_from(length_bytes)
            .ok()
            .filter(|&length| length <= max_bytes);
        let length = length.ok_or(FrameError::TooLong {
            kind,
            length_bytes,
            max_bytes,
        })?;
        let header = 1 + length_size;
        if source.len() < header + length {
            source.reserve(header + length - source.len());
            return Ok(None);
        }
        source.advance(header);
        read(kind, source.split_to(length).freeze()).map(Some)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(source)? {
            None if !source.is_empty() => Err(FrameError::CutShort {
                held_bytes: source.len(),
            }),
            frame => Ok(frame),
        }
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    /// Appends `frame` to `out`. On an error, which only a frame outside its bounds gives, nothing is appended.
    fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        if let Frame::Data(data) = frame {
            let header = data.header()?;
            out.reserve(header.len() + data.bytes.len());
            out.put_slice(&header);
            out.put_slice(&data.bytes);
            return Ok(());
        }
        let mut payload = BytesMut::new();
        write(frame, &mut payload)?;
        let (kind, length_bytes) = (frame.kind(), payload.len() as u64);
        if payload.len() > kind.payload_max() {
            return Err(FrameError::TooLong {
                kind,
                length_bytes,
                max_bytes: kind.payload_max(),
            });
        }
        out.reserve(1 + VARINT_MAX_BYTES + payload.len());
        out.put_u8(kind.code());
        varint::put(out, length_bytes);
        out.put_slice(&payload);
        Ok(())
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    /// As for a borrowed frame.
    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        self.encode(&frame, out)
    }
}

fn read(kind: FrameKind, payload: Bytes) -> Result<Frame, FrameError> {
    let mut payload = PayloadReader::new(kind, payload);
    // Frames of text, lists or bytes to the end read to the end of their payload themselves.
    match kind {
        FrameKind::Data => return Data::read(false, payload).map(Frame::Data),
        FrameKind::DataLast => return Data::read(true, payload).map(Frame::Data),
        FrameKind::Open => return Open::read(payload).map(Frame::Open),
        FrameKind::Opened => return Opened::read(payload).map(Frame::Opened),
        FrameKind::Hello => return Hello::read(payload).map(Frame::Hello),
        FrameKind::Ack => return Ack::read(payload).map(Frame::Ack),
        FrameKind::Refuse => return Refuse::read(payload).map(Frame::Refuse),
        FrameKind::Coverage => return CoverageFrame::read(payload).map(Frame::Coverage),
        FrameKind::Renewed => return Renewed::read(payload).map(Frame::Renewed),
        _ => {}
    }
    let frame = match kind {
        FrameKind::Finish => {
            let (number, stream) = numbered(&mut payload)?;
            Frame::Finish {
                number,
                stream,
                offset: payload.varint("offset")?,
            }
        }
        FrameKind::StopSending => {
            let (number, stream) = numbered(&mut payload)?;
            Frame::StopSending {
                number,
                stream,
                reason: reason(&mut payload)?,
            }
        }
        FrameKind::Reset => {
            let (number, stream) = numbered(&mut payload)?;
            Frame::Reset {
                number,
                stream,
                reason: reason(&mut payload)?,
            }
        }
        FrameKind::GoAway => Frame::GoAway {
            number: payload.positive("number")?,
            reason: reason(&mut payload)?,
        },
        FrameKind::Credit => Frame::Credit {
            stream: StreamId(payload.varint("stream")?),
            turn: payload.positive("turn")?,
            offset: payload.varint("offset")?,
        },
        FrameKind::Yield => Frame::Yield {
            stream: StreamId(payload.positive("stream")?),
            turn: payload.varint("turn")?,
            offset: payload.varint("offset")?,
        },
        FrameKind::Quota => Frame::Quota {
            domain: domain(&mut payload)?,
            bytes: payload.varint("bytes")?,
        },
        FrameKind::Floor => Frame::Floor {
            domain: domain(&mut payload)?,
            position: payload.position("position")?,
        },
        FrameKind::Floored => Frame::Floored {
            domain: domain(&mut payload)?,
            position: payload.position("position")?,
        },
        FrameKind::Renew => Frame::Renew {
            request: payload.rest(),
        },
        FrameKind::Ping => Frame::Ping {
            token: u64::from_le_bytes(payload.array("token")?),
        },
        _ => Frame::Pong {
            token: u64::from_le_bytes(payload.array("token")?),
        },
    };
    payload.finish()?;
    check(&frame)?;
    Ok(frame)
}

fn write(frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
    check(frame)?;
    let put_all = |out: &mut BytesMut, values: &[u64]| {
        values.iter().for_each(|&value| varint::put(out, value))
    };
    match frame {
        Frame::Data(data) => {
            varint::put(out, data.number);
            varint::put(out, data.offset);
            out.put_slice(&data.bytes);
        }
        Frame::Open(open) => open.write(out)?,
        Frame::Opened(opened) => opened.write(out)?,
        Frame::Finish {
            number,
            stream,
            offset,
        } => put_all(out, &[*number, stream.0, *offset]),
        Frame::StopSending {
            number,
            stream,
            reason,
        }
        | Frame::Reset {
            number,
            stream,
            reason,
        } => {
            put_all(out, &[*number, stream.0]);
            out.put_u8(reason.code());
        }
        Frame::GoAway { number, reason } => {
            varint::put(out, *number);
            out.put_u8(reason.code());
        }
        Frame::Hello(hello) => hello.write(out)?,
        Frame::Ack(ack) => ack.write(out)?,
        Frame::Refuse(refuse) => refuse.write(out)?,
        Frame::Credit {
            stream,
            turn,
            offset,
        }
        | Frame::Yield {
            stream,
            turn,
            offset,
        } => put_all(out, &[stream.0, *turn, *offset]),
        Frame::Coverage(coverage) => coverage.write(out)?,
        Frame::Quota {
            domain,
            bytes: value,
        }
        | Frame::Floor {
            domain,
            position: value,
        }
        | Frame::Floored {
            domain,
            position: value,
        } => {
            put_all(out, &[domain.0, *value]);
        }
        Frame::Renew { request } => out.put_slice(request),
        Frame::Renewed(renewed) => renewed.write(out)?,
        Frame::Ping { token } | Frame::Pong { token } => out.put_u64_le(*token),
    }
    Ok(())
}

/// What holds for the frames that have no type of their own.
fn check(frame: &Frame) -> Result<(), FrameError> {
    let kind = frame.kind();
    let bounds = FieldProblem::OutOfBounds;
    require(frame.number() != Some(0), kind, "number", bounds)?;
    match frame {
        Frame::Finish { stream, .. }
        | Frame::StopSending { stream, .. }
        | Frame::Reset { stream, .. }
        | Frame::Yield { stream, .. } => require(!stream.is_tunnel(), kind, "stream", bounds),
        Frame::Credit { turn, .. } => require(*turn >= 1, kind, "turn", bounds),
        Frame::Quota { domain, .. } => require(*domain <= DomainId::MAX, kind, "domain", bounds),
        Frame::Floor { domain, position } | Frame::Floored { domain, position } => {
            require(*domain <= DomainId::MAX, kind, "domain", bounds)?;
            require(*position <= POSITION_MAX, kind, "position", bounds)
        }
        Frame::Renew { request } => {
            require(!request.is_empty(), kind, "request", FieldProblem::Missing)?;
            require(
                request.len() <= RENEW_REQUEST_MAX_BYTES,
                kind,
                "request",
                bounds,
            )
        }
        _ => Ok(()),
    }
}

fn numbered(payload: &mut PayloadReader) -> Result<(u64, StreamId), FrameError> {
    Ok((
        payload.positive("number")?,
        StreamId(payload.positive("stream")?),
    ))
}

fn reason(payload: &mut PayloadReader) -> Result<Reason, FrameError> {
    payload.byte("reason").map(Reason::from_code)
}

fn domain(payload: &mut PayloadReader) -> Result<DomainId, FrameError> {
    payload.varint("domain").map(DomainId)
}
