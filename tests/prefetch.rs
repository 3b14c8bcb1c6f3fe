//! What is downloaded before anybody asks for it, and what is not.

mod support;

use std::thread;
use std::time::Duration;

use support::client::get;
use support::daemon::Daemon;
use support::layout::*;
use support::process::eventually;
use support::upstream::Upstream;

const TAG: &str = "/v2/library/app/manifests/1?ns=docker.io";

fn blob(digest: &str) -> String {
    format!("/v2/library/app/blobs/{digest}?ns=docker.io")
}

/// An image of three layers.
fn three_layers(seed: u64) -> Image {
    Image::new((0..3).map(|n| Layer::random(seed + n, 2 * MIB)).collect())
}

fn arrive(daemon: &Daemon, image: &Image) {
    for blob in image.blobs() {
        eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    }
}

/// Whatever had begun before this has reached upstream after it.
fn let_things_begin(daemon: &Daemon, upstream: &Upstream) {
    let other = three_layers(100);
    upstream.change(|layout| layout.add("library/other", "1", &other));
    daemon.get("/v2/library/other/manifests/1?ns=docker.io").is(200);
    for layer in other.blobs() {
        daemon.get(&format!("/v2/library/other/blobs/{}?ns=docker.io", layer.digest)).is(200);
    }
}

#[test]
fn a_manifest_brings_its_blobs() {
    let image = three_layers(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    daemon.get(TAG).is(200);
    arrive(&daemon, &image);
    for layer in image.blobs() {
        assert_eq!(upstream.count("GET", &layer.digest), 1);
        assert!(daemon.get(&blob(&layer.digest)).is(200).body == layer.bytes());
        assert_eq!(upstream.count("GET", &layer.digest), 1);
    }
}

#[test]
fn a_client_joins_what_was_begun_for_it() {
    let image = three_layers(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let layer = &image.layers[1];
    upstream.hold(&layer.digest, MIB);
    daemon.get(TAG).is(200);
    eventually("the download began", || upstream.sent(&layer.digest) == MIB);
    let mut stream = get(&blob(&layer.digest)).open(daemon.addr);
    stream.read_to(MIB);
    upstream.release(&layer.digest);
    stream.read_to(2 * MIB);
    assert_eq!(upstream.count("GET", &layer.digest), 1);
}

#[test]
fn a_head_of_a_tag_fetches_the_manifest_and_no_blobs() {
    let image = three_layers(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    daemon.head(TAG).is(200);
    daemon.head(&format!("/v2/library/app/manifests/{}?ns=docker.io", image.manifest.digest)).is(200);
    daemon.head(&blob(&image.layers[0].digest)).is(200);
    let_things_begin(&daemon, &upstream);
    assert_eq!(upstream.count("GET", "library/app/blobs/"), 0);
    let before = upstream.count("", "library/app/manifests/");
    daemon.get(&format!("/v2/library/app/manifests/{}?ns=docker.io", image.manifest.digest)).is(200);
    assert_eq!(upstream.count("", "library/app/manifests/"), before, "the client's next request is a hit");
}

#[test]
fn prefetch_none_waits_to_be_asked() {
    let image = three_layers(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("prefetch = \"none\"", &upstream);
    daemon.get(TAG).is(200);
    let_things_begin(&daemon, &upstream);
    assert_eq!(upstream.count("GET", "library/app/blobs/"), 0);
}

/// An index of two platforms.
fn two_platforms() -> (Image, Image, Upstream) {
    let (ours, theirs) = (three_layers(1), Image::for_arch("s390x", vec![Layer::random(50, 2 * MIB)]));
    let mut layout = Layout::of("library/app", "", &ours);
    layout.add("library/app", "", &theirs);
    let both = index(OCI_INDEX, &[(&theirs.manifest, "s390x"), (&ours.manifest, "amd64")]);
    layout.add_manifest("library/app", "1", &both);
    (ours, theirs, Upstream::start(layout))
}

#[test]
fn an_index_brings_nothing() {
    let (_, _, upstream) = two_platforms();
    let daemon = Daemon::of(&upstream);
    daemon.get(TAG).is(200);
    let_things_begin(&daemon, &upstream);
    assert_eq!(upstream.count("GET", "library/app/manifests/"), 1);
    assert_eq!(upstream.count("GET", "library/app/blobs/"), 0);
}

#[test]
fn prefetch_platform_brings_the_image_of_this_platform() {
    let (ours, theirs, upstream) = two_platforms();
    let daemon = Daemon::with("prefetch = \"platform\"\nos = \"linux\"\narch = \"amd64\"", &upstream);
    daemon.get(TAG).is(200);
    arrive(&daemon, &ours);
    eventually("the manifest is published", || daemon.manifest(ours.manifest.hex()).exists());
    let_things_begin(&daemon, &upstream);
    assert_eq!(upstream.count("GET", &theirs.manifest.digest), 0);
    assert_eq!(upstream.count("GET", &theirs.layers[0].digest), 0);
}

#[test]
fn what_a_client_waits_for_goes_before_what_is_prefetched() {
    let image = Image::new((0..6).map(|n| Layer::random(n, 2 * MIB)).collect());
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("max_downloads = 1", &upstream);
    for layer in image.blobs() {
        upstream.hold(&layer.digest, 1);
    }
    daemon.get(TAG).is(200);
    eventually("one download began", || upstream.count("GET", "/blobs/") == 1);
    // the last in line, which would have its turn last
    let waited = image.layers.iter().rposition(|layer| upstream.count("GET", &layer.digest) == 0).unwrap();
    let last = &image.layers[waited];
    thread::scope(|scope| {
        scope.spawn(|| assert!(daemon.get(&blob(&last.digest)).is(200).body == last.bytes()));
        thread::sleep(Duration::from_millis(500)); // nothing tells us that the daemon knows of the client
        for layer in image.blobs() {
            upstream.release(&layer.digest);
        }
    });
    arrive(&daemon, &image);
    let number = |path: &str| image.blobs().position(|blob| path.ends_with(&blob.digest));
    let order: Vec<_> = upstream.seen().iter().filter_map(|seen| number(&seen.path)).collect();
    assert_eq!(order[1], waited + 1, "the config is 0: {order:?}");
}

#[test]
fn what_another_repositorys_index_names_is_an_image_of_its_own_here() {
    let image = Image::small(1);
    let index = index(OCI_INDEX, &[(&image.manifest, "amd64")]);
    let mut layout = Layout::of("library/b", "1", &image);
    layout.add("library/a", "child", &image);
    layout.add_manifest("library/a", "1", &index);
    let upstream = Upstream::start(layout);
    let daemon = Daemon::with("prefetch = \"none\"", &upstream);
    let child = &image.manifest.digest;
    daemon.get("/v2/library/a/manifests/1?ns=docker.io").is(200);
    for repository in ["a", "b"] {
        daemon.get(&format!("/v2/library/{repository}/manifests/{child}?ns=docker.io")).is(200);
    }
    let asked = |repository: &str| {
        let path = format!("refs/docker.io/library/{repository}/_manifests/{}", image.manifest.hex());
        eventually("it is kept", || daemon.images().join(&path).exists());
        let json = std::fs::read(daemon.images().join(&path)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()["asked"].clone()
    };
    assert_eq!((asked("a"), asked("b")), (false.into(), true.into()));
}
