//! A client's connector and a server's acceptor over loopback: real sockets, real TLS, real pools.

#![expect(clippy::unwrap_used, reason = "tests")]

mod drain;
mod echo;
mod hostile;
mod hub;
mod identities;
mod lines;
mod raw;
mod resume;
mod streams;
mod support;
mod versions;
