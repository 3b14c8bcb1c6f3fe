//! Rounds that keep space: at their times, when the disk gets full, and at once when it is.

use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::full::FullDisk;
use super::{AFTER_START, Shared};
use crate::config::{PruneBy, PruneSettings};
use crate::pull::log_image;
use crate::store::care::{CareError, PruneReport, PruneRequest};

/// Between two looks at the free space; a look asks the kernel, not the disk.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// When a round could not free enough, the next look that may lead to one is so much later.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Runs until the daemon ends. It is woken when settings change, when a large blob was published, and when the disk is
/// full.
pub fn run(shared: &Shared) {
    shared.store.wake_when_filling(thread::current());
    let mut next = Instant::now() + AFTER_START.min(shared.settings.load().0.frequency);
    let mut patient_until = Instant::now();
    let mut full_disk = FullDisk::default();
    loop {
        // First of all: a host that starts has other things to read.
        // Whoever woke us while we worked may have woken a wait of that work.
        if !shared.store.is_lacking() {
            thread::park_timeout(LOOK_EVERY.min(next.saturating_duration_since(Instant::now())));
        }
        if shared.is_over() {
            return;
        }
        let prune = shared.settings.load().0.clone();
        let now = Instant::now();
        // A reload may have made it shorter.
        next = next.min(now + prune.frequency);
        if full_disk.make_room(shared).is_err() {
            return;
        }
        let due = now >= next;
        let count = is_uncounted(shared);
        let lacks = || count || missing(shared, &prune).is_some_and(|bytes| bytes > 0);
        if due || now >= patient_until && lacks() {
            match round(shared, &prune, due) {
                Ok(true) => {}
                Ok(false) => patient_until = Instant::now() + PATIENCE.min(prune.frequency),
                Err(CareError::Stopped) => return,
                Err(error) => {
                    tracing::error!("cannot look after the cache's space: {error}");
                    patient_until = Instant::now() + PATIENCE.min(prune.frequency);
                }
            }
            if due {
                next = Instant::now() + prune.frequency;
            }
        }
    }
}

/// A prune that goes by sizes counts files, but no images.
fn is_uncounted(shared: &Shared) -> bool {
    shared.store.usage().is_none() || shared.store.images().is_none()
}

/// Bytes that are to go so that there is as much room as is asked for. None when nothing is to go by itself.
fn missing(shared: &Shared, prune: &PruneSettings) -> Option<u64> {
    if !prune.enabled {
        return None;
    }
    let space = match shared.store.folder().space() {
        Ok(space) => space,
        Err(error) => {
            tracing::error!("{error}");
            return None;
        }
    };
    let under = prune.min_free.of(space.total).filter(|least| space.free < *least);
    // Two points more, so that it does not begin again at once.
    let under = under.map_or(0, |least| (least + space.total / 50).min(space.total) - space.free);
    let size = shared.store.usage().map_or(0, |usage| usage.bytes());
    let over = prune.max_size.of(space.total).map_or(0, |most| size.saturating_sub(most));
    Some(under.max(over))
}

/// One round; `due` does what has its time, too. The first counts what the cache holds, and so does one after something
/// was put aside. False when there is not as much room as there should be.
fn round(shared: &Shared, prune: &PruneSettings, due: bool) -> Result<bool, CareError> {
    let begun = Instant::now();
    let store = &shared.store;
    if due {
        store.sweep_partials()?;
    }
    // A doubt leads to no round of its own: on a bad disk one file after another is put aside.
    if is_uncounted(shared) || store.is_usage_doubtful() {
        let usage = shared.paced(|pace| store.count(&pace))?;
        tracing::debug!(blobs = usage.blobs.files, bytes = usage.bytes(), "counted what the cache holds");
    }
    let mut done = PruneReport { dry_run: prune.dry_run, ..PruneReport::default() };
    if due
        && prune.enabled
        && let Some(duration) = prune.duration
    {
        let limit =
            Some(Timestamp::now() - SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
        let request = match prune.by {
            PruneBy::Accessed => PruneRequest { unused_since: limit, ..PruneRequest::default() },
            PruneBy::Created => PruneRequest { created_before: limit, ..PruneRequest::default() },
        };
        done += prune_by(shared, prune, request)?;
    }
    let missing = missing(shared, prune).unwrap_or_default();
    let left = if prune.count == 0 { 0 } else { prune.count.saturating_sub(done.images) };
    let mut enough = true;
    if missing > 0 && (prune.count == 0 || left > 0) {
        let request = PruneRequest { free: Some(missing), ..PruneRequest::default() };
        let report = prune_by(shared, &PruneSettings { count: left, ..prune.clone() }, request)?;
        enough = report.bytes() >= missing && !prune.dry_run;
        done += report;
    }
    if missing > 0 && !enough && !prune.dry_run {
        tracing::warn!(
            missing,
            "{done}, and that is not enough: the rest was used within the hour, or is pinned or kept, or is not ours"
        );
    } else if done.bytes() > 0 || done.images > 0 {
        tracing::info!(took = ?begun.elapsed(), "{done}");
    }
    if due || missing > 0 {
        shared.note_round(begun, done, enough);
    }
    Ok(enough)
}

fn prune_by(shared: &Shared, prune: &PruneSettings, request: PruneRequest) -> Result<PruneReport, CareError> {
    let request = PruneRequest { count: prune.count, dry_run: prune.dry_run, spare_recent: true, ..request };
    let mut tell = |image: &crate::oci::Image| log_image!(debug, image, "pruned \"{image}\"");
    shared.paced(|pace| shared.store.prune(&request, &pace, &mut tell))
}
