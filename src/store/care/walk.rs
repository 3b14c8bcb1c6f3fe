//! Walks over the folder, one entry at a time: a cache may hold more than memory does.
//!
//! All of them read beside a process that writes: what is gone when it is looked at was never there.

use std::fs::{self, ReadDir};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::oci::{Digest, Image, MAX_MANIFEST, Name, Reference};
use crate::store::layout::{Layout, open_to_read};
use crate::store::{Record, StoreError};

/// A repository that holds something, as a folder under `refs/`.
pub struct Repository {
    pub name: Name,
    pub path: PathBuf,
}

/// A name with what is kept under it.
pub struct Entry {
    pub image: Image,
    pub record: Record,
    /// Seconds since 1970; its last use, or when it was published.
    pub used: u32,
}

/// A file whose name promises a reference, and what is wrong with it.
#[derive(Debug)]
pub enum Unreadable {
    /// The disk does not give it.
    Io(StoreError),
    /// It is not what is kept of a reference: a miss.
    Malformed { path: PathBuf, reason: String },
}

/// A file under `blobs/` or `img/`.
pub struct Content {
    pub path: PathBuf,
    /// None when its name is no digest's.
    pub digest: Option<Digest>,
}

/// What the file system knows of a file. Times are in seconds since 1970.
pub struct Stat {
    /// In bytes.
    pub length: u64,
    pub written: u32,
    /// Written, renamed or touched.
    pub changed: u32,
}

/// None when it has gone, or the disk has lost it, or it is a folder: that is none of ours.
pub fn stat(path: &Path) -> Result<Option<Stat>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => Ok(None),
        Ok(data) => {
            let (written, changed) = (seconds(data.mtime()), seconds(data.ctime()));
            Ok(Some(Stat { length: data.len(), written, changed: written.max(changed) }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => match StoreError::on("look at", path)(error) {
            error if error.is_damage() => Ok(None),
            error => Err(error),
        },
    }
}

/// What does not fit (before 1970, after 2106) is as old or as new as can be.
pub fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// The files of a folder; none when there is no such folder.
fn list(path: &Path) -> Result<Option<ReadDir>, StoreError> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(StoreError::on("list", path)(error)),
    }
}

/// The files under `blobs/` or `img/`, in no order.
pub fn contents(folder: &Path) -> Result<impl Iterator<Item = Result<Content, StoreError>>, StoreError> {
    let folder = folder.to_owned();
    let entries = list(&folder)?;
    Ok(entries.into_iter().flatten().map(move |entry| {
        let entry = entry.map_err(StoreError::on("list", &folder))?;
        let digest = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok());
        Ok(Content { path: entry.path(), digest })
    }))
}

/// A folder that is being walked.
struct Level {
    entries: ReadDir,
    path: PathBuf,
    /// Below `refs/`: registry, then the parts of the repository.
    parts: Vec<String>,
    told: bool,
}

/// The repositories under `refs/`, in no order.
pub struct Repositories {
    levels: Vec<Level>,
}

pub fn repositories(layout: &Layout) -> Result<Repositories, StoreError> {
    let path = layout.references();
    let root = list(&path)?.map(|entries| Level { entries, path, parts: Vec::new(), told: false });
    Ok(Repositories { levels: root.into_iter().collect() })
}

impl Iterator for Repositories {
    type Item = Result<Repository, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(level) = self.levels.last_mut() {
            let entry = match level.entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return Some(Err(StoreError::on("list", &level.path)(error))),
                None => {
                    self.levels.pop();
                    continue;
                }
            };
            let file_name = entry.file_name();
            let Some(part) = file_name.to_str() else { continue };
            if part.starts_with('_') {
                if level.told {
                    continue;
                }
                level.told = true;
                if let Some(name) = name(&level.parts) {
                    return Some(Ok(Repository { name, path: level.path.clone() }));
                }
                continue;
            }
            let path = entry.path();
            let parts = level.parts.iter().cloned().chain([part.to_owned()]).collect();
            match list(&path) {
                Ok(Some(entries)) => self.levels.push(Level { entries, path, parts, told: false }),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

fn name(parts: &[String]) -> Option<Name> {
    let (registry, repository) = parts.split_first()?;
    Some(Name { registry: registry.parse().ok()?, repository: repository.join("/").parse().ok()? })
}

/// Which files of a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Tags,
    Manifests,
    /// Lists, by what they refer to; no references themselves.
    Referrers,
}

impl Which {
    pub const REFERENCES: [Self; 2] = [Self::Tags, Self::Manifests];
    pub const ALL: [Self; 3] = [Self::Tags, Self::Manifests, Self::Referrers];

    fn folder(self) -> &'static str {
        match self {
            Self::Tags => "_tags",
            Self::Manifests => "_manifests",
            Self::Referrers => "_referrers",
        }
    }

    fn parse(self, name: &str) -> Option<Reference> {
        match self {
            Self::Tags => name.parse().ok().map(Reference::Tag),
            Self::Manifests | Self::Referrers => Digest::from_hex(name).ok().map(Reference::Digest),
        }
    }
}

impl Repository {
    pub fn folder(&self, which: Which) -> PathBuf {
        self.path.join(which.folder())
    }

    /// The names alone, with their files. What is no tag or digest is left out.
    pub fn names(
        &self,
        which: Which,
    ) -> Result<impl Iterator<Item = Result<(Reference, PathBuf), StoreError>> + use<>, StoreError> {
        let folder = self.folder(which);
        let entries = list(&folder)?;
        Ok(entries.into_iter().flatten().filter_map(move |entry| match entry {
            Ok(entry) => {
                let reference = which.parse(entry.file_name().to_str()?)?;
                Some(Ok((reference, entry.path())))
            }
            Err(error) => Some(Err(StoreError::on("list", &folder)(error))),
        }))
    }

    /// The references with what is kept of them.
    pub fn entries(
        &self,
        which: Which,
    ) -> Result<impl Iterator<Item = Result<Entry, Unreadable>> + use<>, StoreError> {
        let name = self.name.clone();
        Ok(self.names(which)?.filter_map(move |found| match found {
            Ok((reference, path)) => entry(Image { name: name.clone(), reference }, &path).transpose(),
            Err(error) => Some(Err(Unreadable::Io(error))),
        }))
    }

    /// The reference that a file holds; none when it has gone, or its name is that of no reference.
    pub fn entry(&self, which: Which, path: &Path) -> Result<Option<Entry>, Unreadable> {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(|name| which.parse(name)) {
            Some(reference) => entry(Image { name: self.name.clone(), reference }, path),
            None => Ok(None),
        }
    }
}

fn entry(image: Image, path: &Path) -> Result<Option<Entry>, Unreadable> {
    let (bytes, used) = match read(path) {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unreadable::Io(StoreError::on("read", path)(error))),
    };
    match Record::from_json(&image.reference, &bytes) {
        Ok(record) => Ok(Some(Entry { image, record, used })),
        Err(error) => Err(Unreadable::Malformed { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// A small file and its mtime. Files that are read by the hundred thousand are read in one call: none of them ever
/// grows.
pub fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let mut file = open_to_read(path)?;
    let data = file.metadata()?;
    let mut bytes = vec![0; usize::try_from(data.len()).unwrap_or_default().min(MAX_MANIFEST)];
    file.read_exact(&mut bytes)?;
    Ok((bytes, seconds(data.mtime())))
}
