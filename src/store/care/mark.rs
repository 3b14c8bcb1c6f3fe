//! The mark: from every root to all that it leads to.
//!
//! Roots are tags, manifests that were asked for by digest, and what is pinned. Other entries of `_manifests` are
//! there because an index of their repository names them, and go with it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::RangeInclusive;

use super::guard::Keys;
use super::keepers::{Keepers, NOBODY, Standing};
use super::pace::Pace;
use super::reach::{self, Reached};
use super::walk::{Repository, Unreadable, Which, repositories, seconds};
use super::{CareError, Pins};
use crate::oci::{Digest, Image, Reference};
use crate::store::StoreError;
use crate::store::layout::Layout;

/// An image, as far as it matters for whether it stays. Times are in seconds since 1970.
pub struct Candidate<'a> {
    pub image: &'a Image,
    pub fetched: u32,
    /// It, or something that it leads to.
    pub used: u32,
}

pub struct Mark {
    pub keepers: Keepers,
    /// Keys of the roots under `_manifests`, sorted: the other entries there are no images of their own.
    by_digest: Vec<u64>,
}

impl Mark {
    pub fn is_image(&self, reference: &Reference, key: u64) -> bool {
        matches!(reference, Reference::Tag(_)) || self.by_digest.binary_search(&key).is_ok()
    }
}

/// What is known of an entry of `_manifests`. A repository may have a hundred thousand of them: their digests are not
/// held, but read again from the names of the files.
struct Held {
    root: bool,
    fetched: u32,
    used: u32,
    reached: Cell<bool>,
}

/// What a mark goes by.
pub struct Marking<'a> {
    pub layout: &'a Layout,
    pub keys: &'a Keys,
    pub pins: &'a Pins,
    pub judge: &'a dyn Fn(&Candidate<'_>) -> Standing,
    /// What was used in this time stays without a root, in seconds since 1970.
    pub recent: RangeInclusive<u32>,
    pub pace: &'a Pace<'a>,
}

impl Marking<'_> {
    /// Marks everything. Blocks.
    pub fn run(&self) -> Result<Mark, CareError> {
        let mut mark = Mark { keepers: Keepers::default(), by_digest: Vec::new() };
        for repository in repositories(self.layout)? {
            self.mark_repository(&repository?, &mut mark)?;
        }
        mark.by_digest.sort_unstable();
        Ok(Mark { keepers: mark.keepers.done(), ..mark })
    }

    fn mark_repository(&self, repository: &Repository, mark: &mut Mark) -> Result<(), CareError> {
        let mut held = HashMap::new();
        for entry in repository.entries(Which::Manifests)? {
            self.pace.step(0)?;
            let Some(entry) = readable(entry)? else { continue };
            let fetched = seconds(entry.record.fetched.as_second());
            let root = entry.record.asked || self.pins.has(&entry.image);
            let reached = Cell::new(false);
            held.insert(
                self.keys.content(&entry.record.digest),
                Held { root, fetched, used: entry.used, reached },
            );
        }
        let mut tree = Tree { marking: self, repository, held: &held, mark };
        for entry in repository.entries(Which::Tags)? {
            let Some(entry) = readable(entry)? else { continue };
            let fetched = seconds(entry.record.fetched.as_second());
            let candidate = Candidate { image: &entry.image, fetched, used: entry.used };
            tree.follow(entry.record.digest, candidate, self.judge)?;
        }
        tree.each_held(&|entry| entry.root, &mut |tree, digest, candidate| {
            tree.mark.by_digest.push(self.keys.name(&repository.name, &candidate.image.reference));
            tree.follow(digest, candidate, self.judge)
        })?;
        let is_recent = |entry: &Held| !entry.reached.get() && self.recent.contains(&entry.used);
        tree.each_held(&is_recent, &mut |tree, digest, candidate| {
            tree.follow(digest, candidate, &|_| Standing::Stays)
        })?;
        tree.each_held(&|entry| !entry.reached.get(), &mut |tree, _, candidate| {
            let key = self.keys.name(&repository.name, &candidate.image.reference);
            tree.mark.keepers.keep(key, NOBODY);
            Ok(())
        })
    }
}

/// The mark of one repository.
struct Tree<'a> {
    marking: &'a Marking<'a>,
    repository: &'a Repository,
    /// By the keys of their contents.
    held: &'a HashMap<u64, Held>,
    mark: &'a mut Mark,
}

impl Tree<'_> {
    /// Tells of each entry of `_manifests` that is held and fits when its turn comes.
    fn each_held(
        &mut self,
        fits: &dyn Fn(&Held) -> bool,
        tell: &mut dyn FnMut(&mut Self, Digest, Candidate<'_>) -> Result<(), CareError>,
    ) -> Result<(), CareError> {
        if !self.held.values().any(fits) {
            return Ok(());
        }
        for name in self.repository.names(Which::Manifests)? {
            let (Reference::Digest(digest), _) = name? else { continue };
            let entry = self.held.get(&self.marking.keys.content(&digest));
            let Some(entry) = entry.filter(|entry| fits(entry)) else { continue };
            let image = Image { name: self.repository.name.clone(), reference: Reference::Digest(digest) };
            tell(self, digest, Candidate { image: &image, fetched: entry.fetched, used: entry.used })?;
        }
        Ok(())
    }

    fn follow(
        &mut self,
        digest: Digest,
        mut candidate: Candidate<'_>,
        judge: &dyn Fn(&Candidate<'_>) -> Standing,
    ) -> Result<(), CareError> {
        let Marking { layout, keys, pace, .. } = *self.marking;
        pace.step(0)?;
        let Image { name, reference } = candidate.image;
        let mut kept = vec![keys.name(name, reference)];
        let held = |digest: &Digest| self.held.get(&keys.content(digest));
        let holds = |child: &Digest| held(child).is_some();
        let read = |digest: &Digest| reach::read(layout, digest);
        reach::reach(digest, &holds, &read, &mut |what| match what {
            Reached::Manifest(digest, _) => {
                kept.push(keys.content(&digest));
                kept.push(keys.name(name, &Reference::Digest(digest)));
                if let Some(entry) = held(&digest) {
                    candidate.used = candidate.used.max(entry.used);
                    entry.reached.set(true);
                }
            }
            Reached::Blob(blob) => kept.push(keys.content(&blob.digest)),
        })?;
        let root = self.mark.keepers.add(judge(&candidate));
        kept.into_iter().for_each(|key| self.mark.keepers.keep(key, root));
        Ok(())
    }
}

/// A reference that is none, or that the disk has lost or does not let us read, is a miss to a pull: it keeps nothing.
/// Any other failure may be over soon, and must not cost an image its blobs.
pub fn readable<T>(entry: Result<T, Unreadable>) -> Result<Option<T>, CareError> {
    match entry {
        Ok(entry) => Ok(Some(entry)),
        Err(Unreadable::Malformed { .. }) => Ok(None),
        Err(Unreadable::Io(error)) if error.is_damage() => Ok(None),
        Err(Unreadable::Io(error)) if is_shut(&error) => {
            tracing::warn!("{error}: it keeps nothing");
            Ok(None)
        }
        Err(Unreadable::Io(error)) => Err(error.into()),
    }
}

/// A folder in a reference's place, or one that is somebody else's.
fn is_shut(error: &StoreError) -> bool {
    matches!(error.source.kind(), ErrorKind::IsADirectory | ErrorKind::PermissionDenied)
}
