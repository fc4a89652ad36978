//! The types of frames: their bytes, names and the most that a payload of each may have.

/// Bytes of the longest payload: a fragment's body of 64 KiB and 1 KiB for what stands before it.
pub const FRAME_PAYLOAD_MAX: usize = 66_560;

/// Bytes of a payload of a few integers: three varints take at most 30.
const SMALL_PAYLOAD_MAX: usize = 64;
/// Bytes of an Open, a Hello, an Opened: names, a target and room for tags of later versions.
const TEXT_PAYLOAD_MAX: usize = 4_096;
/// Bytes of an Ack or a Refuse: 256 ranges of two varints and 64 of three fit.
const ACK_PAYLOAD_MAX: usize = 8_192;
/// Bytes of a Coverage: 64 epochs of 26 bytes and 1,024 holes of at most 20, a name and a few integers.
const COVERAGE_PAYLOAD_MAX: usize = 24_576;

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A fragment of a block, not its last.
    Data = 0x01,
    /// The last fragment of a block.
    DataLast = 0x02,
    /// A new stream.
    Open = 0x03,
    /// A stream's target was reached.
    Opened = 0x04,
    /// A stream's data has ended.
    Finish = 0x05,
    /// Delivery to the LAN side has failed.
    StopSending = 0x06,
    /// Reading from the LAN side has failed.
    Reset = 0x07,
    /// No new streams.
    GoAway = 0x08,
    /// The first frame.
    Hello = 0x10,
    /// Acknowledged numbers.
    Ack = 0x11,
    /// A block that could not be decoded.
    Refuse = 0x12,
    /// How far a stream may send.
    Credit = 0x13,
    /// Credit given back.
    Yield = 0x14,
    /// What is held of a history.
    Coverage = 0x15,
    /// How much a mirror may hold.
    Quota = 0x16,
    /// What will be dropped.
    Floor = 0x17,
    /// The consent to a Floor.
    Floored = 0x18,
    /// A signing request.
    Renew = 0x19,
    /// The answer to Renew.
    Renewed = 0x1a,
    /// Asks for a Pong.
    Ping = 0x1b,
    /// Answers a Ping.
    Pong = 0x1c,
}

impl FrameKind {
    /// All types, in the order of their bytes.
    pub const ALL: [Self; 21] = [
        Self::Data,
        Self::DataLast,
        Self::Open,
        Self::Opened,
        Self::Finish,
        Self::StopSending,
        Self::Reset,
        Self::GoAway,
        Self::Hello,
        Self::Ack,
        Self::Refuse,
        Self::Credit,
        Self::Yield,
        Self::Coverage,
        Self::Quota,
        Self::Floor,
        Self::Floored,
        Self::Renew,
        Self::Renewed,
        Self::Ping,
        Self::Pong,
    ];

    /// The type's byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type with this byte; none for an unknown one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Bytes of the longest payload of this type; checked before the payload is waited for.
    #[must_use]
    pub const fn payload_max(self) -> usize {
        match self {
            Self::Data | Self::DataLast | Self::Renewed => FRAME_PAYLOAD_MAX,
            Self::Open | Self::Opened | Self::Hello => TEXT_PAYLOAD_MAX,
            Self::Ack | Self::Refuse => ACK_PAYLOAD_MAX,
            Self::Coverage => COVERAGE_PAYLOAD_MAX,
            Self::Renew => super::RENEW_REQUEST_MAX_BYTES,
            _ => SMALL_PAYLOAD_MAX,
        }
    }
}

impl std::fmt::Display for FrameKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_found_again() {
        for kind in FrameKind::ALL {
            assert_eq!(FrameKind::from_code(kind.code()), Some(kind));
            assert!(kind.payload_max() <= FRAME_PAYLOAD_MAX);
        }
        for code in [0x00, 0x09, 0x0f, 0x1d, 0xff] {
            assert_eq!(FrameKind::from_code(code), None);
        }
    }
}
