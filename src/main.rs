//! Parse, run, map the error to an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use ociregistry::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening any more; the exit code tells all the same.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
