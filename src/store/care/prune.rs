//! Pruning: mark, choose, sweep. The module's doc says what is promised to pulls that go on beside it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use jiff::Timestamp;
use regex::RegexSet;
use serde::{Deserialize, Serialize};

use super::guard::{Removal, Watch};
use super::keepers::{Keepers, NOBODY, Rank, Root, Standing};
use super::mark::{Candidate, Mark, Marking};
use super::pace::Pace;
use super::reach::{self, Reached};
use super::totals::Tally;
use super::walk::{Content, Repository, Which, contents, repositories, seconds, stat};
use super::{CareError, patterns};
use crate::oci::{Digest, Image, Name, Reference, Subject};
use crate::store::open::sweep_for_room;
use crate::store::publish::lock;
use crate::store::{Kind, Store, StoreError};

/// What was used so lately stays as long as there is any space.
pub const RECENT: Duration = Duration::from_secs(60 * 60);

/// Which images go: those that fit all that is given. Content that no image leads to goes with them, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PruneRequest {
    /// Regular expressions, one of which is found in `registry/repository:tag` or `registry/repository@digest`.
    pub patterns: Vec<String>,
    /// Fetched from upstream before.
    pub created_before: Option<Timestamp>,
    /// Neither used since, nor anything that they lead to.
    pub unused_since: Option<Timestamp>,
    /// Of those that fit, the least recently used, until the cache holds no more than so many bytes.
    pub keep_size: Option<u64>,
    /// Of those that fit, the least recently used, until so many bytes have come back.
    pub free: Option<u64>,
    /// At most so many images; 0 is all.
    pub count: u64,
    /// What nothing leads to goes, even when no image is chosen.
    pub blobs: bool,
    /// What was used within the hour stays, whatever else is asked for.
    pub spare_recent: bool,
    pub dry_run: bool,
}

impl PruneRequest {
    fn chooses_images(&self) -> bool {
        !self.patterns.is_empty()
            || self.created_before.is_some()
            || self.unused_since.is_some()
            || self.keep_size.is_some()
            || self.free.is_some()
    }

    fn needs_sizes(&self) -> bool {
        self.keep_size.is_some() || self.free.is_some()
    }
}

/// What went, or would have gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    pub dry_run: bool,
    pub images: u64,
    /// Files under `img/`.
    pub manifests: Tally,
    pub blobs: Tally,
    /// Files that would have gone, but were used or published meanwhile.
    pub spared: u64,
    /// Images that fit, but are pinned, or kept by the configuration.
    pub kept: u64,
}

impl PruneReport {
    /// That came back.
    pub fn bytes(&self) -> u64 {
        self.manifests.bytes + self.blobs.bytes
    }

    fn of(&mut self, kind: Kind) -> &mut Tally {
        match kind {
            Kind::Blob => &mut self.blobs,
            Kind::Manifest => &mut self.manifests,
        }
    }
}

impl std::ops::AddAssign for PruneReport {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.manifests += other.manifests;
        self.blobs += other.blobs;
        self.spared += other.spared;
        self.kept = self.kept.max(other.kept);
    }
}

impl fmt::Display for PruneReport {
    /// `pruned 3 images: 5 manifests and 20 blobs, 1234567 bytes`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "would prune" } else { "pruned" };
        let files = (self.manifests.files, self.blobs.files);
        write!(
            f,
            "{verb} {} images: {} manifests and {} blobs, {} bytes",
            self.images,
            files.0,
            files.1,
            self.bytes()
        )
    }
}

impl Store {
    /// Removes images and what nothing leads to any more; `tell` hears of each image. Goes on beside pulls. Blocks
    /// for as long as it takes to read all manifests and list all blobs, and longer while another one runs.
    pub fn prune(
        &self,
        request: &PruneRequest,
        pace: &Pace<'_>,
        tell: &mut dyn FnMut(&Image),
    ) -> Result<PruneReport, CareError> {
        let _one = lock(&self.care);
        self.prune_alone(request, pace, tell)
    }

