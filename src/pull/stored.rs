//! Blobs that the store has, and what is done when one turns out not to be what it should be.

use std::fs::File;
use std::sync::Arc;

use super::{Pull, PullError};
use crate::oci::{Digest, Name};
use crate::store::Kind;

impl Pull {
    /// A blob's file cannot be read, or is too short: whoever asks for it when this is over gets it from upstream. False
    /// when the disk did not let it be put aside: then that cannot be kept.
    pub(super) async fn put_aside(&self, digest: &Digest, file: &Arc<File>, why: &PullError) -> bool {
        let (file, digest, store) = (file.clone(), *digest, self.store.clone());
        let why = format!("a blob broke off while it was sent ({why})");
        let aside = move || {
            store.put_aside(Kind::Blob, &digest, Some(&file), &why);
            !file.metadata().is_ok_and(|data| store.shuns(&digest, &data))
        };
        // It says itself what becomes of it.
        tokio::task::spawn_blocking(aside).await.unwrap_or(true)
    }

    /// A blob's size in bytes as the manifests of that repository say, as far as we know any.
    pub(super) fn named_size(&self, name: &Name, digest: &Digest) -> Option<u64> {
        self.named.get(&(name.clone(), *digest))
    }

    /// Whether a blob's size is that.
    pub(super) fn has_right_size(&self, name: &Name, digest: &Digest, size: u64) -> bool {
        self.named_size(name, digest).is_none_or(|named| named == size)
    }

    /// A blob's file and size in bytes, if the store has it. One whose size is not what a manifest says is proven
    /// first: either is wrong.
    pub(super) async fn stored(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<(Arc<File>, u64)>, PullError> {
        let (file, size) = match self.store.blob(digest) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(None),
            Err(error) if error.is_damage() => {
                let (store, digest) = (self.store.clone(), *digest);
                let aside = move || store.put_aside(Kind::Blob, &digest, None, &error.to_string());
                tokio::task::spawn_blocking(aside).await.map_err(|_| PullError::Lost)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if self.has_right_size(name, digest, size) {
            return Ok(Some((file, size)));
        }
        let prove = || {
            let (store, digest, file) = (self.store.clone(), *digest, file.clone());
            async move {
                let prove = move || store.is_sound(Kind::Blob, &digest, &file);
                tokio::task::spawn_blocking(prove).await.unwrap_or(false)
            }
        };
        if !self.proofs.run(&self.runtime, digest, prove).await.unwrap_or(false) {
            return Ok(None);
        }
        self.named.insert((name.clone(), *digest), size);
        Ok(Some((file, size)))
    }
}
