//! The thread that makes batches durable: syncs the files, renames them into place, syncs the folders, then does the
//! same for the references to them. A few files are synced one by one; for many, one syncfs is faster.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::care::{Guard, Totals};
use super::layout::{Kind, Layout};
use super::memory::Memory;
use super::partial;
use super::publish::{BACKLOG, Job, Pending};
use super::trouble::Disk;
use super::work::{Change, Counted, Work};
use super::{Record, StoreError};
use crate::oci::Reference;

/// From so many files in a batch on, the file system is synced as a whole.
const SYNCFS_FROM: usize = 64;

/// The first kernel whose syncfs tells of failed writes (syncfs(2), VERSIONS).
const SYNCFS_TELLS: (u32, u32) = (5, 8);

/// Threads that sync the files of a smaller batch.
const SYNC_THREADS: usize = 8;

pub struct Writer {
    pub layout: Layout,
    pub number: Arc<AtomicU64>,
    pub pending: Arc<Pending>,
    pub memory: Arc<Memory>,
    pub disk: Arc<Disk>,
    pub guard: Arc<Guard>,
    pub totals: Arc<Totals>,
    /// The file system as a whole, while nothing that was written to it is known to have failed.
    pub whole: Option<File>,
}

/// Opens the file system of a folder to be synced as a whole; none where that would hide what failed.
///
/// Open from the start on, so that it is told of everything that fails, by whomever that is found first.
pub fn whole(root: &Path) -> Option<File> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (version(&release)? >= SYNCFS_TELLS).then(|| File::open(root).ok())?
}

/// `5.8.0-1-amd64`
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A written file and the name it gets.
struct Move {
    /// The place of its work in the batch.
    of: usize,
    file: Arc<File>,
    from: PathBuf,
    to: PathBuf,
    counted: Counted,
}

/// A folder whose names have changed.
struct Folder {
    file: File,
    path: PathBuf,
}

