//! Shows what the tunnel does: real files over an emulated line, directly and through a real pair of edges.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = wanproxy_tests::demo::Options::parse();
    match wanproxy_tests::demo::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wanproxy-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
