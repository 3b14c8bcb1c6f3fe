//! Lazy snapshotters: stargz, soci, nydus, overlaybd.

use super::*;
use crate::support::process::eventually;

#[test]
fn a_range_far_ahead_of_a_download_does_not_wait_for_it() {
    let scene = Scene::of(40 * MIB);
    scene.upstream.hold(&scene.layer().digest, 2 * MIB);
    let mut whole = get(&scene.blob()).open(scene.daemon.addr);
    whole.read_to(MIB);
    // Upstream holds back what stands behind 2 MiB from whoever asks for less, and from nobody else.
    let part = scene.range(&format!("bytes={}-{}", 30 * MIB, 30 * MIB + 99)).is(206);
    assert!(part.body == scene.layer().slice(30 * MIB, 100));
    scene.upstream.release(&scene.layer().digest);
    whole.whole();
}

/// The footer of stargz. No byte of it is late but the last of the blob, which nobody gets before the digest is known:
/// a snapshotter that does not wait for the download turns elsewhere.
#[test]
fn a_footer_comes_at_once_but_for_the_last_byte_of_the_blob() {
    let scene = Scene::of(40 * MIB);
    scene.upstream.hold(&scene.layer().digest, 2 * MIB);
    let mut whole = get(&scene.blob()).open(scene.daemon.addr);
    whole.read_to(MIB);
    let mut footer = get(&scene.blob()).range("bytes=-51").open(scene.daemon.addr);
    assert_eq!(footer.head.status, 206);
    assert!(footer.read_to(50) == scene.layer().slice(40 * MIB - 51, 50));
    scene.upstream.release(&scene.layer().digest);
    assert!(footer.whole().body == scene.layer().slice(40 * MIB - 1, 1));
    whole.whole();
}

#[test]
fn a_single_satisfiable_range_is_always_206() {
    let scene = Scene::small();
    for (range, length) in [("bytes=0-0", 1), ("bytes=0-1", 2), ("bytes=-1", 1)] {
        for _cold_and_cached in 0..2 {
            assert_eq!(scene.range(range).is(206).body.len(), length, "{range}");
        }
    }
}

#[test]
fn accept_ranges_is_on_200_and_206() {
    let scene = Scene::small();
    assert_eq!(scene.get(&scene.blob()).is(200).header("accept-ranges"), Some("bytes"));
    assert_eq!(scene.range("bytes=0-0").is(206).header("accept-ranges"), Some("bytes"));
}

#[test]
fn the_head_of_a_blob_gives_its_size() {
    let scene = Scene::small();
    let head = scene.head(&scene.blob()).is(200);
    assert_eq!(head.header("content-length").unwrap(), scene.layer().size().to_string());
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
}

#[test]
fn overlaybd_abandons_a_plain_get_and_the_download_goes_on() {
    let scene = Scene::of(8 * MIB);
    get(&scene.blob()).open(scene.daemon.addr).read_to(1000);
    eventually("the blob is kept", || scene.daemon.blob(scene.layer().hex()).exists());
}
