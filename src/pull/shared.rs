//! One piece of work however many ask for it at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::PullError;
use crate::request_id::RequestId;

type UnderWay<K, P> = Arc<Mutex<HashMap<K, watch::Sender<P>>>>;

/// Runs on `runtime`, and ends there when who asked has gone.
pub async fn run_while_wanted<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T, PullError>> + Send + 'static,
) -> Result<T, PullError> {
    let mut task = JoinSet::new();
    task.spawn_on(RequestId::carried(work), runtime);
    match task.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(_)) | None => Err(PullError::Lost),
    }
}

/// Work under way whose progress many follow, by what it is for. It goes on when those who asked have gone, unless it
/// asks [whether they have](Telling::unwanted).
pub struct Followed<K, P> {
    under_way: UnderWay<K, P>,
}

impl<K, P> Default for Followed<K, P> {
    fn default() -> Self {
        Self { under_way: Arc::default() }
    }
}

/// The work's end of it. Dropped before [`end`](Self::end), the work has failed, and those who follow see that.
pub struct Telling<K: Eq + Hash, P> {
    ending: Ending<K, P>,
    progress: watch::Sender<P>,
}

impl<K: Eq + Hash, P> Telling<K, P> {
    pub fn tell(&self, change: impl FnOnce(&mut P)) {
        self.progress.send_modify(change);
    }

    /// Waits until nobody follows; who asks from then on starts anew.
    pub async fn unwanted(&mut self) {
        loop {
            self.progress.closed().await;
            if self.ending.leave_if(|| self.progress.is_closed()) {
                return;
            }
        }
    }

    /// The last change; who asks from now on starts anew.
    pub fn end(self, change: impl FnOnce(&mut P)) {
        drop(self.ending);
        self.progress.send_modify(change);
    }
}

/// Takes the work out of the map when it ends, however it ends.
struct Ending<K: Eq + Hash, P> {
    /// None when it is out already, and another may be in its place.
    under_way: Option<UnderWay<K, P>>,
    key: K,
}

impl<K: Eq + Hash, P> Ending<K, P> {
    /// Whether it is out then; nobody joins while `condition` is looked at.
    fn leave_if(&mut self, condition: impl FnOnce() -> bool) -> bool {
        if let Some(under_way) = &self.under_way {
            let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if !condition() {
                return false;
            }
            under_way.remove(&self.key);
        }
        self.under_way = None;
        true
    }
}

impl<K: Eq + Hash, P> Drop for Ending<K, P> {
    fn drop(&mut self) {
        self.leave_if(|| true);
    }
}

impl<K, P> Followed<K, P>
where
    K: Clone + Eq + Hash + Send + 'static,
    P: Default + Send + Sync + 'static,
{
    /// Joins the work under way for `key`, or starts it on `runtime`.
    pub fn join<F>(
        &self,
        runtime: &Handle,
        key: &K,
        work: impl FnOnce(Telling<K, P>) -> F,
    ) -> watch::Receiver<P>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Held for a look and an insertion, never across an await.
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = under_way.get(key) {
            return progress.subscribe();
        }
        let (progress, follow) = watch::channel(P::default());
        under_way.insert(key.clone(), progress.clone());
        // A runtime that is going down drops the work at once, and with it the ending, which locks this again.
        drop(under_way);
        let ending = Ending { under_way: Some(self.under_way.clone()), key: key.clone() };
        runtime.spawn(RequestId::carried(work(Telling { ending, progress })));
        follow
    }
}

/// Work under way of which only the result matters.
pub struct Shared<K, V>(Followed<K, Option<V>>);

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Followed::default())
    }
}

impl<K, V> Shared<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the work under way for `key`, or starts it on `runtime`. None when it panicked.
    pub async fn run<F>(&self, runtime: &Handle, key: &K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut result = self.0.join(runtime, key, |telling| {
            let work = work();
            async move {
                let value = work.await;
                telling.end(|result| *result = Some(value));
            }
        });
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
        assert!(shared.0.under_way.lock().unwrap().is_empty());
    }

    #[test]
    fn a_runtime_that_has_gone_holds_up_nobody() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let shared = Shared::<u8, u32>::default();
        let here = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(here.block_on(shared.run(&handle, &1, || async { 7 })), None);
        assert!(shared.0.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn work_can_end_when_nobody_follows_and_the_next_starts_anew() {
        let followed = Followed::<u8, u32>::default();
        let (ended, mut has_ended) = watch::channel(0);
        let join = || {
            let ended = ended.clone();
            followed.join(&Handle::current(), &1, |mut telling| async move {
                telling.unwanted().await;
                ended.send_modify(|ended| *ended += 1);
            })
        };
        let (one, other) = (join(), join());
        drop(one);
        tokio::task::yield_now().await;
        assert_eq!(*ended.borrow(), 0, "one still follows");
        drop(other);
        has_ended.wait_for(|ended| *ended == 1).await.unwrap();
        let again = join();
        assert_eq!(followed.under_way.lock().unwrap().len(), 1);
        drop(again);
        has_ended.wait_for(|ended| *ended == 2).await.unwrap();
        assert!(followed.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_panic_wakes_those_who_wait_and_the_next_starts_anew() {
        let shared = Shared::<u8, u32>::default();
        assert_eq!(shared.run(&Handle::current(), &1, || async { panic!("on purpose") }).await, None);
        assert_eq!(shared.run(&Handle::current(), &1, || async { 7 }).await, Some(7));
    }
}
