//! One download, many readers: bytes are passed on as they come, once over the wire, in the same memory.

mod support;

use std::sync::Barrier;
use std::thread;

use support::client::{End, Stream, get};
use support::daemon::Daemon;
use support::layout::*;
use support::process::eventually;
use support::upstream::{Fault, Upstream};

const CLIENTS: usize = 50;

fn serving(blob_size: u64) -> (Blob, String, Upstream, Daemon) {
    let image = Image::of_size(blob_size, blob_size);
    let blob = image.layers[0].clone();
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
    (blob, target, upstream, daemon)
}

/// Reads on until `end`, each byte compared.
fn compare(stream: &mut Stream, blob: &Blob, start: u64, end: u64) {
    let (mut got, mut expected) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = start;
    while at < end {
        let limit = (end - at).min(got.len() as u64) as usize;
        let n = stream.read(&mut got[..limit]);
        assert!(n > 0, "ended at {at} of {end}");
        blob.read_at(at, &mut expected[..n]);
        assert!(got[..n] == expected[..n], "wrong bytes after {at}");
        at += n as u64;
    }
}

/// Everybody reads the first half while upstream keeps the second one back; gives the daemon's peak in KiB.
fn shared_download(size: u64) -> u64 {
    let (blob, target, upstream, daemon) = serving(size);
    let half = size / 2;
    upstream.hold(&blob.digest, half);
    let at_half = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut stream = get(&target).open(daemon.addr);
                assert_eq!(stream.head.status, 200);
                assert_eq!(stream.head.header("content-length"), Some(&*size.to_string()));
                compare(&mut stream, &blob, 0, half);
                if at_half.wait().is_leader() {
                    assert_eq!(upstream.sent(&blob.digest), half);
                    upstream.release(&blob.digest);
                }
                compare(&mut stream, &blob, half, size);
                assert_eq!(stream.whole().end, End::Whole);
            });
        }
    });
    assert_eq!(upstream.count("GET", &blob.digest), 1);
    assert_eq!(upstream.sent(&blob.digest), size);
    daemon.peak_memory()
}

#[test]
fn fifty_clients_share_a_download_as_it_comes_in_memory_that_its_size_does_not_change() {
    let small = shared_download(30 * MIB);
    let large = shared_download(300 * MIB);
    assert!(large <= small + 8 * 1024, "{large} KiB with 300 MiB, {small} KiB with 30 MiB");
}

