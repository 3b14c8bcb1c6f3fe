//! `ociregistry version`

use clap::Args;
use jiff::Timestamp;

use super::{Error, print};

/// Print the version and the build date
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn run(self) -> Result<(), Error> {
        print(&format!("{}\n", line()))
    }
}

/// `Version: 2.0.0, build date: 2026-01-31T10:20:30Z`
pub fn line() -> String {
    let seconds = env!("BUILD_SECONDS").parse().unwrap_or_default();
    let date = Timestamp::from_second(seconds).unwrap_or_default();
    format!("Version: {}, build date: {date}", env!("CARGO_PKG_VERSION"))
}
