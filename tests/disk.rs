//! A disk that takes nothing more: every client gets the right bytes all the same.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::fcntl::{FallocateFlags, fallocate};
use support::cache::{pull, ran};
use support::client::{End, get};
use support::daemon::{Daemon, list};
use support::disk::{Disk, EXT4, EXT4_WITHOUT_EXTENTS, XFS};
use support::failing::FailingFile;
use support::layout::*;
use support::multipart;
use support::process::{eventually, free_port, succeed};
use support::upstream::{Fault, Upstream};

const CLIENTS: usize = 10;

/// Other images upstream.
const OLDER: [(&str, u64, u64); 3] =
    [("library/older", 11, 12 * MIB), ("library/old", 12, 12 * MIB), ("library/used", 13, 6 * MIB)];

/// One large layer upstream, and a daemon on a small disk that looks for nothing on its own.
struct Scene {
    image: Image,
    manifest: &'static str,
    target: String,
    upstream: Upstream,
    disk: Disk,
    daemon: Daemon,
}

fn on(make: &[&str], options: &str, size: u64) -> Scene {
    with("", make, options, size)
}

/// The same with more `keys` in the configuration.
fn with(keys: &str, make: &[&str], options: &str, size: u64) -> Scene {
    let image = Image::of_size(9, size);
    let mut layout = Layout::of("library/app", "1", &image);
    layout.add("library/small", "1", &Image::small(10));
    for (name, seed, size) in OLDER {
        layout.add(name, "1", &Image::of_size(seed, size));
    }
    let upstream = Upstream::start(layout);
    let keys = format!("prefetch = \"none\"\n{keys}\n");
    let mut daemon = Daemon::with(&keys, &upstream);
    daemon.terminate();
    std::fs::remove_dir_all(daemon.images()).unwrap();
    let disk = Disk::mounted(make, options, &daemon.images());
    let lost = daemon.images().join("lost+found");
    if lost.exists() {
        std::fs::remove_dir(lost).unwrap();
    }
    daemon.start();
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", image.layers[0].digest);
    Scene { image, manifest: "/v2/library/app/manifests/1?ns=docker.io", target, upstream, disk, daemon }
}

/// Bytes of the layer that upstream gives before the strike.
const HELD: u64 = 20 * MIB;

impl Scene {
    fn layer(&self) -> &Blob {
        &self.image.layers[0]
    }

    /// Ten clients are served the first bytes of the layer, then `strike` falls, and each gets the rest.
    fn pulled_through(&self, strike: impl FnOnce(&Self) + Send) {
        let layer = self.layer();
        self.daemon.get(self.manifest).is(200);
        self.upstream.hold(&layer.digest, HELD);
        let (begun, struck) = (Barrier::new(CLIENTS + 1), Barrier::new(CLIENTS + 1));
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (begun, struck) = (&begun, &struck);
                scope.spawn(move || {
                    let mut stream = get(&self.target).open(self.daemon.addr);
                    assert_eq!(stream.head.status, 200);
                    assert!(stream.read_to(MIB) == layer.slice(0, MIB), "client {client}");
                    begun.wait();
                    struck.wait();
                    let rest = stream.whole();
                    assert_eq!(rest.end, End::Whole, "client {client}\n{}", self.daemon.log());
                    assert!(rest.body == layer.slice(MIB, layer.size() - MIB), "client {client}");
                });
            }
            begun.wait();
            // Those who wait go on whatever becomes of it.
            let result = catch_unwind(AssertUnwindSafe(|| strike(self)));
            struck.wait();
            self.upstream.release(&layer.digest);
            result.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }

    /// The disk is whole, and what fits is kept again.
    fn recovers(&self) {
        eventually("the end is in the log", || self.count("the disk is no longer") == 1);
        self.daemon.get("/v2/library/small/manifests/1?ns=docker.io").is(200);
        let small = Image::small(10).layers[0].clone();
        let target = format!("/v2/library/small/blobs/{}?ns=docker.io", small.digest);
        assert!(self.daemon.get(&target).is(200).body == small.bytes());
        eventually("the small image is kept", || self.daemon.blob(small.hex()).exists());
        self.daemon.proven();
    }

    fn filler(&self) -> PathBuf {
        self.disk.at.join("filler")
    }

    /// Another program takes all the space that is left.
    fn fill(&self) {
        let mut filler = File::options().append(true).create(true).open(self.filler()).unwrap();
        for piece in [vec![1; 1 << 20], vec![1; 512]] {
            while filler.write_all(&piece).is_ok() {}
        }
        let _ = filler.sync_all();
    }

    fn count(&self, text: &str) -> usize {
        self.daemon.log().matches(text).count()
    }
}

