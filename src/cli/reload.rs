//! `ociregistry reload`

use clap::Args;
use http::Method;

use super::admin::AdminOptions;
use super::{Error, GlobalOptions, print};
use crate::admin::Reloaded;

const EXAMPLES: &str = "\
Examples:
  After a change of /etc/ociregistry.toml:
    ociregistry config check && ociregistry reload";

/// Have the daemon read its configuration anew, and say what came of it
///
/// No connection is dropped. Registries, credentials, freshness, limits and the log's level are put in force; what
/// holds from the start to the end of a run (addresses, the folder of the cache) is named. A configuration with
/// errors is refused as a whole, with status 1, and the one before it stays in force. The log file is opened anew.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Reload {
    #[command(flatten)]
    admin: AdminOptions,
}

impl Reload {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let reloaded: Reloaded = self.admin.client(global)?.ask(Method::POST, "/reload")?;
        match reloaded.refused {
            Some(_) => Err(Error::Refused(reloaded.to_string())),
            None => print(&format!("{reloaded}\n")),
        }
    }
}
