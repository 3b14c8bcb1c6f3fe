//! Everything that goes wrong upstream, and what clients get to see of it.

mod support;

use std::time::{Duration, Instant};

use support::client::{End, get, head};
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::process::eventually;
use support::upstream::{Fault, Upstream};

const SIZE: u64 = 8 * MIB;
const MANIFEST: &str = "/v2/library/app/manifests/1?ns=docker.io";

/// An image, and a daemon that gives a silent upstream up after two seconds and fetches nothing on its own.
fn serving() -> (Image, String, Upstream, Daemon) {
    serving_by(|upstream| upstream)
}

fn serving_by(change: impl FnOnce(Upstream) -> Upstream) -> (Image, String, Upstream, Daemon) {
    let image = Image::of_size(5, SIZE);
    let upstream = change(Upstream::start(Layout::of("library/app", "1", &image)));
    let daemon = Daemon::with("pull_timeout = \"2s\"\nprefetch = \"none\"\nnot_found_ttl = 0\n", &upstream);
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", image.layers[0].digest);
    (image, target, upstream, daemon)
}

/// The client sees nothing of it, and the wire little more than the blob.
fn invisible(faults: &[Fault]) {
    let (image, target, upstream, daemon) = serving();
    let blob = &image.layers[0];
    daemon.get(MANIFEST).is(200);
    for (n, fault) in faults.iter().enumerate() {
        upstream.fault(&blob.digest, n..n + 1, fault.clone());
    }
    let got = daemon.get(&target).is(200);
    assert!(got.body == blob.bytes());
    assert_eq!(upstream.count("GET", &blob.digest), faults.len() + 1);
    assert!(upstream.sent(&blob.digest) <= SIZE + MIB, "{} bytes sent", upstream.sent(&blob.digest));
    eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    daemon.proven();
}

#[test]
fn a_wire_that_is_cut_several_times_is_invisible() {
    invisible(&[Fault::Cut(MIB), Fault::Cut(2 * MIB + 1), Fault::Cut(MIB / 2)]);
}

#[test]
fn a_reset_is_invisible() {
    invisible(&[Fault::Reset(3 * MIB)]);
}

#[test]
fn a_stall_is_invisible() {
    invisible(&[Fault::Stall(3 * MIB)]);
}

#[test]
fn a_500_in_the_middle_is_invisible() {
    invisible(&[Fault::Cut(MIB), Fault::Status(500)]);
}

#[test]
fn an_upstream_without_ranges_is_resumed_from_its_beginning() {
    let (image, target, upstream, daemon) = serving_by(Upstream::without_ranges);
    let blob = &image.layers[0];
    upstream.fault(&blob.digest, 0..1, Fault::Cut(3 * MIB));
    assert!(daemon.get(&target).is(200).body == blob.bytes());
    assert_eq!(upstream.sent(&blob.digest), SIZE + 3 * MIB);
}

#[test]
fn a_200_to_a_range_is_not_taken_for_the_rest() {
    let (image, target, upstream, daemon) = serving();
    let blob = &image.layers[0];
    upstream.fault(&blob.digest, 0..1, Fault::Cut(3 * MIB));
    upstream.fault(&blob.digest, 1.., Fault::NoRange);
    assert!(daemon.get(&target).is(200).body == blob.bytes());
}

#[test]
fn a_download_that_fails_for_good_ends_short_by_fin_and_can_be_had_later() {
    let (image, target, upstream, daemon) = serving();
    let blob = &image.layers[0];
    upstream.fault(&blob.digest, 0..1, Fault::Cut(3 * MIB));
    upstream.fault(&blob.digest, 1.., Fault::Status(404));
    let got = daemon.get(&target);
    assert_eq!((got.status(), got.end), (200, End::Short));
    assert!(got.body == blob.slice(0, got.body.len() as u64));
    upstream.mend();
    // containerd asks for the rest
    let rest = daemon.send(get(&target).range(&format!("bytes={}-", got.body.len()))).is(206);
    assert!([got.body, rest.body].concat() == blob.bytes());
}

