//! Room on a disk that is full, as soon as there was none for something.

use std::time::{Duration, Instant};

use super::Shared;
use crate::store::care::CareError;

/// Room for manifests and configs, in bytes.
const LITTLE: u64 = 1 << 20;

/// What could not be had is not tried again for so many times as long as the try took, within these bounds: what was in use
/// meanwhile may not be in use then.
const PATIENCE: u32 = 20;
const PATIENCE_LEAST: Duration = Duration::from_secs(15);
const PATIENCE_MOST: Duration = Duration::from_secs(5 * 60);

/// What is known of the full disk from one time to the next.
#[derive(Default)]
pub struct FullDisk {
    /// For so many bytes it has been tried in vain, and until when it is not tried again.
    hopeless: Option<(u64, Instant)>,
    /// Of which one, by when it began, that was said.
    told: Option<Instant>,
}

/// The daemon ends.
pub struct Stopped;

impl FullDisk {
    /// Makes room for what the disk had none for since the last time, if anything. Blocks.
    pub fn make_room(&mut self, shared: &Shared) -> Result<(), Stopped> {
        let Some(lacking) = shared.store.lacking() else { return Ok(()) };
        if self.hopeless.is_some_and(|(least, until)| lacking >= least && Instant::now() < until) {
            return Ok(());
        }
        self.hopeless = None;
        let begun = Instant::now();
        match evict(shared, lacking) {
            Ok(true) => return Ok(()),
            Ok(false) => self.tell(shared, lacking),
            Err(CareError::Stopped) => return Err(Stopped),
            Err(error) => tracing::error!("no room can be made on the full disk: {error}"),
        }
        let patience = (begun.elapsed() * PATIENCE).clamp(PATIENCE_LEAST, PATIENCE_MOST);
        self.hopeless = Some((lacking, Instant::now() + patience));
        Ok(())
    }

    /// Once as long as the disk is full.
    fn tell(&mut self, shared: &Shared, lacking: u64) {
        let since = shared.store.trouble().map(|trouble| trouble.since);
        if since.is_none() || since != self.told {
            self.told = since;
            tracing::warn!(
                "{lacking} bytes would have to come back from the full disk: what may go of the cache is not as much"
            );
        }
    }
}

/// So many bytes come back. False when that cannot be: then there is room for small things at least, if that can be.
fn evict(shared: &Shared, lacking: u64) -> Result<bool, CareError> {
    let begun = Instant::now();
    let evict = |bytes| shared.paced(|pace| shared.store.evict(bytes, &pace));
    let mut report = evict(lacking)?;
    let enough = report.is_some();
    let free = shared.store.folder().space()?.free;
    if !enough && free < LITTLE {
        report = evict(LITTLE - free)?;
    }
    if let Some(report) = report {
        tracing::info!(took = ?begun.elapsed(), "made room on the full disk: {report}");
        shared.note_round(begun, report, enough);
    }
    Ok(enough)
}
