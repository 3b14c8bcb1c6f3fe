//! Lists that upstream gave: the tags of a repository, the referrers of a manifest. Kept as tags are, in memory and
//! under `refs/`: `{"checked": …, "list": …}`, where the list is an array of tags, or the index that is served.

use std::fs;
use std::hash::Hash;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::publish::lock;
use super::record::age;
use super::work::{Change, Work};
use super::{Store, cache::blocking};
use crate::oci::{Image, Name, Reference, Referrers, Subject, Tag, TagList};

/// Memory for lists of each kind, in bytes. The longest there can be fits.
const MEMORY: u64 = 32 << 20;

/// A list as upstream gave it.
#[derive(Debug)]
pub struct Kept<T> {
    pub list: T,
    /// When upstream said so.
    pub checked: Timestamp,
}

impl<T> Kept<T> {
    pub fn now(list: T) -> Self {
        Self { list, checked: Timestamp::now() }
    }

    /// Time since upstream gave it.
    pub fn age(&self) -> Duration {
        age(self.checked)
    }
}

/// What can be kept so.
pub trait List: Sized {
    /// The JSON of the list, in pieces.
    fn pieces(&self) -> [&[u8]; 3];
    fn read(json: &str) -> Option<Self>;
}

impl List for TagList {
    fn pieces(&self) -> [&[u8]; 3] {
        [b"[", self.as_str().as_bytes(), b"]"]
    }

    fn read(json: &str) -> Option<Self> {
        Self::parse(json).ok()
    }
}

impl List for Referrers {
    fn pieces(&self) -> [&[u8]; 3] {
        [b"", self.index(), b""]
    }

    fn read(json: &str) -> Option<Self> {
        Self::parse(json.as_bytes()).ok()
    }
}

#[derive(Deserialize)]
struct File<'a> {
    checked: Timestamp,
    #[serde(borrow)]
    list: &'a RawValue,
}

impl<T: List> Kept<T> {
    pub(super) fn to_json(&self) -> Vec<u8> {
        let head = format!("{{\"checked\":\"{}\",\"list\":", self.checked);
        let [before, list, after] = self.list.pieces();
        [head.as_bytes(), before, list, after, b"}"].concat()
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(json).ok()?;
        Some(Self { list: T::read(file.list.get())?, checked: file.checked })
    }

    /// Reads a file. One that cannot be read is a miss. Blocks.
    fn read(path: &Path) -> Option<Self> {
        match fs::read(path) {
            Ok(json) => {
                let kept = Self::from_json(&json);
                if kept.is_none() {
                    tracing::warn!(path = %path.display(), "not a list: fetching it anew");
                }
                kept
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read a list: fetching it anew");
                }
                None
            }
        }
    }
}

#[derive(Clone)]
pub struct ByText;

impl<K, T: List> Weighter<K, Arc<Kept<T>>> for ByText {
    fn weight(&self, _: &K, kept: &Arc<Kept<T>>) -> u64 {
        kept.list.pieces().iter().map(|piece| piece.len() as u64).sum::<u64>() + 300
    }
}

/// Those in memory, by what they are of.
pub(super) type InMemory<K, T> = Cache<K, Arc<Kept<T>>, ByText>;

pub(super) fn in_memory<K: Eq + Hash, T: List>() -> InMemory<K, T> {
    // So few of them to begin with, and it is not divided: the longest list would fit into no part.
    Cache::with_weighter(32, MEMORY, ByText)
}

impl Store {
    /// The tags of a repository as upstream last listed them.
    pub async fn tag_list(&self, name: &Name) -> Option<Arc<Kept<TagList>>> {
        let waiting = || lock(&self.pending.tag_lists).get(name).map(Change::put);
        find(&self.tag_lists, name, waiting, self.layout.tag_list(name), &self.memory.dropped).await
    }

    /// Keeps them. Reads find them when this returns.
    pub async fn publish_tag_list(&self, name: &Name, kept: Arc<Kept<TagList>>) {
        self.tag_lists.insert(name.clone(), kept.clone());
        self.publisher.publish(vec![Work::TagList(name.clone(), Change::Put(kept))]).await;
    }

    pub async fn forget_tag_list(&self, name: &Name) {
        self.tag_lists.remove(name);
        self.publisher.publish(vec![Work::TagList(name.clone(), Change::Remove)]).await;
        // Again: a reader may have put it back before that.
        self.memory.dropped.fetch_add(1, Ordering::AcqRel);
        self.tag_lists.remove(name);
    }

    /// The tags of a repository that we hold, sorted; as many as a list may have.
    pub async fn held_tags(&self, name: &Name) -> Vec<Tag> {
        let folder = self.layout.tags(name);
        let mut tags = blocking(move || names(&folder)).await.unwrap_or_default();
        for (Image { name: of, reference }, change) in &*lock(&self.pending.references) {
            if let Reference::Tag(tag) = reference
                && of == name
            {
                tags.retain(|known| known != tag);
                tags.extend(change.put().map(|_| tag.clone()));
            }
        }
        tags.sort_unstable();
        tags.truncate(crate::oci::MAX_LISTED);
        tags
    }

    /// What refers to a manifest as upstream last listed it.
    pub async fn referrers(&self, subject: &Subject) -> Option<Arc<Kept<Referrers>>> {
        let waiting = || lock(&self.pending.referrers).get(subject).map(Change::put);
        find(&self.referrers, subject, waiting, self.layout.referrers(subject), &self.memory.dropped).await
    }

    /// Keeps it as [`publish_tag_list`](Self::publish_tag_list) does.
    pub async fn publish_referrers(&self, subject: &Subject, kept: Arc<Kept<Referrers>>) {
        self.remember_referrers(subject, kept.clone());
        self.publisher.publish(vec![Work::Referrers(subject.clone(), Change::Put(kept))]).await;
    }

    /// Keeps it in memory only.
    pub fn remember_referrers(&self, subject: &Subject, kept: Arc<Kept<Referrers>>) {
        self.referrers.insert(subject.clone(), kept);
    }
}

/// Memory, then what waits to be written, then the disk.
async fn find<K: Clone + Eq + Hash, T: List + Send + Sync + 'static>(
    memory: &InMemory<K, T>,
    key: &K,
    waiting: impl Fn() -> Option<Option<Arc<Kept<T>>>>,
    path: PathBuf,
    dropped: &AtomicU64,
) -> Option<Arc<Kept<T>>> {
    if let Some(kept) = memory.get(key) {
        return Some(kept);
    }
    let dropped_before = dropped.load(Ordering::Acquire);
    if let Some(known) = waiting() {
        return known;
    }
    let kept = Arc::new(blocking(move || Kept::read(&path)).await??);
    // Something newer may have come while the disk was asked; that must not be replaced.
    let kept = match waiting() {
        Some(newer) => newer,
        None => memory.get_or_insert_with(key, || Ok::<_, ()>(kept)).ok(),
    };
    if dropped.load(Ordering::Acquire) != dropped_before {
        // Perhaps this one: it must not outlive its file.
        memory.remove(key);
    }
    kept
}

/// The names in a folder that can be tags. Blocks.
fn names(folder: &Path) -> Vec<Tag> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(path = %folder.display(), %error, "cannot list the tags that are held");
            }
            return Vec::new();
        }
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
