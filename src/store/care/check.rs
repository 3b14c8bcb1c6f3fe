//! The check: every file against its digest, every reference against its content.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};

use super::guard::Keys;
use super::keepers::{Keepers, Standing};
use super::lost::{Losses, Lost};
use super::mark::Marking;
use super::pace::Pace;
use super::totals::Usage;
use super::walk::{Entry, Repository, Unreadable, Which, contents, repositories, seconds, stat};
use super::{CareError, Folder};
use crate::oci::{Algorithm, Digest, Hasher, Reference};
use crate::store::layout::open_to_read;
use crate::store::{Kind, Record, Store, StoreError};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Findings that are kept; the rest is counted.
const FINDINGS: usize = 1000;

/// Asks for a look at everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {}

/// Asks for a look at everything, and for what is wrong to be put aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairRequest {}

/// What a check found wrong with one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Its bytes are not its digest's.
    WrongContent,
    /// The disk does not give it.
    Unreadable,
    /// A reference that cannot be understood.
    Malformed,
    /// A reference to a manifest that is not there.
    Dangling,
    /// A reference that says another size than the manifest has.
    WrongSize,
    /// A file that no part of this program would put there. Harmless, and left alone.
    Foreign,
}

/// One file that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub fault: Fault,
    /// Below the cache's folder.
    pub path: PathBuf,
    pub detail: String,
    /// Put aside or removed: the next request fetches it anew.
    pub repaired: bool,
}

/// What a check saw. Kept in `check.json` when the daemon made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    pub finished: Timestamp,
    pub seconds: u64,
    pub checked: Usage,
    pub references: u64,
    /// Findings that do harm.
    pub wrong: u64,
    /// Of those, what was put aside or removed.
    pub repaired: u64,
    /// Content that no image leads to: no fault, and gone with the next prune. None when the references could not
    /// all be read.
    pub orphans: Option<Usage>,
    /// The first thousand.
    pub findings: Vec<Finding>,
    /// Of what was put aside or removed: what is to be fetched anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
}

impl fmt::Display for CheckReport {
    /// `checked 20 blobs, 5 manifests and 7 references, 1234567 bytes: nothing wrong`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { blobs, manifests } = self.checked;
        let bytes = self.checked.bytes();
        write!(
            f,
            "checked {} blobs, {} manifests and {} references, {bytes} bytes: ",
            blobs.files, manifests.files, self.references
        )?;
        match (self.wrong, self.findings.iter().find(|finding| finding.fault != Fault::Foreign)) {
            (0, _) | (_, None) => write!(f, "nothing wrong"),
            (wrong, Some(first)) => {
                write!(
                    f,
                    "{wrong} wrong, {} of them repaired; {}: {}",
                    self.repaired,
                    first.path.display(),
                    first.detail
                )
            }
        }
    }
}

impl Folder {
    /// Reads and hashes everything, changes nothing, needs no lock. `tell` hears of each finding as it is made.
    /// Blocks for as long as it takes to read the cache.
    pub fn check(&self, pace: &Pace<'_>, tell: &mut dyn FnMut(&Finding)) -> Result<CheckReport, CareError> {
        Check::new(self, None, pace, tell).run()
    }

    /// When the folder was made, as far as that is known.
    pub fn made(&self) -> Option<SystemTime> {
        fs::metadata(self.layout.store_json()).and_then(|data| data.modified()).ok()
    }

    /// The result of the last check that was kept; none when there was none.
    pub fn last_check(&self) -> Option<CheckReport> {
        serde_json::from_slice(&fs::read(self.layout.check()).ok()?).ok()
    }
}

impl Store {
    /// The same, putting aside what is wrong: [`Store::lost`] hears of it. The result is kept for [`Folder::last_check`], if the disk takes it.
    pub fn check_and_repair(
        &self,
        pace: &Pace<'_>,
        tell: &mut dyn FnMut(&Finding),
    ) -> Result<CheckReport, CareError> {
        let report = Check::new(&self.folder(), Some(self), pace, tell).run()?;
        if let Err(error) = self.write_json(&self.layout.check(), &report) {
            tracing::error!("{error}: the result of the check is not kept");
        }
        self.to_restore.add(&report.lost);
        Ok(report)
    }
}

struct Check<'a> {
    folder: &'a Folder,
    /// Where to repair.
    store: Option<&'a Store>,
    pace: &'a Pace<'a>,
    tell: &'a mut dyn FnMut(&Finding),
    keys: Keys,
    begun: Instant,
    /// In seconds since 1970.
    begun_at: u32,
    /// Manifests that are wrong: what leads to them is no finding of its own.
    wrong: HashSet<Digest>,
    losses: Losses,
    report: CheckReport,
}

