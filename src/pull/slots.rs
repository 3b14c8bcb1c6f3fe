//! What goes on at once with one upstream, and what may wait for it. Of downloads, those that a client waits for come
//! first.
//!
//! A small blob takes a quarter of a place: it is on the wire for little more than a round trip, and a far upstream
//! would otherwise be slower through us than without us. One that a client has waited for too long begins although
//! there is no place: downloads that nobody waits for, or whose wire is slow, must not keep it from its answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};

/// A client that waits for a place has it after this time, mostly.
const OVERDUE: Duration = Duration::from_secs(5);

/// Of places that there are, so many more are for those.
const SPARE: usize = 3;

/// Downloads that clients wait for and that wait for a place; each takes some kilobytes of memory.
const WAITING: usize = 1024;

/// Ranges fetched by themselves, at once.
const RELAYS: usize = 16;

/// Manifests at once, in memory as a whole.
const MANIFESTS: usize = 64;

/// Images whose blobs are fetched before anybody asks for them.
const EARLY_IMAGES: usize = 64;

/// Such blobs of all of those, until they have landed.
const EARLY_BLOBS: usize = 64;

/// What a download takes of [`Slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Small = 1,
    Large = 4,
}

/// A bounded number of places, with three queues for them, and bounds for what takes none.
pub struct Slots {
    queues: Mutex<Queues>,
    pub manifests: Semaphore,
    pub relays: Semaphore,
    pub early_images: Arc<Semaphore>,
    pub early_blobs: Arc<Semaphore>,
}

struct Queues {
    /// In quarters of a place; less than none when some of `spare` are taken.
    free: isize,
    /// In quarters of a place: for those that are overdue.
    spare: isize,
    overdue: VecDeque<Waiting>,
    wanted: VecDeque<Waiting>,
    early: VecDeque<Waiting>,
}

impl Queues {
    /// How many wait that somebody waits for; those that gave up waiting in a queue are still in it.
    fn waiting(&mut self) -> usize {
        for queue in [&mut self.wanted, &mut self.overdue] {
            if queue.len() >= WAITING / 2 {
                queue.retain(|waiting| !waiting.sender.is_closed());
            }
        }
        self.wanted.len() + self.overdue.len()
    }
}

struct Waiting {
    weight: Weight,
    sender: oneshot::Sender<Slot>,
}

/// A place that is taken; dropping it gives it to the next.
pub struct Slot {
    slots: Arc<Slots>,
    /// In quarters of a place.
    taken: isize,
}

