//! Large files that are synced while they are still written, behind their writers' backs.
//!
//! The kernel tells once that bytes did not reach the disk, to whoever syncs that open file next: what a sync here is
//! told, a later one is not. So every result is kept for whoever would publish the file, and a file is not opened
//! again while a sync of it is under way.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use super::partial::remove;
use super::publish::lock;
use crate::oci::Digest;

/// The syncs that are under way: one at most for a digest, its flight's or that of a flight that has gone.
#[derive(Default)]
pub struct Syncs(Mutex<HashMap<Digest, Arc<Sync>>>);

/// A sync of the first `length` bytes of a file.
#[derive(Debug)]
pub struct Sync {
    pub length: u64,
    result: OnceLock<nix::Result<()>>,
}

impl Sync {
    /// None while it is under way.
    pub fn result(&self) -> Option<nix::Result<()>> {
        self.result.get().copied()
    }

    /// Waits for its end. Blocks.
    pub fn wait(&self) -> nix::Result<()> {
        *self.result.wait()
    }
}

impl Syncs {
    /// Begins to sync what is written so far, in a thread of its own; none where no thread can be had. What a failed
    /// sync leaves cannot be resumed: its sidecar goes.
    pub fn start(
        self: &Arc<Self>,
        digest: Digest,
        file: Arc<File>,
        sidecar: PathBuf,
        length: u64,
    ) -> Option<Arc<Sync>> {
        let sync = Arc::new(Sync { length, result: OnceLock::new() });
        let (syncs, begun) = (self.clone(), sync.clone());
        lock(&self.0).insert(digest, sync.clone());
        let work = move || {
            let result = nix::unistd::fdatasync(&file);
            let mut under_way = lock(&syncs.0);
            // Else the file is gone, and what bears its name now is another download's.
            if under_way.get(&digest).is_some_and(|last| Arc::ptr_eq(last, &begun)) {
                if result.is_err() {
                    remove(&sidecar);
                }
                under_way.remove(&digest);
            }
            drop(under_way);
            let _ = begun.result.set(result);
        };
        let thread = std::thread::Builder::new().name("sync".into()).spawn(work);
        if thread.is_err() {
            self.forget(&digest);
        }
        thread.is_ok().then_some(sync)
    }

    /// Waits for the sync of a digest's file that is under way, if there is one. Blocks.
    pub fn wait(&self, digest: &Digest) {
        let under_way = lock(&self.0).get(digest).cloned();
        if let Some(sync) = under_way {
            let _ = sync.wait();
        }
    }

    /// The digest's file is removed: a sync of it no longer matters.
    pub fn forget(&self, digest: &Digest) {
        lock(&self.0).remove(digest);
    }
}
