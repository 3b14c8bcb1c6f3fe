//! What pulls tell a sweep that runs beside them, and how a file is removed without taking a newer one with it.
//!
//! While a [`Watch`] lasts, whatever is used or published becomes *late*: it is kept by this sweep, whatever the
//! mark before it found. The promise is exact. A removal is decided in one step under the lock of [`Late`]; what was
//! told before that step is spared, what comes after it finds the file gone:
//!
//! - a name that is served or published keeps itself, and is a root of this sweep: the sweep follows it to the
//!   manifests and blobs behind it before it decides on the next file;
//! - a blob that is found, joined or published keeps itself;
//! - what was published before the watch began is on disk when it has begun ([`Publisher::settle`]), so the mark
//!   sees it; what is published later is told here.
//!
//! The publisher renames and the sweep unlinks under one lock, and the sweep decides under it too: so a file that is
//! published again while its older self is removed comes after it, not before. Nobody who serves takes that lock.
//!
//! [`Publisher::settle`]: super::super::publish::Publisher::settle

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::CareError;
use crate::oci::{Digest, Image, Name, Reference};
use crate::store::StoreError;
use crate::store::publish::lock;

/// Names and contents as numbers. Two that share one are kept or removed together: at a million of them that
/// happens once in 30 million runs, and costs one fetch.
#[derive(Default)]
pub struct Keys(RandomState);

impl Keys {
    pub fn name(&self, name: &Name, reference: &Reference) -> u64 {
        self.0.hash_one((name, reference))
    }

    pub fn content(&self, digest: &Digest) -> u64 {
        digest.prefix()
    }

    /// Of a repository's list of tags, or of what refers to a manifest.
    pub fn list(&self, name: &Name, subject: Option<&Digest>) -> u64 {
        self.0.hash_one((name, "list", subject))
    }
}

#[derive(Default)]
struct Late {
    kept: HashSet<u64>,
    /// Names with what they pointed to, so that each is followed once.
    followed: HashSet<(u64, u64)>,
    /// Still to be followed.
    roots: Vec<(Name, Digest)>,
    /// What is being removed at this moment.
    going: Option<u64>,
}

/// Stands between pulls and a sweep.
#[derive(Default)]
pub struct Guard {
    pub keys: Keys,
    watched: AtomicBool,
    late: Mutex<Late>,
    files: Mutex<()>,
}

/// Tells the keys of all that a name leads to.
pub type Follow<'a> = dyn Fn(&Name, Digest) -> Result<Vec<u64>, CareError> + 'a;

/// What became of a file that was to go.
#[derive(Debug)]
pub enum Removal {
    Removed,
    /// Used or published meanwhile.
    Spared,
    /// Was not there any more.
    Gone,
    /// It alone cannot be removed.
    Stuck(StoreError),
}

impl Guard {
    /// A name was served or published.
    pub fn used(&self, image: &Image, digest: &Digest) {
        if !self.is_watched() {
            return;
        }
        let key = self.keys.name(&image.name, &image.reference);
        let mut late = lock(&self.late);
        late.kept.insert(key);
        if late.followed.insert((key, digest.prefix())) {
            late.roots.push((image.name.clone(), *digest));
        }
    }

    /// A list was published.
    pub fn listed(&self, name: &Name, subject: Option<&Digest>) {
        if self.is_watched() {
            let key = self.keys.list(name, subject);
            lock(&self.late).kept.insert(key);
        }
    }

    /// Content was found or published.
    pub fn found(&self, digest: &Digest) {
        self.stays(digest);
    }

    /// Keeps content. False when it is being removed at this moment: it is not there any more.
    pub fn stays(&self, digest: &Digest) -> bool {
        if !self.is_watched() {
            return true;
        }
        let key = self.keys.content(digest);
        let mut late = lock(&self.late);
        late.going != Some(key) && {
            late.kept.insert(key);
            true
        }
    }

    fn is_watched(&self) -> bool {
        // Who reads this just before it changes was there before the sweep; publishing is ordered by its queue.
        self.watched.load(Ordering::Relaxed)
    }

    /// Held by whoever changes names under `blobs/`, `img/` and `refs/`.
    pub fn files(&self) -> MutexGuard<'_, ()> {
        lock(&self.files)
    }

    /// From now on everything counts as late. One at a time.
    pub fn watch(&self) -> Watch<'_> {
        *lock(&self.late) = Late::default();
        self.watched.store(true, Ordering::Relaxed);
        Watch { guard: self }
    }
}

/// A time during which pulls tell what they use.
pub struct Watch<'a> {
    guard: &'a Guard,
}

impl Watch<'_> {
    /// Removes a file unless its key is late. `follow` is given each late root that was not followed yet, and tells
    /// the keys of all that it leads to.
    pub fn remove(&self, key: u64, path: &Path, follow: &Follow<'_>) -> Result<Removal, CareError> {
        let _files = self.guard.files();
        loop {
            let mut late = lock(&self.guard.late);
            if late.roots.is_empty() {
                if late.kept.contains(&key) {
                    return Ok(Removal::Spared);
                }
                late.going = Some(key);
                break;
            }
            let roots = std::mem::take(&mut late.roots);
            drop(late);
            for (name, digest) in roots {
                let keys = follow(&name, digest)?;
                lock(&self.guard.late).kept.extend(keys);
            }
        }
        let removed = std::fs::remove_file(path);
        lock(&self.guard.late).going = None;
        match removed {
            Ok(()) => Ok(Removal::Removed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removal::Gone),
            // Then none can be.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                Err(StoreError::on("remove", path)(error).into())
            }
            Err(error) => Ok(Removal::Stuck(StoreError::on("remove", path)(error))),
        }
    }

    /// Whether a key is late already; for a run that removes nothing.
    pub fn spares(&self, key: u64) -> bool {
        lock(&self.guard.late).kept.contains(&key)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.guard.watched.store(false, Ordering::Relaxed);
        *lock(&self.guard.late) = Late::default();
    }
}
