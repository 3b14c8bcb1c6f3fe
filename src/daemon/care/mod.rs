//! What the daemon does for its cache without being asked: one thread keeps space, another checks.
//!
//! Plain threads: all that they do blocks, for hours if need be.

mod check;
mod full;
mod space;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::config::{CheckSettings, PruneSettings, Settings};
use crate::store::Store;
use crate::store::care::{Pace, PruneReport, Rules};

/// Neither begins before the host had time to start.
const AFTER_START: Duration = Duration::from_secs(60);

/// What both threads share.
struct Shared {
    store: Arc<Store>,
    /// Replaced by a reload.
    settings: ArcSwap<(PruneSettings, CheckSettings)>,
    stop: AtomicBool,
    last_round: Mutex<Option<Round>>,
}

/// A round that has come to its end.
#[derive(Clone, Debug)]
pub struct Round {
    pub finished: Timestamp,
    pub took: Duration,
    pub report: PruneReport,
    /// Whether there is as much room as there should be.
    pub enough: bool,
}

impl Shared {
    fn note_round(&self, begun: Instant, report: PruneReport, enough: bool) {
        let round = Round { finished: Timestamp::now(), took: begun.elapsed(), report, enough };
        *self.last_round.lock().unwrap_or_else(PoisonError::into_inner) = Some(round);
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Calls `work` with a pace that ends with the daemon.
    fn paced<T>(&self, work: impl FnOnce(Pace<'_>) -> T) -> T {
        work(Pace::until(&|| self.is_over()))
    }
}

/// The threads that look after the cache.
pub struct Care {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Care {
    pub fn start(store: &Arc<Store>, settings: &Settings) -> io::Result<Self> {
        let in_force = ArcSwap::from_pointee((settings.prune.clone(), settings.check));
        let shared = Arc::new(Shared {
            store: store.clone(),
            settings: in_force,
            stop: AtomicBool::new(false),
            last_round: Mutex::default(),
        });
        let care = Self { shared, threads: Mutex::default() };
        care.set_rules();
        care.spawn("space", space::run)?;
        care.spawn("check", check::run)?;
        Ok(care)
    }

    fn spawn(&self, name: &str, work: fn(&Shared)) -> io::Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared))?;
        self.threads().push(thread);
        Ok(())
    }

    /// Puts other settings in force: what is under way ends as it began.
    pub fn reload(&self, settings: &Settings) {
        self.shared.settings.store(Arc::new((settings.prune.clone(), settings.check)));
        self.set_rules();
        self.wake();
    }

    /// The last round since the start; none before the first.
    pub fn last_round(&self) -> Option<Round> {
        self.shared.last_round.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What pruning goes by.
    pub fn prune_settings(&self) -> PruneSettings {
        self.shared.settings.load().0.clone()
    }

    fn set_rules(&self) {
        let prune = self.shared.settings.load().0.clone();
        let evict = prune.enabled && !prune.dry_run;
        self.shared.store.set_rules(Rules { keep: Box::new(move |name| prune.keeps(name)), evict });
    }

    fn wake(&self) {
        self.threads().iter().for_each(|thread| thread.thread().unpark());
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the threads, wherever they are. Blocks until they have ended.
    pub fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        for thread in std::mem::take(&mut *self.threads()) {
            let _ = thread.join();
        }
    }
}

/// When something else fails at the start.
impl Drop for Care {
    fn drop(&mut self) {
        self.end();
    }
}