impl Slots {
    pub fn new(places: usize) -> Arc<Self> {
        let quarters = |places: usize| {
            isize::try_from(places.saturating_mul(Weight::Large as usize)).unwrap_or(isize::MAX / 2)
        };
        let places = places.max(1);
        let queues = Queues {
            free: quarters(places),
            spare: quarters(places.saturating_mul(SPARE)),
            overdue: VecDeque::new(),
            wanted: VecDeque::new(),
            early: VecDeque::new(),
        };
        Arc::new(Self {
            queues: Mutex::new(queues),
            manifests: Semaphore::new(MANIFESTS),
            relays: Semaphore::new(RELAYS),
            early_images: Arc::new(Semaphore::new(EARLY_IMAGES)),
            early_blobs: Arc::new(Semaphore::new(EARLY_BLOBS)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place: behind everybody as long as `readers` is zero, before those others from then on. None when too
    /// many wait already.
    pub async fn take(self: &Arc<Self>, weight: Weight, mut readers: watch::Receiver<usize>) -> Option<Slot> {
        if *readers.borrow_and_update() == 0 {
            tokio::select! {
                slot = self.queue(weight, |queues| &mut queues.early) => return Some(slot),
                _ = readers.wait_for(|readers| *readers > 0) => {}
            }
        }
        if self.lock().waiting() >= WAITING {
            return None;
        }
        let in_turn = self.queue(weight, |queues| &mut queues.wanted);
        match tokio::time::timeout(OVERDUE, in_turn).await {
            Ok(slot) => Some(slot),
            Err(_) => Some(self.queue(weight, |queues| &mut queues.overdue).await),
        }
    }

    async fn queue(
        self: &Arc<Self>,
        weight: Weight,
        which: fn(&mut Queues) -> &mut VecDeque<Waiting>,
    ) -> Slot {
        let (sender, receiver) = oneshot::channel();
        which(&mut self.lock()).push_back(Waiting { weight, sender });
        self.grant();
        // A sender is never dropped unsent while the slots live, and we hold them.
        receiver.await.unwrap_or_else(|_| Slot { slots: self.clone(), taken: 0 })
    }

    /// Gives free places to those that wait, in order: a large one is not passed by small ones for ever.
    fn grant(self: &Arc<Self>) {
        // Dropped after the lock is released.
        let mut gone = Vec::new();
        let mut queues = self.lock();
        loop {
            let queues = &mut *queues;
            let (queue, free) = match (queues.overdue.is_empty(), queues.wanted.is_empty()) {
                (false, _) => (&mut queues.overdue, queues.free.saturating_add(queues.spare)),
                (true, false) => (&mut queues.wanted, queues.free),
                (true, true) => (&mut queues.early, queues.free),
            };
            let Some(waiting) = queue.pop_front_if(|waiting| waiting.weight as isize <= free) else {
                return;
            };
            let taken = waiting.weight as isize;
            match waiting.sender.send(Slot { slots: self.clone(), taken }) {
                Ok(()) => queues.free -= taken,
                // It never took its place, and must not give it back.
                Err(mut slot) => {
                    slot.taken = 0;
                    gone.push(slot);
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().free += self.taken;
        self.slots.grant();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn those_that_are_waited_for_come_first() {
        let slots = Slots::new(1);
        let (_none, nobody) = watch::channel(0);
        let (_one, somebody) = watch::channel(1);
        let (later, promoted) = watch::channel(0);
        let taken = slots.take(Weight::Large, somebody.clone()).await.unwrap();
        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        for (name, readers) in [("early", nobody), ("promoted", promoted), ("wanted", somebody)] {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let slot = slots.take(Weight::Large, readers).await;
                order.send(name).unwrap();
                drop(slot);
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        later.send(1).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(taken);
        assert_eq!(came.recv().await, Some("wanted"));
        assert_eq!(came.recv().await, Some("promoted"));
        assert_eq!(came.recv().await, Some("early"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(slots.lock().free, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_waits_for_begins_in_time() {
        let slots = Slots::new(1);
        let (_none, nobody) = watch::channel(0);
        let (_one, somebody) = watch::channel(1);
        let slow = slots.take(Weight::Large, nobody.clone()).await;
        let begun = tokio::time::Instant::now();
        let mut overdue = Vec::new();
        for _ in 0..SPARE {
            overdue.push(slots.take(Weight::Large, somebody.clone()).await);
        }
        assert_eq!(begun.elapsed().as_secs(), OVERDUE.as_secs() * SPARE as u64);
        let one_more = slots.take(Weight::Small, somebody.clone());
        assert!(tokio::time::timeout(OVERDUE * 4, one_more).await.is_err(), "it has its bounds");
        let early = slots.take(Weight::Small, nobody);
        drop(overdue);
        assert!(tokio::time::timeout(OVERDUE, early).await.is_err(), "nobody waits for it");
        drop(slow);
        assert_eq!(slots.lock().free, 4);
    }

    #[tokio::test]
    async fn four_small_ones_take_the_place_of_a_large_one() {
        let slots = Slots::new(1);
        let (_one, somebody) = watch::channel(1);
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(slots.take(Weight::Small, somebody.clone()).await);
        }
        let fifth = slots.take(Weight::Small, somebody.clone());
        assert!(tokio::time::timeout(Duration::from_millis(20), fifth).await.is_err());
        taken.clear();
        let large = slots.take(Weight::Large, somebody.clone()).await.unwrap();
        let small = slots.take(Weight::Small, somebody.clone());
        assert!(tokio::time::timeout(Duration::from_millis(20), small).await.is_err());
        drop(large);
        assert_eq!(slots.lock().free, 4);
    }
}
