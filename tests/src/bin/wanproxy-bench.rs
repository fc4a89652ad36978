//! Compares a pair of edges with other tunnels, under the same loads in the same run.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = wanproxy_tests::bench::Options::parse();
    match wanproxy_tests::bench::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wanproxy-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
