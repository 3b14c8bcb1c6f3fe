//! A blob that the disk does not take: each client gets a stream of upstream's, past the store.
//!
//! What the client has of it is hashed on the way, and the last byte is held back until the digest is right, as in
//! any other answer. A part that ends before the last byte goes through as upstream sends it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failures::log_failure;
use super::{Pull, PullError};
use crate::oci::{Digest, Hasher, Name};
use crate::store::Wrong;

/// Clients at once that get a stream of upstream's each.
const PLACES: usize = 16;

/// A client that took nothing for so long gives its place to another who waits for one. It is more than a slow one takes
/// for what the kernel holds for it.
const STALLED: Duration = Duration::from_secs(20);

/// For passages at once.
pub struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
}

impl Default for Places {
    fn default() -> Self {
        Self { free: Semaphore::new(PLACES), waiting: AtomicUsize::new(0) }
    }
}

/// Somebody who waits for a place, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn counted(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// Those that are taken.
    pub fn taken(&self) -> usize {
        PLACES - self.free.available_permits().min(PLACES)
    }

    async fn take(&self) -> Result<SemaphorePermit<'_>, PullError> {
        let _waiting = Waiting::counted(&self.waiting);
        // It is never closed.
        self.free.acquire().await.map_err(|_| PullError::Lost)
    }

    fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.free.available_permits()
    }
}

/// What a passage needs to begin.
#[derive(Clone)]
pub struct Detour {
    pub pull: Arc<Pull>,
    pub name: Name,
    pub digest: Digest,
    /// Of the whole blob, in bytes.
    pub size: u64,
}

/// A stream of upstream's for one client.
pub struct Passage {
    pub chunks: mpsc::Receiver<Result<Bytes, PullError>>,
}

impl Detour {
    /// Streams the bytes from `first` to `end`, which is behind the last one. `sent` has the bytes before `first` as
    /// the client was sent them; without it, or when it cannot be read, they come from upstream, to be hashed only: then it
    /// is upstream's blob that is proven, and not what was sent of it before.
    pub fn start(&self, first: u64, end: u64, sent: Option<Arc<File>>) -> Passage {
        let (sender, chunks) = mpsc::channel(1);
        let detour = self.clone();
        self.pull.spawn(async move {
            let passed = async {
                let _place = detour.pull.passages.take().await?;
                if end < detour.size {
                    detour.part(first, end, &sender).await
                } else {
                    detour.rest(first, sent, &sender).await
                }
            };
            let gone = sender.clone();
            tokio::select! {
                passed = passed => if let Err(error) = passed {
                    let what = format!("cannot pass on {}@{}", detour.name, detour.digest);
                    match error {
                        PullError::Stalled => log_failure!(info, detour.name, detour.digest, error, "{what}"),
                        _ => detour.pull.failures.warn(&detour.name, detour.digest, &error, &what),
                    }
                    let _ = sender.send(Err(error)).await;
                },
                () = gone.closed() => {}
            }
        });
        Passage { chunks }
    }

    async fn part(&self, first: u64, end: u64, sender: &Sender) -> Result<(), PullError> {
        let upstream = self.pull.upstream(&self.name.registry);
        let last = end.saturating_sub(1);
        let mut download = upstream.range(&self.name.repository, &self.digest, first, last).await?;
        while let Some(bytes) = download.chunk().await? {
            if !self.hand_on(bytes, sender).await? {
                break;
            }
        }
        Ok(())
    }

    async fn rest(&self, first: u64, sent: Option<Arc<File>>, sender: &Sender) -> Result<(), PullError> {
        let algorithm = self.digest.algorithm();
        let (mut hasher, mut position) = (Hasher::new(algorithm), 0);
        if let Some(sent) = sent {
            let hash = move || hash(&sent, first, Hasher::new(algorithm));
            // A disk that takes nothing may give nothing either.
            if let Ok(hashed) = tokio::task::spawn_blocking(hash).await.map_err(|_| PullError::Lost)? {
                (hasher, position) = (hashed, first);
            }
        }
        let upstream = self.pull.upstream(&self.name.registry);
        let mut download =
            upstream.blob(&self.name.repository, &self.digest, position, Some(self.size)).await?;
        let mut skip = position - download.start().min(position);
        let mut held = None;
        while let Some(mut bytes) = download.chunk().await? {
            // One that cannot do ranges begins at the beginning.
            let skipped = portion(skip, bytes.len());
            let _ = bytes.split_to(skipped);
            skip -= skipped as u64;
            hasher.update(&bytes);
            let before = portion(first.saturating_sub(position), bytes.len());
            position += bytes.len() as u64;
            let _ = bytes.split_to(before);
            if position >= self.size {
                held = (!bytes.is_empty()).then(|| bytes.split_off(bytes.len() - 1));
            }
            if !bytes.is_empty() && !self.hand_on(bytes, sender).await? {
                return Ok(());
            }
        }
        let got = hasher.finish();
        if got != self.digest {
            return Err(Box::new(Wrong { want: self.digest, got, bytes: position }).into());
        }
        if let Some(last) = held {
            self.hand_on(last, sender).await?;
        }
        Ok(())
    }

    /// Waits until the client takes it. False when it has gone; an error when it takes nothing, and others wait.
    async fn hand_on(&self, bytes: Bytes, sender: &Sender) -> Result<bool, PullError> {
        let mut item = Ok(bytes);
        loop {
            item = match sender.send_timeout(item, STALLED).await {
                Ok(()) => return Ok(true),
                Err(SendTimeoutError::Closed(_)) => return Ok(false),
                Err(SendTimeoutError::Timeout(_)) if self.pull.passages.are_wanted() => {
                    return Err(PullError::Stalled);
                }
                Err(SendTimeoutError::Timeout(item)) => item,
            };
        }
    }
}

type Sender = mpsc::Sender<Result<Bytes, PullError>>;

fn portion(count: u64, of: usize) -> usize {
    usize::try_from(count).unwrap_or(of).min(of)
}

/// Takes the first bytes of a file into a hash. Blocks.
fn hash(file: &File, length: u64, mut hasher: Hasher) -> Result<Hasher, PullError> {
    let mut buffer = vec![0; 256 << 10];
    let mut position = 0;
    while position < length {
        let want = portion(length - position, buffer.len());
        match file.read_at(&mut buffer[..want], position) {
            Ok(0) => return Err(super::reader::short(position)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                position += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(super::reader::failed(error)),
        }
    }
    Ok(hasher)
}
