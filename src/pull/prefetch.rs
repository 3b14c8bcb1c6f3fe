//! What the miss of a manifest starts: the client asks for its blobs next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Found, Pull, Want};
use crate::config::Prefetch;
use crate::oci::{Image, Kind, Manifest, Reference};

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
        let (pull, name, found) = (self.clone(), image.name.clone(), found.clone());
        self.runtime.spawn(async move {
            let Some(manifest) = Manifest::parse(Some(found.record.media_type.as_str()), &found.bytes) else {
                return;
            };
            match manifest.kind() {
                Kind::Image => {
                    for blob in manifest.blobs.iter().filter(|blob| !blob.foreign) {
                        let launch = |flight| pull.launch(flight, name.clone());
                        pull.flights.start(blob.digest, Some(blob.size), launch);
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
