//! The store as the rest of the program sees it: memory first, then what waits to be written, then the disk.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use quick_cache::sync::Cache;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::care::{Guard, Rules, ToRestore, Totals};
use super::layout::{Kind, Layout, open_to_read};
use super::list::{InMemory, in_memory};
use super::lock::{FolderId, Lock};
use super::memory::Memory;
use super::partial::{Partial, Verified, remove};
use super::publish::{Pending, Publisher, lock};
use super::syncs::Syncs;
use super::touch::Touches;
use super::trouble::{Disk, TRY_EVERY, Trouble, TroubleKind};
use super::work::{Change, Work};
use super::{OpenError, Record, SMALL, StoreError, open};
use crate::oci::{Digest, Image, Name, Reference, Referrers, Subject, TagList};

/// A cache in a folder, opened for writing.
pub struct Store {
    pub(super) layout: Layout,
    id: String,
    boot: Arc<str>,
    number: Arc<AtomicU64>,
    syncs: Arc<Syncs>,
    pub(super) memory: Arc<Memory>,
    /// Blobs that are wrong, with their inodes, where the disk does not let them be put aside.
    pub(super) shunned: Cache<Digest, u64>,
    pub(super) tag_lists: InMemory<Name, TagList>,
    pub(super) referrers: InMemory<Subject, Referrers>,
    pub(super) pending: Arc<Pending>,
    pub(super) publisher: Publisher,
    pub(super) touches: Touches,
    pub(super) disk: Arc<Disk>,
    pub(super) guard: Arc<Guard>,
    pub(super) totals: Arc<Totals>,
    /// Held by a walk over the whole folder that counts or removes, and by a change of pins: one at a time.
    pub(super) care: Mutex<()>,
    pub(super) rules: ArcSwap<Rules>,
    pub(super) to_restore: ToRestore,
    /// Keys of content that could not be removed.
    pub(super) stuck: Mutex<HashSet<u64>>,
    lock: Lock,
}

/// Wrong blobs that are remembered.
const SHUNNED: usize = 1024;

