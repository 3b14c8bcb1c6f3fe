//! A disk that takes nothing more: every client gets the right bytes all the same.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use support::client::{End, get};
use support::daemon::{Daemon, list};
use support::failing::FailingFile;
use support::layout::*;
use support::multipart;
use support::process::{eventually, succeed};
use support::upstream::{Fault, Upstream};

const CLIENTS: usize = 10;

/// A file system of 64 MiB in a file, mounted until dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mounted(make: &[&str], options: &str, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let image = at.with_extension("disk");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let mut mkfs = Command::new(make[0]);
        mkfs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(&make[1..]).arg(&image);
        succeed(mkfs);
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(&image).arg(at);
        succeed(mount);
        Self { at: at.to_owned() }
    }

    /// What `/sys/fs/ext4` calls it.
    fn device(&self) -> String {
        let mut findmnt = Command::new("findmnt");
        findmnt.args(["-n", "-o", "SOURCE"]).arg(&self.at);
        succeed(findmnt).trim().trim_start_matches("/dev/").to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F"];
/// Space cannot be reserved on it: it fills up in the middle of a layer.
const EXT4_WITHOUT_EXTENTS: &[&str] = &["mkfs.ext4", "-q", "-F", "-O", "^extent,^64bit"];
const XFS: &[&str] = &["mkfs.xfs", "-q", "-f", "--unsupported"];

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
    let image = Image::of_size(9, size);
    let mut layout = Layout::of("library/app", "1", &image);
    layout.add("library/small", "1", &Image::small(10));
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::with("prefetch = \"none\"\npull_timeout = \"5s\"\n", &upstream);
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

impl Scene {
    fn layer(&self) -> &Blob {
        &self.image.layers[0]
    }

    /// Ten clients are served the first bytes of the layer, then `strike` falls, and each gets the rest; those that
    /// are `resuming` perhaps in a second answer, as containerd, podman and docker ask for it.
    fn pulled_through(&self, resuming: bool, strike: impl FnOnce(&Self) + Send) {
        let (layer, held) = (self.layer(), 20 * MIB);
        self.daemon.get(self.manifest).is(200);
        self.upstream.hold(&layer.digest, held);
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
                    let mut rest = stream.whole();
                    if resuming && rest.end == End::Short {
                        let at = MIB + rest.body.len() as u64;
                        let resumed = self.daemon.send(get(&self.target).range(&format!("bytes={at}-")));
                        rest.body.extend(&resumed.body);
                        rest.end = resumed.end;
                    }
                    assert_eq!(rest.end, End::Whole, "client {client}");
                    assert!(rest.body == layer.slice(MIB, layer.size() - MIB), "client {client}");
                });
            }
            begun.wait();
            strike(self);
            struck.wait();
            self.upstream.release(&layer.digest);
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

    fn count(&self, text: &str) -> usize {
        self.daemon.log().matches(text).count()
    }
}

/// The layer does not fit: it passes, nothing of it stays, and what fits is kept.
fn passes_what_does_not_fit(scene: &Scene) {
    scene.pulled_through(false, |_| ());
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
    let scene = on(EXT4_WITHOUT_EXTENTS, "loop", 100 * MIB);
    scene.pulled_through(false, |scene| {
        let partial = scene.daemon.images().join("partial").join(scene.layer().hex());
        assert!(partial.exists(), "nothing was written before it was full");
    });
    assert_eq!(scene.count("the disk is full"), 1, "{}", scene.daemon.log());
    assert_eq!(list(&scene.daemon.images().join("blobs")), Vec::<String>::new());
    scene.recovers();
}

#[test]
fn a_file_system_that_turns_read_only_is_invisible() {
    needs!("mkfs.ext4", "mount");
    let scene = on(EXT4, "loop,errors=remount-ro", 40 * MIB);
    let mut ahead = None;
    scene.pulled_through(false, |scene| {
        get(&scene.target).open(scene.daemon.addr).read_to(15 * MIB);
        // waits for bytes that the disk will never have
        let from = format!("bytes={}-", 22 * MIB);
        ahead = Some(get(&scene.target).range(&from).open(scene.daemon.addr));
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", scene.disk.device());
        std::fs::write(trigger, "a test").unwrap();
    });
    let ahead = ahead.unwrap().whole().is(206);
    assert!(ahead.body == scene.layer().slice(22 * MIB, 18 * MIB));
    assert_eq!(scene.count("the disk is read-only"), 1, "{}", scene.daemon.log());
    let status = scene.daemon.run(&["status"]);
    assert!(
        String::from_utf8_lossy(&status.stdout).contains("nothing is kept, it is read-only"),
        "{status:?}"
    );
    // What is new passes too.
    assert!(scene.daemon.get("/v2/library/small/manifests/1?ns=docker.io").is(200).end == End::Whole);
    let small = Image::small(10).layers[0].clone();
    let target = format!("/v2/library/small/blobs/{}?ns=docker.io", small.digest);
    assert!(scene.daemon.get(&target).is(200).body == small.bytes());
}

#[test]
fn a_disk_that_fails_is_invisible_to_a_client_that_resumes() {
    needs!("mkfs.xfs", "xfs_io", "mount");
    let scene = on(XFS, "loop", 30 * MIB);
    scene.pulled_through(true, |scene| {
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
