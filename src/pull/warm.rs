//! A whole image brought into the cache before anybody asks for it, and a tag asked for anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::flight::State;
use super::{Cause, Found, Pull, PullError, Want};
use crate::hello;
use crate::oci::{Descriptor, Digest, Image, InvalidPlatform, Kind, Manifest, Name, Platform, Reference};
use crate::store::Store;
use crate::upstream::UpstreamError;

/// Images that those who want several warm at once. The downloads of each are bounded by `max_downloads`.
pub const IMAGES_AT_ONCE: usize = 4;

/// For the one question of a refresh.
const REFRESH_WITHIN: Duration = Duration::from_secs(15);

/// Between two looks whether the store has taken a blob.
const LANDING: Duration = Duration::from_millis(5);

/// Indexes in indexes; what is deeper is nobody's image.
const DEPTH: usize = 8;

/// Which images of an index are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Platforms {
    Only(Platform),
    All,
}

/// `all`, `linux/arm/v7`
impl From<Platforms> for String {
    fn from(platforms: Platforms) -> Self {
        match platforms {
            Platforms::Only(platform) => platform.to_string(),
            Platforms::All => "all".to_owned(),
        }
    }
}

impl TryFrom<String> for Platforms {
    type Error = InvalidPlatform;

    fn try_from(text: String) -> Result<Self, InvalidPlatform> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Only) }
    }
}

/// What happens while an image is warmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase")]
pub enum Step {
    /// A manifest is here: it adds so many blobs to those known already, of so many bytes in all.
    Manifest { digest: Digest, blobs: usize, bytes: u64 },
    /// How much of a blob is here.
    Blob { digest: Digest, done: u64, size: u64 },
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmed {
    /// What the reference stands for.
    pub digest: Digest,
    /// Manifests and indexes.
    pub manifests: usize,
    pub blobs: usize,
    /// Of all blobs.
    pub bytes: u64,
    /// Of those that were not here before.
    pub fetched: u64,
}

/// Why an image is not all here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WarmError {
    #[error("{0}")]
    Image(#[from] PullError),
    #[error("manifest {digest}: {error}")]
    Manifest { digest: Digest, error: PullError },
    #[error("blob {digest}: {error}")]
    Blob { digest: Digest, error: PullError },
    #[error("{what} is not kept: {why}")]
    NotKept { what: String, why: String },
}

impl WarmError {
    pub fn cause(&self) -> Cause {
        match self {
            Self::Image(error) | Self::Manifest { error, .. } | Self::Blob { error, .. } => error.cause(),
            Self::NotKept { .. } => Cause::Internal,
        }
    }
}

/// What is to be on disk in the end.
pub(super) struct Kept {
    pub manifests: Vec<(Image, Digest)>,
    pub blobs: Vec<Digest>,
}

impl Kept {
    /// The first thing that is not. Blocks.
    fn lacks(&self, store: &Store) -> Option<String> {
        let manifest = self.manifests.iter().find(|(image, digest)| !store.is_kept(image, digest));
        let blob = || self.blobs.iter().find(|digest| !store.is_blob_kept(digest));
        manifest.map(|(image, _)| image.to_string()).or_else(|| blob().map(|digest| format!("blob {digest}")))
    }
}

/// What a refresh found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// What the tag points at now.
    pub digest: Digest,
    /// What it pointed at before, as far as we knew.
    pub before: Option<Digest>,
}

impl Pull {
    /// Fetches what is missing of an image, all its blobs too. Of an index, the images for `platforms`. Steps that
    /// `steps` has no room for are dropped. To be awaited on the pull runtime.
    ///
    /// Fails with the first manifest or blob that cannot be had or kept; what came before that stays.
    pub async fn warm(
        self: &Arc<Self>,
        image: &Image,
        platforms: &Platforms,
        steps: &mpsc::Sender<Step>,
    ) -> Result<Warmed, WarmError> {
        // The bodies are here either way; what is to be downloaded is said below.
        let root = self.manifest(image, Want::Head).await?;
        let digest = root.record.digest;
        let mut warmed = Warmed { digest, manifests: 0, blobs: 0, bytes: 0, fetched: 0 };
        let mut kept = Kept { manifests: vec![(image.clone(), digest)], blobs: Vec::new() };
        let mut seen = HashSet::from([digest]);
        let mut blobs = Vec::new();
        let mut to_do = vec![(root, 0)];
        while let Some((found, depth)) = to_do.pop() {
            warmed.manifests += 1;
            let media_type = Some(found.record.media_type.as_str());
            let Some(manifest) = Manifest::parse(media_type, &found.bytes) else { continue };
            let children = if depth < DEPTH { children(image, &manifest, platforms)? } else { Vec::new() };
            for Descriptor { digest, .. } in children.into_iter().filter(|child| seen.insert(child.digest)) {
                let reference = Reference::Digest(digest);
                let child = Image { name: image.name.clone(), reference };
                let found = self.manifest(&child, Want::Head).await;
                to_do.push((found.map_err(|error| WarmError::Manifest { digest, error })?, depth + 1));
                kept.manifests.push((child, digest));
            }
            let is_new = |blob: &Descriptor| !blob.foreign && seen.insert(blob.digest);
            let own: Vec<_> = manifest.blobs.into_iter().filter(is_new).collect();
            let step = Step::Manifest {
                digest: found.record.digest,
                blobs: own.len(),
                bytes: own.iter().map(|blob| blob.size).sum(),
            };
            let _ = steps.try_send(step);
            blobs.extend(own);
        }
        let mut downloads = JoinSet::new();
        for blob in blobs {
            kept.blobs.push(blob.digest);
            let (pull, name, steps) = (self.clone(), image.name.clone(), steps.clone());
            let digest = blob.digest;
            let download = async move {
                let done = pull.warm_blob(&name, digest, blob.size, &steps).await;
                done.map_err(|error| WarmError::Blob { digest, error })
            };
            downloads.spawn_on(download, &self.runtime);
        }
        while let Some(downloaded) = downloads.join_next().await {
            let (size, fetched) = downloaded.map_err(|_| PullError::Lost)??;
            warmed.blobs += 1;
            warmed.bytes += size;
            warmed.fetched += if fetched { size } else { 0 };
        }
        self.prove_kept(&image.name, kept).await?;
        Ok(warmed)
    }

