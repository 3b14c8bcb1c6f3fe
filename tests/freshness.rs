//! When a tag is asked about, and what is served when upstream does not say.

mod support;

use std::thread;
use std::time::Duration;

use support::daemon::Daemon;
use support::layout::*;
use support::process::eventually;
use support::upstream::{Fault, Upstream};

const TAG: &str = "/v2/library/app/manifests/1?ns=docker.io";

fn serving(keys: &str) -> (Image, Upstream, Daemon) {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with(keys, &upstream);
    (image, upstream, daemon)
}

/// Cached, with `upstream` ready to be counted.
fn cached(keys: &str) -> (Image, Upstream, Daemon) {
    let (image, upstream, daemon) = serving(keys);
    daemon.get(TAG).is(200);
    for blob in image.blobs() {
        eventually("prefetched", || daemon.blob(blob.hex()).exists());
    }
    upstream.forget();
    (image, upstream, daemon)
}

fn move_tag(upstream: &Upstream) -> Image {
    let moved = Image::small(2);
    upstream.change(|layout| layout.add("library/app", "1", &moved));
    moved
}

#[test]
fn a_tag_within_its_ttl_is_not_asked_about() {
    let (image, upstream, daemon) = cached("tag_ttl = \"1h\"");
    move_tag(&upstream);
    for _ in 0..3 {
        let hit = daemon.get(TAG).is(200);
        assert_eq!(hit.body, *image.manifest.bytes);
        assert_eq!(hit.header("age"), None);
        daemon.head(TAG).is(200);
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_tag_past_its_ttl_is_asked_about_by_one_head() {
    let (image, upstream, daemon) = cached("tag_ttl = 0");
    let again = daemon.get(TAG).is(200);
    assert_eq!(again.body, *image.manifest.bytes);
    assert_eq!(again.header("age"), None);
    assert_eq!((upstream.count("HEAD", "/manifests/1"), upstream.count("GET", "/")), (1, 0));
}

#[test]
fn a_tag_that_moved_is_followed() {
    let (_, upstream, daemon) = cached("tag_ttl = 0");
    let moved = move_tag(&upstream);
    assert_eq!(daemon.get(TAG).is(200).body, *moved.manifest.bytes);
    assert_eq!(daemon.head(TAG).is(200).header("docker-content-digest"), Some(&*moved.manifest.digest));
}

#[test]
fn a_digest_is_never_asked_about_again() {
    let (image, upstream, daemon) = cached("tag_ttl = 0");
    daemon.get(&format!("/v2/library/app/manifests/{}?ns=docker.io", image.manifest.digest)).is(200);
    for blob in image.blobs() {
        daemon.get(&format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest)).is(200);
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn many_who_ask_at_once_are_answered_by_one_head() {
    let (image, upstream, daemon) = cached("tag_ttl = 0");
    upstream.fault("HEAD /v2/", 0..1, Fault::Delay(Duration::from_secs(1)));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(daemon.get(TAG).is(200).body, *image.manifest.bytes));
        }
    });
    assert_eq!((upstream.count("HEAD", "/manifests/1"), upstream.count("GET", "/")), (1, 0));
}

#[test]
fn many_who_miss_at_once_are_answered_by_one_get() {
    let (image, upstream, daemon) = serving("");
    upstream.fault("GET /v2/", 0..1, Fault::Delay(Duration::from_secs(1)));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(daemon.get(TAG).is(200).body, *image.manifest.bytes));
        }
    });
    assert_eq!(upstream.count("GET", "/manifests/1"), 1);
}

/// Upstream fails so when it is asked about the tag: the old one is served, and says how old.
fn stale(keys: &str, fault: Fault) {
    let (image, upstream, daemon) = cached(keys);
    move_tag(&upstream);
    upstream.fault("/v2/", .., fault.clone());
    let old = daemon.get(TAG).is(200);
    assert_eq!(old.body, *image.manifest.bytes, "{fault:?}");
    assert!(old.header("age").is_some_and(|age| age.parse::<u64>().is_ok()));
    eventually("the log says so", || daemon.log().lines().any(|line| line.contains("cache=stale")));
}

