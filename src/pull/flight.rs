//! A download under way, as its readers see it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::PullError;
use crate::oci::{Digest, Name};
use crate::store::SMALL;

/// How far a flight is. It ends in `Done` or `Failed`, always.
#[derive(Clone, Debug)]
pub enum State {
    /// Waits for a place, or for upstream's answer.
    Starting,
    /// Upstream answers.
    Running,
    /// All bytes are there, and are the right ones.
    Done,
    Failed(PullError),
}

#[derive(Clone, Debug)]
pub struct Progress {
    /// Bytes in the file, from its beginning.
    pub written: u64,
    /// Of the whole blob, once somebody said so.
    pub size: Option<u64>,
    pub state: State,
}

impl Progress {
    /// Bytes that may be sent: never the last one of an unproven blob, nothing of a small one.
    pub fn readable(&self) -> u64 {
        match (&self.state, self.size) {
            (State::Done, _) => self.written,
            (_, Some(size)) if size > SMALL => self.written.min(size - 1),
            _ => 0,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Done | State::Failed(_))
    }

    /// A client can be given headers: upstream has it, and a small one is complete.
    pub fn can_answer(&self) -> bool {
        match (&self.state, self.size) {
            (State::Done | State::Failed(_), _) => true,
            (State::Running, Some(size)) => size > SMALL,
            _ => false,
        }
    }
}

/// One download, many readers.
pub struct Flight {
    pub digest: Digest,
    progress: watch::Sender<Progress>,
    readers: watch::Sender<usize>,
    file: OnceLock<Arc<File>>,
    /// Where its bytes come from; known as soon as it is launched.
    from: OnceLock<Name>,
    since: Instant,
    pace: Mutex<Pace>,
}

/// How fast it goes: bytes that were there at two moments, some seconds apart.
struct Pace {
    then: (Instant, u64),
    later: (Instant, u64),
}

/// Between those two moments, at least.
const PACE_OVER: Duration = Duration::from_secs(2);

impl Pace {
    fn start(now: Instant, written: u64) -> Self {
        Self { then: (now, written), later: (now, written) }
    }

    fn note(&mut self, now: Instant, written: u64) {
        if now - self.later.0 >= PACE_OVER {
            self.then = std::mem::replace(&mut self.later, (now, written));
        }
    }

    /// Bytes in a second, over the last few.
    fn rate(&self, now: Instant, written: u64) -> u64 {
        let (at, before) = self.then;
        let millis = now.duration_since(at).as_millis().max(1);
        let bytes = u128::from(written.saturating_sub(before));
        u64::try_from(bytes * 1000 / millis).unwrap_or(u64::MAX)
    }
}

impl Flight {
    fn new(digest: Digest, size: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            digest,
            progress: watch::Sender::new(Progress { written: 0, size, state: State::Starting }),
            readers: watch::Sender::new(0),
            file: OnceLock::new(),
            from: OnceLock::new(),
            since: Instant::now(),
            pace: Mutex::new(Pace::start(Instant::now(), 0)),
        })
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn launched(&self, from: Name) {
        let _ = self.from.set(from);
    }

    /// Whether its bytes come from another repository than that.
    pub fn is_from_elsewhere(&self, name: &Name) -> bool {
        self.from.get().is_some_and(|from| from != name)
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The file that grows; none before the first byte can be there.
    pub fn file(&self) -> Option<&Arc<File>> {
        self.file.get()
    }

    /// Clients that wait for it.
    pub fn readers(&self) -> watch::Receiver<usize> {
        self.readers.subscribe()
    }

    pub fn opened(&self, file: Arc<File>, written: u64) {
        let _ = self.file.set(file);
        self.progress.send_modify(|progress| progress.written = written);
        // What an earlier download left was not so fast.
        *self.pace() = Pace::start(Instant::now(), written);
    }

    pub fn running(&self, size: Option<u64>) {
        self.progress.send_modify(|progress| {
            // What a client was promised stays.
            progress.size = progress.size.or(size);
            progress.state = State::Running;
        });
    }

    pub fn wrote(&self, written: u64) {
        self.pace().note(Instant::now(), written);
        self.progress.send_modify(|progress| progress.written = written);
    }

    pub fn ended(&self, state: State) {
        self.progress.send_modify(|progress| {
            if matches!(state, State::Done) {
                progress.size = Some(progress.written);
            }
            progress.state = state;
        });
    }

    /// Returns when for `limit` no client has waited for it.
    pub async fn abandoned(&self, limit: Duration) {
        let mut readers = self.readers();
        loop {
            // Cannot fail: the sender is ours.
            let _ = readers.wait_for(|readers| *readers == 0).await;
            if tokio::time::timeout(limit, readers.wait_for(|readers| *readers > 0)).await.is_err() {
                return;
            }
        }
    }
}

