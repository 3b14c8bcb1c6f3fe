//! What turned out to be wrong is put aside, for somebody to look at; the next request fetches it anew.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;

use super::Pace;
use super::check::hash;
use crate::oci::Digest;
use crate::store::{Kind, Store, StoreError};

impl Store {
    /// Puts a file of content aside which is not what its name says, or cannot be read. `file` is what was read, where
    /// it could be opened: nothing happens when another has taken its place. Says so in the log. Blocks.
    pub fn put_aside(&self, kind: Kind, digest: &Digest, file: Option<&File>, why: &str) -> bool {
        let path = self.layout.content(kind, digest);
        let aside = self.layout.set_aside(digest);
        let _files = self.guard.files();
        let put = || -> io::Result<Option<u64>> {
            // What an administrator put elsewhere, and a link in its place, goes aside as the link.
            let there = fs::metadata(&path).or_else(|_| fs::symlink_metadata(&path))?;
            if let Some(read) = file.map(File::metadata).transpose()?
                && (read.dev(), read.ino()) != (there.dev(), there.ino())
            {
                return Ok(None);
            }
            fs::rename(&path, &aside)?;
            Ok(Some(there.len()))
        };
        match put() {
            Ok(Some(bytes)) => {
                self.totals.put_aside(kind, bytes);
                if kind == Kind::Manifest {
                    self.memory.manifests.remove(digest);
                }
                // It is kept for a day from now on, not from when it was written.
                crate::store::touch::set_mtime(&aside);
                tracing::error!(oci_digest = %digest, path = %path.display(), aside = %aside.display(), "{why}: put aside");
                true
            }
            Ok(None) => false,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                let error = StoreError::on("put aside", &path)(error);
                match error.trouble() {
                    // It has said so.
                    Some(_) if self.disk.is_troubled() => tracing::debug!(%error, "{why}"),
                    _ => tracing::error!(oci_digest = %digest, %error, "{why}"),
                }
                if let (Kind::Blob, Some(data)) = (kind, file.and_then(|file| file.metadata().ok())) {
                    self.shunned.insert(*digest, data.ino());
                }
                if error.trouble().is_some() {
                    self.disk.failed(&error, 0, None);
                }
                false
            }
        }
    }

    /// Whether this is a blob's file that is wrong and could not be put aside: it is as if it was not there.
    pub fn shuns(&self, digest: &Digest, file: &Metadata) -> bool {
        self.shunned.get(digest).is_some_and(|inode| inode == file.ino())
    }

    /// Hashes a file again, and puts it aside when it is not what its name says. Blocks.
    pub fn is_sound(&self, kind: Kind, digest: &Digest, file: &File) -> bool {
        let why = match hash(digest.algorithm(), file, &Pace::free()) {
            Ok(Ok((got, _))) if got == *digest => return true,
            Ok(Ok((got, bytes))) => format!("its {bytes} bytes are {got}"),
            Ok(Err(error)) => error.to_string(),
            // Nothing stops it.
            Err(error) => error.to_string(),
        };
        self.put_aside(kind, digest, Some(file), &why);
        false
    }
}
