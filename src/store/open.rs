//! Opening the folder: whose it is, which version, and that nobody else writes to it.

use std::fs::{self, DirEntry, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::lock::{Lock, PATIENCE};
use super::{OpenError, StoreError};

/// A partial download that nobody asked for again is removed after this time.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A download that nothing came of for so long is not under way: an upstream's silence has shorter limits.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);

#[derive(Serialize, Deserialize)]
struct StoreJson {
    version: u64,
    /// Tells this cache from others, for noticing rings of mirrors.
    #[serde(default)]
    id: String,
}

/// What opening finds out: the lock to hold as long as the store is written to, and the store's id.
pub struct Opened {
    pub lock: Lock,
    pub id: String,
    /// Made just now: it holds nothing.
    pub new: bool,
}

/// Opens a folder, or makes it.
pub fn open(layout: &Layout) -> Result<Opened, OpenError> {
    make_folder(&layout.root)?;
    let id = check_owner(layout)?;
    enter(layout, id, PATIENCE)
}

/// Opens a folder that is a store already, at once or not at all.
pub fn open_existing(layout: &Layout) -> Result<Opened, OpenError> {
    let id = check_ours(layout)?;
    enter(layout, id, Duration::ZERO)
}

/// The id of a folder that is a store already.
pub fn check_ours(layout: &Layout) -> Result<Option<String>, OpenError> {
    let missing = || OpenError::Missing(layout.root.clone());
    if !layout.root.is_dir() {
        return Err(missing());
    }
    match check_owner(layout) {
        Ok(None) if !layout.store_json().is_file() => Err(missing()),
        Err(OpenError::NotOurs(_)) => Err(missing()),
        owner => owner,
    }
}

fn enter(layout: &Layout, id: Option<String>, patience: Duration) -> Result<Opened, OpenError> {
    let lock = Lock::take(layout, patience)?;
    for folder in Layout::FOLDERS {
        let path = layout.root.join(folder);
        if !path.is_dir() {
            make_folder(&path)?;
        }
    }
    // Names may have been there before store.json: those were left, and are not none.
    let new = !layout.store_json().is_file() && is_empty(&layout.references());
    let id = match id {
        Some(id) => id,
        None => write_store_json(layout)?,
    };
    sweep(layout, Left::ByAnybody)?;
    Ok(Opened { lock, id, new })
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(StoreError::on("create folder", path))
}

/// The store's id; none when the folder is new. A folder with other things in it is not ours to write to.
fn check_owner(layout: &Layout) -> Result<Option<String>, OpenError> {
    let path = layout.store_json();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return check_empty(layout).map(|()| None),
        Err(error) => return Err(StoreError::on("read", &path)(error).into()),
    };
    match serde_json::from_slice::<StoreJson>(&bytes) {
        Ok(StoreJson { version: 1, id }) if id.is_empty() => Ok(None),
        Ok(StoreJson { version: 1, id }) => Ok(Some(id)),
        Ok(StoreJson { version: found, .. }) => Err(OpenError::Version { path, found }),
        Err(error) => Err(OpenError::Malformed { path, reason: error.to_string() }),
    }
}

fn check_empty(layout: &Layout) -> Result<(), OpenError> {
    let root = &layout.root;
    let mut legacy = false;
    for entry in fs::read_dir(root).map_err(StoreError::on("list", root))? {
        let name = entry.map_err(StoreError::on("list", root))?.file_name();
        match name.to_str() {
            // Left by a start that ended before store.json was written, or made by the file system.
            Some("lock" | "lost+found") => {}
            Some("partial" | "refs") => {}
            Some("blobs" | "img") if is_empty(&root.join(&name)) => {}
            Some("blobs" | "img" | "lts") => legacy = true,
            _ => return Err(OpenError::NotOurs(root.clone())),
        }
    }
    if legacy { Err(OpenError::Legacy(root.clone())) } else { Ok(()) }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn write_store_json(layout: &Layout) -> Result<String, OpenError> {
    let path = layout.store_json();
    let id = new_id().map_err(StoreError::on("read", Path::new("/dev/urandom")))?;
    let mut text = serde_json::to_vec(&StoreJson { version: 1, id: id.clone() })
        .map_err(|error| OpenError::Malformed { path: path.clone(), reason: error.to_string() })?;
    text.push(b'\n');
    let temporary = layout.temporary(0);
    let write = || {
        // Left by a crash.
        let _ = fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(0o640).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&layout.root)?.sync_all()
    };
    write().map_err(StoreError::on("write", &path))?;
    Ok(id)
}

fn new_id() -> std::io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Whose leavings are to be swept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nobody writes: temporary files are those of a crash.
    ByAnybody,
    /// Only what is too old to be under way.
    LongAgo,
}

/// Removes what no download will come back to: temporaries of a crash, and partial files of long ago.
pub fn sweep(layout: &Layout, left: Left) -> Result<(), StoreError> {
    let goes = |entry: &DirEntry| {
        is_older(entry, PARTIAL_KEPT)
            || left == Left::ByAnybody && entry.file_name().to_string_lossy().starts_with("new-")
    };
    sweep_partials(layout, goes).map(|_| ())
}

/// For a disk that is full: removes what was set aside, and what downloads left that did not go on for an hour. The bytes
/// that came back.
pub fn sweep_for_room(layout: &Layout) -> u64 {
    let goes = |entry: &DirEntry| {
        entry.file_name().to_string_lossy().ends_with(".bad") || is_older(entry, LEFT_BEHIND)
    };
    sweep_partials(layout, goes).unwrap_or_default()
}

fn is_older(entry: &DirEntry, limit: Duration) -> bool {
    let own = entry.metadata().and_then(|data| data.modified()).ok();
    // A sidecar is of use as long as its download: what is written there is not written here.
    let path = entry.path();
    let download =
        path.extension().is_some_and(|extension| extension == "json").then(|| path.with_extension(""));
    let download = download.and_then(|path| fs::metadata(path).ok()?.modified().ok());
    own.max(download).and_then(|time| time.elapsed().ok()).is_some_and(|age| age > limit)
}

fn sweep_partials(layout: &Layout, goes: impl Fn(&DirEntry) -> bool) -> Result<u64, StoreError> {
    let folder = layout.partials();
    let mut bytes = 0;
    for entry in fs::read_dir(&folder).map_err(StoreError::on("list", &folder))? {
        let entry = entry.map_err(StoreError::on("list", &folder))?;
        if !goes(&entry) {
            continue;
        }
        let path = entry.path();
        let length = entry.metadata().map_or(0, |data| data.len());
        match fs::remove_file(&path) {
            Ok(()) => bytes += length,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A folder that somebody made there, say: no reason not to go on.
            Err(error) => tracing::warn!("{}: it stays", StoreError::on("remove", &path)(error)),
        }
    }
    Ok(bytes)
}
