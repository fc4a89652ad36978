//! What this edge connects to for streams that the other edge opens: who may reach what, the checked dial, and the carrying.
//!
//! Both programs have it: the server edge reaches targets for its clients, a client edge for the reverse listeners of its server.

mod dialer;
mod policy;
mod streams;

pub use dialer::{DialError, Dialed, Dialer};
pub use policy::{
    Admission, Approval, ClientPolicy, Limit, Place, Policy, TcpApproval, history_quotas,
};
pub use streams::Streams;