/// Whatever the first answer is, no whole body is wrong, and the second is right.
fn never_wrong(fault: Fault) {
    let (image, target, upstream, daemon) = serving();
    let blob = &image.layers[0];
    daemon.get(MANIFEST).is(200);
    upstream.fault(&blob.digest, 0..1, fault);
    let first = daemon.get(&target);
    match (first.status(), first.end) {
        (200, End::Whole) => assert!(first.body == blob.bytes()),
        (200, End::Short) => {}
        (404, End::Whole) => assert_eq!(first.code(), "BLOB_UNKNOWN"),
        other => panic!("{other:?}"),
    }
    assert!(daemon.get(&target).is(200).body == blob.bytes());
    eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    daemon.proven();
}

#[test]
fn a_flipped_byte_is_not_kept() {
    never_wrong(Fault::Flip(SIZE / 2));
    never_wrong(Fault::Flip(0));
    never_wrong(Fault::Flip(SIZE - 1));
}

#[test]
fn a_content_length_that_is_wrong_misleads_nobody() {
    never_wrong(Fault::Length(10));
    never_wrong(Fault::Length(-10));
}

#[test]
fn html_is_taken_for_nothing() {
    never_wrong(Fault::Html);
    let (image, _, upstream, daemon) = serving();
    upstream.fault("/manifests/", .., Fault::Html);
    assert!([502, 504].contains(&daemon.get(MANIFEST).status()));
    upstream.mend();
    assert_eq!(daemon.get(MANIFEST).is(200).body, *image.manifest.bytes);
}

#[test]
fn giant_headers_end_the_request_and_nothing_else() {
    never_wrong(Fault::Headers(4 << 20));
    let (image, _, upstream, daemon) = serving();
    upstream.fault("/manifests/", .., Fault::Headers(4 << 20));
    assert!([502, 504].contains(&daemon.get(MANIFEST).status()));
    upstream.mend();
    assert_eq!(daemon.get(MANIFEST).is(200).body, *image.manifest.bytes);
}

#[test]
fn a_manifest_that_is_not_its_digest_is_refused() {
    let (image, _, upstream, daemon) = serving();
    upstream.fault("/manifests/", .., Fault::Flip(20));
    let by_digest = format!("/v2/library/app/manifests/{}?ns=docker.io", image.manifest.digest);
    assert!([502, 504].contains(&daemon.get(&by_digest).status()));
    upstream.mend();
    assert_eq!(daemon.get(&by_digest).is(200).body, *image.manifest.bytes);
    daemon.proven();
}

#[test]
fn a_digest_header_that_lies_is_not_passed_on() {
    let (_, _, upstream, daemon) = serving();
    upstream.fault("/manifests/", .., Fault::WrongHeader);
    let answer = daemon.get(MANIFEST);
    if answer.status() == 200 {
        assert_eq!(answer.header("docker-content-digest").unwrap(), sha256(&answer.body));
    } else {
        assert!([502, 504].contains(&answer.status()), "{}", answer.status());
    }
}

/// Upstream fails for good in this way: 502 or 504 for a manifest, 404 for a blob, and all is well once it is.
fn fails(fault: Fault) {
    let (image, target, upstream, daemon) = serving();
    upstream.fault("/v2/", .., fault.clone());
    let manifest = daemon.get(MANIFEST);
    assert!([502, 504].contains(&manifest.status()), "{fault:?}: {}", manifest.status());
    manifest.code();
    daemon.get(&target).refuses(404, "BLOB_UNKNOWN");
    upstream.mend();
    daemon.get(MANIFEST).is(200);
    assert!(daemon.get(&target).is(200).body == image.layers[0].bytes());
}

#[test]
fn an_upstream_that_is_broken_is_502_for_manifests_and_404_for_blobs() {
    for status in [500, 502, 503] {
        fails(Fault::Status(status));
    }
    fails(Fault::HangUp);
    fails(Fault::Redirect(MANIFEST.into())); // for ever
}

#[test]
fn a_429_is_never_passed_on() {
    fails(Fault::TooMany { retry_after: 1 });
    fails(Fault::TooMany { retry_after: 100_000 });
}

