//! One piece of work however many ask for it at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;

type Waiting<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// Work under way, by what it is for. It goes on when those who asked have gone.
pub struct Shared<K, V> {
    waiting: Waiting<K, V>,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

/// Takes the work out of the map when it ends, however it ends.
struct Ending<K: Eq + Hash, V> {
    waiting: Waiting<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Ending<K, V> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, V> Shared<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the work under way for `key`, or starts it on `runtime`. None when it panicked.
    pub async fn run<F>(&self, runtime: &Handle, key: &K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut result = {
            // Held for a look and an insertion, never across an await.
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.get(key) {
                Some(result) => result.clone(),
                None => {
                    let (sender, result) = watch::channel(None);
                    waiting.insert(key.clone(), result.clone());
                    let ending = Ending { waiting: self.waiting.clone(), key: key.clone() };
                    let work = work();
                    runtime.spawn(async move {
                        let value = work.await;
                        drop(ending);
                        let _ = sender.send(Some(value));
                    });
                    result
                }
            }
        };
        result.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_ask_and_one_works() {
        let shared = Arc::new(Shared::<&str, u32>::default());
        let runs = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (shared, runs) = (shared.clone(), runs.clone());
                tokio::spawn(async move {
                    let work = || async move {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        runs.fetch_add(1, Ordering::Relaxed) + 1
                    };
                    shared.run(&Handle::current(), &"key", work).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Some(1));
        }
        assert!(shared.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_panic_wakes_those_who_wait_and_the_next_starts_anew() {
        let shared = Shared::<u8, u32>::default();
        assert_eq!(shared.run(&Handle::current(), &1, || async { panic!("on purpose") }).await, None);
        assert_eq!(shared.run(&Handle::current(), &1, || async { 7 }).await, Some(7));
    }
}
