//! What the cache holds, one row at a time.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::mark::readable;
use super::reach::{self, Reached};
use super::walk::{Entry, Repository, Which, contents, repositories, stat};
use super::{CareError, Folder, Pace, Pins, Usage, patterns};
use crate::oci::{Digest, Image, Kind as Document, Reference};
use crate::store::publish::lock;
use crate::store::{Kind, StoreError};

/// Rows that may wait to be told.
const ROWS: usize = 256;

/// Threads that read at the same time.
const READERS: usize = 4;

/// Where no row comes, whether to stop is asked this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which images. All that is given holds for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListRequest {
    /// Regular expressions, one of which is found in `registry/repository:tag` or `registry/repository@digest`.
    pub patterns: Vec<String>,
    /// Those that are pinned, in the cache or not.
    pub pinned: bool,
    #[serde(rename = "type")]
    pub kind: Option<ListedType>,
    /// A part of the digest of a blob that they lead to.
    pub of_blob: Option<String>,
    /// Tell the blobs of each.
    pub blobs: bool,
    /// At most so many; 0 is all.
    pub count: u64,
    /// Count what the cache holds, too.
    pub totals: bool,
}

/// Which blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobsRequest {
    /// Regular expressions, one of which is found in the digest.
    pub patterns: Vec<String>,
    /// At most so many; 0 is all.
    pub count: u64,
    /// Count what the cache holds, too.
    pub totals: bool,
}

/// What a list came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReport {
    /// Rows that were told.
    pub listed: u64,
    /// Of a list of what is pinned: names that the cache does not hold.
    pub missing: Vec<String>,
    /// Manifests that could not be read: the sizes of their images are too small.
    #[serde(default)]
    pub unreadable: u64,
    /// What the cache holds, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedType {
    /// An index: one image a platform.
    List,
    Image,
}

impl ListedType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Image => "image",
        }
    }
}

/// A tag, or a manifest that no tag of its repository points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedImage {
    /// `registry/repository`
    pub image: String,
    /// None when it is known by its digest only.
    pub tag: Option<String>,
    pub digest: Digest,
    #[serde(rename = "type")]
    pub kind: ListedType,
    /// When its bytes came from upstream.
    pub created: Timestamp,
    /// Its last use.
    pub pulled: Timestamp,
    /// Of all that it leads to, as far as we hold the manifests that say so, in bytes; shared blobs count in each
    /// image. Blobs that nobody has pulled yet count too.
    pub size: u64,
    pub pinned: bool,
    /// What it leads to beside manifests, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<Vec<NamedBlob>>,
}

/// A blob as manifests name it; it may not be in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

impl ListedImage {
    /// `registry/repository:tag` or `registry/repository@digest`
    pub fn full_name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.image),
            None => format!("{}@{}", self.image, self.digest),
        }
    }
}

/// A file under `blobs/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// When its bytes came from upstream.
    pub created: Timestamp,
}