impl<'a> Check<'a> {
    fn new(
        folder: &'a Folder,
        store: Option<&'a Store>,
        pace: &'a Pace<'a>,
        tell: &'a mut dyn FnMut(&Finding),
    ) -> Self {
        let report = CheckReport {
            finished: Timestamp::now(),
            seconds: 0,
            checked: Usage::default(),
            references: 0,
            wrong: 0,
            repaired: 0,
            orphans: None,
            findings: Vec::new(),
            lost: Vec::new(),
        };
        let begun_at = seconds(report.finished.as_second());
        let (keys, begun, wrong) = (Keys::default(), Instant::now(), HashSet::new());
        let losses = Losses::default();
        Self { folder, store, pace, tell, keys, begun, begun_at, wrong, losses, report }
    }

    fn run(mut self) -> Result<CheckReport, CareError> {
        let keepers = self.mark()?;
        self.report.orphans = keepers.as_ref().map(|_| Usage::default());
        for kind in Kind::BOTH {
            self.contents(kind, keepers.as_ref())?;
        }
        for repository in repositories(&self.folder.layout)? {
            let repository = repository?;
            for which in Which::REFERENCES {
                self.references(&repository, which)?;
            }
        }
        self.report.lost = self.losses.told(self.folder, self.pace)?;
        self.report.finished = Timestamp::now();
        self.report.seconds = self.begun.elapsed().as_secs();
        Ok(self.report)
    }

