//! What a check put aside or removed, and by which name it is to be had anew.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::list::NamedBlob;
use super::{CareError, Folder, ListRequest, Pace};
use crate::oci::{Digest, Image};
use crate::store::Store;
use crate::store::publish::lock;

/// Of these so many are told; what is beyond comes anew when it is asked for.
const LOST: usize = 1000;

/// One thing that an image has lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub image: Image,
    /// None when it is the image's own manifest, and its name with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<NamedBlob>,
    /// Whether the image is one by itself: a tag, or a manifest that was asked for by digest.
    pub root: bool,
}

/// What a check has found lost up to now.
#[derive(Default)]
pub struct Losses {
    names: Vec<Lost>,
    blobs: HashSet<Digest>,
}

impl Losses {
    pub fn name(&mut self, image: Image, root: bool) {
        if self.names.len() < LOST {
            self.names.push(Lost { image, blob: None, root });
        }
    }

    pub fn blob(&mut self, digest: Digest) {
        if self.blobs.len() < LOST {
            self.blobs.insert(digest);
        }
    }

    /// All of it, each blob under one of the images that lead to it. What no image leads to is nobody's loss. Blocks.
    pub fn told(self, folder: &Folder, pace: &Pace<'_>) -> Result<Vec<Lost>, CareError> {
        let Self { names: mut lost, mut blobs } = self;
        if blobs.is_empty() {
            return Ok(lost);
        }
        let request = ListRequest { blobs: true, ..ListRequest::default() };
        folder.list(&request, pace, &mut |row| {
            let Ok(image) = row.full_name().parse::<Image>() else { return ControlFlow::Continue(()) };
            for blob in row.blobs.into_iter().flatten().filter(|blob| blobs.remove(&blob.digest)) {
                lost.push(Lost { image: image.clone(), blob: Some(blob), root: true });
            }
            if blobs.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(lost)
    }
}

/// What is still to be fetched anew by whoever does that here.
#[derive(Default)]
pub struct ToRestore {
    lost: Mutex<Vec<Lost>>,
    more: Notify,
}

impl ToRestore {
    pub fn add(&self, lost: &[Lost]) {
        let mut all = lock(&self.lost);
        let room = LOST.saturating_sub(all.len());
        all.extend(lost.iter().take(room).cloned());
        if !all.is_empty() {
            self.more.notify_one();
        }
    }
}

impl Store {
    /// Waits until a check has found something lost, and takes it. For one task.
    pub async fn lost(&self) -> Vec<Lost> {
        loop {
            let lost = std::mem::take(&mut *lock(&self.to_restore.lost));
            if !lost.is_empty() {
                return lost;
            }
            self.to_restore.more.notified().await;
        }
    }
}
