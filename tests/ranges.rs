//! Ranges, one and many, of blobs that are cached and of blobs on their way; and what conditions make of a request.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::ops::RangeInclusive;
use std::thread;

use support::client::{End, Response, Stream, get, head};
use support::daemon::Daemon;
use support::layout::*;
use support::multipart;
use support::process::eventually;
use support::upstream::{Fault, Upstream};

type Ranges = Vec<RangeInclusive<u64>>;

fn serving(size: u64) -> (Blob, String, Upstream, Daemon) {
    let image = Image::of_size(size, size);
    let blob = image.layers[0].clone();
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
    (blob, target, upstream, daemon)
}

/// The same with the blob in the cache, and the upstream having forgotten how it got there.
fn cached(size: u64) -> (Blob, String, Upstream, Daemon) {
    let (blob, target, upstream, daemon) = serving(size);
    daemon.get(&target).is(200);
    eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    upstream.forget();
    (blob, target, upstream, daemon)
}

fn header(ranges: &[RangeInclusive<u64>]) -> String {
    let ranges: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
    format!("bytes={}", ranges.join(","))
}

/// A 206 with exactly these parts of `blob`, in this order.
#[track_caller]
fn has_parts(answer: &Response, blob: &Blob, ranges: &[RangeInclusive<u64>]) {
    assert_eq!(answer.header("content-length").unwrap(), answer.body.len().to_string());
    let content_type = answer.header("content-type").unwrap();
    let parts = multipart::read(content_type, &answer.body).unwrap();
    let got: Ranges = parts.iter().map(|part| part.first..=part.last).collect();
    assert_eq!(got, ranges);
    for part in &parts {
        assert_eq!(part.size, blob.size());
        assert_eq!(part.content_type, "application/octet-stream");
        assert!(part.body == blob.slice(part.first, part.body.len() as u64), "from {}", part.first);
    }
}

/// Reads on to a part's first byte.
fn read_part_head(stream: &mut Stream) -> String {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Reads one part of a body that is still on its way.
#[track_caller]
fn read_part(stream: &mut Stream, blob: &Blob, range: RangeInclusive<u64>) {
    let head = read_part_head(stream);
    let (first, last) = range.into_inner();
    assert!(head.contains(&format!("\r\nContent-Range: bytes {first}-{last}/{}\r\n", blob.size())), "{head}");
    let mut at = first;
    while at <= last {
        let bytes = stream.read_to(stream.got + (last + 1 - at).min(MIB));
        assert!(bytes == blob.slice(at, bytes.len() as u64), "after {at}");
        at += bytes.len() as u64;
    }
}

#[test]
fn a_thousand_ranges_come_in_their_order_and_are_not_merged() {
    let (blob, target, upstream, daemon) = cached(8 * MIB);
    let step = blob.size() / 1024;
    // of a byte and of thousands, some with a gap behind them and some without
    let mut ranges: Ranges = (0..1024)
        .map(|n| n * step..=n * step + [0, 1, 511, step - 1][n as usize % 4].min(step - 1))
        .collect();
    let mut podman = header(&ranges);
    let last = ranges.pop().unwrap();
    podman.truncate(podman.rfind('-').unwrap() + 1); // its last one may be open
    ranges.push(*last.start()..=blob.size() - 1);
    assert!(podman.len() > 13_000);
    let answer = daemon.send(get(&target).range(&podman)).is(206);
    has_parts(&answer, &blob, &ranges);
    assert_eq!(answer.header("content-range"), None);

    ranges.reverse();
    has_parts(&daemon.send(get(&target).range(&header(&ranges))).is(206), &blob, &ranges);
    assert!(upstream.seen().is_empty());
}

#[test]
fn ranges_that_touch_overlap_or_end_the_blob() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    let end = blob.size() - 1;
    for (range, parts) in [
        ("bytes=0-0,1-1,2-2".to_string(), vec![0..=0, 1..=1, 2..=2]),
        ("bytes=10-20,15-30,10-20".to_string(), vec![10..=20, 15..=30, 10..=20]),
        ("bytes=-1, 0-0".to_string(), vec![end..=end, 0..=0]),
        (format!("bytes=0-{},{}-", MIB - 1, MIB), vec![0..=MIB - 1, MIB..=end]),
        (format!("bytes=7-7,{}-{}", end, end + 1000), vec![7..=7, end..=end]),
        (format!("bytes=7-7,{}-,9-9", end + 1), vec![7..=7, 9..=9]),
    ] {
        has_parts(&daemon.send(get(&target).range(&range)).is(206), &blob, &parts);
    }
}

