//! Death at any moment, and the order of syncs that makes it harmless.

mod support;

use std::thread;
use std::time::{Duration, SystemTime};

use support::client::{End, get};
use support::daemon::Daemon;
use support::layout::*;
use support::process::eventually;
use support::trace::{Call, Trace};
use support::upstream::Upstream;

/// A different image each round: a large layer, and enough small ones to be killed between.
fn image(round: u64) -> Image {
    let mut layers: Vec<Layer> = (1..=20).map(|n| Layer::random(round * 100 + n, 20_000 * n)).collect();
    layers.push(Layer::random(round * 100, 24 * MIB));
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

#[test]
fn killed_at_twenty_moments_of_a_download_nothing_wrong_is_kept() {
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let random = Blob::random(seed, 1000).bytes();
    let mut layout = Layout::new();
    let images: Vec<Image> = (0..20).map(image).collect();
    for (round, image) in images.iter().enumerate() {
        layout.add("library/app", &round.to_string(), image);
    }
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::of(&upstream);
    let mut cut = 0;
    for (round, image) in images.iter().enumerate() {
        let large = image.layers.last().unwrap();
        let chance = u64::from(u16::from_le_bytes([random[2 * round], random[2 * round + 1]]));
        let held = 1 + large.size() * chance / 65536;
        thread::scope(|scope| {
            if round % 2 == 0 {
                // in the middle of the large layer, for certain
                upstream.hold(&large.digest, held);
            }
            let pulled = {
                let daemon = &daemon;
                scope.spawn(move || pull(daemon, image, round as u64))
            };
            if round % 2 == 0 {
                eventually("it has come so far", || upstream.sent(&large.digest) == held);
            } else {
                // wherever it happens to be by then: publishing, for the most part
                thread::sleep(Duration::from_millis(5 + chance % 300));
            }
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(daemon.pid() as i32),
                nix::sys::signal::SIGKILL,
            )
            .unwrap();
            upstream.release(&large.digest);
            if !pulled.join().unwrap() {
                cut += 1;
            }
        });
        daemon.kill();
        daemon.proven();
        daemon.start();
        let target = format!("/v2/library/app/manifests/{round}?ns=docker.io");
        assert_eq!(daemon.get(&target).is(200).body, *image.manifest.bytes);
        for layer in image.blobs() {
            assert!(daemon.get(&blob(&layer.digest)).is(200).body == layer.bytes(), "round {round}");
        }
    }
    assert!(cut >= 10, "only {cut} pulls were cut");
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
    thread::sleep(Duration::from_millis(500)); // the sync of the last folder
    let calls = trace.finish();
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_string();
    for layer in image.blobs() {
        published(&calls, &path(daemon.blob(layer.hex())));
    }
    let (manifest, tag) = (path(daemon.manifest(image.manifest.hex())), path(tag));
    let (_, folder) = published(&calls, &manifest);
    let (reference, _) = published(&calls, &tag);
    assert!(folder.ended < reference.begun, "{reference:?} before {folder:?}");
}
