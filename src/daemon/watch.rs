//! How the running daemon is, and that it is well: what systemd is told while we serve.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch as channel;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::care::{Care, Round};
use super::log::Log;
use super::systemd::{News, Systemd};
use crate::admin::{
    CacheSize, DiskSpace, DiskTrouble, LastCheck, Mention, PruneRound, Reloaded, Status, Underway,
    UpstreamState, UpstreamStatus,
};
use crate::oci::Registry;
use crate::pull::{self, Pull, Shared};
use crate::serve::{Counters, Probe};
use crate::store::Store;
use crate::upstream::{Account, Condition};

/// How often the words in `systemctl status` are looked over.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// A disk that does not answer in this time is not waited for.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// The parts that tell how the daemon is.
pub struct Gauges {
    pub pull: Arc<Pull>,
    pub store: Arc<Store>,
    pub care: Arc<Care>,
    pub served: Arc<Counters>,
    pub addresses: Vec<String>,
    pub image_path: String,
    pub since: Instant,
    /// The same by the clock of that moment.
    pub started: Timestamp,
    pub log: Arc<Log>,
    pub last_reload: Mutex<Option<Reloaded>>,
    /// However many ask, the disk is looked at once at a time.
    pub looks: Shared<(), Looked>,
}

impl Gauges {
    /// All that there is to tell.
    pub async fn status(self: Arc<Self>) -> Status {
        let looked = {
            let (gauges, runtime) = (self.clone(), Handle::current());
            let look = || async move {
                tokio::task::spawn_blocking(move || gauges.look()).await.unwrap_or_default()
            };
            timeout(LOOK_WITHIN, self.looks.run(&runtime, &(), look)).await.ok().flatten().unwrap_or_default()
        };
        let Looked { disk, pins, last_check } = looked;
        Status { disk, pins, last_check, ..self.at_hand() }
    }

    /// What the disk need not be asked for.
    pub fn at_hand(&self) -> Status {
        let (uptime, now) = (self.since.elapsed(), Timestamp::now());
        let counters = &self.pull.counters;
        let (content, rest) = (self.served.content.load(Relaxed), self.served.rest.load(Relaxed));
        let fetched = self.pull.received();
        let cache = self.store.images().zip(self.store.usage()).map(|(images, usage)| CacheSize {
            images,
            manifests: usage.manifests.files,
            blobs: usage.blobs.files,
            bytes: usage.bytes(),
        });
        let trouble = self.store.trouble().map(|trouble| DiskTrouble {
            state: trouble.kind.as_str().to_owned(),
            // The same each time that it is asked.
            since: self.started + trouble.since.saturating_duration_since(self.since),
            error: trouble.error,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            uptime_seconds: uptime.as_secs(),
            addresses: self.addresses.clone(),
            image_path: self.image_path.clone(),
            requests: self.served.requests.load(Relaxed),
            requests_under_way: self.served.in_flight.load(Relaxed),
            hits: counters.hits.load(Relaxed),
            misses: counters.misses.load(Relaxed),
            stale: counters.stale.load(Relaxed),
            bytes_served: content + rest,
            bytes_fetched: fetched,
            bytes_saved: content.saturating_sub(fetched),
            cache,
            pins: None,
            disk: None,
            disk_trouble: trouble,
            passing: self.pull.passing() as u64,
            downloads: self.pull.downloads().into_iter().map(|one| underway(one, now)).collect(),
            upstreams: self.pull.accounts().into_iter().map(upstream).collect(),
            last_prune: self.care.last_round().map(prune_round),
            last_check: None,
            last_error: self.last_error(),
            last_reload: self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            log_lines_dropped: self.log.dropped(),
        }
    }

    /// What only the disk knows. Blocks.
    fn look(&self) -> Looked {
        let folder = self.store.folder();
        let prune = self.care.prune_settings();
        let disk = folder.space().ok().map(|space| DiskSpace {
            total: space.total,
            free: space.free,
            min_free: prune.min_free.of(space.total).filter(|least| prune.enabled && *least > 0),
        });
        let last_check = folder.last_check().map(|report| LastCheck {
            finished: report.finished,
            seconds: report.seconds,
            wrong: report.wrong,
            repaired: report.repaired,
        });
        Looked { disk, pins: folder.pins().ok().map(|pins| pins.names().count() as u64), last_check }
    }

    pub fn reloaded(&self, reloaded: Reloaded) {
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reloaded);
    }

