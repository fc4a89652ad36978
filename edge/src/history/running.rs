//! The commands on an edge that runs, through its admin endpoint.

use std::time::Duration;

use super::text::{self, Progress, Verdict, Verified};
use super::{HistoryCommand, HistoryOptions, json, print};
use crate::admin::{ClearPage, Endpoint, HistoryPage, JobStatus, Status, VerifyStarted};
use crate::cli::Failure;

/// Pause between two looks at a job.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

pub(super) fn run(command: &HistoryCommand, endpoint: &Endpoint) -> Result<(), Failure> {
    match command {
        HistoryCommand::Stats(options) => {
            let (answer, page) = endpoint.ask::<HistoryPage>("/api/history")?;
            print(options, || text::stats(&page), &answer)
        }
        HistoryCommand::Verify(options) => verify(options, endpoint),
        HistoryCommand::Clear(options) => {
            let path = match &options.peer {
                None => "/api/history/clear".to_owned(),
                Some(peer) => format!("/api/history/clear?peer={}", encoded(peer)),
            };
            let (answer, page) = endpoint.order::<ClearPage>(&path)?;
            print(&options.whose, || text::cleared(&page), &answer)?;
            text::judge_cleared(&page)
        }
    }
}

/// Starts a verification and follows it by its token.
fn verify(options: &HistoryOptions, endpoint: &Endpoint) -> Result<(), Failure> {
    let (_, VerifyStarted { token }) = endpoint.order("/api/history/verify")?;
    let mut progress = Progress::default();
    loop {
        let (_, status) = endpoint.ask::<Status>("/api/status")?;
        let Some(job) = status
            .jobs
            .into_iter()
            .find(|job| job.token == token && job.why == "verify")
        else {
            return Err(Failure::Failed(format!(
                "the edge does not know job {token} any more; was it started anew?"
            )));
        };
        let verified = verified(&job);
        match job.state.as_str() {
            "finished" => {
                progress.end();
                // An edge that runs has set aside what it did not understand.
                let verdict = Verdict::from(verified);
                print(options, || text::verdict(&verdict), &json(&verdict)?)?;
                return text::judge(&verdict);
            }
            "stopped" => {
                progress.end();
                return Err(Failure::Failed(format!(
                    "the verification was stopped; {}",
                    text::verified(&verified).trim_end()
                )));
            }
            _ => progress.show(&verified),
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

fn verified(job: &JobStatus) -> Verified {
    Verified {
        total_bytes: job.total_bytes.unwrap_or_default(),
        checked_bytes: job.done_bytes.unwrap_or_default(),
        damaged_pages: job.damaged_pages.unwrap_or_default(),
    }
}

/// A name as a value in a query.
fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_value_in_a_query() {
        assert_eq!(encoded("branch-1.x_Y"), "branch-1.x_Y");
        assert_eq!(encoded("a&b=c /ä"), "a%26b%3Dc%20%2F%C3%A4");
    }
}
