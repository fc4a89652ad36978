//! Renewed: the answer to a request for a new certificate.

use bytes::{BufMut, Bytes, BytesMut};

use super::payload::{PayloadReader, require};
use super::{FRAME_PAYLOAD_MAX, FieldProblem, FrameError, FrameKind, MESSAGE_MAX_BYTES};
use crate::varint::{self, VARINT_MAX_BYTES};

/// Bytes of a signing request: a P-256 request has about 300, and names may be long.
pub const RENEW_REQUEST_MAX_BYTES: usize = 8_192;
/// Certificates of a chain: the leaf and a few above it.
pub const RENEWED_CERTIFICATES_MAX: usize = 8;

/// The answer to a request for a new certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// Status 0: the certificates in DER, leaf first; 1 to [`RENEWED_CERTIFICATES_MAX`], none empty.
    Issued(Vec<Bytes>),
    /// Another status, at least 1.
    Refused {
        /// The number on the wire.
        status: u8,
        /// Why, in words, at most [`MESSAGE_MAX_BYTES`]; may be empty.
        message: String,
    },
}

impl Renewed {
    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let status = payload.byte("status")?;
        let renewed = if status == 0 {
            let count = payload.count("certificates", RENEWED_CERTIFICATES_MAX)?;
            let mut certificates = Vec::with_capacity(count);
            for _ in 0..count {
                let length = payload.count("certificate length", FRAME_PAYLOAD_MAX)?;
                certificates.push(payload.bytes("certificate", length)?);
            }
            Self::Issued(certificates)
        } else {
            Self::Refused {
                status,
                message: payload.rest_text("message", MESSAGE_MAX_BYTES)?,
            }
        };
        payload.finish()?;
        renewed.check()?;
        Ok(renewed)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.check()?;
        match self {
            Self::Issued(certificates) => {
                out.put_u8(0);
                varint::put(out, certificates.len() as u64);
                for certificate in certificates {
                    varint::put(out, certificate.len() as u64);
                    out.put_slice(certificate);
                }
            }
            Self::Refused { status, message } => {
                out.put_u8(*status);
                out.put_slice(message.as_bytes());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = FrameKind::Renewed;
        match self {
            Self::Issued(certificates) => {
                let count = certificates.len();
                require(
                    (1..=RENEWED_CERTIFICATES_MAX).contains(&count),
                    kind,
                    "certificates",
                    FieldProblem::OutOfBounds,
                )?;
                require(
                    certificates.iter().all(|der| !der.is_empty()),
                    kind,
                    "certificate",
                    FieldProblem::Missing,
                )?;
                let bytes: usize = certificates
                    .iter()
                    .map(|der| VARINT_MAX_BYTES + der.len())
                    .sum();
                require(
                    bytes < FRAME_PAYLOAD_MAX - VARINT_MAX_BYTES,
                    kind,
                    "certificates",
                    FieldProblem::OutOfBounds,
                )
            }
            Self::Refused { status, message } => {
                require(*status != 0, kind, "status", FieldProblem::OutOfBounds)?;
                require(
                    message.len() <= MESSAGE_MAX_BYTES,
                    kind,
                    "message",
                    FieldProblem::OutOfBounds,
                )?;
                require(
                    !message.contains(char::is_control),
                    kind,
                    "message",
                    FieldProblem::Text,
                )
            }
        }
    }
}
