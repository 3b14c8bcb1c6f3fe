//! Making things durable behind the clients' backs.
//!
//! What is verified goes into a bounded backlog, where every read already finds it. One thread takes what has
//! gathered there, and for the whole batch: syncs the files, renames them into place, syncs the folders, then
//! does the same for the references to them. A few files are synced one by one; for many, one syncfs is faster.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::care::{Guard, Totals};
use super::layout::{Kind, Layout};
use super::partial::{self, Verified};
use super::trouble::Disk;
use super::{Kept, Record, StoreError};
use crate::oci::{Digest, Image, Name, Referrers, Subject, TagList};

/// Weight of what may wait; an open file or 64 KiB of a manifest weigh 1.
const BACKLOG: usize = 1024;

/// From so many files in a batch on, the file system is synced as a whole.
const SYNCFS_FROM: usize = 64;

/// Threads that sync the files of a smaller batch.
const SYNC_THREADS: usize = 8;

/// A file under `refs/` that changes.
pub enum Change<T> {
    Put(Arc<T>),
    Remove,
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Put(new) => Self::Put(new.clone()),
            Self::Remove => Self::Remove,
        }
    }
}

impl<T> Change<T> {
    /// What is about to be there; none when it is about to be gone.
    pub fn put(&self) -> Option<Arc<T>> {
        match self {
            Self::Put(new) => Some(new.clone()),
            Self::Remove => None,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Put(one), Self::Put(other)) => Arc::ptr_eq(one, other),
            (Self::Remove, Self::Remove) => true,
            _ => false,
        }
    }
}

/// One thing to be made durable.
#[derive(Clone)]
pub enum Work {
    Blob(Arc<Verified>),
    Manifest(Digest, Bytes),
    Reference(Image, Change<Record>),
    TagList(Name, Change<Kept<TagList>>),
    Referrers(Subject, Change<Kept<Referrers>>),
    /// Tells that all that was handed over before is done.
    Settled(std::sync::mpsc::Sender<()>),
}

impl Work {
    fn weight(&self) -> usize {
        let bytes = match self {
            Self::Manifest(_, bytes) => bytes.len(),
            Self::TagList(_, Change::Put(kept)) => kept.list.as_str().len(),
            Self::Referrers(_, Change::Put(kept)) => kept.list.index().len(),
            Self::Blob(_)
            | Self::Reference(..)
            | Self::TagList(..)
            | Self::Referrers(..)
            | Self::Settled(_) => 0,
        };
        1 + bytes / (64 << 10)
    }

    /// The file under `refs/`, if it is one, and what shall be in it; none for a file that shall go.
    fn small_file(&self, layout: &Layout) -> Option<(PathBuf, serde_json::Result<Option<Vec<u8>>>)> {
        Some(match self {
            Self::Blob(_) | Self::Manifest(..) | Self::Settled(_) => return None,
            Self::Reference(image, change) => {
                let json = change.put().map(|record| record.to_json(&image.reference)).transpose();
                (layout.reference(image), json)
            }
            Self::TagList(name, change) => {
                (layout.tag_list(name), Ok(change.put().map(|kept| kept.to_json())))
            }
            Self::Referrers(subject, change) => {
                (layout.referrers(subject), Ok(change.put().map(|kept| kept.to_json())))
            }
        })
    }
}

