//! What runs out: descriptors, and the memory budget. The edges hold on, and go on when there is some again.

#![expect(clippy::unwrap_used, reason = "tests")]

mod descriptors;
mod memory;
