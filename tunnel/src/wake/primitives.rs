//! What the mailbox is made of. The loom model in `tests/loom_wake.rs` includes `mailbox.rs` as it stands and puts loom's
//! versions of these names in this file's place, so the code that ships is the code that is checked.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};
pub(super) use std::sync::{Arc, Mutex};
