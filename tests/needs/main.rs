//! What the sources of real clients say that they need of a mirror: one test for each need, in the clients' own words
//! for it. Whole pulls by the clients themselves are in `clients.rs`.

#![allow(clippy::unwrap_used)] // A test may panic.

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod containerd;
mod everybody;
mod others;
mod podman;
mod registry;
mod snapshotters;

use support::client::{Request, Response, get};
use support::daemon::Daemon;
use support::layout::*;
use support::upstream::Upstream;

const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// `library/app:1`: an index over an image with one layer, behind every registry that the daemon knows.
struct Scene {
    index: Manifest,
    image: Image,
    upstream: Upstream,
    daemon: Daemon,
}

impl Scene {
    /// With a layer of `size` bytes, and a daemon that fetches nothing on its own.
    fn of(size: u64) -> Self {
        Self::with("prefetch = \"none\"\npull_timeout = \"2s\"\nnot_found_ttl = 0\n", size)
    }

    fn with(keys: &str, size: u64) -> Self {
        let image = Image::of_size(5, size);
        let index = index(OCI_INDEX, &[(&image.manifest, "amd64")]);
        let mut layout = Layout::of("library/app", "", &image);
        layout.add_manifest("library/app", "1", &index);
        let upstream = Upstream::start(layout);
        let daemon = Daemon::with(keys, &upstream);
        Self { index, image, upstream, daemon }
    }

    fn small() -> Self {
        Self::of(20_000)
    }

    fn layer(&self) -> &Blob {
        &self.image.layers[0]
    }

    /// The layer's address.
    fn blob(&self) -> String {
        format!("/v2/library/app/blobs/{}?ns=docker.io", self.layer().digest)
    }

    fn manifest(&self, reference: &str) -> String {
        format!("/v2/library/app/manifests/{reference}?ns=docker.io")
    }

    fn range(&self, range: &str) -> Response {
        self.send(get(&self.blob()).range(range))
    }

    fn get(&self, target: &str) -> Response {
        self.daemon.get(target)
    }

    fn head(&self, target: &str) -> Response {
        self.daemon.head(target)
    }

    fn send(&self, request: Request) -> Response {
        self.daemon.send(request)
    }

    /// Pulled once, so that everything is in the cache.
    fn pulled(self) -> Self {
        for reference in ["1", &self.index.digest, &self.image.manifest.digest] {
            self.get(&self.manifest(reference)).is(200);
        }
        for blob in self.image.blobs() {
            self.get(&format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest)).is(200);
        }
        self
    }
}
