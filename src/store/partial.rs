//! A blob on its way in: written and hashed in order, resumable, of no use to anybody until it is verified.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::syncs::{Sync, Syncs};
use super::{SMALL, StoreError};
use crate::oci::{Digest, Hasher, Name};

/// What a crash of the machine may take of a download: so many bytes, or if it is more, what came in so long. A sync
/// slows the writing down, and what comes fast is soon fetched again.
const SYNC_EVERY: u64 = 64 << 20;
const SYNC_PAUSE: Duration = Duration::from_secs(2);

/// `partial/<hex>.json`
#[derive(Serialize, Deserialize)]
struct Sidecar {
    registry: String,
    repository: String,
    size: Option<u64>,
    /// The boot during which it was written: as long as it lasts, what was written is there.
    boot: String,
    /// Bytes that are on disk, whatever happens.
    prefix: u64,
}

/// A file of `partial/` that is being written. There is one at most for a digest: its flight's.
pub struct Partial {
    digest: Digest,
    path: PathBuf,
    file: Arc<File>,
    hasher: Hasher,
    length: u64,
    /// Bytes that are on disk, whatever happens, as an earlier download said.
    durable: u64,
    /// Of the whole blob, as an earlier download was told.
    size: Option<u64>,
    boot: Arc<str>,
    number: Arc<AtomicU64>,
    syncs: Arc<Syncs>,
    synced: Option<Syncing>,
    /// The disk has been full or worse of late: even a small blob asks for its space first.
    troubled: bool,
}

/// How much of the file is known to be on disk, written down in the sidecar.
struct Syncing {
    path: PathBuf,
    from: Name,
    size: Option<u64>,
    boot: Arc<str>,
    asked: u64,
    asked_at: Instant,
    /// The last one, perhaps still under way.
    last: Option<Arc<Sync>>,
    number: Arc<AtomicU64>,
}

/// A blob whose bytes are its digest's. Only this can be published.
#[derive(Debug)]
pub struct Verified {
    pub(super) digest: Digest,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) size: u64,
    pub(super) sidecar: bool,
    /// The last sync of the file, perhaps still under way.
    synced: Option<Arc<Sync>>,
}

