//! containerd, 1.6 to 2.3.

use super::*;
use crate::support::client::{End, head, raw};
use crate::support::process::eventually;
use crate::support::upstream::Fault;

#[test]
fn a_pull_in_the_order_that_it_asks() {
    let scene = Scene::small();
    let head = scene.send(head(&scene.manifest("1")).header("Accept", ACCEPT)).is(200);
    assert_eq!(head.header("docker-content-digest"), Some(&*scene.index.digest));
    for manifest in [&scene.index, &scene.image.manifest] {
        let request = get(&scene.manifest(&manifest.digest))
            .header("Accept", &format!("{}, */*", manifest.media_type))
            .header("Accept-Encoding", "gzip");
        assert!(scene.send(request).is(200).body == *manifest.bytes);
    }
    for blob in scene.image.blobs() {
        let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
        assert!(scene.get(&target).is(200).body == blob.bytes());
    }
}

#[test]
fn the_head_of_a_tag_has_type_length_and_digest() {
    let scene = Scene::small();
    for _cold_and_cached in 0..2 {
        let head = scene.head(&scene.manifest("1")).is(200);
        assert_eq!(head.header("content-type"), Some(OCI_INDEX));
        assert_eq!(head.header("content-length").unwrap(), scene.index.bytes.len().to_string());
        assert_eq!(head.header("docker-content-digest"), Some(&*scene.index.digest));
    }
}

#[test]
fn a_head_is_never_304() {
    let scene = Scene::small().pulled();
    let etag = format!("\"{}\"", scene.index.digest);
    scene.send(head(&scene.manifest("1")).header("If-None-Match", &etag)).is(200);
}

#[test]
fn no_429_and_no_408_is_relayed() {
    for fault in [Fault::TooMany { retry_after: 1 }, Fault::Status(408)] {
        let scene = Scene::small();
        scene.upstream.fault("/v2/", .., fault);
        for answer in [scene.get(&scene.manifest("1")), scene.get(&scene.blob()).refuses(404, "BLOB_UNKNOWN")]
        {
            assert!(![429, 408].contains(&answer.status()));
            assert_eq!(answer.header("retry-after"), None);
        }
    }
}

#[test]
fn a_tls_hello_on_a_plain_port_is_answered_400_in_plain_text() {
    let scene = Scene::small();
    let hello = [&[0x16, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3][..], &[0; 94]].concat();
    let answer = raw(scene.daemon.addr, &hello);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    assert!(answer.to_lowercase().contains("content-type: text/plain"), "{answer:?}");
}

#[test]
fn a_silent_upstream_is_an_answer_while_the_client_still_waits() {
    let scene = Scene::small();
    scene.upstream.fault("/v2/", .., Fault::Delay(std::time::Duration::from_secs(600)));
    assert!([502, 504].contains(&scene.get(&scene.manifest("1")).status()));
    scene.get(&scene.blob()).refuses(404, "BLOB_UNKNOWN");
}

#[test]
fn headers_come_before_the_body_is_there() {
    let scene = Scene::of(8 * MIB);
    scene.upstream.hold(&scene.layer().digest, 3 * MIB);
    let mut stream = get(&scene.blob()).open(scene.daemon.addr);
    assert_eq!(stream.head.status, 200);
    assert!(stream.read_to(2 * MIB) == scene.layer().slice(0, 2 * MIB));
    scene.upstream.release(&scene.layer().digest);
    assert_eq!(stream.whole().end, End::Whole);
}

#[test]
fn a_failed_body_ends_by_fin_and_is_resumed_here() {
    let scene = Scene::of(8 * MIB);
    scene.upstream.fault(&scene.layer().digest, 0..1, Fault::Cut(3 * MIB));
    scene.upstream.fault(&scene.layer().digest, 1.., Fault::Status(404));
    let got = scene.get(&scene.blob());
    assert_eq!(got.end, End::Short);
    scene.range(&format!("bytes={}-", got.body.len())).refuses(404, "BLOB_UNKNOWN");
    scene.upstream.mend();
    let rest = scene.range(&format!("bytes={}-", got.body.len())).is(206);
    assert!([got.body, rest.body].concat() == scene.layer().bytes());
}

#[test]
fn bytes_of_a_partial_file_from_before_a_crash_are_hashed_again_first() {
    let mut scene = Scene::of(8 * MIB);
    scene.upstream.hold(&scene.layer().digest, 4 * MIB);
    let mut stream = get(&scene.blob()).open(scene.daemon.addr);
    stream.read_to(2 * MIB);
    scene.daemon.kill();
    // The machine went down: nothing is known to be on disk, and something else is there.
    let partial = scene.daemon.images().join("partial").join(scene.layer().hex());
    let sidecar = partial.with_extension("json");
    let mut known: serde_json::Value = serde_json::from_slice(&std::fs::read(&sidecar).unwrap()).unwrap();
    known["boot"] = "another".into();
    std::fs::write(&sidecar, known.to_string()).unwrap();
    std::fs::write(&partial, vec![0; 3 << 20]).unwrap();
    scene.upstream.release(&scene.layer().digest);
    scene.daemon.start();
    let rest = scene.range("bytes=100-").is(206);
    assert!(rest.body == scene.layer().slice(100, scene.layer().size() - 100));
    scene.daemon.proven();
}

