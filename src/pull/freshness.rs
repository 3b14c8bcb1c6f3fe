//! Whether a tag that we hold may be served as it is, and what to do when it may not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failures::log_image;
use super::{Cause, Found, Origin, Pull, PullError};
use crate::config::Age;
use crate::oci::{Descriptor, Image, Kind, Manifest, Name, Reference, Registry};
use crate::store::Record;
use crate::upstream::{Head, UpstreamError};

/// Nobody waits longer for the check of a tag; the one we hold is served then.
pub(super) const CHECK_WITHIN: Duration = Duration::from_secs(2);

/// The check itself takes no longer. Where the one we hold may not be served, it is waited for.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// An index that is nested more deeply has no image as far as we look.
const NESTED: usize = 8;

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
        if let Some(error) = self.was_slow(registry)
            && self.may_serve_stale(image, &held)
        {
            return self.stale(image, held, error).await;
        }
        let begun = Instant::now();
        let (upstream, asked) = (self.upstream(registry), image.clone());
        let mut head = self
            .spawn(async move { upstream.head(&asked.name.repository, &asked.reference, HEAD_WITHIN).await });
        let told = match tokio::time::timeout(CHECK_WITHIN, &mut head).await {
            Ok(told) => told,
            Err(_) if self.may_serve_stale(image, &held) => {
                // What it says in the end holds for whoever asks next.
                let (pull, asked, known) = (self.clone(), image.clone(), held.clone());
                self.spawn(async move {
                    if let Ok(Ok(head)) = head.await {
                        pull.slow.remove(&asked.name.registry);
                        let _ = pull.confirm(&asked, known, head).await;
                    }
                });
                let error = self.is_slow(registry);
                return self.stale(image, held, error).await;
            }
            Err(_) => head.await,
        };
        let error = match told {
            Ok(Ok(head)) => match self.confirm(image, held.clone(), head).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
            // Some answer no HEAD.
            Ok(Err(UpstreamError::Invalid { .. })) => match self.fetch(image).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
            Ok(Err(error)) => {
                if begun.elapsed() >= CHECK_WITHIN / 2 {
                    self.slow.insert(registry.clone(), Instant::now());
                }
                error.into()
            }
            Err(_) => PullError::Lost,
        };
        self.stale(image, held, error).await
    }

    /// What becomes of a tag after upstream has told what it stands for.
    async fn confirm(self: &Arc<Self>, image: &Image, held: Found, head: Head) -> Result<Found, PullError> {
        if head.digest != Some(held.record.digest) {
            return self.fetch(image).await;
        }
        self.slow.remove(&image.name.registry);
        let record = Arc::new(held.record.checked_now());
        self.store.refresh(image, record.clone());
        Ok(Found { record, origin: Origin::Hit, ..held })
    }

    /// Whether a tag may be served though upstream does not confirm it.
    fn may_serve_stale(&self, image: &Image, held: &Found) -> bool {
        self.may_be_stale(&image.name.registry, held.record.age()) && self.is_complete(&image.name, held)
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
            log_image!(info, image, "upstream no longer has \"{image}\": forgotten");
            self.store.forget(image).await;
        }
        error
    }

    /// Whether an image could be pulled without upstream: a client that got a manifest from us gets the rest
    /// from us, or fails. Of an index, one of its images is enough.
    fn is_complete(&self, name: &Name, found: &Found) -> bool {
        self.is_complete_within(name, found, NESTED)
    }

    fn is_complete_within(&self, name: &Name, found: &Found, depth: usize) -> bool {
        let Some(manifest) = Manifest::parse(Some(found.record.media_type.as_str()), &found.bytes) else {
            return true;
        };
        match manifest.kind() {
            Kind::Image => self.has_blobs(&manifest),
            Kind::Other => true,
            Kind::Index => {
                let is_whole = |child: &Descriptor| {
                    let image = Image { name: name.clone(), reference: Reference::Digest(child.digest) };
                    let held = depth.checked_sub(1).zip(self.held(&image));
                    held.is_some_and(|(depth, held)| self.is_complete_within(name, &held, depth))
                };
                manifest.manifests.is_empty() || manifest.manifests.iter().any(is_whole)
            }
        }
    }

    fn has_blobs(&self, manifest: &Manifest) -> bool {
        manifest.blobs.iter().all(|blob| blob.foreign || self.store.has_blob(&blob.digest))
    }
}
