//! Why an upstream gave nothing.

use std::path::{Path, PathBuf};

/// What went wrong between us and a registry. Each message names the host and says what it did; none holds a
/// secret, a query string or a signed address.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// 404: it has no such manifest, blob or repository.
    #[error("{host}: not found")]
    NotFound { host: String },
    /// 401 or 403, after what credentials we have for it.
    #[error("{host}: access denied ({status}){hint}")]
    Denied { host: String, status: u16, hint: String },
    /// Our own rules forbid to ask there (private address, downgrade, loop).
    #[error("{host}: refused: {reason}")]
    Refused { host: String, reason: String },
    /// Not reached, not in time, overloaded or broken: may be better later.
    #[error("{host}: {reason}")]
    Unavailable { host: String, reason: String },
    /// Its answer is none we can use: no manifest, too large, wrong digest or length.
    #[error("{host}: {reason}")]
    Invalid { host: String, reason: String },
}

impl UpstreamError {
    /// Who was asked.
    pub fn host(&self) -> &str {
        match self {
            Self::NotFound { host }
            | Self::Denied { host, .. }
            | Self::Refused { host, .. }
            | Self::Unavailable { host, .. }
            | Self::Invalid { host, .. } => host,
        }
    }

    pub(super) fn refused(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { host: host.into(), reason: reason.into() }
    }

    pub(super) fn unavailable(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unavailable { host: host.into(), reason: reason.into() }
    }

    pub(super) fn invalid(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { host: host.into(), reason: reason.into() }
    }
}

/// Why the settings do not make upstreams. Found at the start, without the network.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamsError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the proxy's address is none: want http, https, socks5 or socks5h, a host and a port")]
    Proxy,
    #[error("`{0}` cannot stand in a header")]
    Header(String),
}

impl UpstreamsError {
    pub(super) fn file(path: &Path, reason: String) -> Self {
        Self::File { path: path.to_owned(), reason }
    }
}
