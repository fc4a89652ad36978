//! The one module of OS calls above the tunnel: socket options, limits, and what the kernel knows about this process.
//!
//! Linux comes first. What another Unix lacks is a [`Feature`] that is absent there, and never a broken build. Every call goes
//! through the safe wrappers of `socket2` and `rustix`, but for what they do not know (see `line`, `read` and
//! `schedule`), and for descriptors that come as numbers (see `passed` and `handover`).

mod disk;
mod handover;
mod limits;
mod line;
mod passed;
mod patience;
mod process;
mod read;
mod schedule;
mod socket;
mod terminal;
mod transparent;
mod unix;

pub use disk::{free_disk_bytes, is_writable};
pub use handover::{
    is_same_user, listen_private, peer_process, receive_listening_sockets, send_listening_sockets,
};
pub use limits::{available_memory_bytes, raise_descriptor_limit};
pub use line::sample_link;
pub use passed::{adopt_passed_sockets, close_unclaimed_sockets};
pub use patience::wait_for_addresses;
pub use process::{ProcessStats, process_stats, resident_memory_bytes};
pub use read::try_read;
pub use schedule::be_batch_work;
pub use socket::{arm_reset, disarm_reset, listen, shutdown_write, tune_lan, tune_link};
pub use terminal::terminal_size;
pub use transparent::{
    OWN_MARK, TPROXY_MARK, canonical, connect_from, is_own_address, listen_transparent, mark_own,
    may_have_foreign_addresses, original_destination, set_transparent,
};
pub use unix::{UnixSocket, leave_socket_files, listen_unix, peek};

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
    /// Connections that a packet filter sends here instead of to their targets (`SO_ORIGINAL_DST`, `IP_TRANSPARENT`, `SO_MARK`).
    Transparent,
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
            | Self::Transparent
            | Self::ProcFs => {
                cfg!(target_os = "linux")
            }
        }
    }
}
