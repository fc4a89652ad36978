//! Histories: the logs of bytes that two edges share in one domain, and the rules about which positions may be referred to.
//!
//! `coverage` says what two sides hold in common; `pages` keep the bytes; `log` joins them into one log; `reader` is how the encoder and
//! the decoder look at it. `disk` is one log in files, which `storage` gives; `saving` is what of a log is still to be written, `cache` and
//! `used` are pages that were read.

pub mod cache;
pub(crate) mod coverage;
pub(crate) mod disk;
pub(crate) mod log;
pub(crate) mod pages;
pub(crate) mod reader;
pub(crate) mod saving;
pub mod storage;
pub mod survey;
pub(crate) mod used;
