//! Making things durable behind the clients' backs.
//!
//! What is verified goes into a bounded backlog, where every read already finds it. One thread takes what has
//! gathered there and makes it durable, the whole batch at once ([`super::writer`]).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::Hash;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::care::{Guard, Totals};
use super::layout::Layout;
use super::memory::Memory;
use super::partial::Verified;
use super::trouble::Disk;
use super::work::{Change, Work};
use super::writer::{Writer, whole};
use super::{Kept, Record};
use crate::oci::{Digest, Image, Name, Referrers, Subject, TagList};

/// Weight of what may wait; an open file or 64 KiB of a manifest weigh 1.
pub const BACKLOG: usize = 1024;

/// What may wait for a disk that takes nothing, in bytes: a thousand images or so.
const UNKEPT: usize = 8 << 20;

/// A reference, in bytes, or what a manifest takes besides its own.
const SMALL_CHANGE: usize = 500;

/// What waits, by name. Short critical sections: a std Mutex is enough.
#[derive(Default)]
pub struct Pending {
    pub blobs: Mutex<HashMap<Digest, Arc<Verified>>>,
    pub manifests: Mutex<HashMap<Digest, Bytes>>,
    pub references: Mutex<HashMap<Image, Change<Record>>>,
    pub tag_lists: Mutex<HashMap<Name, Change<Kept<TagList>>>>,
    pub referrers: Mutex<HashMap<Subject, Change<Kept<Referrers>>>>,
    unkept: Mutex<Unkept>,
}

/// Names of what waits for the disk to take something again.
#[derive(Default)]
struct Unkept {
    manifests: HashSet<Digest>,
    references: HashSet<Image>,
    /// All of it, about.
    bytes: usize,
}

/// Locks a map whose users cannot leave it half-changed, whatever panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pending {
    pub fn blob(&self, digest: &Digest) -> Option<(Arc<File>, u64)> {
        lock(&self.blobs).get(digest).map(|blob| (blob.file.clone(), blob.size))
    }

    /// What a name is about to be; the inner none is one that is about to be gone.
    pub fn reference(&self, image: &Image) -> Option<Option<Arc<Record>>> {
        lock(&self.references).get(image).map(Change::put)
    }

    fn add(&self, work: &Work) {
        match work {
            Work::Blob(blob) => {
                lock(&self.blobs).insert(blob.digest, blob.clone());
            }
            Work::Manifest(digest, bytes) => {
                lock(&self.manifests).insert(*digest, bytes.clone());
            }
            Work::Reference(image, change) => {
                lock(&self.references).insert(image.clone(), change.clone());
            }
            Work::TagList(name, change) => {
                lock(&self.tag_lists).insert(name.clone(), change.clone());
            }
            Work::Referrers(subject, change) => {
                lock(&self.referrers).insert(subject.clone(), change.clone());
            }
            Work::Settled(_) => {}
        }
    }

    /// Takes out what is done, unless something newer waits under that name.
    pub fn done(&self, work: &Work) {
        match work {
            Work::Blob(blob) => {
                lock(&self.blobs).remove(&blob.digest);
            }
            Work::Manifest(digest, _) => {
                lock(&self.manifests).remove(digest);
            }
            Work::Reference(image, change) => take_out(&self.references, image, change),
            Work::TagList(name, change) => take_out(&self.tag_lists, name, change),
            Work::Referrers(subject, change) => take_out(&self.referrers, subject, change),
            Work::Settled(told) => {
                let _ = told.send(());
            }
        }
    }

    /// Lets a manifest or a reference that the disk did not take wait on, found by every read, until
    /// [`Publisher::try_again`]. False when it is something else, or there is no room.
    pub fn wait(&self, work: &Work) -> bool {
        let mut unkept = lock(&self.unkept);
        let bytes = SMALL_CHANGE + if let Work::Manifest(_, bytes) = work { bytes.len() } else { 0 };
        let is_known = match work {
            Work::Manifest(digest, _) => unkept.manifests.contains(digest),
            Work::Reference(image, _) => unkept.references.contains(image),
            _ => return false,
        };
        if is_known {
            return true;
        }
        if unkept.bytes + bytes > UNKEPT {
            return false;
        }
        unkept.bytes += bytes;
        match work {
            Work::Manifest(digest, _) => unkept.manifests.insert(*digest),
            Work::Reference(image, _) => unkept.references.insert(image.clone()),
            _ => false,
        }
    }

    /// What was left waiting, unless it has been kept since.
    fn take_unkept(&self) -> Vec<Work> {
        let Unkept { manifests, references, .. } = std::mem::take(&mut *lock(&self.unkept));
        let mut works = Vec::new();
        {
            let waiting = lock(&self.manifests);
            let of = |digest: Digest| Some(Work::Manifest(digest, waiting.get(&digest)?.clone()));
            works.extend(manifests.into_iter().filter_map(of));
        }
        let waiting = lock(&self.references);
        let of = |image: Image| {
            let change = waiting.get(&image)?.clone();
            Some(Work::Reference(image, change))
        };
        works.extend(references.into_iter().filter_map(of));
        works
    }
}

