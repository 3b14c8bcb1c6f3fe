//! Why a runtime's configuration stays as it is.

use std::io;
use std::path::{Path, PathBuf};

/// Nothing was changed, unless a file could not be replaced: then those before it were.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("{}: cannot {operation}: {source}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    /// Not what the runtime itself could read.
    #[error("{}: {what}", path.display())]
    Malformed { path: PathBuf, what: String },
    /// Somebody else's, and in the way.
    #[error("{}: {what}; it is left as it is. By hand:\n{advice}", path.display())]
    Foreign { path: PathBuf, what: String, advice: String },
    /// Ours once.
    #[error(
        "{}: was changed since `ociregistry mirror` wrote it; it is left as it is. If it is yours now, delete the \
         comment that says it was written by ociregistry; if not, delete what was written",
        path.display()
    )]
    Changed { path: PathBuf },
    #[error("{}: was changed by another program just now; run this again", path.display())]
    Raced { path: PathBuf },
    /// What a check found.
    #[error("{runtime} does not pull as asked: {count} checks failed")]
    NotInPlace { runtime: &'static str, count: usize },
    /// What this runtime cannot do.
    #[error("{0}")]
    Impossible(String),
}

impl MirrorError {
    pub(super) fn on(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { operation, path: path.to_owned(), source }
    }
}
