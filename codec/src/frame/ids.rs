//! The numbers that name streams and domains, and which edge may give them.

/// Which end of the line an edge stands at: the client dials, the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The edge at the branch; it dials. Its streams and isolated domains have odd ids.
    Client,
    /// The edge at headquarters; it listens. Its streams and isolated domains have even ids.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One stream of a tunnel: odd ids from the client edge, even ones from the server edge, from 1 and 2, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The tunnel itself, in Credit only.
    pub const TUNNEL: Self = Self(0);

    /// The first id that `side` gives; the next ones follow by [`StreamId::next`].
    #[must_use]
    pub const fn first(side: Side) -> Self {
        match side {
            Side::Client => Self(1),
            Side::Server => Self(2),
        }
    }

    /// The next id of the same side; none once the ids are used up.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(2) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The edge that opens the stream; none for the tunnel itself.
    #[must_use]
    pub const fn opener(self) -> Option<Side> {
        match self.0 {
            0 => None,
            id if id % 2 == 1 => Some(Side::Client),
            _ => Some(Side::Server),
        }
    }

    /// Whether this is the tunnel itself.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        self.0 == 0
    }
}

impl From<u64> for StreamId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl From<StreamId> for u64 {
    fn from(id: StreamId) -> Self {
        id.0
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One domain of a tunnel. 0 is `shared`; isolated domains are numbered by the edge that listens: the client edge odd ids from
/// 3, the server edge even ones from 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u64);

impl DomainId {
    /// The domain of all `shared` services.
    pub const SHARED: Self = Self(0);
    /// The highest id. At most 16 domains are used at once; this leaves room to never reuse one and keeps `id + 1` encodable.
    pub const MAX: Self = Self(u32::MAX as u64);

    /// The first isolated id that `side` gives.
    #[must_use]
    pub const fn first_isolated(side: Side) -> Self {
        match side {
            Side::Client => Self(3),
            Side::Server => Self(2),
        }
    }

    /// The edge that listens for the domain's service; none for `shared` (and for 1, which nobody gives).
    #[must_use]
    pub const fn listener(self) -> Option<Side> {
        match self.0 {
            0 | 1 => None,
            id if id % 2 == 1 => Some(Side::Client),
            _ => Some(Side::Server),
        }
    }

    /// Whether this is the domain of all `shared` services.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.0 == 0
    }
}

impl From<u64> for DomainId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl From<DomainId> for u64 {
    fn from(id: DomainId) -> Self {
        id.0
    }
}

impl std::fmt::Display for DomainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parity_tells_the_side() {
        assert_eq!(StreamId::TUNNEL.opener(), None);
        assert_eq!(StreamId::first(Side::Client).opener(), Some(Side::Client));
        assert_eq!(
            StreamId::first(Side::Server)
                .next()
                .and_then(StreamId::opener),
            Some(Side::Server)
        );
        assert_eq!(StreamId(u64::MAX).next(), None);
        assert_eq!(DomainId::SHARED.listener(), None);
        for side in [Side::Client, Side::Server] {
            assert_eq!(DomainId::first_isolated(side).listener(), Some(side));
            assert_eq!(side.other().other(), side);
        }
    }
}
