//! What the commands say to people.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use serde::Serialize;
use tunnel::histories::Checked;

use crate::admin::{ClearPage, DomainLine, HistoryPage};
use crate::cli::Failure;
use crate::table::{size, table};

/// Bytes of a page, the unit of damage.
const PAGE_KIB: u64 = 64;

/// Pause between two lines of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);

/// What a verification found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Verified {
    pub(super) total_bytes: u64,
    pub(super) checked_bytes: u64,
    pub(super) damaged_pages: u64,
}

impl From<Checked> for Verified {
    fn from(checked: Checked) -> Self {
        Self {
            total_bytes: checked.total_bytes,
            checked_bytes: checked.done_bytes,
            damaged_pages: checked.damaged_pages,
        }
    }
}

/// What `history verify` came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    #[serde(flatten)]
    pub(super) verified: Verified,
    /// Below the directory. What their logs hold is in no count of pages.
    pub(super) damaged_manifests: Vec<String>,
}

impl From<Verified> for Verdict {
    fn from(verified: Verified) -> Self {
        Self {
            verified,
            damaged_manifests: Vec::new(),
        }
    }
}

/// A table of all domains.
pub(super) fn stats(page: &HistoryPage) -> String {
    let mut text = match (&page.directory, &page.excuse) {
        (Some(directory), _) => format!("histories in {directory}\n"),
        (None, Some(excuse)) => format!("histories in memory, because {excuse}\n"),
        (None, None) => "histories in memory\n".to_owned(),
    };
    if page.domains.is_empty() {
        text.push_str("nothing is remembered yet\n");
        return text;
    }
    let head = [
        "PEER", "DOMAIN", "PLACE", "ROOM", "SENT", "RECEIVED", "ON DISK", "STATE",
    ];
    text.push_str(&table(head, page.domains.iter().map(row)));
    text
}

fn row(line: &DomainLine) -> [String; 8] {
    let known = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
    let mut states = Vec::new();
    if line.in_use {
        states.push("in use".to_owned());
    }
    if line.read_only {
        states.push("read-only".to_owned());
    }
    if line.damaged_pages > 0 {
        states.push(format!("{} pages damaged", line.damaged_pages));
    }
    [
        line.peer.clone(),
        line.domain.clone(),
        line.place.clone(),
        size(line.capacity_bytes),
        known(line.own_bytes),
        known(line.mirror_bytes),
        size(line.disk_bytes),
        states.join(", "),
    ]
}

pub(super) fn verified(verified: &Verified) -> String {
    let checked = size(verified.checked_bytes);
    match verified.damaged_pages {
        0 => format!("Checked {checked}: nothing is damaged.\n"),
        1 => format!(
            "Checked {checked}: 1 page of {PAGE_KIB} KiB was damaged and is forgotten; it will be sent again.\n"
        ),
        pages => format!(
            "Checked {checked}: {pages} pages of {PAGE_KIB} KiB were damaged and are forgotten; they will be sent again.\n"
        ),
    }
}

/// The same at its end; nothing where "nothing is damaged" would not be true.
pub(super) fn verdict(verdict: &Verdict) -> String {
    if verdict.damaged_manifests.is_empty() || verdict.verified.damaged_pages > 0 {
        verified(&verdict.verified)
    } else {
        String::new()
    }
}

pub(super) fn judge(verdict: &Verdict) -> Result<(), Failure> {
    if verdict.verified.damaged_pages == 0 && verdict.damaged_manifests.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(
            "histories were damaged; look at the disk that they are on".to_owned(),
        ))
    }
}

pub(super) fn cleared(page: &ClearPage) -> String {
    let mut text = String::new();
    let mut list = |what: &str, names: &[String]| {
        for name in names {
            let _ok = writeln!(text, "{what} {name}");
        }
    };
    list("cleared", &page.cleared);
    list(
        "in use, not referred to any more, its last files go with its tunnel:",
        &page.under_way,
    );
    list("not cleared:", &page.failed);
    if text.is_empty() {
        text.push_str("nothing was remembered\n");
    }
    text
}