/// What waits, by name. Short critical sections: a std Mutex is enough.
#[derive(Default)]
pub struct Pending {
    pub blobs: Mutex<HashMap<Digest, Arc<Verified>>>,
    pub manifests: Mutex<HashMap<Digest, Bytes>>,
    pub references: Mutex<HashMap<Image, Change<Record>>>,
    pub tag_lists: Mutex<HashMap<Name, Change<Kept<TagList>>>>,
    pub referrers: Mutex<HashMap<Subject, Change<Kept<Referrers>>>>,
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
    fn done(&self, work: &Work) {
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
}

fn take_out<K: Eq + Hash, T>(waiting: &Mutex<HashMap<K, Change<T>>>, key: &K, done: &Change<T>) {
    let mut waiting = lock(waiting);
    if waiting.get(key).is_some_and(|last| last.is(done)) {
        waiting.remove(key);
    }
}

type Job = (Vec<Work>, OwnedSemaphorePermit);

pub struct Publisher {
    pending: Arc<Pending>,
    guard: Arc<Guard>,
    room: Arc<Semaphore>,
    queue: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Publisher {
    pub fn start(
        layout: Layout,
        pending: Arc<Pending>,
        number: Arc<AtomicU64>,
        disk: Arc<Disk>,
        guard: Arc<Guard>,
        totals: Arc<Totals>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let writer = Writer { layout, number, pending: pending.clone(), disk, guard: guard.clone(), totals };
        let thread = std::thread::Builder::new().name("publish".into()).spawn(move || writer.run(jobs))?;
        Ok(Self {
            pending,
            guard,
            room: Arc::new(Semaphore::new(BACKLOG)),
            queue: Mutex::new(Some(queue)),
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

    fn hand_over(&self, works: Vec<Work>, permit: OwnedSemaphorePermit) {
        // Under the queue's lock, so that what waits under a name is always the last that was sent.
        let queue = lock(&self.queue);
        if let Some(queue) = &*queue {
            for work in &works {
                self.pending.add(work);
                self.tell_guard(work);
            }
            let _ = queue.send((works, permit));
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

struct Writer {
    layout: Layout,
    number: Arc<AtomicU64>,
    pending: Arc<Pending>,
    disk: Arc<Disk>,
    guard: Arc<Guard>,
    totals: Arc<Totals>,
}

/// A written file and the name it gets.
struct Move {
    file: Arc<File>,
    from: PathBuf,
    to: PathBuf,
    /// None for a reference.
    content: Option<(Kind, Digest)>,
}

/// A folder whose names have changed.
struct Folder {
    file: File,
    path: PathBuf,
}

impl Writer {
    fn run(self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut batch = Vec::new();
        while jobs.blocking_recv_many(&mut batch, BACKLOG) > 0 {
            let (works, permits): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let works: Vec<Work> = works.into_iter().flatten().collect();
            let begun = Instant::now();
            self.write_batch(&works);
            tracing::debug!(works = works.len(), took = ?begun.elapsed(), "published a batch");
            works.iter().for_each(|work| self.pending.done(work));
            drop(permits);
        }
    }

    fn write_batch(&self, works: &[Work]) {
        let mut contents = Vec::new();
        for work in works {
            match work {
                Work::Blob(blob) => contents.push(Move {
                    file: blob.file.clone(),
                    from: blob.path.clone(),
                    to: self.layout.blob(&blob.digest),
                    content: Some((Kind::Blob, blob.digest)),
                }),
                Work::Manifest(digest, bytes) => {
                    let content = Some((Kind::Manifest, *digest));
                    contents.extend(self.write_new(bytes, self.layout.manifest(digest), content));
                }
                Work::Reference(..) | Work::TagList(..) | Work::Referrers(..) | Work::Settled(_) => {}
            }
        }
        let files: Vec<&File> = contents.iter().map(|one| &*one.file).collect();
        let folders = self.rename(&contents, self.sync(&files));
        for work in works {
            if let Work::Blob(blob) = work
                && blob.sidecar
            {
                partial::remove(&self.layout.sidecar(&blob.digest));
            }
        }

        // Only the last change of a name matters.
        let mut seen = HashSet::new();
        let mut references = Vec::new();
        for work in works.iter().rev() {
            let Some((path, content)) = work.small_file(&self.layout) else {
                continue;
            };
            if !seen.insert(path.clone()) {
                continue;
            }
            match content {
                Err(error) => tracing::error!(path = %path.display(), %error, "cannot write a reference"),
                Ok(Some(json)) => references.extend(self.write_new(&json, path, None)),
                Ok(None) => match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        self.report(&StoreError::on("remove", &path)(error));
                    }
                    _ => {}
                },
            }
        }
        // The folders of the contents and the files of the references in one go.
        let files: Vec<&File> =
            folders.iter().map(|one| &one.file).chain(references.iter().map(|one| &*one.file)).collect();
        let mut synced = self.sync(&files);
        let references_synced = synced.split_off(folders.len());
        self.report_folders(&folders, synced);
        let folders = self.rename(&references, references_synced);
        self.report_folders(&folders, self.sync(&folders.iter().map(|one| &one.file).collect::<Vec<_>>()));
    }

    /// Writes a small file under a temporary name. None, reported, when that fails.
    fn write_new(&self, bytes: &[u8], to: PathBuf, content: Option<(Kind, Digest)>) -> Option<Move> {
        let from = self.layout.temporary(self.number.fetch_add(1, Ordering::Relaxed));
        let write = || {
            let file = File::options().write(true).create_new(true).mode(0o640).open(&from)?;
            file.write_all_at(bytes, 0)?;
            Ok(Arc::new(file))
        };
        match write() {
            Ok(file) => Some(Move { file, from, to, content }),
            Err(error) => {
                self.report(&StoreError::on("write", &from)(error));
                partial::remove(&from);
                None
            }
        }
    }

    /// Renames what was synced, and opens the folders to be synced then. What failed is discarded, and reported.
    fn rename(&self, moves: &[Move], synced: Vec<io::Result<()>>) -> Vec<Folder> {
        let mut folders = HashSet::new();
        // What a sweep removes at the same time is the older file.
        let files = self.guard.files();
        for (moved, result) in moves.iter().zip(synced) {
            let Move { from, to, .. } = moved;
            let result = result.map_err(StoreError::on("sync", from)).and_then(|()| {
                self.place(moved, &mut folders).map_err(StoreError::on("rename into place", to))
            });
            if let Err(error) = result {
                self.report(&error);
                partial::remove(from);
            }
        }
        drop(files);
        let open = |path: PathBuf| match File::open(&path) {
            Ok(file) => Some(Folder { file, path }),
            Err(error) => {
                self.report(&StoreError::on("open", &path)(error));
                None
            }
        };
        folders.into_iter().filter_map(open).collect()
    }

    fn report_folders(&self, folders: &[Folder], synced: Vec<io::Result<()>>) {
        for (Folder { path, .. }, result) in folders.iter().zip(synced) {
            if let Err(error) = result {
                self.report(&StoreError::on("sync folder", path)(error));
            }
        }
    }

    fn report(&self, error: &StoreError) {
        self.disk.failed(error, 0);
    }

    /// Renames one, and counts it when it is new.
    fn place(&self, moved: &Move, folders: &mut HashSet<PathBuf>) -> io::Result<()> {
        let Move { file, from, to, content } = moved;
        let new = content.filter(|_| !to.exists());
        let bytes = file.metadata()?.len();
        if let Some((kind, digest)) = new {
            self.totals.appears(kind, &digest, bytes);
        }
        rename(from, to, folders).inspect_err(|_| {
            if let Some((kind, _)) = new {
                self.totals.vanished(kind, bytes);
            }
        })
    }

    /// Syncs files or folders, each with its result.
    fn sync(&self, files: &[&File]) -> Vec<io::Result<()>> {
        if files.len() >= SYNCFS_FROM {
            let whole = File::open(&self.layout.root).and_then(|root| Ok(nix::unistd::syncfs(root)?));
            if whole.is_ok() {
                return files.iter().map(|_| Ok(())).collect();
            }
        }
        if files.len() < 4 {
            return files.iter().map(|file| file.sync_all()).collect();
        }
        std::thread::scope(|scope| {
            let parts: Vec<_> = files
                .chunks(files.len().div_ceil(SYNC_THREADS))
                .map(|part| scope.spawn(|| part.iter().map(|file| file.sync_all()).collect::<Vec<_>>()))
                .collect();
            let died = |part: &[&File]| {
                part.iter().map(|_| Err(io::Error::other("the syncing thread died"))).collect()
            };
            let shares = files.chunks(files.len().div_ceil(SYNC_THREADS));
            parts
                .into_iter()
                .zip(shares)
                .flat_map(|(part, share)| part.join().unwrap_or_else(|_| died(share)))
                .collect()
        })
    }
}

/// Renames, makes the folder where it is missing, and notes which folders are to be synced.
fn rename(from: &Path, to: &Path, folders: &mut HashSet<PathBuf>) -> io::Result<()> {
    let Some(folder) = to.parent() else {
        return Err(ErrorKind::InvalidInput.into());
    };
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => {
            for missing in folder.ancestors().take_while(|folder| !folder.exists()) {
                folders.extend(missing.parent().map(Path::to_owned));
            }
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
            fs::rename(from, to)?;
        }
        result => result?,
    }
    folders.insert(folder.to_owned());
    Ok(())
}
