//! See docs/architecture.md.

pub mod wake;
