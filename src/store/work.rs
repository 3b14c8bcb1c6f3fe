//! What is to be made durable.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::{Kind, Layout};
use super::partial::Verified;
use super::{Kept, Record};
use crate::oci::{Digest, Image, Name, Reference, Referrers, Subject, TagList};

/// A file under `refs/` that changes.
pub enum Change<T> {
    Put(Arc<T>),
    Remove,
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Put(new) => Self::Put(new.clone()),
            Self::Remove => Self::Remove,
        }
    }
}

impl<T> Change<T> {
    /// What is about to be there; none when it is about to be gone.
    pub fn put(&self) -> Option<Arc<T>> {
        match self {
            Self::Put(new) => Some(new.clone()),
            Self::Remove => None,
        }
    }

    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Put(one), Self::Put(other)) => Arc::ptr_eq(one, other),
            (Self::Remove, Self::Remove) => true,
            _ => false,
        }
    }
}

/// What the totals make of a file.
pub enum Counted {
    Content(Kind, Digest),
    /// And whether it will be an image's.
    Name(Image, bool),
    Nothing,
}

/// One thing to be made durable.
#[derive(Clone)]
pub enum Work {
    Blob(Arc<Verified>),
    Manifest(Digest, Bytes),
    Reference(Image, Change<Record>),
    TagList(Name, Change<Kept<TagList>>),
    Referrers(Subject, Change<Kept<Referrers>>),
    /// Tells that all that was handed over before is done.
    Settled(std::sync::mpsc::Sender<()>),
}

impl Work {
    pub fn weight(&self) -> usize {
        let bytes = match self {
            Self::Manifest(_, bytes) => bytes.len(),
            Self::TagList(_, Change::Put(kept)) => kept.list.as_str().len(),
            Self::Referrers(_, Change::Put(kept)) => kept.list.index().len(),
            Self::Blob(_)
            | Self::Reference(..)
            | Self::TagList(..)
            | Self::Referrers(..)
            | Self::Settled(_) => 0,
        };
        1 + bytes / (64 << 10)
    }

    /// As what a file under `refs/` counts.
    pub fn counted(&self) -> Counted {
        match self {
            Self::Reference(image, Change::Put(record)) => {
                Counted::Name(image.clone(), matches!(image.reference, Reference::Tag(_)) || record.asked)
            }
            _ => Counted::Nothing,
        }
    }

    /// The file under `refs/`, if it is one, and what shall be in it; none for a file that shall go.
    pub fn small_file(&self, layout: &Layout) -> Option<(PathBuf, serde_json::Result<Option<Vec<u8>>>)> {
        Some(match self {
            Self::Blob(_) | Self::Manifest(..) | Self::Settled(_) => return None,
            Self::Reference(image, change) => {
                let json = change.put().map(|record| record.to_json(&image.reference)).transpose();
                (layout.reference(image), json)
            }
            Self::TagList(name, change) => {
                (layout.tag_list(name), Ok(change.put().map(|kept| kept.to_json())))
            }
            Self::Referrers(subject, change) => {
                (layout.referrers(subject), Ok(change.put().map(|kept| kept.to_json())))
            }
        })
    }
}