/// The layer does not fit: it passes, nothing of it stays, and what fits is kept.
fn passes_what_does_not_fit(scene: &Scene) {
    scene.pulled_through(|_| ());
    assert_eq!(scene.count("the disk is full"), 1, "{}", scene.daemon.log());
    assert_eq!(list(&scene.daemon.images().join("blobs")), Vec::<String>::new());
    scene.recovers();
    // A second pull of it is as right as the first, in parts too.
    let (layer, size) = (scene.layer(), scene.layer().size());
    for (range, first, length) in
        [("bytes=5-9", 5, 5), ("bytes=-7", size - 7, 7), ("bytes=50000000-50000009", 50_000_000, 10)]
    {
        let part = scene.daemon.send(get(&scene.target).range(range)).is(206);
        assert!(part.body == layer.slice(first, length), "{range}");
    }
    let parts = scene.daemon.send(get(&scene.target).range("bytes=50000000-50000009,-7,5-9")).is(206);
    let parts = multipart::read(parts.header("content-type").unwrap(), &parts.body).unwrap();
    for (part, (first, length)) in parts.iter().zip([(50_000_000, 10), (size - 7, 7), (5, 5)]) {
        assert!(part.body == layer.slice(first, length), "{first}");
    }
    assert_eq!(parts.len(), 3);
    assert!(scene.daemon.get(&scene.target).is(200).body == layer.bytes());
}

#[test]
fn a_layer_larger_than_the_disk_passes_on_ext4() {
    needs!("mkfs.ext4", "mount");
    passes_what_does_not_fit(&on(EXT4, "loop", 100 * MIB));
}

