//! The one module of OS calls above the tunnel: socket options, limits, and what the kernel knows about this process.
//!
//! Linux comes first. What another Unix lacks is a [`Feature`] that is absent there, and never a broken build. Every call goes
//! through the safe wrappers of `socket2` and `rustix`, but for the one question that they do not know (see `line`).

mod disk;
mod limits;
mod line;
mod process;
mod socket;

pub use disk::{free_disk_bytes, is_writable};
pub use limits::{available_memory_bytes, raise_descriptor_limit};
pub use line::sample_link;
pub use process::{ProcessStats, process_stats};
pub use socket::{arm_reset, disarm_reset, listen, shutdown_write, tune_lan, tune_link};

/// Something that not every Unix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Choosing the congestion control of a socket (`TCP_CONGESTION`).
    CongestionControl,
    /// A bound on the bytes that wait unsent in a socket (`TCP_NOTSENT_LOWAT`).
    NotSentLowat,
    /// What the kernel measures of a connection (`TCP_INFO`): without it bulk leaves no room for interactive streams in front of the line.
    LineInfo,
    /// A bound on how long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    UserTimeout,
    /// Figures about this process and its memory limits (`/proc`, cgroups).
    ProcFs,
}

impl Feature {
    /// Was this program built for a system that has the feature? The kernel may still refuse it.
    pub const fn is_built(self) -> bool {
        match self {
            Self::CongestionControl
            | Self::NotSentLowat
            | Self::LineInfo
            | Self::UserTimeout
            | Self::ProcFs => {
                cfg!(target_os = "linux")
            }
        }
    }
}
