//! What to do for a request: serve what is held, check what may be stale, fetch what is missing.
//!
//! A miss joins the [`Flight`] of its digest: one task downloads into `partial/`, and everybody, the first to ask
//! included, reads the growing file behind it. The disk is the tee: a slow client stalls nobody, and one that
//! hangs up cancels nothing. No reader gets a blob's last byte before the digest is known to be right.
//!
//! Rules of the room: what talks to an upstream runs on [`Pull`]'s own runtime, because a client's pooled
//! connections belong to the runtime that opened them; callers may be on any other.

mod blob;
mod download;
mod error;
mod failures;
mod flight;
mod freshness;
mod manifest;
mod passage;
mod prefetch;
mod reader;
mod referrers;
mod restore;
mod shared;
mod sink;
mod slots;
mod stored;
mod tags;
mod turns;
mod warm;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use blob::Blob;
pub use error::{Cause, PullError};
pub(crate) use failures::{log_image, log_name};
pub use flight::Underway;
pub use manifest::Found;
pub use reader::{Chunk, Reader};
pub use referrers::Referred;
pub use shared::Shared;
pub use tags::Tags;
pub use warm::{IMAGES_AT_ONCE, Platforms, Refreshed, Step, WarmError, Warmed};

use crate::config::Settings;
use crate::oci::{Digest, Image, Name, Platform, Registry, Subject};
use crate::request_id::RequestId;
use crate::store::Store;
use crate::upstream::{Account, Upstream, Upstreams};
use failures::Failures;
use flight::Flights;
use referrers::Referral;
use shared::Followed;
use slots::Slots;
use tags::Listing;
use turns::Turns;

/// A client gets an answer or an error within this time (containerd gives up on headers after 30 s).
const ANSWER_WITHIN: Duration = Duration::from_secs(24);

/// A Range that begins further ahead of a download than this is fetched by itself, in bytes.
const FAR_AHEAD: u64 = 8 << 20;

/// The store has this time for what was downloaded when the daemon ends.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Hit,
    Miss,
    Stale,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

/// Whether the body is wanted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Head,
    Body,
}

/// The way of every pull.
pub struct Pull {
    /// These two a reload replaces. Downloads under way keep the upstream they began with.
    settings: ArcSwap<Settings>,
    upstreams: ArcSwap<Upstreams>,
    store: Arc<Store>,
    runtime: Handle,
    flights: Flights,
    fetches: Shared<Image, Result<Found, PullError>>,
    checks: Shared<Image, Result<Found, PullError>>,
    listings: Followed<Name, Listing>,
    referrals: Followed<Subject, Referral>,
    /// Places for those two, apart so that a long list of tags holds up no pull.
    listing: Turns,
    referring: Turns,
    /// Blobs of the store that are hashed again because their size is not what a manifest says.
    proofs: Shared<Digest, bool>,
    slots: Mutex<std::collections::HashMap<Registry, Arc<Slots>>>,
    /// For clients that get a stream of upstream's each, because the disk does not take a blob.
    passages: passage::Places,
    /// What upstream said it does not have, and when.
    not_found: Cache<What, Instant>,
    /// Sizes of what the manifests and indexes of a repository that we saw name.
    named: Cache<(Name, Digest), u64>,
    /// Manifests that an index of their repository names.
    children: Cache<(Name, Digest), ()>,
    /// Blobs whose last download had the wrong digest, and when.
    wrong: Cache<Digest, Instant>,
    /// Registries that did not answer a check in time, and when.
    slow: Cache<Registry, Instant>,
    /// Repositories whose tags could not be listed, why, and when.
    unlisted: Cache<Name, (PullError, Instant)>,
    pub counters: Counters,
    pub failures: Failures,
}

/// What is remembered as not being there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Manifest(Image),
    Blob(Image),
    Tags(Name),
}

/// Totals since the start.
#[derive(Default)]
pub struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub stale: AtomicU64,
}

impl Pull {
    /// Puts the parts together. `runtime` is the one that downloads run on.
    pub fn new(settings: Settings, store: Arc<Store>, upstreams: Upstreams, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            upstreams: ArcSwap::from_pointee(upstreams),
            store,
            runtime,
            flights: Flights::default(),
            fetches: Shared::default(),
            checks: Shared::default(),
            listings: Followed::default(),
            referrals: Followed::default(),
            listing: Turns::default(),
            referring: Turns::default(),
            proofs: Shared::default(),
            slots: Mutex::default(),
            passages: passage::Places::default(),
            not_found: Cache::new(4096),
            named: Cache::new(16_384),
            children: Cache::new(16_384),
            wrong: Cache::new(1024),
            slow: Cache::new(1024),
            unlisted: Cache::new(1024),
            counters: Counters::default(),
            failures: Failures::default(),
        })
    }

    /// The upstreams in force.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        self.upstreams.load_full()
    }

    /// Puts other settings in force, from the next question on.
    pub fn reload(&self, settings: Settings, upstreams: Upstreams) {
        let old = self.settings.swap(Arc::new(settings));
        self.upstreams.store(Arc::new(upstreams));
        let new = self.settings.load();
        let same =
            |registry: &Registry| old.policy(registry).max_downloads == new.policy(registry).max_downloads;
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|registry, _| same(registry));
    }

    /// Whose images are wanted of an index, unless somebody says otherwise.
    pub fn platform(&self) -> Platform {
        self.settings.load().platform.clone()
    }

    fn upstream(&self, registry: &Registry) -> Arc<Upstream> {
        self.upstreams.load().get(registry)
    }

    /// The host that a registry's content comes from.
    pub fn host(&self, registry: &Registry) -> String {
        self.upstream(registry).host().to_owned()
    }

    /// The downloads under way, those that wait for their turn included.
    pub fn downloads(&self) -> Vec<Underway> {
        self.flights.underway()
    }

    /// How the registries are, by name: those of the configuration, and others that were asked of late.
    pub fn accounts(&self) -> Vec<(Registry, Account)> {
        self.upstreams.load().accounts()
    }

    /// Of the bodies of all registries' answers since the start, in bytes.
    pub fn received(&self) -> u64 {
        self.upstreams.load().received()
    }

    /// Streams past the store that are under way.
    pub fn passing(&self) -> usize {
        self.passages.taken()
    }

    /// Waits until the store has what was downloaded before; what is under way goes on.
    pub async fn settle(&self) {
        let begun = Instant::now();
        for flight in self.flights.publishing() {
            while self.flights.has(&flight) && begun.elapsed() < SETTLE_WITHIN {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Whether upstream said a moment ago that it has no such thing.
    fn is_known_missing(&self, what: &What) -> bool {
        match self.not_found.get(what) {
            Some(since) if since.elapsed() < self.settings.load().not_found_ttl => true,
            Some(_) => {
                self.not_found.remove(what);
                false
            }
            None => false,
        }
    }

    /// Work on the runtime that talks to upstreams, for the request that this task works for.
    fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(RequestId::carried(work))
    }

    fn count(&self, origin: Origin) {
        let counter = match origin {
            Origin::Hit => &self.counters.hits,
            Origin::Miss => &self.counters.misses,
            Origin::Stale => &self.counters.stale,
        };
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