#[test]
fn a_layer_larger_than_the_disk_passes_on_xfs() {
    needs!("mkfs.xfs", "mount");
    passes_what_does_not_fit(&on(XFS, "loop", 100 * MIB));
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_layer_is_invisible() {
    needs!("mkfs.ext4", "mount");
    let scene = on(EXT4_WITHOUT_EXTENTS, "loop", 40 * MIB);
    scene.pulled_through(|scene| {
        let partial = scene.daemon.images().join("partial").join(scene.layer().hex());
        assert!(partial.exists(), "nothing was written before it was full");
        scene.fill();
    });
    assert_eq!(scene.count("the disk is full"), 1, "{}", scene.daemon.log());
    assert_eq!(list(&scene.daemon.images().join("blobs")), Vec::<String>::new());
    std::fs::remove_file(scene.filler()).unwrap();
    scene.recovers();
}

#[test]
fn a_layer_has_its_space_though_the_disk_fills_up_meanwhile() {
    needs!("mkfs.ext4", "mkfs.xfs", "mount");
    for make in [EXT4, XFS] {
        let scene = on(make, "loop", 30 * MIB);
        scene.pulled_through(Scene::fill);
        assert_eq!(scene.upstream.count("GET", &scene.layer().digest), 1, "{}", scene.daemon.log());
        eventually("it is kept", || scene.daemon.blob(scene.layer().hex()).exists());
        scene.daemon.proven();
    }
}

impl Scene {
    /// The images of [`OLDER`] are there, and were used so many seconds ago.
    fn holding(&mut self, unused: [u64; 3]) -> [Image; 3] {
        let images = OLDER.map(|(name, seed, size)| {
            let image = Image::of_size(seed, size);
            self.daemon.get(&format!("/v2/{name}/manifests/1?ns=docker.io")).is(200);
            for blob in image.blobs() {
                self.daemon.get(&format!("/v2/{name}/blobs/{}?ns=docker.io", blob.digest)).is(200);
            }
            image
        });
        // It writes down when they were used.
        self.daemon.restart();
        for ((name, ..), (image, unused)) in OLDER.iter().zip(images.iter().zip(unused)) {
            assert!(self.has(image));
            let references = self.daemon.images().join("refs/docker.io").join(name);
            let by_digest = references.join("_manifests").join(image.manifest.hex());
            let time = SystemTime::now() - Duration::from_secs(unused);
            for file in [references.join("_tags/1"), by_digest, self.daemon.manifest(image.manifest.hex())] {
                File::open(file).unwrap().set_modified(time).unwrap();
            }
        }
        images
    }

    fn has(&self, image: &Image) -> bool {
        image.blobs().all(|blob| self.daemon.blob(blob.hex()).exists())
    }

    /// When the last reader of what went has gone. A client that came late enough had it kept already.
    fn has_room_for_the_layer(&self) {
        let layer = self.layer();
        let kept = || self.daemon.blob(layer.hex()).exists();
        eventually("the space is back", || kept() || self.free() > layer.size() + MIB);
    }

    fn free(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(&self.disk.at).unwrap();
        found.blocks_available() * found.fragment_size()
    }
}

const HOUR: u64 = 60 * 60;

#[test]
fn a_disk_that_fills_up_loses_what_was_not_used_for_longest_and_keeps_what_comes_next() {
    needs!("mkfs.ext4", "mount");
    let port = free_port();
    let mut scene = with(&format!("health = {port}"), EXT4_WITHOUT_EXTENTS, "loop", 40 * MIB);
    let [older, old, used] = scene.holding([50 * HOUR, 40 * HOUR, 0]);
    let scene = scene;
    let health = || get("/health").send(SocketAddr::from(([127, 0, 0, 1], port))).is(200).text();
    assert!(health().contains("\"ok\""), "{}", health());
    let said = |what: &dyn Fn() -> bool| {
        while !what() {
            thread::sleep(Duration::from_millis(20));
            if scene.count("the disk is no longer full") > 0 {
                return what();
            }
        }
        true
    };
    thread::scope(|scope| {
        let status = scope.spawn(|| {
            said(&|| {
                let status = scene.daemon.run(&["status"]);
                String::from_utf8(status.stdout).unwrap().contains("THE DISK IS FULL since ")
            })
        });
        let health = scope.spawn(|| said(&|| health().contains("degraded")));
        scene.pulled_through(|_| ());
        assert!(status.join().unwrap() && health.join().unwrap(), "{}", scene.daemon.log());
    });
    eventually("room was made", || !scene.has(&older) && !scene.has(&old));
    assert!(scene.has(&used), "what was used within the hour went");
    scene.has_room_for_the_layer();
    assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
    eventually("it is kept", || scene.daemon.blob(scene.layer().hex()).exists());
    scene.upstream.forget();
    assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
    assert_eq!(scene.upstream.seen().len(), 0);
    eventually("the end is in the log", || scene.count("the disk is no longer full") == 1);
    assert_eq!(scene.count("the disk is full"), 1, "{}", scene.daemon.log());
    assert_eq!(scene.count("made room on the full disk: pruned 2 images"), 1, "{}", scene.daemon.log());
    assert!(health().contains("\"ok\""), "{}", health());
    let status = String::from_utf8(scene.daemon.run(&["status"]).stdout).unwrap();
    assert!(!status.contains("THE DISK IS") && status.contains("removed 2 images"), "{status}");
    scene.daemon.proven();
}

#[test]
fn what_was_used_within_the_hour_goes_when_there_is_no_other_room() {
    needs!("mkfs.ext4", "mount");
    let mut scene = on(EXT4, "loop", 42 * MIB);
    let [older, old, used] = scene.holding([2 * HOUR, 900, 0]);
    scene.daemon.get(scene.manifest).is(200);
    assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
    eventually("room was made", || !scene.has(&older) && !scene.has(&old));
    assert!(scene.has(&used), "more went than had to");
    scene.daemon.get(&scene.target).is(200);
    eventually("it is kept", || scene.daemon.blob(scene.layer().hex()).exists());
}

#[test]
fn nothing_goes_for_what_fits_on_no_disk_nor_where_pruning_is_off() {
    needs!("mkfs.ext4", "mount");
    let off = "\n[prune]\nenabled = false\n";
    for (keys, size) in [("", 100 * MIB), (off, 45 * MIB)] {
        let mut scene = on(EXT4, "loop", size);
        if !keys.is_empty() {
            let text = std::fs::read_to_string(scene.daemon.file()).unwrap();
            std::fs::write(scene.daemon.file(), text.replace("\n[prune]\nmin_free = \"0%\"\n", keys))
                .unwrap();
        }
        let images = scene.holding([50 * HOUR; 3]);
        assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
        eventually("it is tried", || scene.count("bytes would have to come back from the full disk") == 1);
        assert!(images.iter().all(|image| scene.has(image)));
    }
}

#[test]
fn a_full_disk_keeps_no_daemon_from_starting() {
    let mut scene = on(EXT4, "loop", MIB);
    for emptied in [false, true] {
        assert!(scene.daemon.terminate().success());
        let lock = scene.daemon.images().join("lock");
        if emptied {
            File::options().write(true).open(&lock).unwrap().set_len(0).unwrap();
        }
        scene.fill();
        scene.daemon.start();
        scene.daemon.get(scene.manifest).is(200);
        let holder = std::fs::read_to_string(&lock).unwrap();
        // Its block was kept; where there is none, nobody is named.
        assert!(holder.starts_with(&scene.daemon.pid().to_string()) != emptied, "{holder}");
    }
}

#[test]
fn a_file_system_that_turns_read_only_is_invisible() {
    needs!("mkfs.ext4", "mount");
    let scene = on(EXT4, "loop,errors=remount-ro", 40 * MIB);
    let mut ahead = None;
    scene.pulled_through(|scene| {
        get(&scene.target).open(scene.daemon.addr).read_to(15 * MIB);
        // waits for bytes that the disk will never have
        let from = format!("bytes={}-", 22 * MIB);
        ahead = Some(get(&scene.target).range(&from).open(scene.daemon.addr));
        scene.disk.turn_read_only();
    });
    let ahead = ahead.unwrap().whole().is(206);
    assert!(ahead.body == scene.layer().slice(22 * MIB, 18 * MIB));
    assert_eq!(scene.count("the disk is read-only"), 1, "{}", scene.daemon.log());
    let status = scene.daemon.run(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("THE DISK IS READ-ONLY since"), "{status:?}");
    // What is new passes too.
    assert!(scene.daemon.get("/v2/library/small/manifests/1?ns=docker.io").is(200).end == End::Whole);
    let small = Image::small(10).layers[0].clone();
    let target = format!("/v2/library/small/blobs/{}?ns=docker.io", small.digest);
    assert!(scene.daemon.get(&target).is(200).body == small.bytes());
}

#[test]
fn a_disk_that_fails_is_invisible() {
    needs!("mkfs.xfs", "xfs_io", "mount");
    let scene = on(XFS, "loop", 30 * MIB);
    scene.pulled_through(|scene| {
        let mut shutdown = Command::new("xfs_io");
        shutdown.args(["-x", "-c", "shutdown"]).arg(&scene.disk.at);
        succeed(shutdown);
    });
    assert_eq!(scene.count("the disk is failing"), 1, "{}", scene.daemon.log());
    assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
}

#[test]
fn past_a_full_disk_a_wrong_blob_never_ends() {
    needs!("mkfs.ext4", "mount");
    let scene = on(EXT4, "loop", 100 * MIB);
    let size = scene.layer().size();
    scene.daemon.get(scene.manifest).is(200);
    scene.upstream.fault(&scene.layer().digest, .., Fault::Flip(size / 2));
    for request in [get(&scene.target), get(&scene.target).range("bytes=-10")] {
        let got = scene.daemon.send(request);
        assert_eq!(got.end, End::Short);
    }
    scene.upstream.mend();
    assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
}

#[test]
fn more_clients_than_may_pass_at_once_are_served_in_turn() {
    needs!("mkfs.ext4", "mount");
    let scene = on(EXT4, "loop", 70 * MIB);
    scene.daemon.get(scene.manifest).is(200);
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let stream = get(&scene.target).open(scene.daemon.addr);
                let (digest, _, end) = stream.digest(sha2::Digest::new());
                assert_eq!((digest, end), (scene.layer().digest.clone(), End::Whole));
            });
        }
    });
}

