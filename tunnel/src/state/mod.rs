//! The tunnel as a pure state machine: no sockets, no tasks, no clock.
//!
//! Things happen to it through `handle_*` and the streams' calls, each with the present time; what it wants is asked for by `poll_*`: frames for
//! a link ([`Tunnel::poll_transmit`]), codec jobs ([`Tunnel::poll_job`]), events for the streams' owners ([`Tunnel::poll_event`]) and the next
//! deadline ([`Tunnel::poll_timeout`]). Jobs may run anywhere, in any order. After any call, poll again. The model is quinn-proto.
//!
//! | file | idea |
//! | --- | --- |
//! | `tunnel` | the whole: links, time, events |
//! | `streams` | what the driver asks of a stream |
//! | `cut`, `encode`, `level` | plain bytes become blocks: how long, which one next, how hard they are compressed |
//! | `transmit`, `scheduler` | blocks and frames become a link's bytes; whose turn it is |
//! | `lanes` | several links: which one a block goes over, and what becomes of it when that one is lost |
//! | `link`, `line`, `pace`, `light` | what a line carries; bulk leaves room for what is urgent; which streams are |
//! | `control` | frames without a number: when they go |
//! | `receive` | frames arrive |
//! | `inbound`, `decode` | numbers and blocks that arrive, up to plain bytes in order |
//! | `acknowledge`, `retention` | what became of what was sent |
//! | `known` | where blocks lie, as far as both ends know |
//! | `stream`, `credit`, `reassembly` | one stream |
//! | `resume` | the line is lost, and found again |
//! | `domains`, `floors` | histories: leases, agreement; what may be dropped |
//! | `path`, `timers`, `memory` | a line's measure; deadlines; the budget |

mod acknowledge;
mod config;
mod control;
mod credit;
mod cut;
mod decode;
mod domains;
mod encode;
mod event;
mod floors;
mod inbound;
mod jobs;
mod known;
mod lanes;
mod level;
mod light;
mod line;
mod link;
mod memory;
mod pace;
mod parked;
mod path;
mod reassembly;
mod receive;
mod resume;
mod retention;
mod scheduler;
mod stream;
mod streams;
mod timers;
mod transmit;
mod tunnel;
mod violation;

pub use config::{Limits, LinkId, OpenError, OpenSpec, Side, TunnelConfig};
pub use event::{Event, StreamSummary};
pub use jobs::{CodecDone, CodecJob, CodecScratch, DecodeJob, EncodeJob, JobId, RebuildJob};
pub use level::LevelChoice;
pub use line::LineSample;
#[doc(hidden)]
pub use stream::STREAM_SIZE_BYTES;
pub use tunnel::{Tunnel, TunnelStats};
pub use violation::Violation;
