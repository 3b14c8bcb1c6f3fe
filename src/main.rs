//! Parse, run, map the error to an exit code.

use std::process::ExitCode;

use clap::Parser;
use ociregistry::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}
