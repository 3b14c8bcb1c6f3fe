//! What people read of a list or a prune, be it on a terminal or over the network.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::table::{Column, Cut};
use crate::oci::Digest;
use crate::store::care::{ListedBlob, ListedImage, PruneReport};

/// A row of a list.
pub trait Row<const N: usize>: Serialize + Sized {
    fn columns() -> [Column; N];
    /// `short` cuts digests.
    fn cells(&self, short: bool) -> [String; N];
}

impl Row<6> for ListedImage {
    fn columns() -> [Column; 6] {
        let column = |title, cut| Column { title, right: false, cut };
        [
            column("IMAGE", Cut::Beginning),
            column("TAG/DIGEST", Cut::End),
            column("TYPE", Cut::Never),
            column("CREATED", Cut::Time),
            column("PULLED", Cut::Time),
            Column { title: "SIZE(MB)", right: true, cut: Cut::Never },
        ]
    }

    fn cells(&self, short: bool) -> [String; 6] {
        [
            self.image.clone(),
            self.tag.clone().unwrap_or_else(|| digest(&self.digest, short)),
            self.kind.as_str().to_owned(),
            time(self.created),
            time(self.pulled),
            megabytes(self.size),
        ]
    }
}

impl Row<3> for ListedBlob {
    fn columns() -> [Column; 3] {
        [
            Column { title: "DIGEST", right: false, cut: Cut::End },
            Column { title: "CREATED", right: false, cut: Cut::Time },
            Column { title: "SIZE(MB)", right: true, cut: Cut::Never },
        ]
    }

    fn cells(&self, short: bool) -> [String; 3] {
        [digest(&self.digest, short), time(self.created), megabytes(self.size)]
    }
}

pub fn digest(digest: &Digest, short: bool) -> String {
    if short { format!("{}:{}", digest.algorithm().name(), &digest.hex()[..12]) } else { digest.to_string() }
}

/// As `prune --date` takes it.
fn time(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Of a million bytes.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// What a prune came to, on one line.
pub fn summary(report: &PruneReport) -> String {
    let (verb, come) = if report.dry_run { ("would go", "would come back") } else { ("went", "came back") };
    let kept = match report.kept {
        0 => String::new(),
        1 => "; 1 that fits stays, being pinned or kept by the configuration".to_owned(),
        kept => format!("; {kept} that fit stay, being pinned or kept by the configuration"),
    };
    format!(
        "{} {verb} with {} and {}, {} MB {come}{kept}",
        count(report.images, "image"),
        count(report.manifests.files, "manifest"),
        count(report.blobs.files, "blob"),
        megabytes(report.bytes()),
    )
}
