//! Who an edge is: the authority, certificates, invites, renewal and revocation.

mod name;

pub use name::{EdgeName, NamePattern, SERVER_NAME, parse_client_name};