#[test]
fn a_tag_is_served_stale_while_upstream_fails() {
    for status in [500, 503] {
        stale("tag_ttl = 0", Fault::Status(status));
    }
    stale("tag_ttl = 0", Fault::TooMany { retry_after: 60 });
    stale("tag_ttl = 0", Fault::HangUp);
    stale("tag_ttl = 0", Fault::Html);
}

#[test]
fn a_tag_is_served_stale_while_upstream_is_silent() {
    stale("tag_ttl = 0", Fault::Delay(Duration::from_secs(600)));
}

#[test]
fn a_tag_is_served_stale_while_upstream_is_not_there() {
    let (image, mut upstream, mut daemon) = cached("tag_ttl = 0");
    upstream.stop();
    for _ in 0..2 {
        let old = daemon.get(TAG).is(200);
        assert_eq!(old.body, *image.manifest.bytes);
        assert!(old.header("age").is_some());
        daemon.restart();
    }
    upstream.start_again();
    assert_eq!(daemon.get(TAG).is(200).header("age"), None);
}

#[test]
fn a_moved_tag_whose_manifest_cannot_be_had_is_served_stale() {
    let (image, upstream, daemon) = cached("tag_ttl = 0");
    let moved = move_tag(&upstream);
    upstream.fault("GET /v2/", .., Fault::Status(500));
    let old = daemon.get(TAG).is(200);
    assert_eq!(old.body, *image.manifest.bytes);
    assert!(old.header("age").is_some());
    upstream.mend();
    assert_eq!(daemon.get(TAG).is(200).body, *moved.manifest.bytes);
}

#[test]
fn stale_if_error_is_a_limit() {
    let (_, upstream, daemon) = cached("tag_ttl = 0\nstale_if_error = 0");
    upstream.fault("/v2/", .., Fault::Status(500));
    assert!([502, 504].contains(&daemon.get(TAG).status()));
}

#[test]
fn a_tag_that_upstream_removed_is_gone() {
    let (_, mut upstream, daemon) = cached("tag_ttl = 0\nnot_found_ttl = 0");
    upstream.change(|layout| layout.0.get_mut("library/app").unwrap().tags.clear());
    daemon.get(TAG).refuses(404, "MANIFEST_UNKNOWN");
    upstream.stop();
    let after = daemon.get(TAG);
    assert!([404, 502, 504].contains(&after.status()), "not served stale: {}", after.status());
    let tag = daemon.images().join("refs/docker.io/library/app/_tags/1");
    eventually("the tag's file is removed", || !tag.exists());
}

#[test]
fn a_tag_that_upstream_denies_is_not_served_stale() {
    for status in [401, 403] {
        let (image, upstream, daemon) = cached("tag_ttl = 0");
        upstream.fault("/v2/", .., Fault::Status(status));
        daemon.get(TAG).refuses(403, "DENIED");
        upstream.mend();
        assert_eq!(daemon.get(TAG).is(200).body, *image.manifest.bytes);
    }
}

