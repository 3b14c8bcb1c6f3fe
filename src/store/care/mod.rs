//! Looking after the cache: listing, counting, pruning, pinning, checking. What the commands and the daemon's rounds
//! call; each action has a request and a report that can be sent.
//!
//! Reading needs no lock and goes on beside a process that writes ([`Folder`]); what changes something is the
//! [`Store`](super::Store)'s.
//!
//! **What stays.** Roots are tags, manifests that were asked for by digest, and pins. From each root the `mark`
//! follows indexes to the manifests that their repository holds, and those to their blobs. Of each thing on the way
//! the root that would go last is remembered (`keepers`); so the same mark says what goes when some images go, and
//! how far to go for so many bytes. What no root leads to goes with every prune.
//!
//! **Beside pulls** nothing in use is lost. What was published before the mark is on disk when it begins; from then
//! on pulls tell what they use and publish, and the sweep asks before each file (`guard`). A name that is served or
//! published after the mark has begun keeps itself and all that it leads to, unless a file was gone already; a blob
//! that is found or published keeps itself. A blob that is being sent stays readable when its name goes. Whatever
//! goes is as if it had gone at one moment, between two requests, and is fetched anew when it is asked for.
//!
//! **A crash** leaves no name without its content: names go first, then manifests, then blobs.

mod aside;
mod check;
mod evict;
mod guard;
mod keepers;
mod list;
mod lost;
mod mark;
mod pace;
mod pins;
mod prune;
mod reach;
mod sweep;
#[cfg(test)]
mod tests;
mod totals;
mod walk;

use std::path::{Path, PathBuf};

use regex::{RegexSet, RegexSetBuilder};

pub use check::{CheckReport, CheckRequest, Fault, Finding, RepairRequest};
pub use evict::{Keep, Rules};
pub(super) use guard::Guard;
pub use list::{BlobsRequest, ListReport, ListRequest, ListedBlob, ListedImage, ListedType, NamedBlob};
pub use lost::Lost;
pub(super) use lost::ToRestore;
pub use pace::Pace;
pub use pins::{PinAction, PinReport, PinRequest, Pins, PinsReport};
pub use prune::{PruneReport, PruneRequest, RECENT};
pub(super) use totals::Totals;
pub use totals::{Space, Tally, Usage};

use super::layout::Layout;
use super::{OpenError, Store, StoreError, open};

/// Why an action came to no end.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{pattern}` is no regular expression: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("{} cannot be understood: {reason}. Mend it, or move it away", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// As a comma too many leaves it.
    #[error("an empty pattern is found in every name: leave it out, or say . for all")]
    EmptyPattern,
    #[error("say which images are meant")]
    NothingChosen,
    #[error("stopped before the end")]
    Stopped,
}

/// A cache folder, to be read.
#[derive(Clone, Debug)]
pub struct Folder {
    layout: Layout,
}

impl Folder {
    /// Takes no lock, changes nothing.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let layout = Layout::new(root);
        open::check_ours(&layout)?;
        Ok(Self { layout })
    }
}

impl Store {
    /// Removes downloads that nobody came back to for a day, and what was set aside as long ago. Blocks.
    pub fn sweep_partials(&self) -> Result<(), StoreError> {
        open::sweep(&self.layout, open::Left::LongAgo)
    }

    /// This store's folder, to be read.
    pub fn folder(&self) -> Folder {
        Folder { layout: self.layout.clone() }
    }

    /// The same, once all that was pulled up to now and the times of last use are on disk. Blocks.
    pub fn settled_folder(&self) -> Folder {
        self.publisher.settle(|| ());
        self.touches.flush(&self.layout);
        self.folder()
    }
}

/// Whether a text is a regular expression that requests take.
pub fn check_pattern(pattern: &str) -> Result<(), CareError> {
    if pattern.is_empty() {
        return Err(CareError::EmptyPattern);
    }
    regex::Regex::new(pattern).map(|_| ()).map_err(|error| {
        // Its last line says what is wrong; those before it draw where.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        CareError::Pattern { pattern: pattern.to_owned(), reason }
    })
}

/// None when there are none: everything is wanted.
fn patterns(patterns: &[String]) -> Result<Option<RegexSet>, CareError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    patterns.iter().try_for_each(|pattern| check_pattern(pattern))?;
    let all = RegexSetBuilder::new(patterns).build();
    let too_large =
        |error: regex::Error| CareError::Pattern { pattern: patterns.join(","), reason: error.to_string() };
    all.map(Some).map_err(too_large)
}
