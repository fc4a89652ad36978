//! Histories: the logs of bytes that two edges share in one domain, and the rules about which positions may be referred to.
//!
//! `coverage` says what two sides hold in common; `pages` keep the bytes; `log` joins them into one log; `reader` is how the encoder and
//! the decoder look at it.

pub(crate) mod coverage;
pub(crate) mod log;
pub(crate) mod pages;
pub(crate) mod reader;
