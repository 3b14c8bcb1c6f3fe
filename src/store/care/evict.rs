//! Pruning without being asked: by which rules, and what goes when the disk is full.

use std::sync::Arc;

use super::pace::Pace;
use super::{CareError, PruneReport, PruneRequest};
use crate::oci::Name;
use crate::store::Store;
use crate::store::open::sweep_for_room;
use crate::store::publish::lock;

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

    pub(super) fn keeps(&self, name: &Name) -> bool {
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
