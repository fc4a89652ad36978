//! The commands on the directory of an edge that does not run. They hold its lock, so an edge that starts meanwhile works in memory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tunnel::histories::{Histories, HistoriesConfig, Home, Lean, OpenDirectory, OpenError};

use super::text::{self, Progress, Verdict, Verified};
use super::{HistoryCommand, json, print};
use crate::admin::{ClearPage, HistoryPage};
use crate::cli::Failure;

/// Nothing is looked up here, and each page is read once.
const CACHE_BYTES: u64 = 8 << 20;

/// The file of a log that says what may be believed of it.
const MANIFEST: &str = "manifest";

pub(super) fn run(
    command: &HistoryCommand,
    directory: &Path,
    lean: Lean,
    unasked: &str,
) -> Result<(), Failure> {
    let missing = std::fs::symlink_metadata(directory)
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if missing {
        let nothing = match command {
            HistoryCommand::Stats(_) => json(&HistoryPage {
                directory: Some(directory.display().to_string()),
                ..HistoryPage::default()
            }),
            HistoryCommand::Verify(_) => json(&Verdict::default()),
            HistoryCommand::Clear(_) => json(&ClearPage::default()),
        };
        return print(
            command.options(),
            || format!("{} holds no histories yet.\n", directory.display()),
            &nothing?,
        );
    }
    let opened = OpenDirectory::open(directory).map_err(|error| {
        Failure::Failed(match error {
            OpenError::InUse { .. } => format!("{error}, and {unasked}"),
            error => error.to_string(),
        })
    })?;
    let damaged = opened.damaged_logs();
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
            // Where nothing was found there is nothing to note, and a full disk does not matter.
            let noted = match checked.damaged_pages {
                0 => Ok(()),
                _ => histories.flush_now(),
            };
            for log in &damaged {
                tell_damaged(&directory.join(log));
            }
            let verdict = Verdict {
                verified: checked.into(),
                damaged_manifests: damaged
                    .iter()
                    .map(|log| log.join(MANIFEST).display().to_string())
                    .collect(),
            };
            print(options, || text::verdict(&verdict), &json(&verdict)?)?;
            noted.map_err(|error| {
                Failure::Failed(format!("what was found cannot be noted: {error}"))
            })?;
            text::judge(&verdict)
        }
        HistoryCommand::Clear(options) => {
            let page = ClearPage::from(histories.clear_now(options.peer.as_deref()));
            print(&options.whose, || text::cleared(&page), &json(&page)?)?;
            text::judge_cleared(&page)
        }
    }
}

/// A log whose manifest is not understood is no domain's any more, so no count of pages has it.
fn tell_damaged(log: &Path) {
    eprintln!(
        "The manifest of {} is damaged: the edge will set that history aside and begin anew.",
        log.display()
    );
}
