//! What a manifest leads to.

use std::collections::HashSet;
use std::io::ErrorKind;

use bytes::Bytes;

use super::walk;
use crate::oci::{Descriptor, Digest, Manifest};
use crate::store::StoreError;
use crate::store::layout::Layout;

/// One thing on the way.
pub enum Reached<'a> {
    /// A manifest or index, the first one included, with its size in bytes; zero when its bytes are not there.
    Manifest(Digest, u64),
    /// Named by a manifest: a config, a layer, an artifact's blob. It may not be in the cache.
    Blob(&'a Descriptor),
}

/// Tells what a manifest leads to: itself, of its children those that its repository holds, and the blobs that any
/// of them names. A child that only another repository holds would be fetched again, so it is not needed.
pub fn reach(
    root: Digest,
    holds: &dyn Fn(&Digest) -> bool,
    read: &dyn Fn(&Digest) -> Result<Option<Bytes>, StoreError>,
    tell: &mut dyn FnMut(Reached<'_>),
) -> Result<(), StoreError> {
    let mut seen = HashSet::from([root]);
    let mut left = vec![root];
    while let Some(digest) = left.pop() {
        let bytes = read(&digest)?;
        tell(Reached::Manifest(digest, bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)));
        // What cannot be parsed was kept byte for byte, and names nothing.
        let Some(manifest) = bytes.and_then(|bytes| Manifest::parse(None, &bytes)) else { continue };
        for child in manifest.manifests {
            if holds(&child.digest) && seen.insert(child.digest) {
                left.push(child.digest);
            }
        }
        manifest.blobs.iter().for_each(|blob| tell(Reached::Blob(blob)));
    }
    Ok(())
}

/// A manifest's bytes as they are on disk, unverified. None when they are not there, or the disk has lost them or does not
/// let us read them: a miss to a pull, too.
pub fn read(layout: &Layout, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
    let path = layout.manifest(digest);
    match walk::read(&path) {
        Ok((bytes, _)) => Ok(Some(bytes.into())),
        // A file that was cut short is not what it was, and names nothing; nor does a folder.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => match StoreError::on("read", &path)(error) {
            error if error.is_damage() => Ok(None),
            error if error.source.kind() == ErrorKind::PermissionDenied => {
                tracing::warn!("{error}: it leads to nothing");
                Ok(None)
            }
            error => Err(error),
        },
    }
}
