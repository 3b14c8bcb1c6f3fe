//! What the disk can say no to.

use std::io;
use std::path::{Path, PathBuf};

use super::{Holder, TroubleKind};

/// A failed operation on a path of the store.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct StoreError {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl StoreError {
    /// For `map_err`: names what was tried, on what.
    pub fn on(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { operation, path, source }
    }

    /// What it says of the disk as a whole, if anything: then pulls go on without it.
    pub fn trouble(&self) -> Option<TroubleKind> {
        TroubleKind::of(&self.source)
    }

    /// The disk has lost it; no use to try again.
    pub fn is_damage(&self) -> bool {
        use nix::errno::Errno;
        let errno = self.source.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG | Errno::ENODATA))
    }
}

/// Why a folder cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Io(#[from] StoreError),
    #[error("{} holds no image cache: it has no store.json. Name another folder with --image-path", .0.display())]
    Missing(PathBuf),
    #[error(
        "{} is not empty and has no store.json: it belongs to another program. Give an empty or new folder with --image-path",
        .0.display()
    )]
    NotOurs(PathBuf),
    #[error(
        "{} was written by an earlier program of this name, whose blobs were never verified; taking it over is not \
         supported yet. Give an empty or new folder with --image-path",
        .0.display()
    )]
    Legacy(PathBuf),
    #[error("{} has version {found}, and this program reads version 1 only", .path.display())]
    Version { path: PathBuf, found: u64 },
    #[error("{} is no store.json: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{} is in use by {}: wait for its end, or stop it", .root.display(), user(.holder.as_ref()))]
    Locked { root: PathBuf, holder: Option<Holder> },
}

fn user(holder: Option<&Holder>) -> String {
    match holder {
        None => "another process".to_owned(),
        Some(Holder { pid, admin_socket: None, .. }) => format!("process {pid}"),
        Some(Holder { pid, admin_socket: Some(socket), .. }) => {
            format!("process {pid}, which takes commands at {}", socket.display())
        }
    }
}
