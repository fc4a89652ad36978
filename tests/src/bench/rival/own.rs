//! Our own edges, as they come and with other settings.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use super::{Pair, Rival, Setup, run};
use crate::bench::place::Side;

/// A setting of both edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Setting {
    /// As they come.
    Default,
    /// Everything in the pools.
    Pooled,
    /// As much as possible on the spot.
    Inline,
    /// Pools of one thread.
    OneThread,
    /// Pools of a thread for each core.
    CoreThreads,
    /// Pools of two threads for each core.
    ManyThreads,
    /// One thread that waits for sockets.
    OneWorker,
}

impl Setting {
    pub(super) const ALL: [Rival; 6] = [
        Rival::Own(Self::Pooled),
        Rival::Own(Self::Inline),
        Rival::Own(Self::OneThread),
        Rival::Own(Self::CoreThreads),
        Rival::Own(Self::ManyThreads),
        Rival::Own(Self::OneWorker),
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "wanproxy",
            Self::Pooled => "all-pooled",
            Self::Inline => "inline-256K",
            Self::OneThread => "pools-1",
            Self::CoreThreads => "pools-cores",
            Self::ManyThreads => "pools-2x-cores",
            Self::OneWorker => "one-worker",
        }
    }

    /// What goes into both configurations.
    fn pools(self) -> String {
        let threads =
            |count: usize| format!("[pools]\ncodec_threads = {count}\ncrypto_threads = {count}\n");
        let cores = available_parallelism().map_or(1, usize::from);
        match self {
            Self::Default | Self::OneWorker => String::new(),
            Self::Pooled => "[pools]\ninline_below = 0\n".to_owned(),
            Self::Inline => "[pools]\ninline_below = \"256KiB\"\n".to_owned(),
            Self::OneThread => threads(1),
            Self::CoreThreads => threads(cores),
            Self::ManyThreads => threads(2 * cores),
        }
    }

    fn apply(self, command: &mut Command) {
        if self == Self::OneWorker {
            command.env("TOKIO_WORKER_THREADS", "1");
        }
    }
}

/// The policy lets a client open as fast and as much as the peers let it.
const POLICY: &str = "max_streams = 65000\nnew_streams_per_second = 1000000\n";

/// Edges of one pair may share a machine.
const ADMIN: &str = "bind = \"127.0.0.1:0\"";

pub(super) fn start(setup: &Setup<'_>, setting: Setting) -> Result<Pair> {
    let entrance = setup.entrance()?;
    let tunnel = setup.tunnel()?;
    let server = setup.directory.join("server");
    let client = setup.directory.join("client");
    let invite = setup.directory.join("branch.invite");
    let programs = setup.programs;

    let mut init = Command::new(programs.server());
    init.args([
        "init",
        "--address",
        &tunnel.to_string(),
        "--allow",
        "127.0.0.1:*",
        "--dir",
    ])
    .arg(&server);
    run(init)?;
    let mut invited = Command::new(programs.server());
    invited
        .args(["invite", "branch", "--dir"])
        .arg(&server)
        .arg("--out")
        .arg(&invite);
    run(invited)?;
    let mut join = Command::new(programs.client());
    join.arg("join").arg(&invite).arg("--dir").arg(&client);
    run(join)?;

    let mut processes = Vec::new();
    for (side, program, directory, file) in [
        (Side::Far, programs.server(), &server, "server.toml"),
        (Side::Near, programs.client(), &client, "client.toml"),
    ] {
        let config = directory.join(file);
        let text = fs::read_to_string(&config)
            .with_context(|| format!("cannot read {}", config.display()))?;
        let text = text
            .replace("# max_streams = 10000\n", POLICY)
            .replace("bind = \"127.0.0.1:9900\"", ADMIN)
            .replace("bind = \"127.0.0.1:9901\"", ADMIN)
            .replace("level = \"info\"", "level = \"warn\"");
        fs::write(&config, text + "\n" + &setting.pools())?;
        let mut command = setup.place.command(side, program);
        command.args(["run", "--config"]).arg(&config);
        if side == Side::Near {
            command.args(["--forward", &format!("{entrance}={}", setup.origin)]);
        }
        setting.apply(&mut command);
        processes.push(setup.spawn(
            if side == Side::Near {
                "wanproxy-client"
            } else {
                "wanproxy-server"
            },
            command,
        )?);
    }
    Ok(Pair {
        entrance,
        processes,
    })
}
