//! A command: a typed request for work that takes its time, done by the daemon, or by the process that was asked
//! where no daemon serves. What it tells as it goes is the same either way.
//!
//! Over HTTP it is `POST` with the request as JSON to its path; the answer is a [`Line`](super::answer::Line) of JSON
//! each: items as they come, then `done` or `error`.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::Store;
use crate::store::care::{CareError, Folder, Pace};

/// Hears of each item as it comes; says whether it wants more.
pub type Tell<'a, T> = dyn FnMut(T) -> ControlFlow<()> + 'a;

/// Something to be done with the cache.
pub trait Command: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `/prune`
    const PATH: &'static str;
    /// Whether it changes the cache as a whole: one such at a time.
    const ALONE: bool = false;
    /// What it needs.
    type On: Cache;
    type Item: Serialize + DeserializeOwned + Send + 'static;
    /// What came of it.
    type Done: Serialize + DeserializeOwned + Send + 'static;

    /// Does it. Asks `pace` at every step. Blocks for as long as it takes.
    fn run(
        &self,
        on: &Self::On,
        pace: &Pace<'_>,
        tell: &mut Tell<'_, Self::Item>,
    ) -> Result<Self::Done, CareError>;

    /// What the daemon's log says of it; none where nothing was changed.
    fn entry(&self, _done: &Self::Done) -> Option<String> {
        None
    }
}

/// What commands act on.
pub trait Cache: Send + Sized + 'static {
    /// That of the daemon. Blocks.
    fn of(store: &Arc<Store>) -> Self;

    /// Whether a change of it would wait for one under way.
    fn is_busy(&self) -> bool {
        false
    }

    /// For a process that opened it for one command: lets others have it. Blocks.
    fn release(self) {}
}

/// To be read.
impl Cache for Folder {
    fn of(store: &Arc<Store>) -> Self {
        store.settled_folder()
    }
}

/// To be changed.
impl Cache for Arc<Store> {
    fn of(store: &Arc<Store>) -> Self {
        store.clone()
    }

    fn is_busy(&self) -> bool {
        self.is_cared_for()
    }

    fn release(self) {
        self.close();
    }
}