pub(super) fn judge_cleared(page: &ClearPage) -> Result<(), Failure> {
    if page.failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "{} could not be cleared",
            page.failed.len()
        )))
    }
}

/// One line on a terminal that says how far it is; nothing elsewhere.
#[derive(Debug, Default)]
pub(super) struct Progress {
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn show(&mut self, verified: &Verified) {
        let mut out = std::io::stderr();
        let is_due = self
            .shown
            .is_none_or(|shown| shown.elapsed() >= PROGRESS_PAUSE);
        if out.is_terminal() && is_due {
            self.shown = Some(Instant::now());
            // Nobody may be looking.
            let _ok = write!(
                out,
                "\rchecked {} of {} ",
                size(verified.checked_bytes),
                size(verified.total_bytes)
            );
        }
    }

    pub(super) fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ok = writeln!(std::io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_stand_in_a_table() {
        let page = HistoryPage {
            directory: Some("/var/lib/wanproxy".to_owned()),
            excuse: None,
            domains: vec![
                DomainLine {
                    peer: "branch-1".to_owned(),
                    domain: "shared".to_owned(),
                    place: "disk".to_owned(),
                    capacity_bytes: 5 << 30,
                    own_bytes: Some(1 << 30),
                    mirror_bytes: Some(1 << 20),
                    disk_bytes: 2 << 30,
                    read_only: true,
                    in_use: true,
                    damaged_pages: 3,
                    ..DomainLine::default()
                },
                DomainLine {
                    peer: "b".to_owned(),
                    domain: "c:files".to_owned(),
                    place: "memory".to_owned(),
                    capacity_bytes: 8 << 20,
                    ..DomainLine::default()
                },
            ],
        };
        let expected = "\
histories in /var/lib/wanproxy
PEER      DOMAIN   PLACE   ROOM     SENT     RECEIVED  ON DISK  STATE
branch-1  shared   disk    5.0 GiB  1.0 GiB  1.0 MiB   2.0 GiB  in use, read-only, 3 pages damaged
b         c:files  memory  8.0 MiB  -        -         0 B
";
        assert_eq!(stats(&page), expected);
        let excused = HistoryPage {
            excuse: Some("x is in use by another program (process 5)".to_owned()),
            ..HistoryPage::default()
        };
        assert_eq!(
            stats(&excused),
            "histories in memory, because x is in use by another program (process 5)\nnothing is remembered yet\n"
        );
    }

    #[test]
    fn damage_fails_and_its_absence_does_not() {
        let clean = Verified {
            checked_bytes: 1 << 30,
            ..Verified::default()
        };
        let found = Verdict::from(clean);
        assert_eq!(verdict(&found), "Checked 1.0 GiB: nothing is damaged.\n");
        assert!(judge(&found).is_ok());
        let pages = Verdict::from(Verified {
            damaged_pages: 2,
            ..clean
        });
        assert!(verdict(&pages).contains("2 pages of 64 KiB were damaged"));
        assert!(judge(&pages).is_err());
        let manifest = Verdict {
            damaged_manifests: vec!["0/own/manifest".to_owned()],
            ..found
        };
        assert_eq!(verdict(&manifest), "");
        assert!(judge(&manifest).is_err());
    }

    #[test]
    fn what_was_not_cleared_is_said() {
        let page = ClearPage {
            cleared: vec!["a shared".to_owned()],
            under_way: vec!["b shared".to_owned()],
            failed: vec!["c shared: no".to_owned()],
        };
        assert_eq!(
            cleared(&page),
            "cleared a shared\nin use, not referred to any more, its last files go with its tunnel: b shared\nnot cleared: c shared: no\n"
        );
        assert!(judge_cleared(&page).is_err());
        assert_eq!(cleared(&ClearPage::default()), "nothing was remembered\n");
    }
}
