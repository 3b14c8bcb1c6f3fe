//! Looking after a real folder.

mod beside;
mod check;
mod list;
mod model;
mod totals;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Digest, Image, MediaType};
use crate::store::{Record, Store};

pub fn digest(bytes: impl AsRef<[u8]>) -> Digest {
    Digest::of(Algorithm::Sha256, bytes.as_ref())
}

pub fn image(text: &str) -> Image {
    text.parse().unwrap()
}

/// `quay.io/a/b@sha256:…`
pub fn by_digest(name: &str, bytes: &[u8]) -> Image {
    image(&format!("{name}@{}", digest(bytes)))
}

fn descriptor(bytes: &[u8]) -> serde_json::Value {
    json!({ "mediaType": "application/octet-stream", "digest": digest(bytes), "size": bytes.len() })
}

pub fn manifest_of(blobs: &[&[u8]]) -> Bytes {
    let blobs: Vec<_> = blobs.iter().map(|bytes| descriptor(bytes)).collect();
    let config = blobs.first().cloned().unwrap_or_default();
    let rest = blobs.get(1..).unwrap_or_default();
    json!({ "mediaType": MediaType::OCI_IMAGE, "config": config, "layers": rest }).to_string().into()
}

pub fn index_of(manifests: &[&[u8]]) -> Bytes {
    let manifests: Vec<_> = manifests.iter().map(|bytes| descriptor(bytes)).collect();
    json!({ "mediaType": MediaType::OCI_INDEX, "manifests": manifests }).to_string().into()
}

/// A folder that is filled as `tar` would: file by file, before a store is opened on it.
pub struct Cache {
    pub folder: TempDir,
}

impl Cache {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in Layout::FOLDERS {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("store.json"), r#"{"version": 1, "id": "of a test"}"#).unwrap();
        Self { folder }
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn open(&self) -> Arc<Store> {
        Arc::new(Store::open(self.folder.path()).unwrap())
    }

    pub fn folder(&self) -> Folder {
        Folder::open(self.folder.path()).unwrap()
    }

    pub fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.content("blobs", bytes)
    }

    pub fn manifest(&self, bytes: &[u8]) -> PathBuf {
        self.content("img", bytes)
    }

    fn content(&self, folder: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(folder).join(digest(bytes).hex());
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A reference to a manifest, used so many seconds ago.
    pub fn name(&self, image: &Image, manifest: &[u8], asked: bool, ago: u64) -> PathBuf {
        let record = Record { asked, ..record(manifest) };
        let path = self.folder().layout.reference(image);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, record.to_json(&image.reference).unwrap()).unwrap();
        set_age(&path, ago);
        path
    }

    /// An image as it is after a pull by tag: all its files, and both references.
    pub fn pulled(&self, tag: &str, blobs: &[&[u8]], ago: u64) -> Bytes {
        let manifest = manifest_of(blobs);
        for bytes in blobs {
            self.blob(bytes);
        }
        self.manifest(&manifest);
        let tag = image(tag);
        self.name(&tag, &manifest, false, ago);
        self.name(&by_digest(&tag.name.to_string(), &manifest), &manifest, false, ago);
        manifest
    }

    /// What there is, below the folder, sorted.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let mut files = Vec::new();
        let mut left = vec![self.path(folder)];
        while let Some(path) = left.pop() {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                } else {
                    let path = entry.path().strip_prefix(self.folder.path()).unwrap().to_owned();
                    files.push(path.into_os_string().into_string().unwrap());
                }
            }
        }
        files.sort();
        files
    }

    pub fn has_blob(&self, bytes: &[u8]) -> bool {
        self.path("blobs").join(digest(bytes).hex()).exists()
    }

    pub fn has_manifest(&self, bytes: &[u8]) -> bool {
        self.path("img").join(digest(bytes).hex()).exists()
    }
}

pub fn set_age(path: &Path, ago: u64) {
    let time = SystemTime::now() - Duration::from_secs(ago);
    File::open(path).unwrap().set_modified(time).unwrap();
}

pub fn record(manifest: &[u8]) -> Record {
    let index = manifest.windows(11).any(|part| part == b"\"manifests\"");
    let media_type = MediaType::new(if index { MediaType::OCI_INDEX } else { MediaType::OCI_IMAGE }).unwrap();
    Record::fetched_now(digest(manifest), media_type, manifest.len() as u64, false)
}

pub fn prune(store: &Store, request: &PruneRequest) -> PruneReport {
    store.prune(request, &Pace::free(), &mut |_| {}).unwrap()
}

pub fn everything() -> PruneRequest {
    PruneRequest { patterns: vec![".".to_owned()], ..PruneRequest::default() }
}

pub fn only_garbage() -> PruneRequest {
    PruneRequest { blobs: true, ..PruneRequest::default() }
}
