//! Whether a tag that we hold may be served as it is, and what to do when it may not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failures::log_image;
use super::{Cause, Found, Origin, Pull, PullError};
use crate::config::Age;
use crate::oci::{Descriptor, Image, Kind, Manifest, Name, Reference, Registry};
use crate::store::Record;
use crate::upstream::UpstreamError;

/// A check of a tag takes no longer; the one we hold is served then.
pub(super) const CHECK_WITHIN: Duration = Duration::from_secs(2);

/// A registry that did not answer a check in time is not asked again for so long.
pub(super) const SLOW_FOR: Duration = Duration::from_secs(10);

impl Pull {
    /// A digest always is; a tag is while it is younger than its `tag_ttl`.
    pub(super) fn is_fresh(&self, image: &Image, record: &Record) -> bool {
        let Reference::Tag(tag) = &image.reference else {
            return true;
        };
        if self.settings.load().air_gapped {
            return true;
        }
        let upstream = self.upstream(&image.name.registry);
        let policy = upstream.policy();
        match policy.tag_ttl {
            _ if policy.always_pull_latest && tag.is_latest() => false,
            Age::Forever => true,
            Age::For(limit) => record.age() < limit,
        }
    }

    /// Asks upstream whether a tag still points where it did: one HEAD, however many ask.
    pub(super) async fn check(self: &Arc<Self>, image: &Image, held: Found) -> Result<Found, PullError> {
        let pull = self.clone();
        let work = || {
            let image = image.clone();
            async move { pull.check_once(&image, held).await }
        };
        self.checks.run(&self.runtime, image, work).await.unwrap_or(Err(PullError::Lost))
    }

    async fn check_once(self: &Arc<Self>, image: &Image, held: Found) -> Result<Found, PullError> {
        let registry = &image.name.registry;
        if let Some(error) = self.was_slow(registry) {
            return self.stale(image, held, error).await;
        }
        let begun = Instant::now();
        let upstream = self.upstream(registry);
        let head = upstream.head(&image.name.repository, &image.reference, CHECK_WITHIN).await;
        match head {
            Ok(head) if head.digest == Some(held.record.digest) => {
                self.slow.remove(registry);
                let record = Arc::new(held.record.checked_now());
                self.store.refresh(image, record.clone());
                Ok(Found { record, origin: Origin::Hit, ..held })
            }
            Ok(_) => match self.fetch(image).await {
                Ok(found) => Ok(found),
                Err(error) => self.stale(image, held, error).await,
            },
            Err(error) => {
                if begun.elapsed() >= CHECK_WITHIN / 2 {
                    self.slow.insert(registry.clone(), Instant::now());
                }
                self.stale(image, held, error.into()).await
            }
        }
    }

    /// What is said in place of asking a registry that did not answer in time a moment ago.
    pub(super) fn was_slow(&self, registry: &Registry) -> Option<PullError> {
        self.slow.get(registry).filter(|since| since.elapsed() < SLOW_FOR)?;
        let reason = "did not answer in time a moment ago".to_owned();
        Some(UpstreamError::Unavailable { host: registry.to_string(), reason }.into())
    }

    /// Remembers that a registry does not answer in time, and says so.
    pub(super) fn is_slow(&self, registry: &Registry) -> PullError {
        self.slow.insert(registry.clone(), Instant::now());
        let reason = "did not answer in time".to_owned();
        UpstreamError::Unavailable { host: registry.to_string(), reason }.into()
    }

    /// What becomes of a tag that could not be confirmed.
    async fn stale(&self, image: &Image, held: Found, error: PullError) -> Result<Found, PullError> {
        let error = self.gone(image, error).await;
        if error.cause() == Cause::Missing {
            return Err(error);
        }
        let age = held.record.age();
        let allowed = self.upstream(&image.name.registry).policy().stale_if_error.covers(age);
        if error.cause() == Cause::Denied || !allowed {
            return Err(error);
        }
        if !self.is_complete(&image.name, &held) {
            let what = format!("not serving \"{image}\" stale, since not all of it is in the cache");
            self.failures.warn(&image.name, &image.reference, &error, &what);
            return Err(error);
        }
        let seconds = age.as_secs();
        let what = format!("serving \"{image}\" stale, checked {seconds} s ago");
        self.failures.warn(&image.name, &image.reference, &error, &what);
        Ok(Found { origin: Origin::Stale, age: Some(age), ..held })
    }

    /// What upstream no longer has, we forget. Gives the error back.
    pub(super) async fn gone(&self, image: &Image, error: PullError) -> PullError {
        if error.cause() == Cause::Missing {
            log_image!(image, "upstream no longer has \"{image}\": forgotten");
            self.store.forget(image).await;
        }
        error
    }

    /// Whether an image could be pulled without upstream: a client that got a manifest from us gets the rest
    /// from us, or fails. Of an index, one of its images is enough.
    fn is_complete(&self, name: &Name, found: &Found) -> bool {
        let Some(manifest) = Manifest::parse(Some(found.record.media_type.as_str()), &found.bytes) else {
            return true;
        };
        match manifest.kind() {
            Kind::Image => self.has_blobs(&manifest),
            Kind::Other => true,
            Kind::Index => {
                let is_whole = |child: &Descriptor| {
                    let image = Image { name: name.clone(), reference: Reference::Digest(child.digest) };
                    self.held(&image)
                        .and_then(|held| Manifest::parse(Some(held.record.media_type.as_str()), &held.bytes))
                        .is_some_and(|manifest| self.has_blobs(&manifest))
                };
                manifest.manifests.is_empty() || manifest.manifests.iter().any(is_whole)
            }
        }
    }

    fn has_blobs(&self, manifest: &Manifest) -> bool {
        manifest.blobs.iter().all(|blob| blob.foreign || self.store.has_blob(&blob.digest))
    }
}