#[test]
fn a_file_that_fails_in_its_middle_is_fetched_anew() {
    needs!("mount");
    if !Path::new("/dev/fuse").exists() {
        return support::skip::report("a_file_that_fails_in_its_middle_is_fetched_anew", "no /dev/fuse");
    }
    let image = Image::of_size(9, 8 * MIB);
    let blob = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
    daemon.get(&target).is(200);
    eventually("it is kept", || daemon.blob(blob.hex()).exists());
    // And memory has nothing more of it.
    ran(&daemon, &["list"]);
    let failing = FailingFile::of(blob, 3 * MIB);
    failing.replace(&daemon.blob(blob.hex()));
    upstream.forget();
    let got = daemon.get(&target);
    assert_eq!((got.status(), got.end), (200, End::Short));
    assert!(got.body == blob.slice(0, got.body.len() as u64));
    // As containerd, podman and docker go on.
    let rest = daemon.send(get(&target).range(&format!("bytes={}-", got.body.len()))).is(206);
    assert!([got.body, rest.body].concat() == blob.bytes());
    assert_eq!(upstream.count("GET", &blob.digest), 1);
    eventually("the good one is in its place", || {
        std::fs::symlink_metadata(daemon.blob(blob.hex())).is_ok_and(|found| found.is_file())
    });
    drop(failing);
    assert!(daemon.get(&target).is(200).body == blob.bytes());
}

