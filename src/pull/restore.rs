//! What a check put aside, fetched anew.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::warm::Kept;
use super::{Pull, WarmError};
use crate::oci::{Image, Reference};
use crate::store::care::{Lost, NamedBlob};

impl Pull {
    /// Fetches each from upstream, one after the other; those that are not on disk in the end, and why. To be awaited on
    /// the pull runtime.
    pub async fn restore(self: &Arc<Self>, mut lost: Vec<Lost>) -> Vec<(Lost, WarmError)> {
        // A tag brings its manifest's own name along; and manifests say which blobs there are.
        lost.sort_by_key(|lost| (lost.blob.is_some(), matches!(lost.image.reference, Reference::Digest(_))));
        let mut failed = Vec::new();
        for lost in lost {
            let done = match &lost.blob {
                Some(blob) => self.restore_blob(&lost.image, blob).await,
                None => self.restore_manifest(&lost).await,
            };
            failed.extend(done.err().map(|error| (lost, error)));
        }
        failed
    }

    async fn restore_manifest(self: &Arc<Self>, Lost { image, root, .. }: &Lost) -> Result<(), WarmError> {
        if let (Reference::Digest(digest), false) = (&image.reference, root) {
            // Or it would pass for one that was asked for by itself.
            self.children.insert((image.name.clone(), *digest), ());
        }
        let found = self.find_manifest(image).await?;
        let manifests = vec![(image.clone(), found.record.digest)];
        self.prove_kept(&image.name, Kept { manifests, blobs: Vec::new() }).await
    }

    async fn restore_blob(self: &Arc<Self>, image: &Image, blob: &NamedBlob) -> Result<(), WarmError> {
        // Nobody looks at the steps.
        let (steps, _) = mpsc::channel(1);
        let digest = blob.digest;
        let done = self.warm_blob(&image.name, digest, blob.size, &steps).await;
        done.map_err(|error| WarmError::Blob { digest, error })?;
        self.prove_kept(&image.name, Kept { manifests: Vec::new(), blobs: vec![digest] }).await
    }
}