impl Folder {
    /// Tells of the images, until `tell` has enough. Memory holds some 20 bytes for each manifest of
    /// the repositories that are being read, one by each thread. Blocks.
    pub fn list(
        &self,
        request: &ListRequest,
        pace: &Pace<'_>,
        tell: &mut dyn FnMut(ListedImage) -> ControlFlow<()>,
    ) -> Result<ListReport, CareError> {
        let wanted = patterns(&request.patterns)?;
        let pins = self.pins()?;
        let work = Mutex::new(repositories(&self.layout)?);
        let (over, unreadable) = (AtomicBool::new(false), AtomicU64::new(0));
        let (rows, listed) = mpsc::sync_channel(ROWS);
        let read = |rows: mpsc::SyncSender<Result<ListedImage, CareError>>| {
            let mut send = |row: Row<'_>| {
                if over.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
                let pinned = pins.has(&row.entry.image);
                let wanted =
                    wanted.as_ref().is_none_or(|wanted| wanted.is_match(&row.entry.image.to_string()));
                if !wanted || request.pinned && !pinned || request.kind.is_some_and(|kind| kind != row.kind())
                {
                    return ControlFlow::Continue(());
                }
                let Some(row) = self.row(row, pinned, request, &unreadable).transpose() else {
                    return ControlFlow::Continue(());
                };
                // Nobody listens any more when it has enough.
                match rows.send(row) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            };
            while let Some(repository) = { lock(&work).next() } {
                let listed = repository.map_err(CareError::from);
                match listed.and_then(|repository| list_repository(&repository, &pins, &mut send)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return,
                    Err(error) => {
                        let _ = rows.send(Err(error));
                        return;
                    }
                }
            }
        };
        let mut missing: BTreeSet<String> = match request.pinned {
            true => {
                let wanted = |name: &&str| wanted.as_ref().is_none_or(|wanted| wanted.is_match(name));
                pins.names().filter(wanted).map(str::to_owned).collect()
            }
            false => BTreeSet::new(),
        };
        let mut report = ListReport::default();
        let readers = thread::available_parallelism().map_or(1, usize::from).min(READERS);
        thread::scope(|scope| {
            let threads = vec![rows; readers].into_iter();
            let threads: Vec<_> =
                threads.map(|rows| thread::Builder::new().spawn_scoped(scope, || read(rows))).collect();
            // One is enough; without any, nobody would read.
            let none = threads.iter().all(Result::is_err);
            if let (true, Some(Err(error))) = (none, threads.into_iter().next()) {
                return Err(StoreError::on("start a thread for", &self.layout.root)(error).into());
            }
            // Dropped with it: then the readers end, too.
            let listed = listed;
            let told = loop {
                if let Err(error) = pace.step(0) {
                    break Err(error);
                }
                match listed.recv_timeout(LOOK_EVERY) {
                    Ok(Ok(row)) => {
                        missing.remove(&row.full_name());
                        report.listed += 1;
                        if tell(row).is_break() || report.listed == request.count {
                            break Ok(());
                        }
                    }
                    Ok(Err(error)) => break Err(error),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break Ok(()),
                }
            };
            over.store(true, Ordering::Relaxed);
            told
        })?;
        report.missing = missing.into_iter().collect();
        report.unreadable = unreadable.into_inner();
        report.usage = request.totals.then(|| self.usage(pace)).transpose()?;
        Ok(report)
    }

    /// None when it does not lead to the blob that is asked for.
    fn row(
        &self,
        row: Row<'_>,
        pinned: bool,
        request: &ListRequest,
        unreadable: &AtomicU64,
    ) -> Result<Option<ListedImage>, CareError> {
        let kind = row.kind();
        let Row { entry: Entry { image, record, .. }, used, held } = row;
        let mut size = 0;
        let mut seen = HashSet::new();
        let mut blobs = request.blobs.then(Vec::new);
        let mut is_wanted = request.of_blob.is_none();
        let read = |digest: &Digest| {
            let bytes = reach::read(&self.layout, digest)?;
            if bytes.is_none() && self.layout.manifest(digest).exists() {
                unreadable.fetch_add(1, Ordering::Relaxed);
            }
            Ok(bytes)
        };
        reach::reach(
            record.digest,
            &|child| held.contains_key(&child.prefix()),
            &read,
            &mut |what| match what {
                Reached::Manifest(_, bytes) => size += bytes,
                Reached::Blob(blob) if blob.foreign || !seen.insert(blob.digest) => {}
                Reached::Blob(blob) => {
                    size += blob.size;
                    is_wanted |= request
                        .of_blob
                        .as_ref()
                        .is_some_and(|part| blob.digest.to_string().contains(part.as_str()));
                    if let Some(blobs) = &mut blobs {
                        blobs.push(NamedBlob { digest: blob.digest, size: blob.size });
                    }
                }
            },
        )?;
        Ok(is_wanted.then(|| ListedImage {
            image: image.name.to_string(),
            tag: match &image.reference {
                Reference::Tag(tag) => Some(tag.to_string()),
                Reference::Digest(_) => None,
            },
            digest: record.digest,
            kind,
            created: record.fetched,
            pulled: timestamp(used),
            size,
            pinned,
            blobs,
        }))
    }

    /// Tells of the blobs, in no order, until `tell` has enough. Blocks.
    pub fn list_blobs(
        &self,
        request: &BlobsRequest,
        pace: &Pace<'_>,
        tell: &mut dyn FnMut(ListedBlob) -> ControlFlow<()>,
    ) -> Result<ListReport, CareError> {
        let wanted = patterns(&request.patterns)?;
        let mut report = ListReport::default();
        for content in contents(&self.layout.contents(Kind::Blob))? {
            pace.step(0)?;
            let content = content?;
            let Some(digest) = content.digest else { continue };
            if !wanted.as_ref().is_none_or(|wanted| wanted.is_match(&digest.to_string())) {
                continue;
            }
            let Some(stat) = stat(&content.path)? else { continue };
            let row = ListedBlob { digest, size: stat.length, created: timestamp(stat.written) };
            report.listed += 1;
            if tell(row).is_break() || report.listed == request.count {
                break;
            }
        }
        report.usage = request.totals.then(|| self.usage(pace)).transpose()?;
        Ok(report)
    }
}

/// What is known of an entry of `_manifests`. A repository may have a hundred thousand of them: the rest is read again
/// when its turn comes.
struct Held {
    used: u32,
    asked: bool,
    tagged: Cell<bool>,
}

/// A name, and what its repository holds, by the prefixes of the digests.
struct Row<'a> {
    entry: &'a Entry,
    used: u32,
    held: &'a HashMap<u64, Held>,
}

impl Row<'_> {
    fn kind(&self) -> ListedType {
        match self.entry.record.media_type.kind() {
            Document::Index => ListedType::List,
            Document::Image | Document::Other => ListedType::Image,
        }
    }
}

/// Tags, and the manifests that none of them points to, or that were asked for or pinned by digest.
fn list_repository(
    repository: &Repository,
    pins: &Pins,
    tell: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, CareError> {
    let mut held = HashMap::new();
    for entry in repository.entries(Which::Manifests)? {
        let Some(Entry { record, used, .. }) = readable(entry)? else { continue };
        held.insert(record.digest.prefix(), Held { used, asked: record.asked, tagged: Cell::new(false) });
    }
    let held = &held;
    for entry in repository.entries(Which::Tags)? {
        let Some(entry) = readable(entry)? else { continue };
        let by_digest = held.get(&entry.record.digest.prefix());
        by_digest.inspect(|held| held.tagged.set(true));
        let used = by_digest.map_or(entry.used, |held| held.used.max(entry.used));
        if tell(Row { entry: &entry, used, held }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    for name in repository.names(Which::Manifests)? {
        let (reference, path) = name?;
        let Reference::Digest(digest) = reference else { continue };
        let Some(Held { asked, tagged, .. }) = held.get(&digest.prefix()) else { continue };
        let image = Image { name: repository.name.clone(), reference };
        if !asked && tagged.get() && !pins.has(&image) {
            continue;
        }
        let Some(entry) = readable(repository.entry(Which::Manifests, &path))?.flatten() else { continue };
        if tell(Row { entry: &entry, used: entry.used, held }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn timestamp(seconds: u32) -> Timestamp {
    Timestamp::from_second(i64::from(seconds)).unwrap_or_default()
}
