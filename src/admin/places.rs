//! Places for connections at a door. When there are none, whoever has waited with a request for longest makes room: no
//! number of idle connections keeps others out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Between two looks for an idle one, while there is no place.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub struct Places {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    next: u64,
    /// The one that is so for longest comes first.
    by_age: BTreeMap<u64, Arc<Notify>>,
}

/// One connection's.
pub struct Place {
    places: Arc<Places>,
    /// When it is told to end.
    told: Arc<Notify>,
    /// Its number among the idle ones; 0 while it is none.
    number: AtomicU64,
    _permit: OwnedSemaphorePermit,
}

/// A request under way, to the end of its answer. A connection has one at a time.
pub struct Busy(Arc<Place>);

impl Places {
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(count)), idle: Mutex::default() })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that has asked for nothing yet. Waits while all are busy.
    pub async fn take(self: &Arc<Self>) -> Arc<Place> {
        loop {
            if self.free.available_permits() == 0
                && let Some((_, oldest)) = self.idle().by_age.pop_first()
            {
                oldest.notify_one();
            }
            // Never closed.
            if let Ok(Ok(permit)) = timeout(LOOK_EVERY, self.free.clone().acquire_owned()).await {
                let place = Place {
                    places: self.clone(),
                    told: Arc::default(),
                    number: AtomicU64::default(),
                    _permit: permit,
                };
                place.rest();
                return Arc::new(place);
            }
        }
    }
}

impl Place {
    fn rest(&self) {
        let mut idle = self.places.idle();
        idle.next += 1;
        self.number.store(idle.next, Ordering::Relaxed);
        let number = idle.next;
        idle.by_age.insert(number, self.told.clone());
    }

    /// A request has come.
    pub fn work(self: &Arc<Self>) -> Busy {
        self.places.idle().by_age.remove(&self.number.swap(0, Ordering::Relaxed));
        Busy(self.clone())
    }

    /// Returns when others need the place.
    pub async fn is_wanted(&self) {
        loop {
            self.told.notified().await;
            // A request came in time.
            if self.number.load(Ordering::Relaxed) != 0 {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.idle().by_age.remove(self.number.get_mut());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}
