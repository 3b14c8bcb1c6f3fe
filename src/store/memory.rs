//! What memory has of manifests and references that are on disk, or on their way there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Record;
use super::work::Work;
use crate::oci::{Digest, Image};

/// For manifests that are asked for often, in bytes.
const MANIFESTS: u64 = 8 << 20;

/// References; each is some 300 bytes.
const REFERENCES: usize = 16_384;

pub struct Memory {
    pub manifests: Cache<Digest, Bytes, ByLength>,
    pub references: Cache<Image, Arc<Record>>,
    /// References and lists that were forgotten or whose files were removed.
    pub dropped: AtomicU64,
}

#[derive(Clone)]
pub struct ByLength;

impl Weighter<Digest, Bytes> for ByLength {
    fn weight(&self, _: &Digest, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + 200
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            manifests: Cache::with_weighter(2048, MANIFESTS, ByLength),
            references: Cache::new(REFERENCES),
            dropped: AtomicU64::new(0),
        }
    }
}

impl Memory {
    /// Forgets a reference whose file has just been removed, or is about to be. A read that saw the file before
    /// notices, and keeps nothing.
    pub fn drop_reference(&self, image: &Image) {
        self.dropped.fetch_add(1, Ordering::AcqRel);
        self.references.remove(image);
    }

    /// Forgets what was not kept: the next request fetches it anew, and tries again.
    pub fn forget(&self, work: &Work) {
        match work {
            Work::Manifest(digest, _) => {
                self.manifests.remove(digest);
            }
            Work::Reference(image, _) => self.drop_reference(image),
            Work::Blob(_) | Work::TagList(..) | Work::Referrers(..) | Work::Settled(_) => {}
        }
    }
}
