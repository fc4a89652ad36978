//! Who an edge is: the authority, certificates, invites, renewal and revocation. No sockets and no runtime; files only.

mod authority;
mod certificate;
mod error;
mod files;
mod invite;
mod issue;
mod join;
mod load;
mod name;
mod renewal;
mod revocations;
mod roster;
mod sign;
mod store;
mod template;

pub use authority::{Authority, init};
pub use certificate::{ANY_SERVER, CertificateError, Peer, Role, Serial};
pub use error::{IdentityError, date};
pub(crate) use files::{credentials_directory, read_private};
pub use join::{Joined, join};
pub use load::Identity;
pub use name::{EdgeName, NamePattern, SERVER_NAME, parse_client_name};
pub use renewal::{InstallError, Renewal};
pub use revocations::{PeerCheck, PeerRefusal, Revocations};
pub use roster::{Listed, NewInvite, State};
pub use sign::{MAX_REQUEST_BYTES, RenewError};
pub use store::MAX_LIVE_ENTRIES;
pub(crate) use store::revocations_file;

#[cfg(test)]
mod tests;
