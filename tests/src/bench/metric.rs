//! What is measured, and in which unit.

use serde::{Deserialize, Serialize};

/// One load, which gives one or more figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Memory of idle streams.
    Memory,
    /// Memory of very many idle streams; our own edges only.
    Crowd,
    /// Small messages to and fro, alone and beside a transfer.
    Ping,
    /// Short connections.
    Connections,
    /// Bytes that nothing compresses.
    Random,
    /// Software that was not seen before.
    Cold,
    /// The same software again, after [`Cold`](Self::Cold).
    Warm,
}

impl Measure {
    /// In the order in which they are taken: memory first, for what a program has freed hides what it takes.
    pub(super) const ALL: [Self; 7] = [
        Self::Memory,
        Self::Crowd,
        Self::Ping,
        Self::Connections,
        Self::Random,
        Self::Cold,
        Self::Warm,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Crowd => "crowd",
            Self::Ping => "ping",
            Self::Connections => "connections",
            Self::Random => "random",
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// What a figure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    /// Random bytes from the branch.
    RandomUp,
    /// Random bytes to the branch.
    RandomDown,
    /// Software from the branch, not seen before.
    ColdUp,
    /// Software to the branch, not seen before.
    ColdDown,
    /// The same software from the branch again.
    WarmUp,
    /// The same software to the branch again.
    WarmDown,
    /// What both programs work for random bytes.
    RandomCpu,
    /// What both programs work for software that was not seen before.
    ColdCpu,
    /// What both programs work for software that was seen before.
    WarmCpu,
    /// Half of the messages are answered within.
    PingP50,
    /// 99 of 100 messages are answered within.
    PingP99,
    /// The same beside a transfer of random bytes to the branch.
    LoadedPingP50,
    /// The same beside a transfer of random bytes to the branch.
    LoadedPingP99,
    /// Connections opened, used for one byte each way and closed.
    Connections,
    /// Resident memory of both programs for each idle stream.
    IdleMemory,
    /// The same with very many.
    CrowdMemory,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) label: &'static str,
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
}

impl Metric {
    /// In the order of the tables.
    pub(super) const ALL: [Self; 16] = [
        Self::RandomUp,
        Self::RandomDown,
        Self::ColdUp,
        Self::ColdDown,
        Self::WarmUp,
        Self::WarmDown,
        Self::RandomCpu,
        Self::ColdCpu,
        Self::WarmCpu,
        Self::PingP50,
        Self::PingP99,
        Self::LoadedPingP50,
        Self::LoadedPingP99,
        Self::Connections,
        Self::IdleMemory,
        Self::CrowdMemory,
    ];

    /// The load that gives it.
    pub(super) const fn measure(self) -> Measure {
        match self {
            Self::RandomUp | Self::RandomDown | Self::RandomCpu => Measure::Random,
            Self::ColdUp | Self::ColdDown | Self::ColdCpu => Measure::Cold,
            Self::WarmUp | Self::WarmDown | Self::WarmCpu => Measure::Warm,
            Self::PingP50 | Self::PingP99 | Self::LoadedPingP50 | Self::LoadedPingP99 => {
                Measure::Ping
            }
            Self::Connections => Measure::Connections,
            Self::IdleMemory => Measure::Memory,
            Self::CrowdMemory => Measure::Crowd,
        }
    }

    pub(super) const fn form(self) -> Form {
        let (label, unit, more_is_better) = match self {
            Self::RandomUp => ("random, up", "MB/s", true),
            Self::RandomDown => ("random, down", "MB/s", true),
            Self::ColdUp => ("software, up", "MB/s", true),
            Self::ColdDown => ("software, down", "MB/s", true),
            Self::WarmUp => ("software again, up", "MB/s", true),
            Self::WarmDown => ("software again, down", "MB/s", true),
            Self::RandomCpu => ("CPU, random", "s/GB", false),
            Self::ColdCpu => ("CPU, software", "s/GB", false),
            Self::WarmCpu => ("CPU, software again", "s/GB", false),
            Self::PingP50 => ("ping-pong p50", "ms", false),
            Self::PingP99 => ("ping-pong p99", "ms", false),
            Self::LoadedPingP50 => ("ping-pong p50 beside a download", "ms", false),
            Self::LoadedPingP99 => ("ping-pong p99 beside a download", "ms", false),
            Self::Connections => ("connections", "1/s", true),
            Self::IdleMemory => ("memory of an idle stream, both ends", "KiB", false),
            Self::CrowdMemory => ("the same with very many streams", "KiB", false),
        };
        Form {
            label,
            unit,
            more_is_better,
        }
    }
}
