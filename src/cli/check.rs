//! `ociregistry check`

use std::cell::Cell;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::admin::{AdminOptions, open_store};
use super::{Error, GlobalOptions, printing};
use crate::config::{ConfigError, Configuration};
use crate::daemon::Alone;
use crate::store::care::{CheckReport, CheckRequest, Fault, Finding, Folder, Lost, RepairRequest, Usage};

const EXAMPLES: &str = "\
Examples:
  Is everything in the cache what it should be?
    ociregistry check && echo yes

  Put aside what is not, and fetch it anew:
    ociregistry check --repair

Exit codes: 0 nothing is wrong, 1 something is or was.";

/// Read the whole cache and hold every file against its digest
///
/// Finds files that are damaged, and references that lead nowhere. The daemon does the same by itself now and then
/// ([check] every). Without --repair it reads only. Where a daemon serves, it is the one that reads and repairs.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Check {
    /// Put aside what is wrong, in partial/*.bad for a day, remove references that lead nowhere, and fetch from upstream what
    /// images have lost by that
    #[arg(long)]
    repair: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Check {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let alone = Cell::new(None);
        let report = printing(|say| {
            let mut each = |finding: Finding| {
                if !self.json {
                    say(line(&finding));
                }
                Ok(())
            };
            let report = if self.repair {
                let open = |path: &Path| {
                    // The owner of the cache may not be allowed to read all of it.
                    alone.set(Some(global.load(Vec::new())));
                    Ok(Arc::new(open_store(path)?))
                };
                self.admin.command(global, &RepairRequest {}, open, &mut each)?
            } else {
                let open = |path: &Path| Ok(Folder::open(path)?);
                self.admin.command(global, &CheckRequest {}, open, &mut each)?
            };
            say(self.summary(&report)?);
            Ok(report)
        })?;
        if !report.lost.is_empty() {
            let text = match alone.take() {
                Some(loaded) => restore(loaded, report.lost),
                None => "the daemon fetches them anew, and its log says how that ends\n".to_owned(),
            };
            // The report is the same either way. Nobody may be listening any more.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        match report.wrong {
            0 => Ok(()),
            wrong => Err(Error::Wrong(wrong)),
        }
    }

    fn summary(&self, report: &CheckReport) -> Result<String, Error> {
        if self.json {
            let json = serde_json::to_string_pretty(report).map_err(|error| Error::Output(error.into()))?;
            return Ok(json + "\n");
        }
        let mut text = format!("{report}\n");
        if let Some(Usage { blobs, manifests }) = report.orphans
            && blobs.files + manifests.files > 0
        {
            text += &format!(
                "{} blobs and {} manifests are needed by no image, {} bytes: prune --blobs removes them\n",
                blobs.files,
                manifests.files,
                blobs.bytes + manifests.bytes
            );
        }
        Ok(text)
    }
}

/// Fetches anew what was put aside, as the daemon would; how that ended.
fn restore(loaded: Result<Configuration, ConfigError>, lost: Vec<Lost>) -> String {
    let of = lost.len();
    let later = "what is missing comes when it is asked for";
    let cache = match loaded.map_err(Error::from).and_then(|loaded| Ok(Alone::open(&loaded.settings)?)) {
        Ok(cache) => cache,
        Err(error) => return format!("fetched anew 0 of {of}: {error}; {later}\n"),
    };
    let pull = cache.pull.clone();
    let failed = cache.handle().block_on(async move { pull.restore(lost).await });
    cache.close();
    let mut text = format!("fetched anew {} of {of}\n", of - failed.len());
    for (lost, error) in &failed {
        text += &format!("  {}: {error}\n", lost.image);
    }
    if !failed.is_empty() {
        text += &format!("{later}\n");
    }
    text
}

fn line(Finding { fault, path, detail, repaired }: &Finding) -> String {
    let what = match fault {
        Fault::WrongContent => "wrong content",
        Fault::Unreadable => "cannot be read",
        Fault::Malformed => "no reference",
        Fault::Dangling => "leads nowhere",
        Fault::WrongSize => "wrong size",
        Fault::Foreign => "not ours",
    };
    let done = match (fault, repaired) {
        (Fault::WrongContent | Fault::Unreadable, true) => " (put aside)",
        (_, true) => " (removed)",
        _ => "",
    };
    format!("{}: {what}: {detail}{done}\n", path.display())
}