    /// Fails with the first thing that is not on disk: what was passed on past it, or waits in memory, is not in the cache.
    pub(super) async fn prove_kept(&self, name: &Name, mut kept: Kept) -> Result<(), WarmError> {
        if self.settings.load().hello_world {
            kept.manifests.retain(|(image, _)| hello::manifest(image).is_none());
            kept.blobs.retain(|digest| hello::blob(name, digest).is_none());
        }
        let store = self.store.clone();
        let look = move || {
            kept.lacks(&store)?;
            // Perhaps it is only on its way.
            store.settle();
            let what = kept.lacks(&store)?;
            let why = store.trouble().map_or_else(|| "the log says why".to_owned(), |trouble| trouble.error);
            Some(WarmError::NotKept { what, why })
        };
        tokio::task::spawn_blocking(look).await.map_err(|_| PullError::Lost)?.map_or(Ok(()), Err)
    }

    /// Its size, and whether it had to be fetched.
    pub(super) async fn warm_blob(
        self: &Arc<Self>,
        name: &Name,
        digest: Digest,
        size: u64,
        steps: &mpsc::Sender<Step>,
    ) -> Result<(u64, bool), PullError> {
        let own = self.settings.load().hello_world && hello::blob(name, &digest).is_some();
        if own || self.store.has_blob(&digest) {
            let _ = steps.try_send(Step::Blob { digest, done: size, size });
            return Ok((size, false));
        }
        if self.settings.load().air_gapped {
            return Err(PullError::AirGapped);
        }
        let join = || self.flights.join(digest, Some(size), |flight| self.launch(flight, name.clone()));
        let mut seat = join();
        let mut progress = seat.flight.progress();
        // One that has landed already is only on its way to its place.
        let was_here = matches!(progress.borrow().state, State::Done);
        let mut own = false;
        loop {
            let now = progress.borrow_and_update().clone();
            let _ = steps.try_send(Step::Blob { digest, done: now.written, size: now.size.unwrap_or(size) });
            match now.state {
                State::Done => {
                    // Until the store has it, or has not.
                    while self.flights.has(&seat.flight) {
                        tokio::time::sleep(LANDING).await;
                    }
                    return Ok((now.written, !was_here));
                }
                // What another registry does not give, this one may.
                State::Failed(_) if !own && seat.flight.is_from_elsewhere(name) => {
                    own = true;
                    seat = join();
                    progress = seat.flight.progress();
                    continue;
                }
                State::Failed(error) => return Err(error),
                State::Starting | State::Running => {}
            }
            progress.changed().await.map_err(|_| PullError::Lost)?;
        }
    }

    /// Asks upstream now what a reference stands for, whatever its freshness, and fetches it when it has changed.
    /// Unlike a pull it fails when upstream cannot say. To be awaited on the pull runtime.
    pub async fn refresh(self: &Arc<Self>, image: &Image) -> Result<Refreshed, PullError> {
        if self.settings.load().air_gapped {
            return Err(PullError::AirGapped);
        }
        let before = self.held(image);
        let known = before.as_ref().map(|held| held.record.digest);
        if let Some(Found { record, .. }) = &before {
            let upstream = self.upstream(&image.name.registry);
            let head = upstream.head(&image.name.repository, &image.reference, REFRESH_WITHIN).await;
            match head.map_err(PullError::from) {
                Ok(head) if head.digest == Some(record.digest) => {
                    self.store.refresh(image, Arc::new(record.checked_now()));
                    return Ok(Refreshed { digest: record.digest, before: known });
                }
                // Some answer no HEAD.
                Ok(_) | Err(PullError::Upstream(UpstreamError::Invalid { .. })) => {}
                Err(error) => return Err(self.gone(image, error).await),
            }
        }
        match self.fetch(image).await {
            Ok(Found { record, .. }) => Ok(Refreshed { digest: record.digest, before: known }),
            Err(error) => Err(self.gone(image, error).await),
        }
    }
}

/// The images of an index that are wanted.
fn children(image: &Image, manifest: &Manifest, platforms: &Platforms) -> Result<Vec<Descriptor>, PullError> {
    if manifest.kind() != Kind::Index {
        return Ok(Vec::new());
    }
    let platform = match platforms {
        Platforms::All => return Ok(manifest.manifests.clone()),
        Platforms::Only(platform) => platform,
    };
    let wanted: Vec<_> = manifest.for_platform(platform).cloned().collect();
    // An index that names no platforms is a list of artifacts, and all of it is wanted.
    if manifest.manifests.iter().all(|child| child.platform.is_none()) {
        return Ok(manifest.manifests.clone());
    }
    if wanted.is_empty() {
        let has: Vec<_> = manifest.manifests.iter().filter_map(|child| child.platform.as_ref()).collect();
        let has = has.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(PullError::NoPlatform { image: image.to_string(), wanted: platform.to_string(), has });
    }
    Ok(wanted)
}
