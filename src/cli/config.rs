//! `ociregistry config check` and `ociregistry config show`

use clap::{Args, Subcommand};

use super::serve::ServeOptions;
use super::{Error, GlobalOptions, print};

const EXAMPLES: &str = "\
Examples:
  Before a restart, look whether the new file is right:
    ociregistry config check --config-file new.toml

  What would hold with another port, and where each value comes from:
    ociregistry config show --port 5000";

/// Check the configuration, or show what is in force
///
/// Both read the file and the options that `serve` reads, and change nothing. A configuration with errors
/// exits with 78; each error names its line and key, and says what was found and what is wanted.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether the configuration is right, or all that is wrong with it
    Check(ServeOptions),
    /// Print what is in force as TOML, with where each value comes from; secrets are not shown
    Show(ServeOptions),
}

impl Config {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        match self.action {
            Action::Check(options) => {
                let configuration = global.load(options.into_overrides())?;
                print(&match configuration.file {
                    Some(path) => format!("{}: no errors\n", path.display()),
                    None => "no configuration file, the defaults hold: no errors\n".to_owned(),
                })
            }
            Action::Show(options) => print(&global.load(options.into_overrides())?.in_force.to_string()),
        }
    }
}
