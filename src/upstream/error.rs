//! Why an upstream gave nothing.

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
