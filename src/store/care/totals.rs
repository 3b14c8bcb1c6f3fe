//! How much the cache holds: a walk once, then kept up with every file that is published or removed.

use std::collections::HashSet;
use std::sync::Mutex;

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::mark::readable;
use super::pace::Pace;
use super::walk::{Stat, Which, contents, repositories, stat};
use super::{CareError, Folder};
use crate::oci::Digest;
use crate::store::publish::lock;
use crate::store::{Kind, Store, StoreError};

/// So many files of so many bytes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub files: u64,
    pub bytes: u64,
}

impl Tally {
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// What is under `blobs/` and `img/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub blobs: Tally,
    pub manifests: Tally,
}

impl Usage {
    pub fn bytes(&self) -> u64 {
        self.blobs.bytes + self.manifests.bytes
    }

    pub fn of(&mut self, kind: Kind) -> &mut Tally {
        match kind {
            Kind::Blob => &mut self.blobs,
            Kind::Manifest => &mut self.manifests,
        }
    }
}

/// Files and bytes, blobs first.
type Counts = [[i64; 2]; 2];

fn plus(mut counts: Counts, kind: Kind, files: i64, bytes: i64) -> Counts {
    let [f, b] = &mut counts[kind as usize];
    (*f, *b) = (*f + files, *b + bytes);
    counts
}

#[derive(Default)]
struct State {
    known: Option<Counts>,
    /// Since the walk under way began.
    change: Counts,
    /// What was published since then; the walk must not count it.
    new: Option<HashSet<u64>>,
    /// Something has vanished since then, and nobody knows whether the walk had counted it.
    lost: bool,
    /// What is known may be off.
    doubtful: bool,
    images: Images,
}

/// The same for images, by the keys of their names.
#[derive(Default)]
struct Images {
    known: Option<i64>,
    change: i64,
    new: Option<HashSet<u64>>,
    lost: bool,
}

/// The running totals. Every change of a file under `blobs/` and `img/` is told here, by whoever holds
/// [`Guard::files`](super::guard::Guard::files).
#[derive(Default)]
pub struct Totals(Mutex<State>);

impl Totals {
    /// Those of a new cache: there is nothing to walk over.
    pub fn of_nothing() -> Self {
        let totals = Self::default();
        totals.end(Some(Counts::default()), true);
        totals.end_images(Some(0), true);
        totals
    }

    fn change(&self, kind: Kind, files: i64, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX) * files;
        let mut state = lock(&self.0);
        state.change = plus(state.change, kind, files, bytes);
        state.known = state.known.map(|known| plus(known, kind, files, bytes));
    }

    /// Before a file appears under a name that was free.
    pub fn appears(&self, kind: Kind, digest: &Digest, bytes: u64) {
        if let Some(new) = &mut lock(&self.0).new {
            new.insert(digest.prefix());
        }
        self.change(kind, 1, bytes);
    }

    /// A file is gone.
    pub fn vanished(&self, kind: Kind, bytes: u64) {
        self.change(kind, -1, bytes);
        lock(&self.0).lost = true;
    }

    /// A file is gone that was not what it should be: it may have had another length when it was counted.
    pub fn put_aside(&self, kind: Kind, bytes: u64) {
        self.vanished(kind, bytes);
        lock(&self.0).doubtful = true;
    }

    /// Before a name becomes that of an image.
    pub fn image_appears(&self, key: u64) {
        let images = &mut lock(&self.0).images;
        if let Some(new) = &mut images.new {
            new.insert(key);
        }
        images.change += 1;
        images.known = images.known.map(|known| known + 1);
    }

    /// A name is no image's any more.
    pub fn image_vanished(&self) {
        let images = &mut lock(&self.0).images;
        images.change -= 1;
        images.lost = true;
        images.known = images.known.map(|known| known - 1);
    }

    fn begin_images(&self) {
        let images = &mut lock(&self.0).images;
        (images.change, images.new, images.lost) = (0, Some(HashSet::new()), false);
    }

    fn is_new_image(&self, key: u64) -> bool {
        lock(&self.0).images.new.as_ref().is_some_and(|new| new.contains(&key))
    }

    /// As [`end`](Self::end).
    fn end_images(&self, found: Option<i64>, at_any_rate: bool) -> bool {
        let images = &mut lock(&self.0).images;
        images.new = None;
        let counts = at_any_rate || !images.lost;
        if let Some(found) = found.filter(|_| counts) {
            images.known = Some(found + images.change);
        }
        counts
    }

    fn images(&self) -> Option<u64> {
        lock(&self.0).images.known.map(|known| u64::try_from(known).unwrap_or_default())
    }

    fn begin(&self) {
        let mut state = lock(&self.0);
        (state.change, state.new, state.lost) = (Counts::default(), Some(HashSet::new()), false);
    }

    fn is_new(&self, digest: &Digest) -> bool {
        lock(&self.0).new.as_ref().is_some_and(|new| new.contains(&digest.prefix()))
    }

    /// The walk has counted `found`; none when it came to no end. False when that does not count, since something
    /// vanished meanwhile.
    fn end(&self, found: Option<Counts>, at_any_rate: bool) -> bool {
        let mut state = lock(&self.0);
        state.new = None;
        let counts = at_any_rate || !state.lost;
        if let Some(found) = found.filter(|_| counts) {
            let sum = |kind: Kind| {
                let [files, bytes] = state.change[kind as usize];
                plus(found, kind, files, bytes)[kind as usize]
            };
            state.known = Some([sum(Kind::Blob), sum(Kind::Manifest)]);
            state.doubtful = state.lost;
        }
        counts
    }

    fn usage(&self) -> Option<Usage> {
        let counts = lock(&self.0).known?;
        let tally = |kind: Kind| {
            let [files, bytes] = counts[kind as usize].map(|count| u64::try_from(count).unwrap_or_default());
            Tally { files, bytes }
        };
        Some(Usage { blobs: tally(Kind::Blob), manifests: tally(Kind::Manifest) })
    }
}