#[test]
fn one_range_that_is_left_of_several_is_a_plain_one() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    let size = blob.size();
    let answer = daemon.send(get(&target).range(&format!("bytes={size}-,5-9"))).is(206);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-range").unwrap(), format!("bytes 5-9/{size}"));
    assert!(answer.body == blob.slice(5, 5));
}

#[test]
fn ranges_of_which_none_is_there_are_416() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    let size = blob.size();
    let range = format!("bytes={size}-,{}-{},-0", size + 5, size + 9);
    let answer = daemon.send(get(&target).range(&range)).refuses(416, "RANGE_INVALID");
    assert_eq!(answer.header("content-range").unwrap(), format!("bytes */{size}"));
}

#[test]
fn more_than_the_blob_once_is_400_so_that_podman_asks_for_less() {
    let (blob, target, upstream, daemon) = cached(2 * MIB);
    let ranges = |count: u64| header(&(0..count).map(|n| n * 2..=n * 2).collect::<Ranges>());
    daemon.send(get(&target).range(&ranges(1024))).is(206);
    daemon.send(get(&target).range(&ranges(1025))).refuses(400, "RANGE_INVALID");
    daemon.send(get(&target).range("bytes=0-,0-0")).refuses(400, "RANGE_INVALID");
    let half = blob.size() / 2;
    let twice = format!("bytes=0-{half},0-{half}");
    daemon.send(get(&target).range(&twice)).refuses(400, "RANGE_INVALID");
    assert!(upstream.seen().is_empty());
}

#[test]
fn nonsense_anywhere_in_a_range_is_ignored() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    for range in ["bytes=0-1,x", "bytes=0-1,9-3", "lines=0-1,3-4", "bytes=,", "bytes=0-1;3-4"] {
        let whole = daemon.send(get(&target).range(range)).is(200);
        assert!(whole.body == blob.bytes(), "{range}");
    }
    let two_lines = get(&target).range("bytes=0-1").range("bytes=3-4");
    assert_eq!(daemon.send(two_lines).is(200).body.len() as u64, blob.size());
}

#[test]
fn every_answer_of_a_blob_has_the_headers_that_clients_look_for() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    let multipart = format!("multipart/byteranges; boundary={}", blob.hex());
    for (range, status, content_type) in [
        ("none", 200, "application/octet-stream"),
        ("bytes=0-0", 206, "application/octet-stream"),
        ("bytes=0-0,5-5", 206, &multipart),
    ] {
        let answer = daemon.send(get(&target).range(range)).is(status);
        assert_eq!(answer.header("content-type"), Some(content_type), "{range}");
        assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{range}");
        assert_eq!(answer.header("docker-content-digest"), Some(&*blob.digest), "{range}");
        assert_eq!(answer.header("etag").unwrap(), format!("\"{}\"", blob.digest), "{range}");
    }
}