impl Store {
    /// Opens the folder, or makes it. Blocks for up to 10 s when another process holds it. Takes no longer for a
    /// large cache: nothing but `partial/` is listed.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let layout = Layout::new(root);
        let opened = open::open(&layout)?;
        Self::start(layout, opened)
    }

    /// Opens a folder that is a store already, for a command. Does not wait for another process that holds it.
    pub fn open_existing(root: &Path) -> Result<Self, OpenError> {
        let layout = Layout::new(root);
        let opened = open::open_existing(&layout)?;
        Self::start(layout, opened)
    }

    fn start(layout: Layout, open::Opened { lock, id, new }: open::Opened) -> Result<Self, OpenError> {
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot).map_err(StoreError::on("read", boot))?;
        let number = Arc::new(AtomicU64::new(1));
        let pending = Arc::<Pending>::default();
        let memory = Arc::<Memory>::default();
        let disk = Arc::<Disk>::default();
        let guard = Arc::<Guard>::default();
        let totals = Arc::new(if new { Totals::of_nothing() } else { Totals::default() });
        let start = Publisher::start(
            layout.clone(),
            pending.clone(),
            memory.clone(),
            number.clone(),
            disk.clone(),
            guard.clone(),
            totals.clone(),
        );
        let publisher = start.map_err(StoreError::on("start a thread for", &layout.root))?;
        Ok(Self {
            layout,
            id,
            boot: Arc::from(boot.trim()),
            number,
            syncs: Arc::default(),
            memory,
            shunned: Cache::new(SHUNNED),
            tag_lists: in_memory(),
            referrers: in_memory(),
            pending,
            publisher,
            touches: Touches::default(),
            disk,
            guard,
            totals,
            care: Mutex::new(()),
            rules: ArcSwap::default(),
            to_restore: ToRestore::default(),
            stuck: Mutex::default(),
            lock,
        })
    }

    /// Says at once when the disk is one that takes nothing, and why. Blocks.
    pub fn look_at_disk(&self) -> Option<StoreError> {
        let error = self.try_writing().err().filter(|error| error.trouble().is_some())?;
        self.disk.failed(&error, 0, None);
        Some(error)
    }

    /// Tells this cache from others; made when the folder was.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Tells this folder from all others, its copies too.
    pub fn folder_id(&self) -> FolderId {
        self.lock.folder
    }

    /// Tells other processes where this one takes commands.
    pub fn announce(&self, admin_socket: &Path) -> Result<(), StoreError> {
        self.lock.write(Some(admin_socket))
    }

    /// Finds out whether things can be kept, by writing a page and removing it. Blocks.
    pub fn try_writing(&self) -> Result<(), StoreError> {
        for folder in Layout::FOLDERS.map(|folder| self.layout.root.join(folder)) {
            let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            let may = rustix::fs::accessat(CWD, &folder, access, rustix::fs::AtFlags::EACCESS);
            may.map_err(|errno| StoreError::on("write to", &folder)(errno.into()))?;
        }
        let path = self.layout.temporary(self.number.fetch_add(1, Ordering::Relaxed));
        let written = fs::write(&path, [0; 4096]);
        let removed = fs::remove_file(&path);
        written.and(removed).map_err(StoreError::on("write", &path))
    }

    /// What we hold under a name, if memory knows.
    pub fn reference_at_hand(&self, image: &Image) -> Option<Arc<Record>> {
        self.memory.references.get(image).or_else(|| self.pending.reference(image)?)
    }

    /// What we hold under a name, if anything. May read the disk.
    pub fn reference(&self, image: &Image) -> Option<Arc<Record>> {
        if let Some(record) = self.memory.references.get(image) {
            return Some(record);
        }
        let dropped = self.memory.dropped.load(Ordering::Acquire);
        if let Some(known) = self.pending.reference(image) {
            return known;
        }
        let record = Arc::new(read_record(&self.layout.reference(image), &image.reference)?);
        // Something newer may have come while the disk was asked; that must not be replaced.
        let record = match self.pending.reference(image) {
            Some(newer) => newer,
            None => self.memory.references.get_or_insert_with(image, || Ok::<_, ()>(record)).ok(),
        };
        if self.memory.dropped.load(Ordering::Acquire) != dropped {
            // Perhaps this one: it must not outlive its file. The disk still has what is newer.
            self.memory.references.remove(image);
        }
        record
    }

    /// A manifest's bytes, if they are in memory.
    pub fn manifest_at_hand(&self, digest: &Digest) -> Option<Bytes> {
        self.memory.manifests.get(digest).or_else(|| lock(&self.pending.manifests).get(digest).cloned())
    }

    /// A manifest's bytes, hashed when they come from disk. Wrong ones are put aside and are none. May read the
    /// disk.
    pub fn manifest(&self, digest: &Digest) -> Option<Bytes> {
        self.manifest_at_hand(digest).or_else(|| {
            let bytes = self.read_manifest(digest)?;
            self.memory.manifests.insert(*digest, bytes.clone());
            Some(bytes)
        })
    }

    /// A blob's file and size in bytes, if opening it does not touch the disk: mostly the kernel knows the name.
    pub fn blob_at_hand(&self, digest: &Digest) -> Option<(Arc<File>, u64)> {
        self.pending.blob(digest).or_else(|| {
            let file = open_cached(&self.layout.blob(digest)).ok()?;
            let data = file.metadata().ok().filter(Metadata::is_file)?;
            if self.shuns(digest, &data) {
                return None;
            }
            self.guard.found(digest);
            Some((Arc::new(file), data.len()))
        })
    }

    /// A blob's file and size in bytes. May touch the disk.
    pub fn blob(&self, digest: &Digest) -> Result<Option<(Arc<File>, u64)>, StoreError> {
        if let Some(blob) = self.pending.blob(digest) {
            return Ok(Some(blob));
        }
        let path = self.layout.blob(digest);
        match open_to_read(&path).and_then(|file| Ok((file.metadata()?, file))) {
            // None of ours.
            Ok((data, _)) if !data.is_file() || self.shuns(digest, &data) => Ok(None),
            Ok((data, file)) => {
                self.guard.found(digest);
                Ok(Some((Arc::new(file), data.len())))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::on("open", &path)(error)),
        }
    }

    /// Whether a blob is there. May touch the disk.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        // Said before the look: what is found then stays.
        let stays = self.guard.stays(digest);
        lock(&self.pending.blobs).contains_key(digest) || stays && self.is_blob_kept(digest)
    }

    /// Whether an earlier download of a blob left something to go on from. May touch the disk.
    pub fn has_partial(&self, digest: &Digest) -> bool {
        self.layout.sidecar(digest).exists()
    }

    /// Begins or resumes the download of a blob. There must be one at a time for a digest. Blocks.
    pub fn begin(&self, digest: Digest) -> Result<Partial, StoreError> {
        Partial::open(&self.layout, &self.boot, &self.number, &self.syncs, digest, self.disk.is_troubled())
    }

    /// What is wrong with the disk, if anything is.
    pub fn trouble(&self) -> Option<Trouble> {
        self.disk.trouble()
    }

    /// A blob of `wanted` bytes, if that is known, could not be kept: what is there of it goes when the space is
    /// needed, or when it is of no use. Otherwise a later download goes on from there. Blocks.
    pub fn give_up(&self, digest: &Digest, error: &StoreError, wanted: u64) {
        let path = self.layout.partial(digest);
        self.disk.failed(error, wanted, Some(&path));
        let useless = error.is_damage() || error.source.kind() == ErrorKind::PermissionDenied;
        if useless || error.trouble() == Some(TroubleKind::Full) {
            self.syncs.forget(digest);
            remove(&path);
            remove(&self.layout.sidecar(digest));
        }
    }

    /// Tries now and then whether a disk that took nothing does again, and hands it what it did not take; until dropped.
    pub async fn watch_disk(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TRY_EVERY).await;
            if self.disk.trouble().is_some_and(|trouble| trouble.since.elapsed() >= TRY_EVERY) {
                let store = self.clone();
                blocking(move || store.disk.probe(&store.layout.partials())).await;
            }
            if !self.disk.is_troubled() {
                self.publisher.try_again();
            }
        }
    }

    /// Keeps a blob. Reads find it from now on; a small one is durable some time after this returns.
    pub async fn publish_blob(&self, blob: Arc<Verified>) {
        let large = blob.size > SMALL;
        if large {
            // Found from now on, but synced by itself: it would hold up the whole batch.
            lock(&self.pending.blobs).insert(blob.digest, blob.clone());
            let (unsynced, disk, syncs) = (blob.clone(), self.disk.clone(), self.syncs.clone());
            let sync = move || {
                unsynced.sync().inspect_err(|error| {
                    disk.failed(error, unsynced.size, Some(&unsynced.path));
                    syncs.forget(&unsynced.digest);
                    unsynced.discard();
                })
            };
            // None: we are ending, and the next start goes on from there.
            let Some(Ok(())) = blocking(sync).await else {
                lock(&self.pending.blobs).remove(&blob.digest);
                return;
            };
        }
        self.publisher.publish(vec![Work::Blob(blob)]).await;
        if large {
            self.disk.wake_keeper();
        }
    }

    /// Has a thread unparked whenever a large blob was published, since it took space, and whenever the disk is full.
    /// One thread only.
    pub fn wake_when_filling(&self, keeper: Thread) {
        self.disk.set_keeper(keeper);
    }

    /// How many bytes have to come back so that the full disk has room for what it had none for; none when it was not
    /// full since this was last asked.
    pub fn lacking(&self) -> Option<u64> {
        self.disk.lacking()
    }

    /// Whether bytes may have to come back.
    pub fn is_lacking(&self) -> bool {
        self.disk.is_lacking()
    }

    /// Keeps a manifest under the names it was fetched by. As [`publish_blob`](Self::publish_blob); while the disk takes
    /// nothing, it waits in memory until it does, as long as there is room for it there.
    pub async fn publish_manifest(&self, bytes: Bytes, names: Vec<(Image, Arc<Record>)>) {
        let mut works = Vec::with_capacity(1 + names.len());
        if let Some((_, record)) = names.first() {
            self.memory.manifests.insert(record.digest, bytes.clone());
            works.push(Work::Manifest(record.digest, bytes));
        }
        for (image, record) in names {
            self.memory.references.insert(image.clone(), record.clone());
            works.push(Work::Reference(image, Change::Put(record)));
        }
        self.publisher.publish(works).await;
    }

    /// Replaces a record by one that differs in its times only.
    pub fn refresh(&self, image: &Image, record: Arc<Record>) {
        if self.reference_at_hand(image).is_none() {
            // Pruned since it was looked up.
            return;
        }
        self.memory.references.insert(image.clone(), record.clone());
        self.publisher.publish_if_room(Work::Reference(image.clone(), Change::Put(record)));
    }

    /// Waits until all that was published up to now is on disk, or turned out not to get there. Blocks.
    pub fn settle(&self) {
        self.publisher.settle(|| ());
    }

    /// Whether a name is on disk, with the manifest that it is to stand for. Touches the disk.
    pub fn is_kept(&self, image: &Image, digest: &Digest) -> bool {
        read_record(&self.layout.reference(image), &image.reference)
            .is_some_and(|record| record.digest == *digest)
            && self.layout.manifest(digest).exists()
    }

    /// Whether a blob is on disk. Touches the disk.
    pub fn is_blob_kept(&self, digest: &Digest) -> bool {
        fs::metadata(self.layout.blob(digest)).is_ok_and(|data| !self.shuns(digest, &data))
    }

    /// Forgets a name. The bytes stay until they are pruned.
    pub async fn forget(&self, image: &Image) {
        self.memory.references.remove(image);
        self.publisher.publish(vec![Work::Reference(image.clone(), Change::Remove)]).await;
        // Again: a reader may have put it back before that.
        self.memory.drop_reference(image);
    }

    /// Notes that a name was used just now.
    pub fn touch(&self, image: &Image, record: &Arc<Record>) {
        self.guard.used(image, &record.digest);
        self.touches.note(image, record);
    }

    /// Writes times of use down, every minute, until dropped.
    pub async fn keep_times(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let store = self.clone();
            blocking(move || store.touches.flush(&store.layout)).await;
        }
    }

    fn read_manifest(&self, want: &Digest) -> Option<Bytes> {
        let path = self.layout.manifest(want);
        let read = || {
            let mut file = open_to_read(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>((file, bytes))
        };
        match read() {
            Ok((_, bytes)) if Digest::of(want.algorithm(), &bytes) == *want => Some(Bytes::from(bytes)),
            Ok((file, _)) => {
                self.put_aside(Kind::Manifest, want, Some(&file), "a manifest is not what its name says");
                None
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read a manifest: fetching it anew");
                }
                None
            }
        }
    }

    /// A name for a file that is being written.
    pub(super) fn temporary(&self) -> PathBuf {
        self.layout.temporary(self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until all that was published is on disk. Blocks; what is published afterwards is not kept.
    pub fn close(&self) {
        self.publisher.close();
        self.touches.flush(&self.layout);
        self.lock.clear();
    }
}

/// Runs what blocks where that is allowed; none when the runtime is going down.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn open_cached(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)?))
}

fn read_record(path: &Path, reference: &Reference) -> Option<Record> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read a reference: fetching it anew");
            }
            return None;
        }
    };
    Record::from_json(reference, &bytes)
        .map_err(|error| tracing::warn!(path = %path.display(), %error, "not a reference: fetching it anew"))
        .ok()
}
