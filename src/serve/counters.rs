//! What was served since the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Totals, and what is under way.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that were answered or are being answered.
    pub requests: AtomicU64,
    /// Requests whose answer is not over.
    pub in_flight: AtomicU64,
    /// Of bodies of manifests, blobs and lists, handed over to be sent.
    pub content: AtomicU64,
    /// Of all other bodies: errors above all.
    pub rest: AtomicU64,
}

impl Counters {
    /// Counts a request for as long as it is kept.
    pub fn request(self: &Arc<Self>) -> Counted {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

/// A request under way.
pub struct Counted(Arc<Counters>);

impl Counted {
    pub fn sent(&self, bytes: u64, content: bool) {
        let counter = if content { &self.0.content } else { &self.0.rest };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