#[test]
fn a_client_that_hangs_up_cancels_nothing() {
    let (blob, target, upstream, daemon) = serving(20 * MIB);
    upstream.hold(&blob.digest, 10 * MIB);
    let mut stream = get(&target).open(daemon.addr);
    stream.read_to(MIB);
    drop(stream);
    upstream.release(&blob.digest);
    eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    assert_eq!(upstream.sent(&blob.digest), 20 * MIB);
    upstream.forget();
    compare(&mut get(&target).open(daemon.addr), &blob, 0, blob.size());
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_download_that_nobody_waits_for_pauses_when_it_is_told_to() {
    let image = Image::of_size(1, 20 * MIB);
    let blob = image.layers[0].clone();
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("abandoned = \"200ms\"", &upstream);
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
    upstream.hold(&blob.digest, 10 * MIB);
    let mut stream = get(&target).open(daemon.addr);
    stream.read_to(10 * MIB);
    drop(stream);
    eventually("the download is paused", || daemon.log().contains("paused download"));
    upstream.release(&blob.digest);
    assert!(!daemon.blob(blob.hex()).exists());
    compare(&mut get(&target).open(daemon.addr), &blob, 0, blob.size());
    assert!(
        upstream.sent(&blob.digest) <= 21 * MIB,
        "{} bytes crossed the wire",
        upstream.sent(&blob.digest)
    );
    assert!(upstream.seen().last().unwrap().header("range").unwrap().starts_with("bytes="));
}

#[test]
fn a_client_that_does_not_read_stalls_nobody() {
    let (blob, target, upstream, daemon) = serving(64 * MIB);
    let idle = get(&target).open(daemon.addr);
    compare(&mut get(&target).open(daemon.addr), &blob, 0, blob.size());
    let mut idle = idle;
    compare(&mut idle, &blob, 0, blob.size());
    assert_eq!(upstream.sent(&blob.digest), blob.size());
}

#[test]
fn ranges_are_served_while_the_download_is_under_way() {
    let (blob, target, upstream, daemon) = serving(8 * MIB);
    upstream.hold(&blob.digest, 4 * MIB);
    let mut whole = get(&target).open(daemon.addr);
    compare(&mut whole, &blob, 0, 4 * MIB);
    for (start, end) in [(0, 1), (MIB, 3 * MIB), (3, 4 * MIB)] {
        let part = get(&target).range(&format!("bytes={start}-{}", end - 1)).send(daemon.addr).is(206);
        assert_eq!(
            part.header("content-range").unwrap(),
            format!("bytes {start}-{}/{}", end - 1, blob.size())
        );
        assert!(part.body == blob.slice(start, end - start));
    }
    let mut across = get(&target).range(&format!("bytes={}-", 3 * MIB)).open(daemon.addr);
    assert_eq!(across.head.status, 206);
    compare(&mut across, &blob, 3 * MIB, 4 * MIB);
    upstream.release(&blob.digest);
    compare(&mut across, &blob, 4 * MIB, 8 * MIB);
    compare(&mut whole, &blob, 4 * MIB, 8 * MIB);
    assert_eq!(upstream.count("GET", &blob.digest), 1);
}

#[test]
fn a_range_that_is_the_first_request_gets_its_bytes() {
    let (blob, target, _upstream, daemon) = serving(6 * MIB);
    let mut part = get(&target).range(&format!("bytes={}-", 2 * MIB)).open(daemon.addr);
    assert_eq!(part.head.status, 206);
    compare(&mut part, &blob, 2 * MIB, 6 * MIB);
}

#[test]
fn a_range_far_ahead_does_not_wait_for_the_download() {
    let (blob, target, upstream, daemon) = serving(64 * MIB);
    let size = blob.size();
    upstream.hold(&blob.digest, 2 * MIB);
    let mut whole = get(&target).open(daemon.addr);
    compare(&mut whole, &blob, 0, 2 * MIB);
    let far = get(&target).range(&format!("bytes={}-{}", 40 * MIB, 41 * MIB - 1)).send(daemon.addr).is(206);
    assert_eq!(far.header("content-range").unwrap(), format!("bytes {}-{}/{size}", 40 * MIB, 41 * MIB - 1));
    assert!(far.body == blob.slice(40 * MIB, MIB));
    // a footer, but for its last byte: nobody knows yet whether the blob is right
    let mut footer = get(&target).range("bytes=-1000").open(daemon.addr);
    assert_eq!(footer.head.status, 206);
    compare(&mut footer, &blob, size - 1000, size - 1);
    upstream.release(&blob.digest);
    compare(&mut footer, &blob, size - 1, size);
    compare(&mut whole, &blob, 2 * MIB, size);
    assert!(upstream.sent(&blob.digest) <= size + MIB + 1000);
}

#[test]
fn nobody_gets_the_last_byte_of_a_wrong_blob() {
    let (blob, target, upstream, daemon) = serving(10 * MIB);
    let size = blob.size();
    upstream.fault(&blob.digest, .., Fault::Flip(3 * MIB));
    let ranges =
        [None, Some("0-".into()), Some(format!("{}-", 9 * MIB)), Some("-1".into()), Some("-70000".into())];
    thread::scope(|scope| {
        for range in &ranges {
            let (target, daemon) = (&target, &daemon);
            scope.spawn(move || {
                let mut request = get(target);
                if let Some(range) = range {
                    request = request.range(&format!("bytes={range}"));
                }
                let answer = request.send(daemon.addr);
                match answer.status() {
                    200 | 206 => assert_eq!(answer.end, End::Short, "{range:?}"),
                    404 => assert_eq!(answer.code(), "BLOB_UNKNOWN"),
                    status => panic!("{range:?}: {status}"),
                }
            });
        }
    });
    assert!(!daemon.blob(blob.hex()).exists());

    // whoever resumes what it got would keep the wrong beginning
    let resumed = get(&target).range(&format!("bytes={}-", size - 1)).send(daemon.addr);
    assert_eq!(resumed.status(), 404);
    upstream.mend();
    upstream.forget();
    let mut right = get(&target).open(daemon.addr);
    assert_eq!(right.head.status, 200);
    compare(&mut right, &blob, 0, size);
    assert_eq!(upstream.sent(&blob.digest), size, "from byte 0");
    eventually("the blob is published", || daemon.blob(blob.hex()).exists());
    daemon.proven();
    // For a minute there may be somebody with the wrong beginning, though the right blob is here.
    get(&target).range(&format!("bytes={}-", size - 1)).send(daemon.addr).refuses(404, "BLOB_UNKNOWN");
    assert!(get(&target).range("bytes=0-9").send(daemon.addr).is(206).body == blob.slice(0, 10));
}

#[test]
fn a_small_wrong_blob_is_not_sent_at_all() {
    let (blob, target, upstream, daemon) = serving(MIB / 2);
    upstream.fault(&blob.digest, .., Fault::Flip(5));
    daemon.get(&target).refuses(404, "BLOB_UNKNOWN");
    upstream.mend();
    assert!(daemon.get(&target).is(200).body == blob.bytes());
}
