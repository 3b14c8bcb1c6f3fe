//! `ociregistry prune`

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::admin::{AdminOptions, open_store};
use super::{Error, GlobalOptions, pattern, printing};
use crate::admin::text::summary;
use crate::config;
use crate::store::care::{PruneRequest, Rules};

const EXAMPLES: &str = "\
Examples:
  What would go if all that was not used for a month went:
    ociregistry prune --unused-for 30d --dry-run

  Make the cache smaller, beginning with what was not used for longest:
    ociregistry prune --keep-size 50G

  All tags of two repositories:
    ociregistry prune --pattern '^quay.io/team/a:,^quay.io/team/b:'

An image that fits all that is given goes, and with it the blobs that no other image needs. Pinned images, and those \
that the configuration keeps ([prune] keep), stay. The daemon does it where one serves; pulls go on meanwhile.

Exit codes: 0 all of it went, 1 some files could not be removed: why is printed at the end.";

/// Remove images from the cache
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
#[command(group(ArgGroup::new("chosen").required(true).multiple(true)))]
pub struct Prune {
    /// Those that one of these regular expressions is found in: registry/repository:tag or registry/repository@digest
    #[arg(long, value_name = "REGEX,…", value_delimiter = ',', value_parser = pattern, group = "chosen")]
    pattern: Vec<String>,
    /// Those that were created before, that is fetched from upstream; local time
    #[arg(long, value_name = "YYYY-MM-DDTHH:MM:SS", value_parser = date, group = "chosen")]
    date: Option<Timestamp>,
    /// Those that were not used for so long, such as 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = duration, group = "chosen")]
    unused_for: Option<Duration>,
    /// Those that were created so long ago
    #[arg(long, value_name = "DURATION", value_parser = duration, group = "chosen", conflicts_with = "date")]
    older_than: Option<Duration>,
    /// The least recently used ones, until the cache holds no more than this, such as 50G or 500MB
    #[arg(long, value_name = "SIZE", value_parser = size, group = "chosen")]
    keep_size: Option<u64>,
    /// Blobs and manifests that no image needs. They go with every prune; this asks for nothing else
    #[arg(long, group = "chosen")]
    blobs: bool,
    /// Only say what would go, and how many bytes would come back
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Prune {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let open = |path: &Path| {
            let prune = global.load(Vec::new())?.settings.prune;
            let store = open_store(path)?;
            store.set_rules(Rules { keep: Box::new(move |name| prune.keeps(name)), evict: false });
            Ok(Arc::new(store))
        };
        printing(|say| {
            let mut each = |image: String| {
                say(format!("{image}\n"));
                Ok(())
            };
            let report = self.admin.command(global, &self.request(), open, &mut each)?;
            say(format!("{}\n", summary(&report)));
            match report.failure {
                None => Ok(()),
                Some(first) => {
                    Err(Error::Failed(format!("{} files stay; the first: {first}", report.failed)))
                }
            }
        })
    }

    fn request(&self) -> PruneRequest {
        let now = Timestamp::now();
        let ago =
            |duration: Duration| now - SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        PruneRequest {
            patterns: self.pattern.clone(),
            created_before: self.date.or(self.older_than.map(ago)),
            unused_since: self.unused_for.map(ago),
            keep_size: self.keep_size,
            blobs: self.blobs,
            dry_run: self.dry_run,
            ..PruneRequest::default()
        }
    }
}

fn date(text: &str) -> Result<Timestamp, String> {
    let local = text.parse::<DateTime>().and_then(|local| local.to_zoned_datetime(TimeZone::system()));
    local.map(|zoned| zoned.timestamp()).map_err(|_| "want local time such as 2026-01-31T18:30:00".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "want a number and ms, s, m, h or d, such as 30d".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    config::size(text).ok_or_else(|| "want a size such as 50G, 50GiB or 500MB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_local_time() {
        let zone = TimeZone::system();
        let there = date("2026-01-31T18:30:00").unwrap().to_zoned_datetime(zone);
        assert_eq!(there.datetime(), jiff::civil::datetime(2026, 1, 31, 18, 30, 0, 0));
        for text in ["", "yesterday", "2026-01-32T00:00:00", "18:30"] {
            assert!(date(text).is_err(), "{text}");
        }
    }
}
