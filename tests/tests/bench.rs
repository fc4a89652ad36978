//! The benchmark against peers works: small loads, whose speed says nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Every figure that our own edges have on loopback.
const LOOPBACK: [&str; 16] = [
    "cold_cpu",
    "cold_down",
    "cold_up",
    "connections",
    "crowd_memory",
    "idle_memory",
    "loaded_ping_p50",
    "loaded_ping_p99",
    "ping_p50",
    "ping_p99",
    "random_cpu",
    "random_down",
    "random_up",
    "warm_cpu",
    "warm_down",
    "warm_up",
];

/// Without these a run says nothing: they cannot be zero.
const POSITIVE: [&str; 4] = ["random_up", "cold_down", "warm_down", "connections"];

fn bench(only: &[&str], docs: &Path) -> Result<Value> {
    let json = docs.join("run.json");
    let output = Command::new(env!("CARGO_BIN_EXE_wanproxy-bench"))
        .arg("--quick")
        .arg("--json")
        .arg(&json)
        .arg("--docs")
        .arg(docs)
        .arg("--only")
        .args(only)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    eprintln!("{said}");
    Ok(serde_json::from_slice(&std::fs::read(json)?)?)
}

fn page(docs: &Path) -> Result<()> {
    let marks =
        "# Page\n\n<!-- the run: written by wanproxy-bench --docs -->\n<!-- end of the run -->\n";
    Ok(std::fs::write(docs.join("benchmarks-tunnel.md"), marks)?)
}

/// The metrics of which there are figures, each of them one finite number.
fn metrics<'a>(run: &'a Value, line: &str, peer: &str) -> Result<Vec<&'a str>> {
    let mut metrics = Vec::new();
    for figure in run["figures"].as_array().context("no figures")? {
        if figure["line"] == line && figure["peer"] == peer {
            let metric = figure["metric"].as_str().context("no metric")?;
            let values = figure["values"].as_array().context("no values")?;
            let value = values.first().and_then(Value::as_f64).context("no value")?;
            ensure!(values.len() == 1 && value.is_finite(), "{figure}");
            ensure!(value > 0.0 || !POSITIVE.contains(&metric), "{figure}");
            metrics.push(metric);
        }
    }
    metrics.sort_unstable();
    Ok(metrics)
}

#[test]
fn our_own_edges_and_a_peer_are_measured_on_loopback() -> Result<()> {
    let docs = tempfile::tempdir()?;
    page(docs.path())?;
    let run = bench(&["loopback", "wanproxy", "stunnel", "direct"], docs.path())?;
    ensure!(
        metrics(&run, "loopback", "wanproxy")? == LOOPBACK,
        "{run:#}"
    );
    ensure!(
        metrics(&run, "loopback", "direct")?.contains(&"random_up"),
        "{run:#}"
    );
    // A peer is measured, or the run says why not.
    let left_out = run["not_run"].as_array().context("no list")?;
    let is_left_out = left_out
        .iter()
        .any(|one| one["peer"] == "stunnel" && one["measure"].is_null());
    ensure!(
        is_left_out || metrics(&run, "loopback", "stunnel")?.contains(&"random_down"),
        "{run:#}"
    );
    let text = std::fs::read_to_string(docs.path().join("benchmarks-tunnel.md"))?;
    ensure!(
        text.contains("| random, up, MB/s |") && text.contains("### Goals"),
        "{text}"
    );
    let chart = std::fs::read_to_string(docs.path().join("charts/tunnel-random.svg"))?;
    ensure!(
        chart.contains("<svg") && chart.contains("loopback, wanproxy"),
        "{chart}"
    );
    Ok(())
}

#[test]
fn a_line_is_measured_or_said_to_be_impossible() -> Result<()> {
    let docs = tempfile::tempdir()?;
    page(docs.path())?;
    let run = bench(
        &["1G-20ms", "wanproxy", "random", "cold", "warm"],
        docs.path(),
    )?;
    let found = metrics(&run, "1G-20ms", "wanproxy")?;
    match wanproxy_tests::packets::PacketLine::possible() {
        Ok(()) => ensure!(
            found.contains(&"random_up") && found.contains(&"warm_down"),
            "{run:#}"
        ),
        Err(reason) => {
            wanproxy_tests::skip("a benchmark on an emulated line", &reason);
            ensure!(
                found.is_empty() && run["not_run"][0]["peer"] == "wanproxy",
                "{run:#}"
            );
        }
    }
    Ok(())
}
