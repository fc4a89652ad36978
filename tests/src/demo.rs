//! The demo: real files move over an emulated line, directly and through a real client edge and server edge, cold, warm
//! and as a changed version; every transfer is checked by hash, and a table says what it took.

mod files;
mod options;
mod progress;
mod report;
mod stage;

use std::io::Write;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

pub use options::Options;

use files::Sample;
use progress::Progress;
use report::{Phase, Report, Row};
use stage::{Stage, Way};

/// Runs the demo as its options say and prints the result on stdout.
///
/// # Errors
/// A file that cannot be read, a program that does not start or a transfer that fails or differs.
pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whatever ends the demo, its programs end and its directory goes with it.
        let _stage = tokio::select! {
            stage = play(options) => stage?,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        };
        if options.keep() {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        Ok(())
    })
}

/// Moves everything and prints the result; what is returned still runs.
async fn play(options: &Options) -> Result<Stage> {
    let progress = Progress::new();
    let samples = files::choose(options).await?;
    progress.say("starting two edges (they are built first if needed) …");
    let stage = Stage::set(options).await?;
    progress.say(&format!(
        "{} of real files over an emulated line of {}, {} ms each way",
        report::megabytes(samples.files.iter().map(Sample::bytes).sum()),
        options.rate(),
        options.delay().as_millis(),
    ));

    let mut rows = Vec::new();
    for (index, sample) in samples.files.iter().enumerate() {
        rows.extend(compare(&stage, &progress, index, sample).await?);
    }
    let report = Report::new(options, rows, samples.cut_bytes);
    let text = if options.json() {
        report.json()?
    } else {
        report.text()
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot print the result")?;
    drop(stdout);
    if options.keep() {
        progress.say(&stage.addresses(&samples.files)?);
    }
    Ok(stage)
}

/// One file in all phases.
async fn compare(
    stage: &Stage,
    progress: &Progress,
    index: usize,
    sample: &Sample,
) -> Result<Vec<Row>> {
    let original = stage.offer(&format!("/{index}/original"), &sample.original);
    let changed = stage.offer(&format!("/{index}/changed"), &sample.changed);
    let direct = stage
        .transfer(Way::Direct, &original, &sample.name, "direct", progress)
        .await?;
    let cold = stage
        .transfer(
            Way::Tunnel,
            &original,
            &sample.name,
            "tunnel, cold",
            progress,
        )
        .await?;
    let warm = stage
        .transfer(
            Way::Tunnel,
            &original,
            &sample.name,
            "tunnel, warm",
            progress,
        )
        .await?;
    let direct_changed = stage
        .transfer(
            Way::Direct,
            &changed,
            &sample.name,
            "direct, changed",
            progress,
        )
        .await?;
    let next = stage
        .transfer(
            Way::Tunnel,
            &changed,
            &sample.name,
            "tunnel, changed",
            progress,
        )
        .await?;
    Ok(vec![
        Row::new(&sample.name, Phase::Cold, direct, cold),
        // The line itself remembers nothing: a second direct transfer is the first one again.
        Row::new(&sample.name, Phase::Warm, direct, warm),
        Row::new(&sample.name, Phase::Changed, direct_changed, next),
    ])
}