#[test]
fn what_was_not_found_is_not_asked_for_again_within_its_ttl() {
    let missing = "/v2/library/app/manifests/none?ns=docker.io";
    let (_, upstream, daemon) = serving("not_found_ttl = \"1h\"");
    for _ in 0..3 {
        daemon.get(missing).refuses(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(upstream.count("", "/manifests/none"), 1);

    let (image, upstream, daemon) = serving("not_found_ttl = 0");
    daemon.get(missing).refuses(404, "MANIFEST_UNKNOWN");
    upstream.change(|layout| layout.add("library/app", "none", &image));
    daemon.get(missing).is(200);
}

#[test]
fn a_blob_that_was_not_found_is_not_asked_for_again_within_its_ttl() {
    let image = Image::of_size(77, 1000);
    let digest = &image.layers[0].digest;
    let missing = format!("/v2/library/app/blobs/{digest}?ns=docker.io");
    let (_, upstream, daemon) = serving("not_found_ttl = \"1h\"");
    for _ in 0..3 {
        daemon.get(&missing).refuses(404, "BLOB_UNKNOWN");
    }
    assert_eq!(upstream.count("", digest), 1);
    // Of this repository only.
    daemon.get(&format!("/v2/library/other/blobs/{digest}?ns=docker.io")).refuses(404, "BLOB_UNKNOWN");
    assert_eq!(upstream.count("", digest), 2);

    let (_, upstream, daemon) = serving("not_found_ttl = 0");
    daemon.get(&missing).refuses(404, "BLOB_UNKNOWN");
    upstream.change(|layout| layout.add("library/app", "later", &image));
    assert!(daemon.get(&missing).is(200).body == image.layers[0].bytes());
}

#[test]
fn air_gapped_serves_what_it_has_and_asks_nobody() {
    let (image, upstream, mut daemon) = cached("tag_ttl = 0");
    daemon.options(&["--air-gapped"]);
    daemon.restart();
    assert_eq!(daemon.get(TAG).is(200).body, *image.manifest.bytes);
    for blob in image.blobs() {
        assert!(
            daemon.get(&format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest)).is(200).body
                == blob.bytes()
        );
    }
    let miss = daemon.get("/v2/library/app/manifests/2?ns=docker.io").refuses(404, "MANIFEST_UNKNOWN");
    assert!(miss.text().contains("air"), "says why: {}", miss.text());
    let none = sha256(b"none");
    daemon.get(&format!("/v2/library/app/blobs/{none}?ns=docker.io")).refuses(404, "BLOB_UNKNOWN");
    assert!(upstream.seen().is_empty());
}

#[test]
fn always_pull_latest_asks_about_latest_and_about_nothing_else() {
    let (image, upstream, mut daemon) = cached("tag_ttl = \"forever\"");
    let latest = "/v2/library/app/manifests/latest?ns=docker.io";
    upstream.change(|layout| layout.add("library/app", "latest", &image));
    daemon.get(latest).is(200);
    upstream.forget();
    daemon.get(latest).is(200);
    assert!(upstream.seen().is_empty());
    daemon.options(&["--always-pull-latest"]);
    daemon.restart();
    daemon.get(latest).is(200);
    assert_eq!(upstream.count("HEAD", "/manifests/latest"), 1);
    daemon.get(TAG).is(200);
    assert_eq!(upstream.count("", "/manifests/1"), 0);
}

#[test]
fn what_is_cached_is_there_after_a_restart() {
    let (image, upstream, mut daemon) = cached("tag_ttl = \"1h\"");
    daemon.restart();
    assert_eq!(daemon.get(TAG).is(200).body, *image.manifest.bytes);
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_check_that_takes_long_holds_for_whoever_asks_next() {
    let (image, upstream, daemon) = cached("tag_ttl = 0");
    let moved = move_tag(&upstream);
    upstream.fault("HEAD /v2/", 0..1, Fault::Delay(Duration::from_secs(3)));
    let old = daemon.get(TAG).is(200);
    assert!(old.body == *image.manifest.bytes && old.header("age").is_some());
    eventually("it is learnt", || daemon.get(TAG).is(200).body == *moved.manifest.bytes);
}

#[test]
fn a_check_that_takes_long_is_waited_for_where_nothing_stale_may_be_served() {
    let (_, upstream, daemon) = cached("tag_ttl = 0\nstale_if_error = 0");
    let moved = move_tag(&upstream);
    upstream.fault("HEAD /v2/", .., Fault::Delay(Duration::from_secs(3)));
    for _ in 0..2 {
        assert_eq!(daemon.get(TAG).is(200).body, *moved.manifest.bytes);
    }
}

#[test]
fn a_tag_of_a_registry_that_answers_no_head_is_asked_for_by_get() {
    let (_, upstream, daemon) = cached("tag_ttl = 0\nstale_if_error = 0");
    let moved = move_tag(&upstream);
    upstream.fault("HEAD /v2/", .., Fault::Status(405));
    assert_eq!(daemon.get(TAG).is(200).body, *moved.manifest.bytes);
}