    /// The same for who has `care` locked.
    fn prune_alone(
        &self,
        request: &PruneRequest,
        pace: &Pace<'_>,
        tell: &mut dyn FnMut(&Image),
    ) -> Result<PruneReport, CareError> {
        if !request.chooses_images() && !request.blobs {
            return Err(CareError::NothingChosen);
        }
        let wanted = patterns(&request.patterns)?;
        let pins = self.folder().pins()?;
        let watch = self.publisher.settle(|| self.guard.watch());
        self.touches.flush(&self.layout);

        let now = Timestamp::now();
        let recent = seconds(now.as_second()).saturating_sub(RECENT.as_secs() as u32);
        let spare_since = if request.spare_recent { recent } else { u32::MAX };
        let kept = std::cell::Cell::new(0);
        let judge = |candidate: &Candidate<'_>| {
            if !fits(request, &wanted, candidate) || candidate.used >= spare_since {
                Standing::Stays
            } else if pins.has(candidate.image) || self.keeps(&candidate.image.name) {
                kept.set(kept.get() + 1);
                Standing::Stays
            } else {
                // A clock that was wrong must not make an image the last to go for ever.
                Standing::UnusedSince(candidate.used.min(seconds(now.as_second())))
            }
        };
        let marking = Marking {
            layout: &self.layout,
            keys: &self.guard.keys,
            pins: &pins,
            judge: &judge,
            spare_since,
            pace,
        };
        let mark = marking.run()?;
        let last = self.choose(request, &mark.keepers, spare_since, pace)?;
        let mut sweep = Sweep {
            store: self,
            watch,
            mark,
            last,
            spare_since,
            pace,
            dry_run: request.dry_run,
            report: PruneReport { dry_run: request.dry_run, kept: kept.get(), ..PruneReport::default() },
        };
        // In this order, so that whatever ends it, no name leads to what was removed.
        sweep.names(tell)?;
        sweep.contents(Kind::Manifest)?;
        sweep.contents(Kind::Blob)?;
        Ok(sweep.report)
    }

    /// The last that goes, in the order in which they do. None when no image does.
    fn choose(
        &self,
        request: &PruneRequest,
        keepers: &Keepers,
        spare_since: u32,
        pace: &Pace<'_>,
    ) -> Result<Option<Rank>, CareError> {
        if !request.chooses_images() {
            return Ok(None);
        }
        let most = usize::try_from(request.count).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let mut candidates = keepers.candidates();
        candidates.truncate(most);
        if request.needs_sizes() {
            let mut weights = keepers.for_each_root::<u64>();
            let mut total = 0;
            self.count_each(pace, &mut |_, digest, stat| {
                total += stat.length;
                let keeper = match keepers.of(self.guard.keys.content(digest)) {
                    None if stat.changed >= spare_since => return,
                    keeper => keeper.unwrap_or(NOBODY),
                };
                if let Some(weight) = weights.get_mut(keeper) {
                    *weight += stat.length;
                }
            })?;
            let over = request.keep_size.map_or(0, |most| total.saturating_sub(most));
            let need = over.max(request.free.unwrap_or(0));
            let mut freed = weights.get_mut(NOBODY).map_or(0, |weight| *weight);
            let enough = candidates.iter().position(|(_, root)| {
                let done = freed >= need;
                freed += weights.get_mut(*root).map_or(0, |weight| *weight);
                done
            });
            candidates.truncate(enough.unwrap_or(usize::MAX));
        }
        Ok(candidates.last().copied())
    }
}

fn fits(request: &PruneRequest, wanted: &Option<RegexSet>, candidate: &Candidate<'_>) -> bool {
    let before =
        |time: u32, limit: &Option<Timestamp>| limit.is_none_or(|limit| i64::from(time) < limit.as_second());
    request.chooses_images()
        && before(candidate.fetched, &request.created_before)
        && before(candidate.used, &request.unused_since)
        && wanted.as_ref().is_none_or(|wanted| wanted.is_match(&candidate.image.to_string()))
}

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
struct Sweep<'a> {
    store: &'a Store,
    watch: Watch<'a>,
    mark: Mark,
    last: Option<Rank>,
    spare_since: u32,
    pace: &'a Pace<'a>,
    dry_run: bool,
    report: PruneReport,
}

impl Sweep<'_> {
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
        match self.remove(key, path)? {
            Removal::Removed => {}
            Removal::Spared => {
                self.report.spared += 1;
                return Ok(false);
            }
            Removal::Gone => return Ok(false),
        }
        if !self.dry_run {
            self.store.drop_reference(&image);
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
    fn list(&self, key: u64, path: &Path) -> Result<bool, CareError> {
        match stat(path)? {
            Some(stat) if stat.changed < self.spare_since && !self.dry_run => {
                Ok(self.remove(key, path)? == Removal::Removed)
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
            if keeper.is_none() && stat.changed >= self.spare_since {
                continue;
            }
            match self.remove(key, &path)? {
                Removal::Removed => {}
                Removal::Spared => {
                    self.report.spared += 1;
                    continue;
                }
                Removal::Gone => continue,
            }
            if !self.dry_run {
                self.store.totals.vanished(kind, stat.length);
                if kind == Kind::Manifest {
                    self.store.manifests.remove(&digest);
                }
            }
            self.report.of(kind).add(stat.length);
        }
        Ok(())
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

/// Which images stay whatever is asked for, besides the pinned ones.
pub type Keep = Box<dyn Fn(&Name) -> bool + Send + Sync>;

/// What is done without being asked, as the configuration says.
pub struct Rules {
    pub keep: Keep,
    /// Whether [`evict`](Store::evict) may remove anything.
    pub evict: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { keep: Box::new(|_| false), evict: false }
    }
}

impl Store {
    /// Puts other rules in force, from the next round on.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    fn keeps(&self, name: &Name) -> bool {
        (self.rules.load().keep)(name)
    }

    /// For a disk that is full: removes the least recently used images until so many bytes have come back, those of
    /// the last hour too when there is no other way. None when even that would not do, or the rules forbid it:
    /// nothing goes then. Blocks.
    pub fn evict(&self, bytes: u64, pace: &Pace<'_>) -> Result<Option<PruneReport>, CareError> {
        if !self.rules.load().evict {
            return Ok(None);
        }
        let _one = lock(&self.care);
        let free = Some(bytes.saturating_sub(sweep_for_room(&self.layout)));
        if free == Some(0) {
            return Ok(Some(PruneReport::default()));
        }
        for spare_recent in [true, false] {
            let request = PruneRequest { free, spare_recent, dry_run: true, ..PruneRequest::default() };
            if Some(self.prune_alone(&request, pace, &mut |_| {})?.bytes()) < free {
                continue;
            }
            let request = PruneRequest { dry_run: false, ..request };
            return self.prune_alone(&request, pace, &mut |_| {}).map(Some);
        }
        Ok(None)
    }
}
