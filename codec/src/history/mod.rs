//! Histories: the logs of bytes that two edges share in one domain, and the rules about which positions may be referred to.
//!
//! `coverage` says what two sides hold in common; `pages` keep the bytes; `log` joins them into one log; `reader` is how the encoder and
//! the decoder look at it. `disk` is one log in files, which `storage` gives.

pub(crate) mod coverage;
#[allow(
    dead_code,
    unused_imports,
    reason = "until domains open their logs on disk"
)]
pub(crate) mod disk;
pub(crate) mod log;
pub(crate) mod pages;
pub(crate) mod reader;
pub mod storage;
