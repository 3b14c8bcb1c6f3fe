//! Why a pull fails, as its client is told.

use std::sync::Arc;

use crate::store::{StoreError, Wrong};
use crate::upstream::UpstreamError;

#[derive(Clone, Debug, thiserror::Error)]
pub enum PullError {
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    #[error("not in the cache, and this registry is air-gapped: it asks no upstream")]
    AirGapped,
    #[error("upstream said a moment ago that it has no such thing")]
    KnownMissing,
    #[error("the last download of this blob had the wrong content: ask for it from byte 0")]
    RecentlyWrong,
    #[error("it is a manifest: ask for it under manifests/")]
    IsManifest,
    #[error("no answer from upstream within {} s", super::ANSWER_WITHIN.as_secs())]
    TooLate,
    #[error("upstream sent the {0}")]
    Wrong(Arc<Wrong>),
    #[error("{0}")]
    Store(Arc<StoreError>),
    #[error("the download was paused, since nobody waited for it")]
    Paused,
    #[error("the download ended in an unforeseen way")]
    Lost,
}

impl PullError {
    /// Says for certain that there is no such thing; all else may be better later.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Upstream(UpstreamError::NotFound { .. })
            | Self::AirGapped
            | Self::KnownMissing
            | Self::IsManifest => true,
            Self::Upstream(_)
            | Self::RecentlyWrong
            | Self::TooLate
            | Self::Wrong(_)
            | Self::Store(_)
            | Self::Paused
            | Self::Lost => false,
        }
    }

    /// Upstream, or our own rules, say no.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::Denied { .. } | UpstreamError::Refused { .. }))
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Box<Wrong>> for PullError {
    fn from(wrong: Box<Wrong>) -> Self {
        Self::Wrong(Arc::from(wrong))
    }
}
