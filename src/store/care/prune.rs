//! Pruning: what is asked and told, and which images go. The module's doc says what is promised to pulls that go on
//! beside it.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::TryLockError;
use std::time::Duration;

use jiff::Timestamp;
use regex::RegexSet;
use serde::{Deserialize, Serialize};

use super::keepers::{Keepers, NOBODY, Rank, Standing};
use super::mark::{Candidate, Marking};
use super::pace::Pace;
use super::sweep::Sweep;
use super::totals::Tally;
use super::walk::seconds;
use super::{CareError, patterns};
use crate::oci::Image;
use crate::store::publish::lock;
use crate::store::{Kind, Store, StoreError};

/// What was used so lately stays as long as there is any space.
pub const RECENT: Duration = Duration::from_secs(60 * 60);

/// What was used later than so many seconds from now was not used lately: a clock was wrong, then or now.
const AHEAD: u32 = 60;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Files that were to go, and that could not be removed.
    #[serde(default)]
    pub failed: u64,
    /// Why, for the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl PruneReport {
    /// That came back.
    pub fn bytes(&self) -> u64 {
        self.manifests.bytes + self.blobs.bytes
    }

    /// To the log goes the first one.
    pub(super) fn fail(&mut self, error: &StoreError) {
        if self.failed == 0 {
            tracing::warn!("{error}: it stays");
            self.failure = Some(error.to_string());
        } else {
            tracing::debug!("{error}: it stays");
        }
        self.failed += 1;
    }

    pub(super) fn of(&mut self, kind: Kind) -> &mut Tally {
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
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
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
        )?;
        match self.failed {
            0 => Ok(()),
            failed => write!(f, "; {failed} files could not be removed"),
        }
    }
}

impl Store {
    /// Whether it is being pruned or counted: another prune, and a pin, would wait for the end of that.
    pub fn is_cared_for(&self) -> bool {
        matches!(self.care.try_lock(), Err(TryLockError::WouldBlock))
    }

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

    /// Whether content could not be removed when that was last tried: its bytes do not come back.
    pub(super) fn is_stuck(&self, key: u64) -> bool {
        lock(&self.stuck).contains(&key)
    }

    /// The same for who has `care` locked.
    pub(super) fn prune_alone(
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
        let now = seconds(now.as_second());
        let since = if request.spare_recent { now.saturating_sub(RECENT.as_secs() as u32) } else { u32::MAX };
        let recent = since..=now.saturating_add(AHEAD);
        let kept = std::cell::Cell::new(0);
        let judge = |candidate: &Candidate<'_>| {
            if !fits(request, &wanted, candidate) || recent.contains(&candidate.used) {
                Standing::Stays
            } else if pins.has(candidate.image) || self.keeps(&candidate.image.name) {
                kept.set(kept.get() + 1);
                Standing::Stays
            } else {
                // One of a time to come goes last, but it goes: a clock was wrong, then or now.
                Standing::UnusedSince(candidate.used.min(now))
            }
        };
        let marking = Marking {
            layout: &self.layout,
            keys: &self.guard.keys,
            pins: &pins,
            judge: &judge,
            recent: recent.clone(),
            pace,
        };
        let mark = marking.run()?;
        let last = self.choose(request, &mark.keepers, &recent, pace)?;
        let sweep = Sweep {
            store: self,
            watch,
            mark,
            last,
            recent: recent.clone(),
            pace,
            dry_run: request.dry_run,
            report: PruneReport { dry_run: request.dry_run, kept: kept.get(), ..PruneReport::default() },
        };
        sweep.run(tell)
    }

    /// The last that goes, in the order in which they do. None when no image does.
    fn choose(
        &self,
        request: &PruneRequest,
        keepers: &Keepers,
        recent: &RangeInclusive<u32>,
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
                let key = self.guard.keys.content(digest);
                let keeper = match keepers.of(key) {
                    _ if self.is_stuck(key) => return,
                    None if recent.contains(&stat.changed) => return,
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
