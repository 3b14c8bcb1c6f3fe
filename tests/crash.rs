//! Death at any moment, and the order of syncs that makes it harmless.

mod support;

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::client::{End, get};
use support::daemon::{Daemon, list};
use support::layout::*;
use support::process::eventually;
use support::trace::{Call, Trace};
use support::upstream::Upstream;

/// A different image each round: a large layer, and enough small ones to be killed between.
fn image(round: u64) -> Image {
    let mut layers: Vec<Layer> = (1..=20).map(|n| Layer::random(round * 100 + n, 20_000 * n)).collect();
    layers.push(Layer::random(round * 100, 12 * MIB));
    Image::new(layers)
}

fn blob(digest: &str) -> String {
    format!("/v2/library/app/blobs/{digest}?ns=docker.io")
}

/// Asks for everything at once and takes what comes; true when it was all of it.
fn pull(daemon: &Daemon, image: &Image, round: u64) -> bool {
    let addr = daemon.addr;
    let target = format!("/v2/library/app/manifests/{round}?ns=docker.io");
    let mut requests = vec![get(&target)];
    requests.extend(image.blobs().map(|layer| get(&blob(&layer.digest))));
    let whole = move |request: support::client::Request| {
        let answer = request.try_open(addr).map(support::client::Stream::whole);
        answer.is_some_and(|answer| answer.status() == 200 && answer.end == End::Whole)
    };
    let threads: Vec<_> = requests.into_iter().map(|request| thread::spawn(move || whole(request))).collect();
    threads.into_iter().map(|thread| thread.join().is_ok_and(|whole| whole)).filter(|whole| !whole).count()
        == 0
}

/// Everything of the image is in its place.
fn is_published(daemon: &Daemon, image: &Image, round: u64) -> bool {
    daemon.images().join(format!("refs/docker.io/library/app/_tags/{round}")).exists()
        && daemon.manifest(image.manifest.hex()).exists()
        && image.blobs().all(|layer| daemon.blob(layer.hex()).exists())
        && list(&daemon.images().join("partial")).is_empty()
}

/// Something of the image is there.
fn is_begun(daemon: &Daemon, image: &Image) -> bool {
    image.blobs().any(|layer| daemon.blob(layer.hex()).exists())
        || !list(&daemon.images().join("partial")).is_empty()
}

/// Rounds in which the kill came too early or too late do not count; so many there are at most.
const ROUNDS: u64 = 60;

#[test]
fn killed_at_twenty_moments_of_a_download_nothing_wrong_is_kept() {
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let random = Blob::random(seed, 2 * (ROUNDS + 1)).bytes();
    let upstream = Upstream::start(Layout::new());
    let mut daemon = Daemon::of(&upstream);
    let offer = |round| {
        let image = image(round);
        upstream.change(|layout| layout.add("library/app", &round.to_string(), &image));
        image
    };
    // What a whole one takes, from the first request until all is in its place.
    let first = offer(0);
    let begun = Instant::now();
    assert!(pull(&daemon, &first, 0));
    eventually("it is published", || is_published(&daemon, &first, 0));
    let mut whole = begun.elapsed();
    let (mut hits, mut round) = (0, 0);
    while hits < 20 {
        round += 1;
        assert!(round <= ROUNDS, "only {hits} of {ROUNDS} kills came in the middle of a download");
        let image = offer(round);
        let at = 2 * round as usize;
        let moment = whole.mul_f64(f64::from(u16::from_le_bytes([random[at], random[at + 1]])) / 65536.0);
        thread::scope(|scope| {
            let pulled = scope.spawn(|| pull(&daemon, &image, round));
            thread::sleep(moment);
            kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGKILL).unwrap();
            pulled.join().unwrap();
        });
        daemon.kill();
        match (is_begun(&daemon, &image), is_published(&daemon, &image, round)) {
            (true, false) => hits += 1,
            // This machine is faster now, or slower, than it was at first.
            (true, true) => whole = whole.mul_f64(0.8),
            (false, _) => whole = whole.mul_f64(1.1),
        }
        daemon.proven();
        daemon.start();
        let target = format!("/v2/library/app/manifests/{round}?ns=docker.io");
        assert_eq!(daemon.get(&target).is(200).body, *image.manifest.bytes);
        for layer in image.blobs() {
            assert!(daemon.get(&blob(&layer.digest)).is(200).body == layer.bytes(), "round {round}");
        }
        eventually("the round is published", || is_published(&daemon, &image, round));
    }
    println!("{hits} of {round} kills came in the middle; a whole download took {whole:?}");
    assert!(daemon.terminate().success());
    daemon.proven();
}

#[test]
fn what_was_served_whole_is_kept_by_an_orderly_end() {
    let image = image(50);
    let upstream = Upstream::start(Layout::of("library/app", "50", &image));
    let mut daemon = Daemon::of(&upstream);
    assert!(pull(&daemon, &image, 50));
    assert!(daemon.terminate().success());
    upstream.forget();
    daemon.start();
    assert!(pull(&daemon, &image, 50));
    assert_eq!(upstream.seen().len(), 0, "{:?}", upstream.seen());
}