impl Scene {
    /// Takes from the layer what was reserved for it and is not written yet: xfs would keep it to the end otherwise.
    fn unreserve(&self) {
        let partial = self.daemon.images().join("partial").join(self.layer().hex());
        let file = File::options().write(true).open(partial).unwrap();
        // What is written meanwhile would go as well.
        eventually("all that came is written", || file.metadata().unwrap().len() == HELD);
        let data = file.metadata().unwrap();
        assert!(data.blocks() * 512 > data.len() + 8 * MIB, "nothing was reserved");
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let from = data.len().next_multiple_of(4096);
        fallocate(&file, hole, from as i64, (self.layer().size() - from) as i64).unwrap();
        let left = file.metadata().unwrap().blocks() * 512;
        assert!(left < data.len() + MIB, "{left} bytes are still reserved");
    }
}

#[test]
fn on_xfs_too_a_disk_that_fills_up_in_the_middle_of_a_layer_is_invisible() {
    needs!("mkfs.xfs", "mount");
    let scene = on(XFS, "loop", 36 * MIB);
    scene.pulled_through(|scene| {
        let tag = scene.daemon.images().join("refs/docker.io/library/app/_tags/1");
        eventually("the manifest is kept", || tag.exists());
        scene.unreserve();
        scene.fill();
    });
    let said = scene.count("the disk is full: cannot write");
    assert_eq!(said, 1, "{}", scene.daemon.log());
    assert_eq!(list(&scene.daemon.images().join("blobs")), Vec::<String>::new());
    std::fs::remove_file(scene.filler()).unwrap();
    scene.recovers();
}

#[test]
fn a_full_xfs_loses_what_was_not_used_for_longest_too() {
    needs!("mkfs.xfs", "mount");
    let mut scene = on(XFS, "loop", 36 * MIB);
    let [older, old, used] = scene.holding([50 * HOUR, 40 * HOUR, 0]);
    scene.pulled_through(|_| ());
    eventually("room was made", || !scene.has(&older) && !scene.has(&old));
    assert!(scene.has(&used), "what was used within the hour went");
    assert_eq!(scene.count("made room on the full disk: pruned 2 images"), 1, "{}", scene.daemon.log());
    scene.has_room_for_the_layer();
    assert!(scene.daemon.get(&scene.target).is(200).body == scene.layer().bytes());
    eventually("it is kept", || scene.daemon.blob(scene.layer().hex()).exists());
    eventually("the end is in the log", || scene.count("the disk is no longer full") == 1);
    scene.daemon.proven();
}

/// Images of 4 MiB, twice as many as the disk has room for.
const STORM: u64 = 32;

/// Six clients pull all of them again and again, one behind the other, while the disk makes room for what they pull at
/// the expense of what nobody pulls at the moment; whatever they get is right.
fn stormed(make: &[&str]) {
    let mut scene = on(make, "loop", MIB);
    let images: Vec<Image> = (100..100 + STORM).map(|seed| Image::of_size(seed, 4 * MIB)).collect();
    for (number, image) in images.iter().enumerate() {
        scene.upstream.change(|layout| layout.add(&format!("storm/app-{number}"), "1", image));
    }
    let (over, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..6 {
            let (scene, images, over, pulls) = (&scene, &images, &over, &pulls);
            scope.spawn(move || {
                for (number, image) in images.iter().enumerate().cycle().skip(client) {
                    pull(&scene.daemon, &format!("storm/app-{number}"), image);
                    pulls.fetch_add(1, Relaxed);
                    if over.load(Relaxed) {
                        break;
                    }
                }
            });
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            eventually("room was made again and again", || {
                scene.count("made room on the full disk: pruned") >= 3
            })
        }));
        over.store(true, Relaxed);
        result.unwrap_or_else(|panic| {
            eprintln!("{}", scene.daemon.log());
            resume_unwind(panic)
        });
    });
    assert!(pulls.into_inner() as u64 > STORM);
    assert!(scene.count("the disk is full") >= 1, "{}", scene.daemon.log());
    assert!(scene.daemon.terminate().success());
    assert!(scene.daemon.proven().len() > 1, "nothing is kept");
    // What is kept serves, and the rest comes anew.
    scene.daemon.start();
    for (number, image) in images.iter().enumerate() {
        pull(&scene.daemon, &format!("storm/app-{number}"), image);
    }
}

#[test]
fn a_disk_that_is_too_small_for_a_storm_of_pulls_costs_none_of_them_a_byte() {
    needs!("mkfs.ext4", "mkfs.xfs", "mount");
    for make in [EXT4, EXT4_WITHOUT_EXTENTS, XFS] {
        stormed(make);
    }
}