#[test]
fn a_range_may_be_the_very_first_request_for_a_layer() {
    let scene = Scene::of(3 * MIB);
    let rest = scene.range(&format!("bytes={MIB}-")).is(206);
    assert!(rest.body == scene.layer().slice(MIB, 2 * MIB));
}

#[test]
fn all_ranges_of_a_blob_are_206() {
    let scene = Scene::of(3 * MIB);
    let size = scene.layer().size();
    for _cold_and_cached in 0..2 {
        for (first, last) in [(0, size - 1), (0, MIB - 1), (MIB, 2 * MIB - 1), (2 * MIB, size - 1)] {
            let part = scene.range(&format!("bytes={first}-{last}")).is(206);
            assert!(part.body == scene.layer().slice(first, last - first + 1));
        }
        assert!(scene.range("bytes=0-").is(206).body == scene.layer().bytes());
    }
}

#[test]
fn a_manifest_asked_for_with_a_range_of_all_is_all_of_it() {
    let scene = Scene::small();
    for reference in ["1", &*scene.index.digest] {
        let got = scene.send(get(&scene.manifest(reference)).range("bytes=0-"));
        assert!([200, 206].contains(&got.status()), "{}", got.status());
        assert!(got.body == *scene.index.bytes);
        assert_eq!(got.header("content-type"), Some(OCI_INDEX));
    }
}

#[test]
fn chunks_that_end_as_hang_ups_disturb_nobody() {
    let scene = Scene::of(8 * MIB);
    for _ in 0..4 {
        let mut stream = get(&scene.blob()).range("bytes=0-").open(scene.daemon.addr);
        stream.read_to(100_000);
    }
    assert!(scene.get(&scene.blob()).is(200).body == scene.layer().bytes());
    assert_eq!(scene.upstream.count("GET", &scene.layer().digest), 1);
}

#[test]
fn the_answer_is_identity_whatever_encoding_is_accepted() {
    let scene = Scene::small();
    for target in [scene.manifest("1"), scene.blob()] {
        let request = get(&target).header("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5");
        assert_eq!(scene.send(request).is(200).header("content-encoding"), None);
    }
}

#[test]
fn a_manifests_digest_under_blobs_is_404() {
    let scene = Scene::small().pulled();
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", scene.index.digest);
    scene.head(&target).is(404);
    scene.get(&target).refuses(404, "BLOB_UNKNOWN");
}

#[test]
fn the_artifact_type_of_referrers_may_repeat() {
    let scene = Scene::small();
    let target = format!(
        "/v2/library/app/referrers/{}?ns=docker.io&artifactType=a%2Fb&artifactType=c%2Fd",
        scene.image.manifest.digest
    );
    let list = scene.get(&target).is(200);
    assert_eq!(list.header("content-type"), Some(OCI_INDEX));
}

#[test]
fn no_tag_of_a_referrers_name_means_none() {
    let scene = Scene::small();
    let tag = scene.image.manifest.digest.replace(':', "-");
    scene.head(&scene.manifest(&tag)).is(404);
    scene.get(&scene.manifest(&tag)).refuses(404, "MANIFEST_UNKNOWN");
}

#[test]
fn referrers_of_any_manifest_are_a_list_or_not_found() {
    let mut scene = Scene::small().pulled();
    let target = |digest: &str| format!("/v2/library/app/referrers/{digest}?ns=docker.io");
    let nobodys = format!("sha256:{}", "0".repeat(64));
    for digest in [&*scene.index.digest, &*scene.image.manifest.digest, &*nobodys] {
        assert!([200, 404].contains(&scene.get(&target(digest)).status()), "{digest}");
    }
    scene.upstream.stop();
    for digest in [&*scene.index.digest, &*scene.image.manifest.digest, &*nobodys] {
        assert!([200, 404].contains(&scene.get(&target(digest)).status()), "{digest}, offline");
    }
}

#[test]
fn no_upstreams_way_to_log_in_is_passed_on() {
    let scene = Scene::small();
    for status in [401, 403] {
        scene.upstream.fault("/v2/", .., Fault::Status(status));
        for target in [scene.manifest("1"), scene.blob()] {
            let got = scene.get(&target).refuses(403, "DENIED");
            assert_eq!(got.header("www-authenticate"), None);
        }
        scene.upstream.mend();
    }
}

#[test]
fn ns_is_said_back() {
    let scene = Scene::small();
    for target in [scene.manifest("1"), scene.blob()] {
        assert_eq!(scene.get(&target).is(200).header("oci-namespace"), Some("docker.io"));
    }
    let unnamed = scene.get("/v2/library/app/manifests/1").is(200);
    assert_eq!(unnamed.header("oci-namespace"), None);
}

#[test]
fn a_hang_up_in_the_middle_leaves_the_download_running() {
    let scene = Scene::of(8 * MIB);
    scene.upstream.hold(&scene.layer().digest, 4 * MIB);
    get(&scene.blob()).open(scene.daemon.addr).read_to(MIB);
    scene.upstream.release(&scene.layer().digest);
    eventually("the blob is kept", || scene.daemon.blob(scene.layer().hex()).exists());
}
