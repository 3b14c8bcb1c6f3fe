//! What the miss of a manifest starts: the client asks for its blobs next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Found, Pull, Want};
use crate::config::Prefetch;
use crate::oci::{Image, Kind, Manifest, Reference};

/// Of an image with more blobs than this the rest is fetched when it is asked for.
const MOST_BLOBS: usize = 1024;

impl Pull {
    /// Starts the downloads of a manifest that has just been fetched and whose bytes a client has now asked for,
    /// behind those that a client waits for. Once for each fetch.
    pub(super) fn prefetch(self: &Arc<Self>, image: &Image, found: &Found) {
        let fresh = &found.record.fresh;
        if !fresh.load(Ordering::Relaxed) || !fresh.swap(false, Ordering::Relaxed) {
            return;
        }
        let policy = self.upstream(&image.name.registry).policy().prefetch;
        if policy == Prefetch::None {
            return;
        }
        let slots = self.slots(&image.name);
        // When so many images come at once, the clients' own requests fetch the blobs of the others.
        let Ok(place) = slots.early_images.clone().try_acquire_owned() else { return };
        let (pull, name, found) = (self.clone(), image.name.clone(), found.clone());
        self.spawn(async move {
            let _place = place;
            let manifest = Manifest::parse(Some(found.record.media_type.as_str()), &found.bytes);
            drop(found);
            let Some(manifest) = manifest else { return };
            match manifest.kind() {
                Kind::Image => {
                    let blobs = manifest.blobs.iter().filter(|blob| !blob.foreign).take(MOST_BLOBS);
                    for blob in blobs.map(|blob| (blob.digest, blob.size)).collect::<Vec<_>>() {
                        let Ok(early) = slots.early_blobs.clone().acquire_owned().await else { return };
                        let launch = |flight| pull.launch_with(flight, name.clone(), Some(early));
                        pull.flights.start(blob.0, Some(blob.1), launch);
                    }
                }
                Kind::Index if policy == Prefetch::Platform => {
                    for child in manifest.for_platform(&pull.settings.load().platform) {
                        let image = Image { name: name.clone(), reference: Reference::Digest(child.digest) };
                        // Its failure is logged where it happens, and told to the client that asks for it.
                        let _ = Box::pin(pull.manifest(&image, Want::Body)).await;
                    }
                }
                Kind::Index | Kind::Other => {}
            }
        });
    }
}