impl Verified {
    /// Waits until all of it is on disk, and fails when any sync of it did. Blocks.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let earlier = self.synced.as_ref().map_or(Ok(()), |sync| sync.wait());
        let synced = earlier.map_err(io::Error::from).and_then(|()| self.file.sync_all());
        synced.map_err(StoreError::on("sync", &self.path))
    }

    /// Gives it up. Blocks.
    pub(super) fn discard(&self) {
        remove(&self.path);
        remove(&sidecar(&self.path));
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What came is not what the digest promised. The file is gone.
#[derive(Debug, thiserror::Error)]
#[error("wrong content: want {want}, got {got} in {bytes} bytes")]
pub struct Wrong {
    pub want: Digest,
    pub got: Digest,
    pub bytes: u64,
}

impl Partial {
    /// Opens the partial file of a digest, and hashes again what is there of it. Blocks.
    pub(super) fn open(
        layout: &Layout,
        boot: &Arc<str>,
        number: &Arc<AtomicU64>,
        syncs: &Arc<Syncs>,
        digest: Digest,
        troubled: bool,
    ) -> Result<Self, StoreError> {
        let path = layout.partial(&digest);
        let sidecar = layout.sidecar(&digest);
        if sidecar.exists() {
            // If that fails, there is nothing to go by.
            syncs.wait(&digest);
        }
        let known = known_prefix(&sidecar, boot);
        let (prefix, durable, size) = known.unwrap_or((0, 0, None));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(prefix == 0)
            .mode(0o640)
            .open(&path)
            .map_err(StoreError::on("open", &path))?;
        let mut partial = Self {
            digest,
            path,
            file: Arc::new(file),
            hasher: Hasher::new(digest.algorithm()),
            length: 0,
            durable,
            size,
            boot: boot.clone(),
            number: number.clone(),
            syncs: syncs.clone(),
            synced: None,
            troubled,
        };
        partial.hash_again(prefix)?;
        Ok(partial)
    }

    /// Says where the bytes come from and how many there are in all. What could be resumed gets its space and its
    /// sidecar; a full disk shows here, before the first byte comes. Blocks.
    pub fn expect(&mut self, from: &Name, size: Option<u64>) -> Result<(), StoreError> {
        let small = size.is_some_and(|size| size <= SMALL);
        if let Some(size) = size
            && (!small || self.troubled)
        {
            self.reserve(size)?;
        }
        if small {
            return Ok(());
        }
        let syncing = Syncing {
            path: sidecar(&self.path),
            from: from.clone(),
            size,
            boot: self.boot.clone(),
            asked: self.length,
            asked_at: Instant::now(),
            last: None,
            number: self.number.clone(),
        };
        match syncing.write(self.durable.min(self.length)) {
            // The one of the earlier download is there still.
            Err(error) if self.length > 0 => tracing::debug!("{error}"),
            written => written?,
        }
        self.synced = Some(syncing);
        Ok(())
    }

    /// Cuts the file to what is known to be good, and takes that into the hash.
    fn hash_again(&mut self, known: u64) -> Result<(), StoreError> {
        if known == 0 {
            return Ok(());
        }
        let error = |operation| StoreError::on(operation, &self.path);
        let present = self.file.metadata().map_err(error("look at"))?.len();
        let known = known.min(present);
        self.file.set_len(known).map_err(error("cut"))?;
        let mut buffer = vec![0; 256 << 10];
        while self.length < known {
            let want = usize::try_from(known - self.length).unwrap_or(buffer.len()).min(buffer.len());
            match self.file.read_at(&mut buffer[..want], self.length) {
                Ok(0) => break,
                Ok(count) => {
                    self.hasher.update(&buffer[..count]);
                    self.length += count as u64;
                }
                Err(source) if source.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(error("read")(source)),
            }
        }
        Ok(())
    }

    fn reserve(&self, size: u64) -> Result<(), StoreError> {
        let (Ok(offset), Ok(length)) =
            (i64::try_from(self.length), i64::try_from(size.saturating_sub(self.length)))
        else {
            return Ok(());
        };
        if length == 0 {
            return Ok(());
        }
        use nix::errno::Errno;
        // One that cannot succeed would take all there is while it fails, and what is small would find no room.
        if self.cannot_fit(size) {
            return Err(StoreError::on("reserve space for", &self.path)(Errno::ENOSPC.into()));
        }
        match fallocate(&*self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
            // Not every file system can; there a full disk shows when it is full.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(StoreError::on("reserve space for", &self.path)(errno.into())),
        }
    }

    fn cannot_fit(&self, size: u64) -> bool {
        let has = self.file.metadata().map_or(0, |data| data.blocks() * 512);
        let left = size.saturating_sub(has);
        fstatvfs(&*self.file).is_ok_and(|disk| left > disk.blocks_available() * disk.fragment_size())
    }

    /// For reading what is written so far.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Of the whole blob, as far as an earlier download was told.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes written and hashed.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Writes and hashes the next bytes. Blocks.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, self.length).map_err(StoreError::on("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.sync_behind()
    }

    /// Has what is written so far synced, now and then; the writer goes on. Fails when such a sync did: the file may
    /// have lost bytes then, and no later sync would say so.
    fn sync_behind(&mut self) -> Result<(), StoreError> {
        let Some(syncing) = &mut self.synced else { return Ok(()) };
        match syncing.last.as_ref().map(|last| (last.result(), last.length)) {
            None => {}
            Some((None, _)) => return Ok(()),
            Some((Some(Ok(())), length)) => {
                // If it cannot be written, less can be resumed.
                let _ = syncing.write(length);
                syncing.last = None;
            }
            Some((Some(Err(errno)), _)) => return Err(StoreError::on("sync", &self.path)(errno.into())),
        }
        if self.length - syncing.asked >= SYNC_EVERY && syncing.asked_at.elapsed() >= SYNC_PAUSE {
            (syncing.asked, syncing.asked_at) = (self.length, Instant::now());
            let (file, sidecar) = (self.file.clone(), syncing.path.clone());
            syncing.last = self.syncs.start(self.digest, file, sidecar, self.length);
        }
        Ok(())
    }

    /// All bytes are there: are they the right ones? Wrong ones are removed. Blocks.
    pub fn finish(self) -> Result<Verified, Box<Wrong>> {
        let got = self.hasher.clone().finish();
        if got == self.digest {
            let sidecar = self.synced.is_some() || self.size.is_some();
            return Ok(Verified {
                digest: got,
                path: self.path,
                file: self.file,
                size: self.length,
                sidecar,
                synced: self.synced.and_then(|syncing| syncing.last),
            });
        }
        let wrong = Box::new(Wrong { want: self.digest, got, bytes: self.length });
        self.discard();
        Err(wrong)
    }

    /// Begins again at byte 0. Blocks.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        remove(&sidecar(&self.path));
        self.file.set_len(0).map_err(StoreError::on("cut", &self.path))?;
        self.hasher = Hasher::new(self.digest.algorithm());
        (self.length, self.durable, self.size) = (0, 0, None);
        Ok(())
    }

    /// Gives it up. Blocks.
    pub fn discard(self) {
        self.syncs.forget(&self.digest);
        remove(&self.path);
        remove(&sidecar(&self.path));
    }
}

fn sidecar(partial: &Path) -> PathBuf {
    partial.with_extension("json")
}

/// Best effort: what stays behind is found wrong again, and swept in the end.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem) => {
            tracing::warn!(path = %path.display(), %error, "cannot remove what a download left");
        }
        _ => {}
    }
}