#[test]
fn parts_come_while_the_blob_is_downloaded() {
    let (blob, target, upstream, daemon) = serving(64 * MIB);
    let size = blob.size();
    upstream.hold(&blob.digest, 2 * MIB);
    let mut whole = get(&target).open(daemon.addr);
    whole.read_to(MIB);
    // behind the download, far ahead of it (two that touch), near ahead of it, and its end
    let ranges = [
        0..=MIB,
        40 * MIB..=41 * MIB - 1,
        41 * MIB..=41 * MIB + 9,
        3 * MIB..=4 * MIB,
        size - 10..=size - 1,
        5..=5,
    ];
    let mut stream = get(&target).range(&header(&ranges)).open(daemon.addr);
    assert_eq!(stream.head.status, 206);
    for range in &ranges[..3] {
        read_part(&mut stream, &blob, range.clone());
    }
    assert!(upstream.sent(&blob.digest) < 5 * MIB, "the download is still held back");
    upstream.release(&blob.digest);
    for range in &ranges[3..] {
        read_part(&mut stream, &blob, range.clone());
    }
    assert_eq!(stream.whole().end, End::Whole);
    assert!(whole.whole().end == End::Whole);
    assert!(upstream.sent(&blob.digest) <= size + MIB + 20);
}

#[test]
fn far_ranges_are_fetched_one_after_the_other() {
    let (blob, target, upstream, daemon) = serving(64 * MIB);
    upstream.hold(&blob.digest, MIB);
    // more than are fetched by themselves at once for all clients together
    let ranges: Ranges = (0..40).map(|n| (20 + n) * MIB..=(20 + n) * MIB + 999).collect();
    let answer = get(&target).range(&header(&ranges)).send(daemon.addr).is(206);
    has_parts(&answer, &blob, &ranges);
    assert_eq!(upstream.count("GET", &blob.digest), 41);
    let most = upstream.seen().iter().filter_map(|seen| seen.header("range")?.split_once('=')).count();
    assert_eq!(most, 40, "all but the download itself are ranges");
    upstream.release(&blob.digest);
}

#[test]
fn no_part_has_the_last_byte_of_a_wrong_blob() {
    let (blob, target, upstream, daemon) = serving(10 * MIB);
    let size = blob.size();
    upstream.fault(&blob.digest, .., Fault::Flip(3 * MIB));
    let text = |first: u64, last: u64| {
        let head =
            format!("Content-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{size}");
        2 + 64 + 2 + head.len() + 4
    };
    let (last, from) = (size - 1, size - 70_000);
    // up to the last byte, without it
    let most = [
        ("bytes=-1,0-0", text(last, last)),
        ("bytes=0-0,-1", text(0, 0) + 1 + 2 + text(last, last)),
        ("bytes=0-0,-70000", text(0, 0) + 1 + 2 + text(from, last) + 69_999),
    ];
    thread::scope(|scope| {
        for (range, most) in &most {
            let (target, daemon) = (&target, &daemon);
            scope.spawn(move || {
                let answer = get(target).range(range).send(daemon.addr);
                match answer.status() {
                    206 => {
                        assert_eq!(answer.end, End::Short, "{range}");
                        assert!(answer.body.len() <= *most, "{range}: {} bytes", answer.body.len());
                    }
                    404 => assert_eq!(answer.code(), "BLOB_UNKNOWN"),
                    status => panic!("{range}: {status}"),
                }
            });
        }
    });
    assert!(!daemon.blob(blob.hex()).exists());
    // whoever has some of the wrong one must not get the rest of the right one
    let more = get(&target).range("bytes=0-0,100-200").send(daemon.addr);
    more.refuses(404, "BLOB_UNKNOWN");
}

#[test]
fn parts_are_streamed_in_memory_that_their_size_does_not_change() {
    let (blob, target, _upstream, daemon) = cached(128 * MIB);
    let before = daemon.peak_memory();
    let ranges = [64 * MIB..=128 * MIB - 1, 0..=64 * MIB - 1];
    let mut stream = get(&target).range(&header(&ranges)).open(daemon.addr);
    for range in ranges {
        read_part(&mut stream, &blob, range);
    }
    assert_eq!(stream.whole().end, End::Whole);
    let after = daemon.peak_memory();
    assert!(after <= before + 8 * 1024, "{after} KiB, {before} KiB before");
}

