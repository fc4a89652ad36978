//! See docs/architecture.md.

pub mod pool;
pub mod wake;