/// How far a download is.
#[derive(Clone, Debug)]
pub struct Underway {
    pub digest: Digest,
    pub from: Option<Name>,
    pub since: Instant,
    /// Upstream answers; otherwise it waits for that, or for its turn.
    pub running: bool,
    /// Of the whole blob in bytes, once somebody said so.
    pub size: Option<u64>,
    pub written: u64,
    /// Bytes in a second, over the last few.
    pub rate: u64,
    /// Clients that wait for it.
    pub readers: usize,
}

/// A client's stake in a flight.
pub struct Seat {
    pub flight: Arc<Flight>,
}

impl Seat {
    fn take(flight: Arc<Flight>) -> Self {
        flight.readers.send_modify(|readers| *readers += 1);
        Self { flight }
    }
}

impl Clone for Seat {
    fn clone(&self) -> Self {
        Self::take(self.flight.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight.readers.send_modify(|readers| *readers -= 1);
    }
}

/// The flights under way, one at most for a digest.
#[derive(Default)]
pub struct Flights {
    map: Mutex<HashMap<Digest, Arc<Flight>>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Flight>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, digest: &Digest) -> Option<Arc<Flight>> {
        self.lock().get(digest).cloned()
    }

    /// Joins the flight of a digest, if there is one.
    pub fn board(&self, digest: &Digest) -> Option<Seat> {
        self.get(digest).map(Seat::take)
    }

    /// Joins the flight of a digest, or makes it and calls `launch`.
    pub fn join(&self, digest: Digest, size: Option<u64>, launch: impl FnOnce(Arc<Flight>)) -> Seat {
        let mut map = self.lock();
        if let Some(flight) = map.get(&digest) {
            return Seat::take(flight.clone());
        }
        let flight = Flight::new(digest, size);
        map.insert(digest, flight.clone());
        drop(map);
        // Before the launch, so that it is never seen without its first reader.
        let seat = Seat::take(flight.clone());
        launch(flight);
        seat
    }

    /// Makes the flight of a digest without a reader, unless there is one.
    pub fn start(&self, digest: Digest, size: Option<u64>, launch: impl FnOnce(Arc<Flight>)) {
        let mut map = self.lock();
        if map.contains_key(&digest) {
            return;
        }
        let flight = Flight::new(digest, size);
        map.insert(digest, flight.clone());
        drop(map);
        launch(flight);
    }

    /// Those that have not ended, the oldest first.
    pub fn underway(&self) -> Vec<Underway> {
        let now = Instant::now();
        let look = |flight: &Arc<Flight>| {
            let Progress { written, size, state } = flight.progress.borrow().clone();
            let running = match state {
                State::Starting => false,
                State::Running => true,
                State::Done | State::Failed(_) => return None,
            };
            Some(Underway {
                digest: flight.digest,
                from: flight.from.get().cloned(),
                since: flight.since,
                running,
                size,
                written,
                rate: flight.pace().rate(now, written),
                readers: *flight.readers.borrow(),
            })
        };
        let mut underway: Vec<_> = self.lock().values().filter_map(look).collect();
        underway.sort_by_key(|one| (one.since, one.digest.prefix()));
        underway
    }

    /// Those that have ended and whose blobs the store is still taking.
    pub fn publishing(&self) -> Vec<Arc<Flight>> {
        self.lock().values().filter(|flight| flight.progress.borrow().has_ended()).cloned().collect()
    }

    /// Whether that one can still be joined.
    pub fn has(&self, flight: &Arc<Flight>) -> bool {
        self.lock().get(&flight.digest).is_some_and(|known| Arc::ptr_eq(known, flight))
    }

    pub fn remove(&self, flight: &Arc<Flight>) {
        let mut map = self.lock();
        if map.get(&flight.digest).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            map.remove(&flight.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut pace = Pace::start(begun, 500);
        assert_eq!(pace.rate(at(1), 1500), 1000);
        for second in 1..=10 {
            pace.note(at(second), 500 + second * 1000);
        }
        assert_eq!(pace.rate(at(10), 10_500), 1000);
        pace.note(at(12), 50_500);
        pace.note(at(14), 90_500);
        assert_eq!(pace.rate(at(14), 90_500), 20_000);
        // Nothing comes any more.
        assert!(pace.rate(at(114), 90_500) < 400);
    }
}
