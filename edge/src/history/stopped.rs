//! The commands on the directory of an edge that does not run. They hold its lock, so an edge that starts meanwhile works in memory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tunnel::histories::{Histories, HistoriesConfig, Home, Lean, OpenDirectory, OpenError};

use super::text::{self, Progress, Verified};
use super::{HistoryCommand, json, print};
use crate::admin::{ClearPage, HistoryPage};
use crate::cli::Failure;

/// Nothing is looked up here, and each page is read once.
const CACHE_BYTES: u64 = 8 << 20;

pub(super) fn run(
    command: &HistoryCommand,
    directory: &Path,
    lean: Lean,
    unasked: &str,
) -> Result<(), Failure> {
    let missing = std::fs::symlink_metadata(directory)
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if missing {
        let page = HistoryPage {
            directory: Some(directory.display().to_string()),
            ..HistoryPage::default()
        };
        return print(
            command.options(),
            || format!("{} holds no histories yet.\n", directory.display()),
            &json(&page)?,
        );
    }
    let opened = OpenDirectory::open(directory).map_err(|error| {
        Failure::Failed(match error {
            OpenError::InUse { .. } => format!("{error}, and {unasked}"),
            error => error.to_string(),
        })
    })?;
    let histories = Histories::new(HistoriesConfig {
        lean,
        // As it is: another size is a matter of the edge that runs.
        size_bytes: opened.saved_size_bytes(),
        small_bytes: 0,
        index_bytes: 0,
        cache_bytes: CACHE_BYTES,
        quota_of: Arc::new(|_| None),
        home: Home::Disk(opened),
    });
    match command {
        HistoryCommand::Stats(options) => {
            histories.open_all_now();
            let page = HistoryPage::of(&histories);
            print(options, || text::stats(&page), &json(&page)?)
        }
        HistoryCommand::Verify(options) => {
            let mut progress = Progress::default();
            let checked = histories.verify_now(|checked| progress.show(&Verified::from(checked)));
            progress.end();
            let written = histories.flush_now();
            let verified = Verified::from(checked);
            print(options, || text::verified(&verified), &json(&verified)?)?;
            written.map_err(|error| {
                Failure::Failed(format!("what was found cannot be noted: {error}"))
            })?;
            text::judge_verified(&verified)
        }
        HistoryCommand::Clear(options) => {
            let page = ClearPage::from(histories.clear_now(options.peer.as_deref()));
            print(&options.whose, || text::cleared(&page), &json(&page)?)?;
            text::judge_cleared(&page)
        }
    }
}