#[test]
fn a_partial_file_is_resumed_after_a_crash_and_proven_again() {
    let image = Image::of_size(60, 40 * MIB);
    let upstream = Upstream::start(Layout::of("library/app", "60", &image));
    let mut daemon = Daemon::of(&upstream);
    let layer = &image.layers[0];
    upstream.hold(&layer.digest, 30 * MIB);
    get(&blob(&layer.digest)).open(daemon.addr).read_to(29 * MIB);
    daemon.kill();
    // what a disk that lost its last writes may hold
    let partial = daemon.images().join("partial").join(layer.hex());
    let length = std::fs::metadata(&partial).unwrap().len();
    let mut bytes = std::fs::read(&partial).unwrap();
    bytes[(length - 1) as usize] ^= 1;
    bytes[5] ^= 1;
    std::fs::write(&partial, bytes).unwrap();
    upstream.release(&layer.digest);
    daemon.start();
    let first = daemon.get(&blob(&layer.digest));
    assert!(first.status() != 200 || first.end == End::Short || first.body == layer.bytes());
    assert!(daemon.get(&blob(&layer.digest)).is(200).body == layer.bytes());
    daemon.terminate();
    daemon.proven();
}

fn synced<'a, 'p: 'a>(calls: &'a [Call], path: &'p str) -> impl Iterator<Item = &'a Call> {
    calls.iter().filter(move |call| match &*call.name {
        "fsync" | "fdatasync" => call.descriptor() == Some(path),
        "syncfs" => true,
        _ => false,
    })
}

/// The rename to `path`, proven to come after a sync of what is renamed; and the sync of the folder after it.
#[track_caller]
fn published<'a>(calls: &'a [Call], path: &'a str) -> (&'a Call, &'a Call) {
    let rename =
        calls.iter().find(|call| call.name.starts_with("rename") && call.paths().last() == Some(&path));
    let rename = rename.unwrap_or_else(|| panic!("no rename to {path}"));
    let file = synced(calls, rename.paths()[0]).find(|call| call.ended < rename.begun);
    assert!(file.is_some(), "{path} is not synced before {rename:?}");
    let folder = &path[..path.rfind('/').unwrap_or(0)];
    let folder = synced(calls, folder).find(|call| call.begun > rename.ended);
    (rename, folder.unwrap_or_else(|| panic!("the folder of {path} is not synced after {rename:?}")))
}

#[test]
fn file_rename_folder_and_then_the_reference_are_synced_in_this_order() {
    needs!("strace");
    let image = Image::new(vec![Layer::random(70, 5 * MIB), Layer::random(71, 1000)]);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let calls = "fsync,fdatasync,syncfs,rename,renameat,renameat2";
    let trace = Trace::attach(daemon.pid(), daemon.dir.path(), calls);
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    let tag = daemon.images().join("refs/docker.io/library/app/_tags/1");
    eventually("all is published", || {
        tag.exists() && image.blobs().all(|layer| daemon.blob(layer.hex()).exists())
    });
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_string();
    let tag = path(tag);
    eventually("the last folder is synced", || {
        let calls = trace.so_far();
        let renamed = calls.iter().position(|call| call.paths().last() == Some(&&*tag));
        renamed.is_some_and(|at| synced(&calls[at..], &tag[..tag.rfind('/').unwrap_or(0)]).next().is_some())
    });
    let calls = trace.finish();
    for layer in image.blobs() {
        published(&calls, &path(daemon.blob(layer.hex())));
    }
    let manifest = path(daemon.manifest(image.manifest.hex()));
    let (_, folder) = published(&calls, &manifest);
    let (reference, _) = published(&calls, &tag);
    assert!(folder.ended < reference.begun, "{reference:?} before {folder:?}");
}

/// The kernel tells of lost bytes once: to the sync in the middle of the download, and not to those at its end.
#[test]
fn a_blob_of_which_a_sync_failed_is_not_kept() {
    needs!("strace");
    let image = Image::of_size(71, 80 * MIB);
    let layer = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let trace = Trace::failing(daemon.pid(), daemon.dir.path(), "fdatasync");
    upstream.hold(&layer.digest, 70 * MIB);
    thread::scope(|scope| {
        let got = scope.spawn(|| daemon.get(&blob(&layer.digest)));
        eventually("it has come so far", || upstream.sent(&layer.digest) == 70 * MIB);
        // What comes fast is not synced before its end.
        thread::sleep(Duration::from_secs(3));
        upstream.release(&layer.digest);
        assert!(got.join().unwrap().is(200).body == layer.bytes());
    });
    eventually("it is given up", || list(&daemon.images().join("partial")).is_empty());
    let calls = trace.finish();
    assert!(calls.iter().any(|call| call.name == "fdatasync"), "{calls:?}");
    assert!(!daemon.blob(layer.hex()).exists());
    assert!(daemon.log().contains("cannot sync"), "{}", daemon.log());
    assert!(daemon.get(&blob(&layer.digest)).is(200).body == layer.bytes());
    eventually("it is kept", || daemon.blob(layer.hex()).exists());
    daemon.proven();
}
