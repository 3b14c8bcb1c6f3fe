//! Downloads at once from one upstream; those that a client waits for come first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

/// A bounded number of places, with two queues for them.
pub struct Slots {
    queues: Mutex<Queues>,
}

struct Queues {
    free: usize,
    wanted: VecDeque<oneshot::Sender<Slot>>,
    early: VecDeque<oneshot::Sender<Slot>>,
}

/// A place that is taken; dropping it gives it to the next.
pub struct Slot {
    slots: Arc<Slots>,
}

impl Slots {
    pub fn new(places: usize) -> Arc<Self> {
        let queues = Queues { free: places.max(1), wanted: VecDeque::new(), early: VecDeque::new() };
        Arc::new(Self { queues: Mutex::new(queues) })
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place: behind everybody as long as `readers` is zero, before those others from then on.
    pub async fn take(self: &Arc<Self>, mut readers: watch::Receiver<usize>) -> Slot {
        if *readers.borrow_and_update() == 0 {
            tokio::select! {
                slot = self.queue(|queues| &mut queues.early) => return slot,
                _ = readers.wait_for(|readers| *readers > 0) => {}
            }
        }
        self.queue(|queues| &mut queues.wanted).await
    }

    async fn queue(self: &Arc<Self>, which: fn(&mut Queues) -> &mut VecDeque<oneshot::Sender<Slot>>) -> Slot {
        let receiver = {
            let mut queues = self.lock();
            if queues.free > 0 {
                queues.free -= 1;
                return Slot { slots: self.clone() };
            }
            let (sender, receiver) = oneshot::channel();
            which(&mut queues).push_back(sender);
            receiver
        };
        // A sender is never dropped unsent while the slots live, and we hold them.
        receiver.await.unwrap_or_else(|_| Slot { slots: self.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut next = Self { slots: self.slots.clone() };
        loop {
            let mut queues = self.slots.lock();
            let Some(waiting) = queues.wanted.pop_front().or_else(|| queues.early.pop_front()) else {
                queues.free += 1;
                drop(queues);
                std::mem::forget(next);
                return;
            };
            drop(queues);
            // One that has gone gives the place back; it must not free it a second time.
            match waiting.send(next) {
                Ok(()) => return,
                Err(back) => next = back,
            }
        }
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
        let taken = slots.take(somebody.clone()).await;
        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        for (name, readers) in [("early", nobody), ("promoted", promoted), ("wanted", somebody)] {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let slot = slots.take(readers).await;
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
        assert_eq!(slots.lock().free, 1);
    }
}