impl Store {
    /// What the cache holds; none before the first walk is done.
    pub fn usage(&self) -> Option<Usage> {
        self.totals.usage()
    }

    /// Whether [`usage`](Self::usage) may be off until it is counted again.
    pub fn is_usage_doubtful(&self) -> bool {
        lock(&self.totals.0).doubtful
    }

    /// Counts what the cache holds, while it is in use. Blocks for as long as a walk over all files takes.
    pub fn count(&self, pace: &Pace<'_>) -> Result<Usage, CareError> {
        let _one = lock(&self.care);
        until_it_counts(|last| self.walk(pace, last, &mut |_, _, _| {}))?;
        until_it_counts(|last| self.count_images(pace, last))?;
        Ok(self.usage().unwrap_or_default())
    }

    /// How many images the cache holds: tags, and manifests that were asked for by digest. None before they have been
    /// counted.
    pub fn images(&self) -> Option<u64> {
        self.totals.images()
    }

    fn count_images(&self, pace: &Pace<'_>, at_any_rate: bool) -> Result<bool, CareError> {
        {
            let _files = self.guard.files();
            self.totals.begin_images();
        }
        let walk = || {
            let mut found = 0;
            for repository in repositories(&self.layout)? {
                let repository = repository?;
                let mut count = |reference| {
                    let key = self.guard.keys.name(&repository.name, &reference);
                    found += i64::from(!self.totals.is_new_image(key));
                };
                for tag in repository.names(Which::Tags)? {
                    pace.step(0)?;
                    count(tag?.0);
                }
                for entry in repository.entries(Which::Manifests)? {
                    pace.step(0)?;
                    if let Some(entry) = readable(entry)?.filter(|entry| entry.record.asked) {
                        count(entry.image.reference);
                    }
                }
            }
            Ok(found)
        };
        let result = walk();
        let counts = self.totals.end_images(result.as_ref().ok().copied(), at_any_rate);
        result.map(|_| counts)
    }

    /// The same, telling of each file its kind, its digest and its size. What is published meanwhile is left out.
    pub(super) fn count_each(
        &self,
        pace: &Pace<'_>,
        tell: &mut dyn FnMut(Kind, &Digest, &Stat),
    ) -> Result<(), CareError> {
        self.walk(pace, false, tell).map(|_| ())
    }

    /// False when the totals are as they were before, since something vanished meanwhile.
    fn walk(
        &self,
        pace: &Pace<'_>,
        at_any_rate: bool,
        tell: &mut dyn FnMut(Kind, &Digest, &Stat),
    ) -> Result<bool, CareError> {
        {
            // Between two batches of the publisher: what it is about to rename is new, what it has renamed is not.
            let _files = self.guard.files();
            self.totals.begin();
        }
        let mut found = Counts::default();
        let mut walk = || {
            for kind in Kind::BOTH {
                for content in contents(&self.layout.contents(kind))? {
                    let content = content?;
                    pace.step(0)?;
                    let Some(digest) = content.digest else { continue };
                    let Some(stat) = stat(&content.path)? else { continue };
                    if !self.totals.is_new(&digest) {
                        found = plus(found, kind, 1, i64::try_from(stat.length).unwrap_or(i64::MAX));
                        tell(kind, &digest, &stat);
                    }
                }
            }
            Ok(())
        };
        let result = walk();
        let counts = self.totals.end(result.is_ok().then_some(found), at_any_rate);
        result.map(|()| counts)
    }
}

/// Hardly anything vanishes beside a walk, and not for long: after the third the sum is near enough.
fn until_it_counts(mut walk: impl FnMut(bool) -> Result<bool, CareError>) -> Result<(), CareError> {
    for last in [false, false, true] {
        if walk(last)? {
            break;
        }
    }
    Ok(())
}

/// What a file system has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    pub total: u64,
    /// For those without privileges.
    pub free: u64,
}

impl Folder {
    /// Counts what there is. Blocks for as long as a walk over all files takes.
    pub fn usage(&self, pace: &Pace<'_>) -> Result<Usage, CareError> {
        let mut usage = Usage::default();
        for kind in Kind::BOTH {
            for content in contents(&self.layout.contents(kind))? {
                pace.step(0)?;
                if let Some(stat) = stat(&content?.path)? {
                    usage.of(kind).add(stat.length);
                }
            }
        }
        Ok(usage)
    }

    /// Of the file system that the cache is on. Asks the kernel, not the disk.
    pub fn space(&self) -> Result<Space, CareError> {
        let root = &self.layout.root;
        let found = statvfs(root)
            .map_err(|errno| StoreError::on("look at the file system of", root)(errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Space { total: bytes(found.blocks()), free: bytes(found.blocks_available()) })
    }
}