#[test]
fn a_429_is_waited_out_wherever_it_comes() {
    let (image, target, upstream, daemon) = serving();
    let blob = &image.layers[0];
    let pause = Duration::from_secs(2);
    let limited = || Fault::TooMany { retry_after: 2 };
    upstream.fault("/manifests/", 0..1, limited());
    let begun = Instant::now();
    assert_eq!(daemon.get(MANIFEST).is(200).body, *image.manifest.bytes);
    assert!(begun.elapsed() >= pause);
    // At the opening of a blob, and in the middle of it.
    upstream.fault(&blob.digest, 0..1, limited());
    upstream.fault(&blob.digest, 1..2, Fault::Cut(3 * MIB));
    upstream.fault(&blob.digest, 2..3, limited());
    let begun = Instant::now();
    assert!(daemon.get(&target).is(200).body == blob.bytes());
    assert!(begun.elapsed() >= 2 * pause);
    assert_eq!((upstream.count("", "/manifests/"), upstream.count("", &blob.digest)), (2, 4));
}

/// With the settings that everybody has, small answers that break off are asked for again while the client waits.
#[test]
fn manifests_and_lists_that_are_cut_reset_or_stall_are_invisible() {
    let image = Image::of_size(5, 1000);
    let faults = [("cut", Fault::Cut(9)), ("reset", Fault::Reset(9)), ("stall", Fault::Stall(9))];
    let mut layout = Layout::new();
    for (name, _) in &faults {
        layout.add(&format!("library/{name}"), "1", &image);
    }
    let upstream = Upstream::start(layout);
    let daemon = Daemon::with("prefetch = \"none\"", &upstream);
    std::thread::scope(|scope| {
        for (name, fault) in &faults {
            let (image, upstream, daemon) = (&image, &upstream, &daemon);
            let paths = ["manifests/1", "tags/list"].map(|path| format!("/v2/library/{name}/{path}"));
            for path in paths {
                upstream.fault(&path, 0..1, fault.clone());
                scope.spawn(move || {
                    let got = daemon.get(&format!("{path}?ns=docker.io")).is(200);
                    if path.ends_with("1") {
                        assert_eq!(got.body, *image.manifest.bytes);
                    } else {
                        assert!(got.text().contains(r#""tags":["1"]"#), "{}", got.text());
                    }
                    assert_eq!(upstream.count("GET", &path), 2, "{path}");
                });
            }
        }
    });
}

#[test]
fn an_upstream_that_never_answers_is_given_up_while_clients_still_wait() {
    fails(Fault::Delay(Duration::from_secs(600)));
}

#[test]
fn an_upstream_that_is_not_there_is_502_for_manifests_and_404_for_blobs() {
    let (_, target, mut upstream, daemon) = serving();
    upstream.stop();
    assert!([502, 504].contains(&daemon.get(MANIFEST).status()));
    daemon.get(&target).refuses(404, "BLOB_UNKNOWN");
    upstream.start_again();
    daemon.get(MANIFEST).is(200);
}

#[test]
fn a_500_and_then_an_answer_is_an_answer() {
    let (image, target, upstream, daemon) = serving();
    upstream.fault("/manifests/", 0..2, Fault::Status(500));
    upstream.fault("/blobs/", 0..2, Fault::Status(503));
    assert_eq!(daemon.get(MANIFEST).is(200).body, *image.manifest.bytes);
    assert!(daemon.get(&target).is(200).body == image.layers[0].bytes());
}

#[test]
fn what_upstream_denies_is_403_and_names_no_way_to_log_in() {
    for status in [401, 403] {
        let (_, target, upstream, daemon) = serving();
        upstream.fault("/v2/", .., Fault::Status(status));
        for target in [MANIFEST, &target] {
            let denied = daemon.get(target).refuses(403, "DENIED");
            assert_eq!(denied.header("www-authenticate"), None);
            assert!(denied.text().contains("docker.io"), "{}", denied.text());
        }
    }
}

#[test]
fn a_token_that_is_revoked_in_the_middle_is_renewed_once() {
    let (image, target, upstream, daemon) = serving_by(Upstream::with_tokens);
    let blob = &image.layers[0];
    daemon.get(MANIFEST).is(200);
    let before = upstream.tokens_issued();
    upstream.fault(&blob.digest, 0..1, Fault::Cut(2 * MIB));
    upstream.fault(&blob.digest, 1..2, Fault::Revoked);
    assert!(daemon.get(&target).is(200).body == blob.bytes());
    assert_eq!(upstream.tokens_issued(), before + 1);
    assert!(upstream.sent(&blob.digest) <= SIZE + MIB);
}

#[test]
fn a_redirect_to_another_host_is_followed() {
    let (image, target, upstream, daemon) = serving();
    let blob = &image.layers[0];
    let cdn = Upstream::start(Layout::of("cdn", "1", &image));
    upstream.fault(&blob.digest, .., Fault::Redirect(format!("{}/v2/cdn/blobs/{}", cdn.url(), blob.digest)));
    cdn.fault(&blob.digest, 0..1, Fault::Cut(MIB));
    assert!(daemon.get(&target).is(200).body == blob.bytes());
    assert!(cdn.sent(&blob.digest) <= SIZE + MIB);
    assert_eq!(upstream.sent(&blob.digest), 0);
}

#[test]
fn what_one_registry_does_not_give_another_one_is_asked_for() {
    let image = Image::of_size(5, SIZE);
    let blob = &image.layers[0];
    let serving = || Upstream::start(Layout::of("library/app", "1", &image));
    let (limited, well) = (serving(), serving());
    let entries = [entry("docker.io", &limited), entry("registry.k8s.io", &well)].concat();
    let daemon = Daemon::configured(&format!("prefetch = \"none\"\n{entries}"));
    let target = |registry: &str| format!("/v2/library/app/blobs/{}?ns={registry}", blob.digest);
    // It is asked three times, which takes about a second.
    limited.fault(&blob.digest, .., Fault::Status(500));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| daemon.get(&target("docker.io")).status());
        eventually("it is asked", || limited.count("GET", &blob.digest) > 0);
        // This one joins that download.
        assert!(daemon.get(&target("registry.k8s.io")).is(200).body == blob.bytes());
        assert_eq!(first.join().unwrap(), 404);
    });
}