impl Syncing {
    fn write(&self, prefix: u64) -> Result<(), StoreError> {
        let sidecar = Sidecar {
            registry: self.from.registry.to_string(),
            repository: self.from.repository.to_string(),
            size: self.size,
            boot: self.boot.to_string(),
            prefix,
        };
        let error = StoreError::on("write", &self.path);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.with_file_name(format!("new-{number}"));
        let write = || -> io::Result<()> {
            fs::write(&temporary, serde_json::to_vec(&sidecar)?)?;
            fs::rename(&temporary, &self.path)
        };
        write().map_err(error)
    }
}

/// How much of a partial file may be believed, how much of that is on disk, and the size of the whole; none when there
/// is nothing to go by.
fn known_prefix(sidecar: &Path, boot: &str) -> Option<(u64, u64, Option<u64>)> {
    let sidecar: Sidecar = serde_json::from_slice(&fs::read(sidecar).ok()?).ok()?;
    let believed = if sidecar.boot == boot { u64::MAX } else { sidecar.prefix };
    Some((believed, sidecar.prefix, sidecar.size))
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use crate::oci::Algorithm;

    fn name() -> Name {
        Name::new("quay.io".parse().unwrap(), "a/b".parse().unwrap())
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// A download whose next byte has it synced.
    fn due(store: &Store, bytes: &[u8]) -> Partial {
        let mut partial = store.begin(digest(bytes)).unwrap();
        partial.expect(&name(), None).unwrap();
        let syncing = partial.synced.as_mut().unwrap();
        syncing.asked_at = Instant::now().checked_sub(SYNC_PAUSE).unwrap();
        partial.length = SYNC_EVERY - 1;
        partial
    }

    /// What takes bytes and cannot be synced.
    fn unsyncable() -> Arc<File> {
        Arc::new(File::options().read(true).write(true).open("/dev/null").unwrap())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("partial")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_sync_that_failed_ends_the_download() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut partial = due(&store, b"x");
        partial.file = unsyncable();
        partial.append(b"x").unwrap();
        partial.synced.as_ref().unwrap().last.as_ref().unwrap().wait().unwrap_err();
        assert_eq!(partial.append(b"y").unwrap_err().operation, "sync");
        // Whoever comes next cannot know how much of it is on disk.
        drop(partial);
        assert_eq!(names(folder.path()), [digest(b"x").hex()]);
        assert_eq!(store.begin(digest(b"x")).unwrap().length(), 0);
    }

    #[tokio::test]
    async fn a_blob_of_which_any_sync_failed_is_not_published() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let bytes = vec![7; 2 << 20];
        let mut partial = store.begin(digest(&bytes)).unwrap();
        partial.expect(&name(), None).unwrap();
        partial.append(&bytes).unwrap();
        let (path, syncs) = (sidecar(&partial.path), partial.syncs.clone());
        partial.synced.as_mut().unwrap().last = syncs.start(partial.digest, unsyncable(), path, 1);
        let blob = Arc::new(partial.finish().unwrap());
        store.publish_blob(blob).await;
        assert!(store.blob(&digest(&bytes)).unwrap().is_none());
        assert!(names(folder.path()).is_empty());
        store.close();
        assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
    }

    #[test]
    fn what_was_synced_is_written_down_by_its_own_download_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = store.layout.sidecar(&digest(b"x"));
        let prefix = || -> u64 {
            let sidecar: Sidecar = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            sidecar.prefix
        };
        let mut partial = due(&store, b"x");
        partial.append(b"x").unwrap();
        let last = partial.synced.as_ref().unwrap().last.clone().unwrap();
        last.wait().unwrap();
        assert_eq!(prefix(), 0);
        partial.append(b"y").unwrap();
        assert_eq!(prefix(), SYNC_EVERY);
        // One that is wrong goes with its sync under way; the next download of the digest is another file.
        let file = partial.file.clone();
        let (digest, syncs) = (partial.digest, partial.syncs.clone());
        partial.discard();
        let mut next = store.begin(digest).unwrap();
        next.expect(&name(), None).unwrap();
        assert_eq!(prefix(), 0);
        let late = syncs.start(digest, file, path.clone(), SYNC_EVERY).unwrap();
        syncs.forget(&digest);
        late.wait().unwrap();
        next.append(b"z").unwrap();
        assert_eq!(prefix(), 0);
    }

    #[test]
    fn a_file_is_not_gone_on_with_while_it_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let mut partial = store.begin(digest(b"x")).unwrap();
        partial.expect(&name(), None).unwrap();
        partial.append(b"x").unwrap();
        let (path, syncs) = (sidecar(&partial.path), partial.syncs.clone());
        drop(partial);
        let failed = syncs.start(digest(b"x"), unsyncable(), path, 1).unwrap();
        // Whether that has ended by now or not: its failure is known.
        assert_eq!(store.begin(digest(b"x")).unwrap().length(), 0);
        assert!(failed.result().is_some());
    }
}
