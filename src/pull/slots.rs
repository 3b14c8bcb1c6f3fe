//! Downloads at once from one upstream; those that a client waits for come first.
//!
//! A small blob takes a quarter of a place: it is on the wire for little more than a round trip, and a far upstream
//! would otherwise be slower through us than without us.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

/// What a download takes of [`Slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Small = 1,
    Large = 4,
}

/// A bounded number of places, with two queues for them.
pub struct Slots {
    queues: Mutex<Queues>,
}

struct Queues {
    /// In quarters of a place.
    free: usize,
    wanted: VecDeque<Waiting>,
    early: VecDeque<Waiting>,
}

struct Waiting {
    weight: Weight,
    sender: oneshot::Sender<Slot>,
}

/// A place that is taken; dropping it gives it to the next.
pub struct Slot {
    slots: Arc<Slots>,
    /// In quarters of a place.
    taken: usize,
}

impl Slots {
    pub fn new(places: usize) -> Arc<Self> {
        let free = places.max(1).saturating_mul(Weight::Large as usize);
        Arc::new(Self {
            queues: Mutex::new(Queues { free, wanted: VecDeque::new(), early: VecDeque::new() }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place: behind everybody as long as `readers` is zero, before those others from then on.
    pub async fn take(self: &Arc<Self>, weight: Weight, mut readers: watch::Receiver<usize>) -> Slot {
        if *readers.borrow_and_update() == 0 {
            tokio::select! {
                slot = self.queue(weight, |queues| &mut queues.early) => return slot,
                _ = readers.wait_for(|readers| *readers > 0) => {}
            }
        }
        self.queue(weight, |queues| &mut queues.wanted).await
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
            let queue = if queues.wanted.is_empty() { &mut queues.early } else { &mut queues.wanted };
            let Some(waiting) = queue.pop_front_if(|waiting| waiting.weight as usize <= queues.free) else {
                return;
            };
            let taken = waiting.weight as usize;
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
        let taken = slots.take(Weight::Large, somebody.clone()).await;
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
        let large = slots.take(Weight::Large, somebody.clone()).await;
        let small = slots.take(Weight::Small, somebody.clone());
        assert!(tokio::time::timeout(Duration::from_millis(20), small).await.is_err());
        drop(large);
        assert_eq!(slots.lock().free, 4);
    }
}
