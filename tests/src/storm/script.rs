//! What one connection of a storm does, and how the near end tells the far end.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Outcome;
use crate::payload::Payload;

/// Length of the introduction in bytes: id, seed, both lengths, place, ending.
const INTRODUCTION_BYTES: usize = 41;

/// The far end answers this once it knows the script, so that the connection is open from end to end.
const WELCOME: u8 = b'!';

/// The near end says this when all connections of the storm are open.
const BEGIN: u8 = b'>';

/// Largest transfer of a random script, in bytes.
const MAX_RANDOM_BYTES: u64 = 256 * 1024;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides send, and each ends when it is done.
    Together,
    /// The near side sends and ends; only then does the far side send.
    NearFirst,
    /// The far side sends and ends; only then does the near side send.
    FarFirst,
    /// The near side resets after `place` bytes of its own.
    NearResets,
    /// The far side resets after `place` bytes of its own.
    FarResets,
}

impl Ending {
    const ALL: [Self; 5] = [
        Self::Together,
        Self::NearFirst,
        Self::FarFirst,
        Self::NearResets,
        Self::FarResets,
    ];
}

/// One connection: what goes up (near to far), what comes down, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Which of the storm's connections it is.
    pub id: u64,
    /// Of both payloads.
    pub seed: u64,
    /// Length of what goes up, in bytes.
    pub up_bytes: u64,
    /// Length of what comes down, in bytes.
    pub down_bytes: u64,
    /// Where a resetting side resets, as an offset into its own bytes.
    pub place: u64,
    /// How it ends.
    pub ending: Ending,
}

impl Script {
    /// `count` scripts of all endings with sizes that `seed` chooses, small ones being the most.
    #[must_use]
    pub fn many(count: u64, seed: u64) -> Vec<Self> {
        (0..count).map(|id| Self::random(id, seed)).collect()
    }

    fn random(id: u64, seed: u64) -> Self {
        let choice = Payload::random(seed).bytes(id * 32, 32);
        let number = |place: usize| {
            let bytes = choice
                .get(place..place + 8)
                .and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        // A uniformly random number of bits makes every order of magnitude equally likely.
        let size = |place: usize| {
            let value = number(place);
            (value >> 8) % (MAX_RANDOM_BYTES >> (value % 18)).max(1)
        };
        let (up_bytes, down_bytes) = (size(0), size(8));
        let ending = Ending::ALL[usize::try_from(id).unwrap_or(0) % Ending::ALL.len()];
        let own = if ending == Ending::NearResets {
            up_bytes
        } else {
            down_bytes
        };
        Self {
            id,
            seed: number(16),
            up_bytes,
            down_bytes,
            place: number(24) % (own + 1),
            ending,
        }
    }

    /// What goes up. Half of the scripts repeat content of others, so that a deduplicating carrier has something to do.
    #[must_use]
    pub fn up(&self) -> Payload {
        if self.id.is_multiple_of(2) {
            Payload::text(0)
        } else {
            Payload::random(self.seed)
        }
    }

    /// What comes down.
    #[must_use]
    pub fn down(&self) -> Payload {
        if self.id.is_multiple_of(3) {
            Payload::text(0)
        } else {
            Payload::random(self.seed ^ 1)
        }
    }

    /// Whether both ends saw what the script says.
    #[must_use]
    pub fn allows(&self, near: &Outcome, far: &Outcome) -> bool {
        let complete = |outcome: &Outcome, bytes: u64| outcome.is_complete(bytes);
        match self.ending {
            Ending::Together | Ending::NearFirst | Ending::FarFirst => {
                complete(near, self.down_bytes) && complete(far, self.up_bytes)
            }
            // The one that resets sees nothing of interest; the other must be told, after right bytes only.
            Ending::NearResets => far.is_broken(),
            Ending::FarResets => near.is_broken(),
        }
    }

    /// Tells the far end and waits for its welcome.
    pub(super) async fn introduce(&self, connection: &mut TcpStream) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(INTRODUCTION_BYTES);
        for number in [
            self.id,
            self.seed,
            self.up_bytes,
            self.down_bytes,
            self.place,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let ending = Ending::ALL
            .iter()
            .position(|ending| *ending == self.ending)
            .unwrap_or(0);
        bytes.push(u8::try_from(ending).unwrap_or(0));
        connection.write_all(&bytes).await?;
        if connection.read_u8().await? == WELCOME {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Welcomes the near end and waits until it begins. (A reset before that could overtake the welcome.)
    pub(super) async fn welcome(connection: &mut TcpStream) -> io::Result<()> {
        connection.write_all(&[WELCOME]).await?;
        match connection.read_u8().await? {
            BEGIN => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Lets the far end begin.
    pub(super) async fn begin(connection: &mut TcpStream) -> io::Result<()> {
        connection.write_all(&[BEGIN]).await
    }

    /// Learns the script from the near end.
    pub(super) async fn learn(connection: &mut TcpStream) -> io::Result<Self> {
        let mut numbers = [0; 5];
        for number in &mut numbers {
            *number = connection.read_u64_le().await?;
        }
        let [id, seed, up_bytes, down_bytes, place] = numbers;
        let ending = Ending::ALL
            .get(usize::from(connection.read_u8().await?))
            .copied();
        let ending = ending.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            id,
            seed,
            up_bytes,
            down_bytes,
            place,
            ending,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_scripts_have_all_endings_and_sizes() {
        let scripts = Script::many(1000, 7);
        for ending in Ending::ALL {
            assert_eq!(
                scripts
                    .iter()
                    .filter(|script| script.ending == ending)
                    .count(),
                200
            );
        }
        assert!(scripts.iter().any(|script| script.up_bytes == 0));
        assert!(
            scripts
                .iter()
                .any(|script| script.up_bytes > MAX_RANDOM_BYTES / 2)
        );
        assert!(
            scripts
                .iter()
                .filter(|script| script.up_bytes < 1000)
                .count()
                > 200
        );
        assert_eq!(scripts, Script::many(1000, 7));
    }
}