#[test]
fn what_upstream_does_not_have_leaves_nothing_behind() {
    let (_, _, upstream, daemon) = serving();
    for (n, fault) in [None, Some(403), Some(401)].into_iter().enumerate() {
        if let Some(status) = fault {
            upstream.fault("/blobs/", .., Fault::Status(status));
        }
        let unknown = format!("sha256:{n:064x}");
        assert!(daemon.get(&format!("/v2/library/app/blobs/{unknown}?ns=docker.io")).status() >= 400);
    }
    let partials = || std::fs::read_dir(daemon.images().join("partial")).unwrap().count();
    eventually("nothing is left", || partials() == 0);
}

#[test]
fn a_silent_upstream_is_an_answer_before_anybody_gives_up_on_one() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    upstream.fault("/v2/", .., Fault::Delay(Duration::from_secs(600)));
    // As it is installed: with the limit on silence that it has by default.
    let daemon = Daemon::of(&upstream);
    let below = |what: &str, digest: &str| format!("/v2/library/app/{what}/{digest}?ns=docker.io");
    let (manifest, layer) = (&image.manifest.digest, &image.layers[0].digest);
    let questions = [
        (get(MANIFEST), [502, 504].as_slice()),
        (head(MANIFEST), &[502, 504]),
        (get(&below("manifests", manifest)), &[502, 504]),
        (get(&below("blobs", layer)), &[404]),
        (head(&below("blobs", layer)), &[404]),
        (get(&below("blobs", layer)).range("bytes=5-9"), &[404]),
        (get(&below("tags", "list")), &[502, 504]),
        (get(&below("referrers", manifest)), &[200]),
    ];
    std::thread::scope(|scope| {
        let daemon = &daemon;
        for (question, statuses) in &questions {
            scope.spawn(move || {
                let asked = Instant::now();
                let status = question.send(daemon.addr).status();
                assert!(statuses.contains(&status), "{question:?}: {status}");
                // containerd gives up after 30 s; podman never does.
                let took = asked.elapsed();
                assert!(took < Duration::from_secs(29), "{question:?}: {took:?}");
            });
        }
    });
}
