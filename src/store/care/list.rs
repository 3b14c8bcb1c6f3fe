//! What the cache holds, one row at a time.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, mpsc};
use std::thread;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::mark::readable;
use super::reach::{self, Reached};
use super::walk::{Entry, Repository, Which, contents, repositories, stat};
use super::{CareError, Folder, patterns};
use crate::oci::{Digest, Kind as Document, Reference};
use crate::store::Kind;
use crate::store::publish::lock;

/// Rows that may wait to be told.
const ROWS: usize = 256;

/// Threads that read at the same time.
const READERS: usize = 4;

/// Which rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListRequest {
    /// Regular expressions, one of which is found in `registry/repository:tag` or `registry/repository@digest`; of
    /// blobs, in the digest.
    pub patterns: Vec<String>,
    /// Those that are pinned, in the cache or not.
    pub pinned: bool,
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
    /// Tells of the images, until `tell` has enough. Memory holds the names of a repository for each thread that reads
    /// along. Blocks.
    pub fn list(
        &self,
        request: &ListRequest,
        tell: &mut dyn FnMut(ListedImage) -> ControlFlow<()>,
    ) -> Result<(), CareError> {
        let wanted = patterns(&request.patterns)?;
        let pins = self.pins()?;
        let work = Mutex::new(repositories(&self.layout)?);
        let (rows, listed) = mpsc::sync_channel(ROWS);
        let read = |rows: mpsc::SyncSender<Result<ListedImage, CareError>>| {
            let mut send = |row: Row<'_>| {
                let pinned = pins.has(&row.entry.image);
                let wanted =
                    wanted.as_ref().is_none_or(|wanted| wanted.is_match(&row.entry.image.to_string()));
                if !wanted || request.pinned && !pinned {
                    return ControlFlow::Continue(());
                }
                // Nobody listens any more when it has enough.
                match rows.send(self.row(row, pinned)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            };
            while let Some(repository) = { lock(&work).next() } {
                let listed = repository.map_err(CareError::from);
                match listed.and_then(|repository| list_repository(&repository, &mut send)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return,
                    Err(error) => {
                        let _ = rows.send(Err(error));
                        return;
                    }
                }
            }
        };
        let readers = thread::available_parallelism().map_or(1, usize::from).min(READERS);
        thread::scope(|scope| {
            for rows in vec![rows; readers] {
                scope.spawn(|| read(rows));
            }
            for row in listed {
                if tell(row?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn row(&self, Row { entry, used, held }: Row<'_>, pinned: bool) -> Result<ListedImage, CareError> {
        let Entry { image, record, .. } = entry;
        let mut size = 0;
        let mut seen = HashSet::new();
        let read = |digest: &Digest| reach::read(&self.layout, digest);
        reach::reach(record.digest, &|child| held.contains_key(child), &read, &mut |what| match what {
            Reached::Manifest(_, bytes) => size += bytes,
            Reached::Blob(blob) if blob.foreign || !seen.insert(blob.digest) => {}
            Reached::Blob(blob) => size += blob.size,
        })?;
        Ok(ListedImage {
            image: image.name.to_string(),
            tag: match &image.reference {
                Reference::Tag(tag) => Some(tag.to_string()),
                Reference::Digest(_) => None,
            },
            digest: record.digest,
            kind: match record.media_type.kind() {
                Document::Index => ListedType::List,
                Document::Image | Document::Other => ListedType::Image,
            },
            created: record.fetched,
            pulled: timestamp(used),
            size,
            pinned,
        })
    }

    /// Tells of the blobs, in no order, until `tell` has enough. Blocks.
    pub fn list_blobs(
        &self,
        request: &ListRequest,
        tell: &mut dyn FnMut(ListedBlob) -> ControlFlow<()>,
    ) -> Result<(), CareError> {
        let wanted = patterns(&request.patterns)?;
        for content in contents(&self.layout.contents(Kind::Blob))? {
            let content = content?;
            let Some(digest) = content.digest else { continue };
            if !wanted.as_ref().is_none_or(|wanted| wanted.is_match(&digest.to_string())) {
                continue;
            }
            let Some(stat) = stat(&content.path)? else { continue };
            let row = ListedBlob { digest, size: stat.length, created: timestamp(stat.written) };
            if tell(row).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A name, and what its repository holds by digest with its last use.
struct Row<'a> {
    entry: &'a Entry,
    used: u32,
    held: &'a HashMap<Digest, u32>,
}

/// Tags, and the manifests that none of them points to or that were asked for by digest.
fn list_repository(
    repository: &Repository,
    tell: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, CareError> {
    let mut manifests = Vec::new();
    for entry in repository.entries(Which::Manifests)? {
        manifests.extend(readable(entry)?);
    }
    let held: HashMap<_, _> = manifests.iter().map(|entry| (entry.record.digest, entry.used)).collect();
    let held = &held;
    let mut tagged = HashSet::new();
    for entry in repository.entries(Which::Tags)? {
        let Some(entry) = readable(entry)? else { continue };
        let by_digest = held.get(&entry.record.digest).copied().unwrap_or_default();
        tagged.insert(entry.record.digest);
        if tell(Row { entry: &entry, used: entry.used.max(by_digest), held }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    for entry in manifests.iter().filter(|entry| entry.record.asked || !tagged.contains(&entry.record.digest))
    {
        if tell(Row { entry, used: entry.used, held }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn timestamp(seconds: u32) -> Timestamp {
    Timestamp::from_second(i64::from(seconds)).unwrap_or_default()
}
