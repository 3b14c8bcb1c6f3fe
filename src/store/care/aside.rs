//! What turned out to be wrong is put aside, for somebody to look at; the next request fetches it anew.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;

use crate::oci::Digest;
use crate::store::{Kind, Store, StoreError};

impl Store {
    /// Puts a file of content aside which is not what its name says, or cannot be read: `file` is what was read, and
    /// nothing happens when another has taken its place. Says so in the log. Blocks.
    pub fn put_aside(&self, kind: Kind, digest: &Digest, file: &File, why: &str) -> bool {
        let path = self.layout.content(kind, digest);
        let aside = self.layout.set_aside(digest);
        let _files = self.guard.files();
        let put = || -> io::Result<Option<u64>> {
            let (read, there) = (file.metadata()?, fs::symlink_metadata(&path)?);
            if (read.dev(), read.ino()) != (there.dev(), there.ino()) {
                return Ok(None);
            }
            fs::rename(&path, &aside)?;
            Ok(Some(there.len()))
        };
        match put() {
            Ok(Some(bytes)) => {
                self.totals.vanished(kind, bytes);
                if kind == Kind::Manifest {
                    self.manifests.remove(digest);
                }
                // It is kept for a day from now on, not from when it was written.
                crate::store::touch::set_mtime(&aside);
                tracing::error!(path = %path.display(), aside = %aside.display(), "{why}: put aside");
                true
            }
            Ok(None) => false,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                tracing::error!("{why}; {}", StoreError::on("put aside", &path)(error));
                false
            }
        }
    }
}
