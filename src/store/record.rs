//! What is kept of a tag, or of a manifest in its repository.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, MediaType, Reference};

/// A reference that we hold. Never changed: a newer one takes its place.
#[derive(Debug)]
pub struct Record {
    pub digest: Digest,
    pub media_type: MediaType,
    /// Of the manifest, in bytes.
    pub size: u64,
    /// When its bytes came from upstream.
    pub fetched: Timestamp,
    /// When upstream last said that the tag points here.
    pub checked: Timestamp,
    /// Was asked for by digest, not as a child of an index that we hold: a root for pruning.
    pub asked: bool,
    /// Just fetched, and nobody has asked for its body yet: the first to do so starts its blobs.
    pub fresh: AtomicBool,
    /// Used since its time of use was last written down.
    pub(super) touched: AtomicBool,
}

/// A file of `_tags/`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TagFile {
    digest: Digest,
    media_type: MediaType,
    size: u64,
    fetched: Timestamp,
    checked: Timestamp,
}

/// A file of `_manifests/`, whose name is the digest.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFile {
    media_type: MediaType,
    size: u64,
    fetched: Timestamp,
    asked: bool,
}

/// Time since then; zero when the clock was set back.
pub fn age(since: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or(Duration::ZERO)
}

impl Record {
    /// One that has just come from upstream.
    pub fn fetched_now(digest: Digest, media_type: MediaType, size: u64, asked: bool) -> Self {
        let now = Timestamp::now();
        Self {
            digest,
            media_type,
            size,
            fetched: now,
            checked: now,
            asked,
            fresh: AtomicBool::new(true),
            touched: AtomicBool::new(false),
        }
    }

    /// The same, confirmed by upstream just now.
    pub fn checked_now(&self) -> Self {
        Self {
            digest: self.digest,
            media_type: self.media_type.clone(),
            size: self.size,
            fetched: self.fetched,
            checked: Timestamp::now(),
            asked: self.asked,
            fresh: AtomicBool::new(self.fresh.load(Ordering::Relaxed)),
            touched: AtomicBool::new(false),
        }
    }

    /// Time since upstream last confirmed it.
    pub fn age(&self) -> Duration {
        age(self.checked)
    }

    pub(super) fn to_json(&self, reference: &Reference) -> serde_json::Result<Vec<u8>> {
        match reference {
            Reference::Tag(_) => serde_json::to_vec(&TagFile {
                digest: self.digest,
                media_type: self.media_type.clone(),
                size: self.size,
                fetched: self.fetched,
                checked: self.checked,
            }),
            Reference::Digest(_) => serde_json::to_vec(&ManifestFile {
                media_type: self.media_type.clone(),
                size: self.size,
                fetched: self.fetched,
                asked: self.asked,
            }),
        }
    }

    pub(super) fn from_json(reference: &Reference, bytes: &[u8]) -> serde_json::Result<Self> {
        let (fresh, touched) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(match reference {
            Reference::Tag(_) => {
                let TagFile { digest, media_type, size, fetched, checked } = serde_json::from_slice(bytes)?;
                Self { digest, media_type, size, fetched, checked, asked: false, fresh, touched }
            }
            Reference::Digest(digest) => {
                let ManifestFile { media_type, size, fetched, asked } = serde_json::from_slice(bytes)?;
                Self { digest: *digest, media_type, size, fetched, checked: fetched, asked, fresh, touched }
            }
        })
    }
}
