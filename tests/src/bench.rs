//! The benchmark against peers: each pair of programs is started in turn, on loopback or on the two ends of an emulated line, and the same
//! loads are put on it. Peers are taken in turns within each repetition, so that what else the machine does meets all of them alike.

mod bars;
mod chart;
mod docs;
mod exchange;
mod goals;
mod interrupt;
mod load;
mod machine;
mod metric;
mod options;
mod place;
mod plan;
mod process;
mod report;
mod rival;
mod run;
mod samples;
mod sheet;
mod stage;
mod table;

pub use options::Options;
pub use run::run;
