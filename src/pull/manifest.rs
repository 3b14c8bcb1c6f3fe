//! Manifests and indexes: hit, miss, stale.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::failures::{log_failure, log_image};
use super::{ANSWER_WITHIN, Origin, Pull, PullError, Want, What};
use crate::hello;
use crate::oci::{Image, Manifest, Name, Reference};
use crate::store::Record;
use crate::upstream::UpstreamError;

/// A manifest to be served.
#[derive(Clone)]
pub struct Found {
    pub record: Arc<Record>,
    pub bytes: Bytes,
    pub origin: Origin,
    /// How long ago upstream last confirmed it, when it is served stale.
    pub age: Option<Duration>,
}

impl Pull {
    /// Finds a manifest by tag or digest. Answers or fails within 25 s.
    pub async fn manifest(self: &Arc<Self>, image: &Image, want: Want) -> Result<Found, PullError> {
        if let Some(found) = self.greeting(image) {
            return Ok(found);
        }
        let at_hand = || {
            let record = self.store.reference_at_hand(image)?;
            let bytes = self.store.manifest_at_hand(&record.digest)?;
            self.is_fresh(image, &record).then_some(Found { record, bytes, origin: Origin::Hit, age: None })
        };
        let found = match at_hand() {
            Some(found) => found,
            None => {
                let (pull, image) = (self.clone(), image.clone());
                let find = async move { pull.find_manifest(&image).await };
                in_time(async { self.spawn(find).await.unwrap_or(Err(PullError::Lost)) }).await?
            }
        };
        self.count(found.origin);
        self.store.touch(image, &found.record);
        if found.origin == Origin::Hit {
            log_image!(info, image, "serving manifest from cache: \"{image}\"");
        }
        if want == Want::Body {
            self.prefetch(image, &found);
        }
        Ok(found)
    }

    /// What the program has of its own.
    fn greeting(&self, image: &Image) -> Option<Found> {
        let hello::Document { digest, media_type, bytes } =
            self.settings.load().hello_world.then(|| hello::manifest(image))??;
        self.count(Origin::Hit);
        tracing::info!("serving manifest from the program itself: \"{image}\"");
        let record = Record::fetched_now(*digest, media_type.clone(), bytes.len() as u64, false);
        Some(Found { record: Arc::new(record), bytes: bytes.clone(), origin: Origin::Hit, age: None })
    }

    pub(super) async fn find_manifest(self: &Arc<Self>, image: &Image) -> Result<Found, PullError> {
        match self.held(image) {
            Some(held) if self.is_fresh(image, &held.record) => Ok(held),
            Some(held) => self.check(image, held).await,
            None => self.miss(image).await,
        }
    }

    /// What the store has. A name without its bytes is nothing.
    pub(super) fn held(&self, image: &Image) -> Option<Found> {
        let record = self.store.reference(image)?;
        let bytes = match self.store.manifest_at_hand(&record.digest) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.store.manifest(&record.digest)?;
                // From disk: what it says of sizes may not be known since the start.
                if let Some(manifest) = Manifest::parse(Some(record.media_type.as_str()), &bytes) {
                    self.learn(&image.name, &manifest);
                }
                bytes
            }
        };
        Some(Found { record, bytes, origin: Origin::Hit, age: None })
    }

    async fn miss(self: &Arc<Self>, image: &Image) -> Result<Found, PullError> {
        if self.settings.load().air_gapped {
            return Err(PullError::AirGapped);
        }
        if self.is_known_missing(&What::Manifest(image.clone())) {
            return Err(PullError::KnownMissing);
        }
        self.fetch(image).await
    }

    /// Fetches from upstream and keeps: once, however many ask.
    pub(super) async fn fetch(self: &Arc<Self>, image: &Image) -> Result<Found, PullError> {
        let pull = self.clone();
        let work = || {
            let image = image.clone();
            async move {
                let result = pull.fetch_once(&image).await;
                if let Err(error) = &result {
                    pull.note_missing(&image, error);
                }
                result
            }
        };
        self.fetches.run(&self.runtime, image, work).await.unwrap_or(Err(PullError::Lost))
    }

    async fn fetch_once(&self, image: &Image) -> Result<Found, PullError> {
        let slots = self.slots(&image.name);
        let place = tokio::time::timeout(ANSWER_WITHIN, slots.manifests.acquire()).await;
        // It is never closed.
        let _place = place.map_err(|_| PullError::TooLate)?.map_err(|_| PullError::Lost)?;
        let upstream = self.upstream(&image.name.registry);
        log_image!(info, image, upstream = upstream.host(), "pulling manifest from upstream: \"{image}\"");
        let fetched = upstream.manifest(&image.name.repository, &image.reference).await?;
        let media_type = fetched.manifest.media_type.clone();
        let size = fetched.bytes.len() as u64;
        let digest = fetched.digest;
        let by_digest = Image { name: image.name.clone(), reference: Reference::Digest(digest) };
        let asked = match image.reference {
            // A child of an index of its repository goes with that index.
            Reference::Digest(_) => self.children.get(&(image.name.clone(), digest)).is_none(),
            Reference::Tag(_) => self.store.reference(&by_digest).is_some_and(|known| known.asked),
        };
        self.learn(&image.name, &fetched.manifest);
        let record = Arc::new(Record::fetched_now(digest, media_type, size, asked));
        let mut names = vec![(by_digest, record.clone())];
        if let Reference::Tag(_) = image.reference {
            names.push((image.clone(), record.clone()));
        }
        self.store.publish_manifest(fetched.bytes.clone(), names).await;
        self.not_found.remove(&What::Manifest(image.clone()));
        Ok(Found { record, bytes: fetched.bytes, origin: Origin::Miss, age: None })
    }

    /// Remembers what a manifest of a repository names, and of what size.
    pub(super) fn learn(&self, name: &Name, manifest: &Manifest) {
        for child in &manifest.manifests {
            self.children.insert((name.clone(), child.digest), ());
        }
        for named in manifest.manifests.iter().chain(&manifest.blobs) {
            self.named.insert((name.clone(), named.digest), named.size);
        }
    }

    fn note_missing(&self, image: &Image, error: &PullError) {
        match error {
            PullError::Upstream(UpstreamError::NotFound { .. }) => {
                self.not_found.insert(What::Manifest(image.clone()), Instant::now());
                log_failure!(info, image.name, image.reference, error, "no manifest \"{image}\"");
            }
            _ => {
                let what = format!("cannot pull manifest \"{image}\"");
                self.failures.warn(&image.name, &image.reference, error, &what);
            }
        }
    }
}

/// Gives up waiting, not the work: whoever asks next finds it done.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T, PullError>>) -> Result<T, PullError> {
    tokio::time::timeout(ANSWER_WITHIN, work).await.unwrap_or(Err(PullError::TooLate))
}
