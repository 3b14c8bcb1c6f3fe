//! `[prune]` and `[check]`: what is done with the cache without being asked.

use super::keys::Keys;
use super::kind::{BOOL, COUNT, INTERVAL, NAME_PATTERN, PERIOD, PRUNE_TYPE, SHARE};
use super::settings::{CheckSettings, PruneSettings};

pub fn prune(keys: &mut Keys) -> Option<PruneSettings> {
    keys.table("prune", |keys| {
        let enabled = keys.read("enabled", true, &BOOL);
        let min_free = keys.read("min_free", "15%", &SHARE);
        let max_size = keys.read("max_size", "", &SHARE);
        let duration = keys.read("duration", "", &PERIOD);
        let by = keys.read("type", "accessed", &PRUNE_TYPE);
        let frequency = keys.read("frequency", "1h", &INTERVAL);
        let count = keys.read("count", 0, &COUNT);
        let dry_run = keys.read("dry_run", false, &BOOL);
        let keep = keys.list("keep", &NAME_PATTERN);
        Some(PruneSettings {
            enabled: enabled?,
            min_free: min_free?,
            max_size: max_size?,
            duration: duration?,
            by: by?,
            frequency: frequency?,
            count: count?,
            dry_run: dry_run?,
            keep: keep?,
        })
    })
}

pub fn check(keys: &mut Keys) -> Option<CheckSettings> {
    keys.table("check", |keys| Some(CheckSettings { every: keys.read("every", "7d", &PERIOD)? }))
}
