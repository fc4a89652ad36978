//! The LAN side of services: their listening sockets, and how a reload changes them.

mod introduction;
mod listener;
mod listeners;
mod socket;
mod stream;

pub use introduction::Introduction;
pub use listener::Carry;
pub use listeners::{Listeners, Prepared};
pub use socket::{LanListener, cannot_listen};
pub use stream::{Application, LanStream};