fn take_out<K: Eq + Hash, T>(waiting: &Mutex<HashMap<K, Change<T>>>, key: &K, done: &Change<T>) {
    let mut waiting = lock(waiting);
    if waiting.get(key).is_some_and(|last| last.is(done)) {
        waiting.remove(key);
    }
}

/// What belongs together, and its place in the backlog.
pub type Job = (Vec<Work>, OwnedSemaphorePermit);

pub struct Publisher {
    pending: Arc<Pending>,
    guard: Arc<Guard>,
    room: Arc<Semaphore>,
    queue: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    /// The thread has gone without being told to, and that was said.
    dead: AtomicBool,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Publisher {
    pub fn start(
        layout: Layout,
        pending: Arc<Pending>,
        memory: Arc<Memory>,
        number: Arc<AtomicU64>,
        disk: Arc<Disk>,
        guard: Arc<Guard>,
        totals: Arc<Totals>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let whole = whole(&layout.root);
        let (waiting, watch) = (pending.clone(), guard.clone());
        let writer = Writer { layout, number, pending: waiting, memory, disk, guard: watch, totals, whole };
        let thread = std::thread::Builder::new().name("publish".into()).spawn(move || writer.run(jobs))?;
        Ok(Self {
            pending,
            guard,
            room: Arc::new(Semaphore::new(BACKLOG)),
            queue: Mutex::new(Some(queue)),
            dead: AtomicBool::new(false),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands over what belongs together, in this order. Waits only when the backlog is full.
    pub async fn publish(&self, works: Vec<Work>) {
        let weight: usize = works.iter().map(Work::weight).sum();
        let weight = u32::try_from(weight.min(BACKLOG)).unwrap_or(1);
        let Ok(permit) = self.room.clone().acquire_many_owned(weight).await else {
            return;
        };
        self.hand_over(works, permit);
    }

    /// The same for what may as well be lost, such as a new time of a check: not done when there is no room.
    pub fn publish_if_room(&self, work: Work) {
        if let Ok(permit) = self.room.clone().try_acquire_many_owned(1) {
            self.hand_over(vec![work], permit);
        }
    }

    /// Hands over again what the disk did not take before.
    pub fn try_again(&self) {
        // It is in memory already, and takes no room of others.
        let Ok(permit) = self.room.clone().try_acquire_many_owned(0) else { return };
        self.send(permit, || self.pending.take_unkept());
    }

    fn hand_over(&self, works: Vec<Work>, permit: OwnedSemaphorePermit) {
        self.send(permit, || works);
    }

    fn send(&self, permit: OwnedSemaphorePermit, works: impl FnOnce() -> Vec<Work>) {
        // Under the queue's lock, so that what waits under a name is always the last that was sent.
        let queue = lock(&self.queue);
        if let Some(queue) = &*queue {
            let works = works();
            if works.is_empty() {
                return;
            }
            for work in &works {
                self.pending.add(work);
                self.tell_guard(work);
            }
            if let Err(unsent) = queue.send((works, permit)) {
                // Nobody would ever take it out: rather lost than in memory for good.
                let (works, _) = unsent.0;
                works.iter().for_each(|work| self.pending.done(work));
                if !self.dead.swap(true, Ordering::Relaxed) {
                    tracing::error!("the thread that writes has died: nothing more is kept before a restart");
                }
            }
        }
    }

    fn tell_guard(&self, work: &Work) {
        match work {
            Work::Blob(blob) => self.guard.found(&blob.digest),
            Work::Manifest(digest, _) => self.guard.found(digest),
            Work::Reference(image, Change::Put(record)) => self.guard.used(image, &record.digest),
            Work::TagList(name, Change::Put(_)) => self.guard.listed(name, None),
            Work::Referrers(subject, Change::Put(_)) => {
                self.guard.listed(&subject.name, Some(&subject.digest))
            }
            Work::Reference(_, Change::Remove)
            | Work::TagList(_, Change::Remove)
            | Work::Referrers(_, Change::Remove)
            | Work::Settled(_) => {}
        }
    }

    /// Waits until all that was handed over before `begin` is on disk; all that is handed over later comes after it.
    /// Blocks.
    pub fn settle<T>(&self, begin: impl FnOnce() -> T) -> T {
        let (told, settled) = std::sync::mpsc::channel();
        let queue = lock(&self.queue);
        let begun = begin();
        if let Some(queue) = &*queue
            && let Ok(permit) = self.room.clone().try_acquire_many_owned(0)
        {
            let _ = queue.send((vec![Work::Settled(told)], permit));
        } else {
            drop(told);
        }
        drop(queue);
        // Fails at once when nobody is there to tell it: then all is done.
        let _ = settled.recv();
        begun
    }

    /// Waits until everything handed over is on disk. Blocks; nothing is taken afterwards.
    pub fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close();
    }
}