#[test]
fn a_range_with_if_range_counts_only_for_the_same_bytes() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    let ours = format!("\"{}\"", blob.digest);
    for range in ["bytes=0-9", "bytes=0-9,20-29"] {
        let send = |tag: &str| daemon.send(get(&target).range(range).header("If-Range", tag));
        send(&ours).is(206);
        for other in [&*format!("W/{ours}"), "\"another\"", "Sat, 29 Oct 2094 19:43:31 GMT"] {
            assert!(send(other).is(200).body == blob.bytes(), "{other}");
        }
    }
}

#[test]
fn a_known_blob_is_304_to_get_and_200_to_head_and_is_not_downloaded() {
    let (blob, target, upstream, daemon) = serving(2 * MIB);
    let ours = format!("\"{}\"", blob.digest);
    for round in ["not cached", "cached"] {
        for known in [&*ours, &format!("W/{ours}"), "*"] {
            let answer = daemon.send(get(&target).range("bytes=0-9").header("If-None-Match", known)).is(304);
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("etag"), Some(&*ours));
            let answer = daemon.send(head(&target).header("If-None-Match", known)).is(200);
            assert_eq!(answer.header("content-length").unwrap(), blob.size().to_string());
        }
        if round == "not cached" {
            assert_eq!(upstream.count("GET", &blob.digest), 0);
            daemon.send(get(&target).header("If-None-Match", "\"another\"")).is(200);
            eventually("the blob is published", || daemon.blob(blob.hex()).exists());
        }
    }
    let none = target.replace(blob.hex(), &"0".repeat(64));
    daemon.send(get(&none).header("If-None-Match", "*")).refuses(404, "BLOB_UNKNOWN");
}

#[test]
fn another_version_than_if_match_wants_is_412() {
    let (blob, target, upstream, daemon) = serving(2 * MIB);
    let other = format!("\"sha256:{}\"", "0".repeat(64));
    daemon.send(get(&target).header("If-Match", &other)).is(412).code();
    assert_eq!(upstream.count("GET", &blob.digest), 0);
    daemon.send(get(&target).header("If-Match", &format!("\"{}\"", blob.digest))).is(200);
    let manifest = "/v2/library/app/manifests/1?ns=docker.io";
    daemon.send(get(manifest).header("If-Match", &other)).is(412).code();
    daemon.send(head(manifest).header("If-Match", &other)).is(412);
    let ours = daemon.get(manifest).is(200).header("etag").unwrap().to_string();
    daemon.send(get(manifest).header("If-Match", &format!("{other}, {ours}"))).is(200);
}

#[test]
fn head_ignores_ranges() {
    let (blob, target, _upstream, daemon) = cached(2 * MIB);
    for range in ["bytes=0-9", "bytes=0-9,20-29", "bytes=99999999-", "bytes=0-,0-"] {
        let answer = daemon.send(head(&target).range(range)).is(200);
        assert_eq!(answer.header("content-length").unwrap(), blob.size().to_string(), "{range}");
        assert_eq!(answer.header("content-range"), None);
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    }
}

#[test]
fn manifests_and_blobs_without_bytes_come_whole_whatever_the_range() {
    let (image, empty) = (Image::small(1), Blob::new(vec![]));
    let mut layout = Layout::of("library/app", "1", &image);
    layout.add_blob("library/app", &empty);
    let upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    // containerd 2.1 asks for `bytes=0-` of everything
    for range in ["bytes=0-", "bytes=5-", "bytes=0-0,5-9"] {
        let manifest = daemon.send(get("/v2/library/app/manifests/1?ns=docker.io").range(range)).is(200);
        assert_eq!(manifest.body, *image.manifest.bytes, "{range}");
        assert_eq!(manifest.header("content-range"), None);
        let target = format!("/v2/library/app/blobs/{}?ns=docker.io", empty.digest);
        let nothing = daemon.send(get(&target).range(range)).is(200);
        assert_eq!(nothing.header("content-length"), Some("0"), "{range}");
    }
}
