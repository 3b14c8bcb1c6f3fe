//! `ociregistry status`

use clap::Args;
use http::Method;

use super::admin::AdminOptions;
use super::{Error, GlobalOptions, print};

const EXAMPLES: &str = "\
Examples:
  How is the service?
    ociregistry status

  How many bytes has it served?
    ociregistry status --json | jq .bytes_served";

/// Say how the daemon is: where it serves, what it has served, which downloads are under way
///
/// Asks the daemon that writes to the image cache. The user must be root or in the daemon's group.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Status {
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Status {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let client = self.admin.client(global)?;
        if self.json {
            // As the daemon says it: a newer one may say more than we know.
            let status: serde_json::Value = client.ask(Method::GET, "/status")?;
            return print(&format!("{status:#}\n"));
        }
        let status: crate::admin::Status = client.ask(Method::GET, "/status")?;
        print(&status.to_string())
    }
}
