//! Which request is being answered: what the log tells the lines of one from those of all others by.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static ANSWERING: Option<RequestId>;
}

/// 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// Numbers go on from one that another run hardly comes by: nanoseconds at the first request.
    pub fn next() -> Self {
        static NUMBER: LazyLock<AtomicU64> = LazyLock::new(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            AtomicU64::new(now.as_nanos() as u64)
        });
        Self(NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// Of the request that this task works for; of several that wait for the same, of the first.
    pub fn current() -> Option<Self> {
        ANSWERING.try_with(|id| *id).unwrap_or_default()
    }

    /// Work for a request.
    pub fn scope<F: Future>(id: Option<Self>, work: F) -> TaskLocalFuture<Option<Self>, F> {
        ANSWERING.scope(id, work)
    }

    /// Work for the current request, to be done by another task.
    pub fn carried<F: Future>(work: F) -> TaskLocalFuture<Option<Self>, F> {
        Self::scope(Self::current(), work)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_knows_for_which_request_it_is_in_other_tasks_too() {
        assert_eq!(RequestId::current(), None);
        let id = RequestId::next();
        assert_ne!(RequestId::next(), id);
        let carried =
            async || tokio::spawn(RequestId::carried(async { RequestId::current() })).await.unwrap();
        assert_eq!(RequestId::scope(Some(id), carried()).await, Some(id));
        assert_eq!(carried().await, None);
    }
}