impl Writer {
    pub fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut batch = Vec::new();
        while jobs.blocking_recv_many(&mut batch, BACKLOG) > 0 {
            let (works, permits): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let works: Vec<Work> = works.into_iter().flatten().collect();
            let begun = Instant::now();
            let failed = self.write_batch(&works);
            tracing::debug!(works = works.len(), took = ?begun.elapsed(), "published a batch");
            for (of, work) in works.iter().enumerate() {
                if !failed.contains(&of) {
                    self.pending.done(work);
                } else if !self.disk.is_troubled() || !self.pending.wait(work) {
                    self.memory.forget(work);
                    self.pending.done(work);
                }
            }
            drop(permits);
        }
    }

    /// The places of what the disk did not take.
    fn write_batch(&mut self, works: &[Work]) -> HashSet<usize> {
        let mut failed = HashSet::new();
        let mut contents = Vec::new();
        for (of, work) in works.iter().enumerate() {
            match work {
                Work::Blob(blob) => contents.push(Move {
                    of,
                    file: blob.file.clone(),
                    from: blob.path.clone(),
                    to: self.layout.blob(&blob.digest),
                    counted: Counted::Content(Kind::Blob, blob.digest),
                }),
                Work::Manifest(digest, bytes) => {
                    let counted = Counted::Content(Kind::Manifest, *digest);
                    let written = self.write_new(of, bytes, self.layout.manifest(digest), counted);
                    contents.extend(written.or_else(|| {
                        failed.insert(of);
                        None
                    }));
                }
                Work::Reference(..) | Work::TagList(..) | Work::Referrers(..) | Work::Settled(_) => {}
            }
        }
        let files: Vec<&File> = contents.iter().map(|one| &*one.file).collect();
        let synced = self.sync(&files);
        let folders = self.rename(&contents, synced, &mut failed);
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
        for (of, work) in works.iter().enumerate().rev() {
            let Some((path, content)) = work.small_file(&self.layout) else {
                continue;
            };
            if !seen.insert(path.clone()) {
                continue;
            }
            match content {
                Err(error) => tracing::error!(path = %path.display(), %error, "cannot write a reference"),
                Ok(Some(_)) if self.leads_nowhere(work) => {
                    failed.insert(of);
                }
                Ok(Some(json)) => match self.write_new(of, &json, path, work.counted()) {
                    Some(written) => references.push(written),
                    None => {
                        failed.insert(of);
                    }
                },
                Ok(None) => {
                    if !self.remove(work, &path) {
                        failed.insert(of);
                    }
                }
            }
        }
        // The folders of the contents and the files of the references in one go.
        let files: Vec<&File> =
            folders.iter().map(|one| &one.file).chain(references.iter().map(|one| &*one.file)).collect();
        let mut synced = self.sync(&files);
        let references_synced = synced.split_off(folders.len());
        if !self.report_folders(&folders, synced) {
            // What they lead to may be gone after a crash.
            for reference in references {
                partial::remove(&reference.from);
                failed.insert(reference.of);
            }
            return failed;
        }
        let folders = self.rename(&references, references_synced, &mut failed);
        let synced = self.sync(&folders.iter().map(|one| &one.file).collect::<Vec<_>>());
        self.report_folders(&folders, synced);
        failed
    }

    /// Whether it is a reference whose manifest the disk did not take, or has no more: that must not be in its place.
    fn leads_nowhere(&self, work: &Work) -> bool {
        matches!(work, Work::Reference(_, Change::Put(record)) if !self.layout.manifest(&record.digest).exists())
    }

    /// False, reported, when it is still there.
    fn remove(&self, work: &Work, path: &Path) -> bool {
        let _files = self.guard.files();
        let image = matches!(work, Work::Reference(image, _) if is_image(path, &image.reference));
        match fs::remove_file(path) {
            Ok(()) if image => self.totals.image_vanished(),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.report(&StoreError::on("remove", path)(error));
                return false;
            }
            _ => {}
        }
        true
    }

    /// Writes a small file under a temporary name. None, reported, when that fails.
    fn write_new(&self, of: usize, bytes: &[u8], to: PathBuf, counted: Counted) -> Option<Move> {
        let from = self.layout.temporary(self.number.fetch_add(1, Ordering::Relaxed));
        let write = || {
            let file = File::options().write(true).create_new(true).mode(0o640).open(&from)?;
            file.write_all_at(bytes, 0)?;
            Ok(Arc::new(file))
        };
        match write() {
            Ok(file) => Some(Move { of, file, from, to, counted }),
            Err(error) => {
                self.report(&StoreError::on("write", &from)(error));
                partial::remove(&from);
                None
            }
        }
    }

    /// Renames what was synced, and opens the folders to be synced then. What failed is discarded, and reported.
    fn rename(
        &self,
        moves: &[Move],
        synced: Vec<io::Result<()>>,
        failed: &mut HashSet<usize>,
    ) -> Vec<Folder> {
        let mut folders = HashSet::new();
        // What a sweep removes at the same time is the older file.
        let files = self.guard.files();
        for (moved, result) in moves.iter().zip(synced) {
            let Move { of, from, to, .. } = moved;
            let result = result.map_err(StoreError::on("sync", from)).and_then(|()| {
                self.place(moved, &mut folders).map_err(StoreError::on("rename into place", to))
            });
            if let Err(error) = result {
                self.report(&error);
                partial::remove(from);
                failed.insert(*of);
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

    /// Whether all of them are on disk.
    fn report_folders(&self, folders: &[Folder], synced: Vec<io::Result<()>>) -> bool {
        let mut all = true;
        for (Folder { path, .. }, result) in folders.iter().zip(synced) {
            if let Err(error) = result {
                self.report(&StoreError::on("sync folder", path)(error));
                all = false;
            }
        }
        all
    }

    fn report(&self, error: &StoreError) {
        self.disk.failed(error, 0, None);
    }

    /// Renames one, and counts it when it is new.
    fn place(&self, moved: &Move, folders: &mut HashSet<PathBuf>) -> io::Result<()> {
        let Move { file, from, to, counted, .. } = moved;
        let totals = &self.totals;
        match counted {
            Counted::Content(kind, digest) if !to.exists() => {
                let bytes = file.metadata()?.len();
                totals.appears(*kind, digest, bytes);
                rename(from, to, folders).inspect_err(|_| totals.vanished(*kind, bytes))
            }
            Counted::Name(image, will_be) => {
                let was = is_image(to, &image.reference);
                if *will_be && !was {
                    totals.image_appears(self.guard.keys.name(&image.name, &image.reference));
                }
                let renamed = rename(from, to, folders);
                if renamed.is_err() && *will_be && !was || renamed.is_ok() && was && !*will_be {
                    totals.image_vanished();
                }
                renamed
            }
            Counted::Content(..) | Counted::Nothing => rename(from, to, folders),
        }
    }

    /// Syncs files or folders, each with its result.
    fn sync(&mut self, files: &[&File]) -> Vec<io::Result<()>> {
        if files.len() >= SYNCFS_FROM
            && let Some(whole) = &self.whole
        {
            match nix::unistd::syncfs(whole) {
                Ok(()) => return files.iter().map(|_| Ok(())).collect(),
                // It is told once, and does not say of which files: perhaps of such as are in a later batch.
                Err(_) => self.whole = None,
            }
        }
        if files.len() < 4 {
            return files.iter().map(|file| file.sync_all()).collect();
        }
        std::thread::scope(|scope| {
            let sync = |part: &[&File]| part.iter().map(|file| file.sync_all()).collect::<Vec<_>>();
            let shares = files.chunks(files.len().div_ceil(SYNC_THREADS));
            let parts: Vec<_> = shares
                .map(|part| (part, std::thread::Builder::new().spawn_scoped(scope, move || sync(part))))
                .collect();
            let died = |part: &[&File]| {
                part.iter().map(|_| Err(io::Error::other("the syncing thread died"))).collect()
            };
            parts
                .into_iter()
                .flat_map(|(part, thread)| match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|_| died(part)),
                    // No thread can be had: then here.
                    Err(_) => sync(part),
                })
                .collect()
        })
    }
}

/// Whether a file under `refs/` is an image's: every tag's is, and that of a manifest which was asked for by digest.
fn is_image(path: &Path, reference: &Reference) -> bool {
    match reference {
        Reference::Tag(_) => path.exists(),
        Reference::Digest(_) => {
            fs::read(path).is_ok_and(|json| Record::from_json(reference, &json).is_ok_and(|it| it.asked))
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_whose_syncfs_hides_failures_is_known_by_its_release() {
        for (release, tells) in [
            ("4.18.0-553.el8_10.x86_64", false),
            ("5.7.19", false),
            ("5.8.0-1-amd64", true),
            ("5.10.0", true),
            ("6.1.0-13-amd64\n", true),
            ("10.0-rc1", true),
        ] {
            assert_eq!(version(release).unwrap() >= SYNCFS_TELLS, tells, "{release}");
        }
        assert_eq!(version("Linux"), None);
        assert_eq!(version(""), None);
    }
}
