//! `ociregistry status`

mod page;
mod screen;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::admin::AdminOptions;
use super::{Error, GlobalOptions, print};
use crate::admin::Client;
use page::page;

const EXAMPLES: &str = "\
Examples:
  How is the service?
    ociregistry status

  Look on, anew every second; q ends:
    ociregistry status --watch

  How many bytes has it served, and how many did not cross the upstreams' wire for that?
    ociregistry status --json | jq '.bytes_served, .bytes_saved'

  Which upstreams fail?
    ociregistry status --json | jq -r '.upstreams[] | select(.state == \"failing\") | .name'

What each word and each field of --json means stands in /usr/share/doc/ociregistry/status.md.";

/// Say how the daemon is: cache and disk, what it has served and saved, downloads, upstreams, the last error
///
/// Asks the daemon that writes to the image cache. The user must be root or in the daemon's group.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Status {
    /// For programs: one JSON object; with --watch one a line
    #[arg(long)]
    json: bool,
    /// Again and again, so many seconds apart [1 if it is not said]: in place on a terminal, where q ends it, else one
    /// below the other
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Status {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let client = self.admin.client(global)?;
        let Some(every) = self.watch.map(Duration::from_secs) else {
            // As the daemon says it: a newer one may say more than we know.
            return if self.json { print(&format!("{:#}\n", ask(&client)?)) } else { print(&text(&client)?) };
        };
        if !self.json && io::stdout().is_terminal() {
            return screen::watch(&client, every);
        }
        let mut first = true;
        loop {
            let block = if self.json { format!("{}\n", ask(&client)?) } else { text(&client)? };
            let gap = if first || self.json { "" } else { "\n" };
            print(&format!("{gap}{block}"))?;
            first = false;
            thread::sleep(every);
        }
    }
}

fn ask(client: &Client) -> Result<Value, Error> {
    Ok(client.ask(Method::GET, "/status")?)
}

fn text(client: &Client) -> Result<String, Error> {
    let status = client.ask(Method::GET, "/status")?;
    let width = terminal_size::terminal_size().filter(|_| io::stdout().is_terminal());
    let lines = page(&status, width.map(|(width, _)| usize::from(width.0)));
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}