    /// Of a pull, or of what else was logged as an error.
    fn last_error(&self) -> Option<Mention> {
        let of_a_pull = self.pull.failures.last().and_then(mention);
        of_a_pull.into_iter().chain(self.log.last_error()).max_by_key(|mention| mention.at)
    }
}

/// What [`Gauges::look`] saw.
#[derive(Clone, Default)]
pub struct Looked {
    disk: Option<DiskSpace>,
    pins: Option<u64>,
    last_check: Option<LastCheck>,
}

fn mention((at, what): (SystemTime, String)) -> Option<Mention> {
    Some(Mention { at: Timestamp::try_from(at).ok()?, what })
}

fn underway(one: pull::Underway, now: Timestamp) -> Underway {
    let (registry, repository) = one
        .from
        .map_or_else(Default::default, |name| (name.registry.to_string(), name.repository.to_string()));
    Underway {
        digest: one.digest.to_string(),
        registry,
        repository,
        since: now - one.since.elapsed(),
        running: one.running,
        size: one.size,
        written: one.written,
        rate: one.rate,
        readers: one.readers as u64,
    }
}

fn upstream((name, account): (Registry, Account)) -> UpstreamStatus {
    let time = |time: SystemTime| Timestamp::try_from(time).ok();
    let (state, since, until) = match account.condition {
        Condition::NeverAsked => (UpstreamState::NeverAsked, None, None),
        Condition::Reachable => (UpstreamState::Reachable, None, None),
        Condition::Failing { since } => (UpstreamState::Failing, time(since), None),
        Condition::Limited { since, until } => (UpstreamState::Limited, time(since), until.and_then(time)),
    };
    UpstreamStatus {
        name: name.to_string(),
        state,
        since,
        until,
        last_error: account.last_error.and_then(mention),
        requests: account.requests,
        bytes: account.bytes,
    }
}

fn prune_round(Round { finished, took, report, enough }: Round) -> PruneRound {
    PruneRound {
        finished,
        seconds: took.as_secs(),
        dry_run: report.dry_run,
        images: report.images,
        manifests: report.manifests.files,
        blobs: report.blobs.files,
        bytes: report.bytes(),
        enough,
    }
}

/// Tells systemd how we are whenever that has changed, and the log when it lost lines, until dropped.
pub async fn describe(gauges: Arc<Gauges>, systemd: Systemd) {
    let mut told = String::new();
    let mut dropped = 0;
    loop {
        tokio::time::sleep(STATUS_EVERY).await;
        let lost = gauges.log.dropped() - dropped;
        if lost > 0 {
            dropped += lost;
            tracing::warn!("{lost} lines of this log were dropped: what reads it is too slow");
        }
        if !systemd.is_there() {
            continue;
        }
        let line = gauges.at_hand().line();
        if line != told {
            told.clone_from(&line);
            systemd.tell(News::Status(line));
        }
    }
}

/// Tells systemd that we live as often as it wants to hear it within `limit`: each time after every serving
/// thread has answered a request. When one does not, systemd hears nothing, and ends us. Once we end ourselves, threads
/// stop answering in good order.
pub async fn prove_alive(
    probe: Probe,
    limit: Duration,
    systemd: Systemd,
    mut shutdown: channel::Receiver<bool>,
) {
    let period = limit / 3;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let answered = async {
            ticks.tick().await;
            timeout(period, probe.answered()).await
        };
        let answered = tokio::select! {
            biased;
            _ = shutdown.wait_for(|ending| *ending) => return,
            answered = answered => answered,
        };
        match answered {
            Ok(Ok(())) => systemd.tell(News::Alive),
            Ok(Err(error)) => tracing::error!(%error, "a serving thread answers no requests"),
            Err(_) => tracing::error!("a serving thread has not answered for {period:?}"),
        }
    }
}
