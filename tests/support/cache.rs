//! A daemon's cache: filled by pulls, looked at and changed by commands.

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use super::daemon::{Daemon, list};
use super::layout::Image;
use super::process::eventually;

/// Of the tag 1 in docker.io.
pub fn manifest(repository: &str) -> String {
    format!("/v2/{repository}/manifests/1?ns=docker.io")
}

pub fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}?ns=docker.io")
}

/// All of it, as a client would, every byte compared.
pub fn pull(daemon: &Daemon, repository: &str, image: &Image) {
    assert_eq!(daemon.get(&manifest(repository)).is(200).body, *image.manifest.bytes);
    for layer in image.blobs() {
        assert!(daemon.get(&blob(repository, &layer.digest)).is(200).body == layer.bytes());
    }
}

/// Waits until what was pulled is in its place.
pub fn published(daemon: &Daemon, image: &Image) {
    eventually("it is published", || {
        image.blobs().all(|layer| daemon.blob(layer.hex()).exists())
            && daemon.manifest(image.manifest.hex()).exists()
            && list(&daemon.images().join("partial")).iter().all(|name| name.ends_with(".bad"))
    });
    // And memory has nothing more of it: a list waits for that.
    ran(daemon, &["list"]);
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command says that has to succeed.
#[track_caller]
pub fn ran(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

/// As if nothing in this part of a cache had been used for so long. Files may come and go meanwhile.
pub fn unused_for(folder: &Path, time: Duration) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            unused_for(&path, time);
        } else if let Ok(file) = File::open(path) {
            let _ = file.set_modified(SystemTime::now() - time);
        }
    }
}

pub fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}
