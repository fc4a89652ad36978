//! See docs/architecture.md.

pub mod backoff;
pub mod budget;
pub mod pool;
pub mod wake;
pub mod write;
