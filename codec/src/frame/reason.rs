//! Why a stream was reset or a block refused.

/// Why a stream or a tunnel is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The application went away.
    Cancelled = 0,
    /// The target refused the connection.
    Refused = 1,
    /// No way to the target's host.
    HostUnreachable = 2,
    /// No way to the target's network.
    NetworkUnreachable = 3,
    /// The target did not answer in time.
    TimedOut = 4,
    /// The policy does not name the target.
    Policy = 5,
    /// The target's name has no address.
    NameNotResolved = 6,
    /// The LAN side's connection was reset.
    ConnectionReset = 7,
    /// A limit on streams or rates was met.
    Limit = 8,
    /// The edge takes no new streams.
    GoingAway = 9,
    /// An error of the edge itself; also every reason that this version does not know.
    Internal = 10,
    /// The tunnel ended.
    TunnelLost = 11,
    /// The target makes no sense.
    BadTarget = 12,
    /// Bytes were damaged and could not be had again.
    Damaged = 13,
}

impl Reason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 14] = [
        Self::Cancelled,
        Self::Refused,
        Self::HostUnreachable,
        Self::NetworkUnreachable,
        Self::TimedOut,
        Self::Policy,
        Self::NameNotResolved,
        Self::ConnectionReset,
        Self::Limit,
        Self::GoingAway,
        Self::Internal,
        Self::TunnelLost,
        Self::BadTarget,
        Self::Damaged,
    ];

    /// The byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this byte; [`Reason::Internal`] for an unknown one.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::ALL
            .get(usize::from(code))
            .copied()
            .unwrap_or(Self::Internal)
    }

    /// The reason in words, for logs and replies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Refused => "connection refused",
            Self::HostUnreachable => "host unreachable",
            Self::NetworkUnreachable => "network unreachable",
            Self::TimedOut => "timed out",
            Self::Policy => "forbidden by policy",
            Self::NameNotResolved => "name not resolved",
            Self::ConnectionReset => "connection reset",
            Self::Limit => "limit reached",
            Self::GoingAway => "going away",
            Self::Internal => "internal error",
            Self::TunnelLost => "tunnel lost",
            Self::BadTarget => "bad target",
            Self::Damaged => "damaged",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a block could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    /// The checksum does not match, or the body cannot be decompressed.
    Damaged = 1,
    /// Bytes that it copies are no longer held.
    Evicted = 2,
    /// Too much is parked.
    Overload = 3,
    /// Bytes that it copies cannot be read from where they are stored.
    Unreadable = 4,
}

impl RefuseReason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 4] = [
        Self::Damaged,
        Self::Evicted,
        Self::Overload,
        Self::Unreadable,
    ];

    /// The byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this byte; none for an unknown one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The reason in one word, as metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Evicted => "evicted",
            Self::Overload => "overload",
            Self::Unreadable => "unreadable",
        }
    }
}

impl std::fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_again() {
        for (code, reason) in (0u8..).zip(Reason::ALL) {
            assert_eq!(reason.code(), code);
            assert_eq!(Reason::from_code(code), reason);
        }
        assert_eq!(Reason::from_code(14), Reason::Internal);
        assert_eq!(Reason::from_code(255), Reason::Internal);
        for reason in RefuseReason::ALL {
            assert_eq!(RefuseReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(RefuseReason::from_code(0), None);
        assert_eq!(RefuseReason::from_code(5), None);
    }
}
