//! The sweep: removes what the mark left over, beside pulls.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::{fs, io};

use super::guard::{Removal, Watch};
use super::keepers::{NOBODY, Rank, Root};
use super::mark::Mark;
use super::pace::Pace;
use super::reach::{self, Reached};
use super::walk::{Content, Repository, Which, contents, repositories, stat};
use super::{CareError, PruneReport};
use crate::oci::{Digest, Image, Name, Reference, Subject};
use crate::store::publish::lock;
use crate::store::{Kind, Store, StoreError};

/// What stays of a repository.
#[derive(Default)]
struct Left {
    any: bool,
    /// By digest.
    manifests: HashSet<u64>,
}

impl Left {
    fn add(&mut self, reference: &Reference) {
        self.any = true;
        if let Reference::Digest(digest) = reference {
            self.manifests.insert(digest.prefix());
        }
    }
}

/// Removes what the mark left over.
pub struct Sweep<'a> {
    pub store: &'a Store,
    pub watch: Watch<'a>,
    pub mark: Mark,
    pub last: Option<Rank>,
    /// In seconds since 1970.
    pub recent: RangeInclusive<u32>,
    pub pace: &'a Pace<'a>,
    pub dry_run: bool,
    pub report: PruneReport,
}

impl Sweep<'_> {
    /// In this order, so that whatever ends it, no name leads to what was removed. `tell` hears of each image.
    pub fn run(mut self, tell: &mut dyn FnMut(&Image)) -> Result<PruneReport, CareError> {
        self.names(tell)?;
        self.contents(Kind::Manifest)?;
        self.contents(Kind::Blob)?;
        Ok(self.report)
    }

    fn goes(&self, keeper: Root) -> bool {
        keeper == NOBODY || self.last.is_some_and(|last| self.mark.keepers.rank(keeper) <= last)
    }

    /// `refs/`: the names that go. One that the mark did not see has come since, or is none: it stays.
    fn names(&mut self, tell: &mut dyn FnMut(&Image)) -> Result<(), CareError> {
        for repository in repositories(&self.store.layout)? {
            let repository = repository?;
            let mut left = Left::default();
            let mut removed = false;
            for which in Which::REFERENCES {
                for entry in repository.names(which)? {
                    self.pace.step(0)?;
                    let (reference, path) = entry?;
                    if self.name(&repository, &reference, &path, tell)? {
                        removed = true;
                    } else {
                        left.add(&reference);
                    }
                }
            }
            removed |= self.lists(&repository, &left)?;
            if removed && !self.dry_run {
                self.remove_folders(&repository);
            }
        }
        Ok(())
    }

    fn name(
        &mut self,
        repository: &Repository,
        reference: &Reference,
        path: &Path,
        tell: &mut dyn FnMut(&Image),
    ) -> Result<bool, CareError> {
        let key = self.store.guard.keys.name(&repository.name, reference);
        if !self.mark.keepers.of(key).is_some_and(|keeper| self.goes(keeper)) {
            return Ok(false);
        }
        let image = Image { name: repository.name.clone(), reference: reference.clone() };
        let removal = self.remove(key, path)?;
        if let (Removal::Stuck(_), Some(record)) = (&removal, self.store.reference(&image)) {
            // What it leads to stays with it.
            self.store.guard.used(&image, &record.digest);
        }
        if !self.has_gone(removal) {
            return Ok(false);
        }
        if !self.dry_run {
            self.store.memory.drop_reference(&image);
        }
        if self.mark.is_image(&image.reference, key) {
            self.report.images += 1;
            if !self.dry_run {
                self.store.totals.image_vanished();
            }
            tell(&image);
        }
        Ok(true)
    }

    /// A repository's lists: that of its tags goes with its last name, that of what refers to a manifest with that.
    fn lists(&mut self, repository: &Repository, left: &Left) -> Result<bool, CareError> {
        let (store, name) = (self.store, &repository.name);
        let mut removed = false;
        if !left.any && self.list(store.guard.keys.list(name, None), &store.layout.tag_list(name))? {
            store.tag_lists.remove(name);
            removed = true;
        }
        for entry in repository.names(Which::Referrers)? {
            self.pace.step(0)?;
            let (Reference::Digest(digest), path) = entry? else { continue };
            if left.manifests.contains(&digest.prefix()) {
                continue;
            }
            if self.list(store.guard.keys.list(name, Some(&digest)), &path)? {
                store.referrers.remove(&Subject { name: name.clone(), digest });
                removed = true;
            }
        }
        Ok(removed)
    }

    /// Whether a list went.
    fn list(&mut self, key: u64, path: &Path) -> Result<bool, CareError> {
        match stat(path)? {
            Some(stat) if !self.recent.contains(&stat.changed) && !self.dry_run => {
                let removal = self.remove(key, path)?;
                Ok(self.has_gone(removal))
            }
            _ => Ok(false),
        }
    }

    /// `img/` or `blobs/`: what no image leads to that stays.
    fn contents(&mut self, kind: Kind) -> Result<(), CareError> {
        for content in contents(&self.store.layout.contents(kind))? {
            self.pace.step(0)?;
            let Content { path, digest: Some(digest) } = content? else { continue };
            let key = self.store.guard.keys.content(&digest);
            let keeper = self.mark.keepers.of(key);
            if keeper.is_some_and(|keeper| !self.goes(keeper)) {
                continue;
            }
            let Some(stat) = stat(&path)? else { continue };
            // A blob may come before the manifest that leads to it.
            if keeper.is_none() && self.recent.contains(&stat.changed) {
                continue;
            }
            if self.dry_run && self.store.is_stuck(key) {
                continue;
            }
            let removal = self.remove(key, &path)?;
            if let Removal::Stuck(_) = removal {
                lock(&self.store.stuck).insert(key);
            }
            if !self.has_gone(removal) {
                continue;
            }
            if !self.dry_run {
                lock(&self.store.stuck).remove(&key);
                self.store.totals.vanished(kind, stat.length);
                if kind == Kind::Manifest {
                    self.store.memory.manifests.remove(&digest);
                }
            }
            self.report.of(kind).add(stat.length);
        }
        Ok(())
    }

    /// Counts a file that stays.
    fn has_gone(&mut self, removal: Removal) -> bool {
        match removal {
            Removal::Removed => return true,
            Removal::Gone => {}
            Removal::Spared => self.report.spared += 1,
            Removal::Stuck(error) => self.report.fail(&error),
        }
        false
    }

    fn remove(&self, key: u64, path: &Path) -> Result<Removal, CareError> {
        if self.dry_run {
            return Ok(if self.watch.spares(key) { Removal::Spared } else { Removal::Removed });
        }
        self.watch.remove(key, path, &|name, digest| self.late(name, digest))
    }

    /// The keys of all that a name which was used meanwhile leads to.
    fn late(&self, name: &Name, digest: Digest) -> Result<Vec<u64>, CareError> {
        let (store, keys) = (self.store, &self.store.guard.keys);
        let by_digest = |digest: &Digest| Image { name: name.clone(), reference: Reference::Digest(*digest) };
        let holds = |digest: &Digest| store.reference(&by_digest(digest)).is_some();
        let read = |digest: &Digest| match store.manifest_at_hand(digest) {
            Some(bytes) => Ok(Some(bytes)),
            None => reach::read(&store.layout, digest),
        };
        let mut kept = Vec::new();
        reach::reach(digest, &holds, &read, &mut |what| match what {
            Reached::Manifest(digest, _) => {
                kept.push(keys.content(&digest));
                kept.push(keys.name(name, &Reference::Digest(digest)));
            }
            Reached::Blob(blob) => kept.push(keys.content(&blob.digest)),
        })?;
        Ok(kept)
    }

    /// Removes the folders of a repository that are empty now, and those above it.
    fn remove_folders(&self, repository: &Repository) {
        // The publisher makes a folder and renames into it under this.
        let _files = self.store.guard.files();
        let root = self.store.layout.references();
        let inner = Which::ALL.map(|which| repository.folder(which));
        for folder in inner.iter().map(|folder| &**folder) {
            let _ = fs::remove_dir(folder);
        }
        for folder in repository.path.ancestors().take_while(|folder| *folder != root) {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return,
                Err(error) => {
                    let error = StoreError::on("remove", folder)(error);
                    return tracing::debug!("{error}: an empty folder stays");
                }
            }
        }
    }
}
