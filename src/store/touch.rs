//! Times of last use: a file's mtime under `refs/` and `img/`, gathered in memory and written once a minute.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::Record;
use super::layout::Layout;
use super::publish::lock;
use crate::oci::Image;

/// More names than this are not remembered between two writes; they count as used at the next one.
const MOST: usize = 100_000;

#[derive(Default)]
pub struct Touches {
    waiting: Mutex<Vec<(Image, std::sync::Arc<Record>)>>,
}

impl Touches {
    /// Notes a use. Takes the lock once a minute for each record, else nothing.
    pub fn note(&self, image: &Image, record: &std::sync::Arc<Record>) {
        if record.touched.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.len() < MOST {
            waiting.push((image.clone(), record.clone()));
        } else {
            record.touched.store(false, Ordering::Relaxed);
        }
    }

    /// Writes the times down. Blocks.
    pub fn flush(&self, layout: &Layout) {
        for (image, record) in std::mem::take(&mut *lock(&self.waiting)) {
            record.touched.store(false, Ordering::Relaxed);
            set_mtime(&layout.reference(&image));
            set_mtime(&layout.manifest(&record.digest));
        }
    }
}

/// Best effort: a time that is not written makes an image look older than it is, for a while.
pub fn set_mtime(path: &Path) {
    let now = TimeSpec::UTIME_NOW;
    let omit = TimeSpec::UTIME_OMIT;
    let _ = utimensat(nix::fcntl::AT_FDCWD, path, &omit, &now, UtimensatFlags::NoFollowSymlink);
}