    fn mark(&self) -> Result<Option<Keepers>, CareError> {
        let marking = Marking {
            layout: &self.folder.layout,
            keys: &self.keys,
            pins: &self.folder.pins()?,
            judge: &|_| Standing::Stays,
            recent: u32::MAX..=u32::MAX,
            pace: self.pace,
        };
        match marking.run() {
            Ok(mark) => Ok(Some(mark.keepers)),
            Err(CareError::Store(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn found(&mut self, fault: Fault, path: &Path, detail: String, repaired: bool) {
        let path = path.strip_prefix(&self.folder.layout.root).unwrap_or(path).to_owned();
        let finding = Finding { fault, path, detail, repaired };
        self.report.wrong += u64::from(fault != Fault::Foreign);
        self.report.repaired += u64::from(repaired);
        (self.tell)(&finding);
        if self.report.findings.len() < FINDINGS {
            self.report.findings.push(finding);
        }
    }

    fn contents(&mut self, kind: Kind, keepers: Option<&Keepers>) -> Result<(), CareError> {
        for content in contents(&self.folder.layout.contents(kind))? {
            let content = content?;
            let Some(digest) = content.digest else {
                self.found(Fault::Foreign, &content.path, "its name is no digest".to_owned(), false);
                continue;
            };
            let Some(length) = self.content(kind, &digest, &content.path)? else { continue };
            self.report.checked.of(kind).add(length);
            if let (Some(keepers), Some(orphans)) = (keepers, &mut self.report.orphans)
                && keepers.of(self.keys.content(&digest)).is_none()
                // What came after the mark is nobody's yet.
                && stat(&content.path)?.is_some_and(|stat| stat.changed < self.begun_at)
            {
                orphans.of(kind).add(length);
            }
        }
        Ok(())
    }

    /// Hashes one file; its length, or none when it is not there, or not any more.
    fn content(&mut self, kind: Kind, digest: &Digest, path: &Path) -> Result<Option<u64>, CareError> {
        let file = match open_to_read(path).and_then(|file| Ok((file.metadata()?.is_file(), file))) {
            Ok((true, file)) => file,
            Ok((false, _)) => {
                self.found(Fault::Foreign, path, "it is no file".to_owned(), false);
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                self.found(Fault::Unreadable, path, error.to_string(), false);
                return Ok(None);
            }
        };
        let (fault, detail, length) = match hash(digest.algorithm(), &file, self.pace)? {
            Ok((got, length)) if got == *digest => return Ok(Some(length)),
            Ok((got, length)) => (Fault::WrongContent, format!("its {length} bytes are {got}"), length),
            Err(error) => (Fault::Unreadable, error.to_string(), 0),
        };
        let why = format!("the check found it wrong ({detail})");
        let aside = self.store.is_some_and(|store| store.put_aside(kind, digest, Some(&file), &why));
        match kind {
            Kind::Manifest => {
                self.wrong.insert(*digest);
            }
            Kind::Blob if aside => self.losses.blob(*digest),
            Kind::Blob => {}
        }
        self.found(fault, path, detail, aside);
        Ok((!aside).then_some(length))
    }

    fn references(&mut self, repository: &Repository, which: Which) -> Result<(), CareError> {
        for entry in repository.entries(which)? {
            self.pace.step(0)?;
            self.report.references += 1;
            let entry = match entry {
                Ok(entry) => entry,
                Err(Unreadable::Malformed { path, reason }) => {
                    let removed = self.remove_reference(&path, |path| repository.entry(which, path).is_err());
                    if removed && which == Which::Tags {
                        self.uncount();
                    }
                    self.found(Fault::Malformed, &path, reason, removed);
                    continue;
                }
                Err(Unreadable::Io(error)) => {
                    self.found(Fault::Unreadable, &error.path, error.source.to_string(), false);
                    continue;
                }
            };
            self.reference(repository, which, &entry)?;
        }
        Ok(())
    }

    fn reference(&mut self, repository: &Repository, which: Which, entry: &Entry) -> Result<(), CareError> {
        let (digest, size) = (entry.record.digest, entry.record.size);
        if self.wrong.contains(&digest) {
            // It goes along with what was put aside.
            self.remove_wrong(repository, which, entry);
            return Ok(());
        }
        let path = self.folder.layout.reference(&entry.image);
        let manifest = self.folder.layout.manifest(&digest);
        let (fault, detail) = match fs::metadata(&manifest) {
            Ok(data) if data.len() == size => return Ok(()),
            Ok(data) => (Fault::WrongSize, format!("says {size} bytes, and {digest} has {}", data.len())),
            // Content goes after the names that lead to it: a name that is still there has lost it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !path.exists() || manifest.exists() {
                    return Ok(());
                }
                (Fault::Dangling, format!("{digest} is not there"))
            }
            Err(error) => {
                self.found(Fault::Unreadable, &manifest, error.to_string(), false);
                return Ok(());
            }
        };
        let removed = self.remove_wrong(repository, which, entry);
        self.found(fault, &path, detail, removed);
        Ok(())
    }

    /// Removes a reference that does not fit its manifest, unless either has been replaced since it was read.
    fn remove_wrong(&mut self, repository: &Repository, which: Which, entry: &Entry) -> bool {
        let Record { digest, size, .. } = entry.record;
        let manifest = self.folder.layout.manifest(&digest);
        let is_wrong = |path: &Path| {
            let now = repository.entry(which, path).ok().flatten().map(|now| now.record);
            now.is_some_and(|now| (now.digest, now.size) == (digest, size))
                && !fs::metadata(&manifest).is_ok_and(|data| data.len() == size)
        };
        let removed = self.remove_reference(&self.folder.layout.reference(&entry.image), is_wrong);
        if removed && let Some(store) = self.store {
            store.memory.drop_reference(&entry.image);
            let root = entry.record.asked || matches!(entry.image.reference, Reference::Tag(_));
            if root {
                self.uncount();
            }
            self.losses.name(entry.image.clone(), root);
        }
        removed
    }

    fn uncount(&self) {
        if let Some(store) = self.store {
            store.totals.image_vanished();
        }
    }

    /// Removes a reference if it is still wrong when nobody can change it.
    fn remove_reference(&self, path: &Path, is_wrong: impl Fn(&Path) -> bool) -> bool {
        let Some(store) = self.store else { return false };
        let _files = store.guard.files();
        is_wrong(path)
            && match fs::remove_file(path) {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!("{}", StoreError::on("remove", path)(error));
                    false
                }
            }
    }
}

/// The digest of a file and its length in bytes. Leaves the page cache as it was: what a weekly check reads must not
/// drive out what is served.
pub fn hash(
    algorithm: Algorithm,
    file: &File,
    pace: &Pace<'_>,
) -> Result<io::Result<(Digest, u64)>, CareError> {
    // No readahead, so that a chunk is in memory only if it is in use.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0u64;
    loop {
        let count = match read_gently(file, &mut buffer, offset) {
            Ok(0) => return Ok(Ok((hasher.finish(), offset))),
            Ok(count) => count,
            Err(error) => return Ok(Err(error)),
        };
        hasher.update(&buffer[..count]);
        offset += count as u64;
        pace.step(count as u64)?;
    }
}

/// What the page cache has not is read past it.
fn read_gently(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let cached = rustix::io::ReadWriteFlags::NOWAIT;
    if let Ok(count) = rustix::io::preadv2(file, &mut [io::IoSliceMut::new(buffer)], offset, cached) {
        return Ok(count);
    }
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => {
                let (Ok(from), Ok(length)) = (i64::try_from(offset), i64::try_from(buffer.len())) else {
                    return result;
                };
                let _ = posix_fadvise(file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
                return result;
            }
        }
    }
}
