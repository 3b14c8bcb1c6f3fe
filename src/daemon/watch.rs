//! How the running daemon is, and that it is well: what systemd is told while we serve.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::log::Log;
use super::systemd::{News, Systemd};
use crate::admin::{Mention, Reloaded, Status, Underway};
use crate::pull::Pull;
use crate::serve::{Counters, Probe};
use crate::store::Store;

/// How often the words in `systemctl status` are looked over.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The parts that tell how the daemon is.
pub struct Gauges {
    pub pull: Arc<Pull>,
    pub store: Arc<Store>,
    pub served: Arc<Counters>,
    pub addresses: Vec<String>,
    pub image_path: String,
    pub since: Instant,
    pub log: Arc<Log>,
    pub last_reload: Mutex<Option<Reloaded>>,
}

impl Gauges {
    pub fn status(&self) -> Status {
        let uptime = self.since.elapsed();
        let counters = &self.pull.counters;
        let downloads = self.pull.downloads().into_iter().map(|download| Underway {
            digest: download.digest.to_string(),
            size: download.size,
            written: download.written,
            readers: download.readers,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: Timestamp::now() - uptime,
            uptime_seconds: uptime.as_secs(),
            addresses: self.addresses.clone(),
            image_path: self.image_path.clone(),
            requests: self.served.requests.load(Relaxed),
            requests_under_way: self.served.in_flight.load(Relaxed),
            bytes_served: self.served.bytes.load(Relaxed),
            hits: counters.hits.load(Relaxed),
            misses: counters.misses.load(Relaxed),
            stale: counters.stale.load(Relaxed),
            downloads: downloads.collect(),
            disk_trouble: self.store.trouble().map(|it| format!("{}: {}", it.kind.as_str(), it.error)),
            last_error: self.last_error(),
            last_reload: self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            log_lines_dropped: self.log.dropped(),
        }
    }

    pub fn reloaded(&self, reloaded: Reloaded) {
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reloaded);
    }

    /// Of a pull, or of what else was logged as an error.
    fn last_error(&self) -> Option<Mention> {
        let of_a_pull = self
            .pull
            .failures
            .last()
            .and_then(|(at, what)| Some(Mention { at: Timestamp::try_from(at).ok()?, what }));
        of_a_pull.into_iter().chain(self.log.last_error()).max_by_key(|mention| mention.at)
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
        let line = gauges.status().line();
        if line != told {
            told.clone_from(&line);
            systemd.tell(News::Status(line));
        }
    }
}

/// Tells systemd that we live as often as it wants to hear it within `limit`: each time after every serving
/// thread has answered a request. When one does not, systemd hears nothing, and ends us.
pub async fn prove_alive(probe: Probe, limit: Duration, systemd: Systemd) {
    let period = limit / 3;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(period, probe.answered()).await {
            Ok(Ok(())) => systemd.tell(News::Alive),
            Ok(Err(error)) => tracing::error!(%error, "a serving thread answers no requests"),
            Err(_) => tracing::error!("a serving thread has not answered for {period:?}"),
        }
    }
}
