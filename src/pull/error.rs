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
    #[error("{image} has no image for {wanted}; it has {has}")]
    NoPlatform { image: String, wanted: String, has: String },
    #[error("no answer from upstream within {} s", super::ANSWER_WITHIN.as_secs())]
    TooLate,
    #[error("upstream does not say how long it is")]
    SizeUnknown,
    #[error("upstream sent the {0}")]
    Wrong(Arc<Wrong>),
    #[error("{0}")]
    Store(Arc<StoreError>),
    #[error("the download was paused, since nobody waited for it")]
    Paused,
    #[error("too much else is waited for already: try again")]
    Crowded,
    #[error("the client took nothing of it for a while, and others waited for its place")]
    Stalled,
    #[error("the download ended in an unforeseen way")]
    Lost,
}

/// What it comes to for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There is no such thing, for certain; all else may be better later.
    Missing,
    /// Upstream, or our own rules, say no.
    Denied,
    /// What upstream sent cannot be used.
    Invalid,
    /// Upstream cannot be had.
    Unavailable,
    /// No answer in time.
    Late,
    /// Our own disk, or ourselves.
    Internal,
}

impl PullError {
    /// The host that was to blame, where one was.
    pub fn upstream(&self) -> Option<&str> {
        match self {
            Self::Upstream(error) => Some(error.host()),
            _ => None,
        }
    }

    pub fn cause(&self) -> Cause {
        match self {
            Self::AirGapped | Self::KnownMissing | Self::IsManifest | Self::NoPlatform { .. } => {
                Cause::Missing
            }
            Self::RecentlyWrong | Self::SizeUnknown | Self::Wrong(_) => Cause::Invalid,
            Self::Paused | Self::Crowded | Self::Stalled => Cause::Unavailable,
            Self::TooLate => Cause::Late,
            Self::Store(_) | Self::Lost => Cause::Internal,
            Self::Upstream(error) => match error {
                UpstreamError::NotFound { .. } => Cause::Missing,
                UpstreamError::Denied { .. } | UpstreamError::Refused { .. } => Cause::Denied,
                UpstreamError::Unavailable { .. } => Cause::Unavailable,
                UpstreamError::Invalid { .. } => Cause::Invalid,
            },
        }
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
