//! What a disk did not take is not in the cache, whatever memory has of it; and what it does not give is had elsewhere.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use support::cache::{blob, err, manifest, out, published, pull, ran};
use support::client::{Stream, get};
use support::daemon::{Daemon, list};
use support::disk::{Disk, EXT4, XFS};
use support::failing::FailingFile;
use support::layout::*;
use support::process::{eventually, free_port, succeed};
use support::upstream::Upstream;

/// A daemon on a small disk that looks for nothing on its own.
struct Scene {
    upstream: Upstream,
    daemon: Daemon,
    disk: Disk,
}

/// `keys` stand at the top of the configuration.
fn on(options: &str, keys: &str, layout: Layout) -> Scene {
    on_a(EXT4, options, keys, layout)
}

fn on_a(make: &[&str], options: &str, keys: &str, layout: Layout) -> Scene {
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::with(&format!("prefetch = \"none\"\n{keys}"), &upstream);
    daemon.terminate();
    fs::remove_dir_all(daemon.images()).unwrap();
    let disk = Disk::mounted(make, options, &daemon.images());
    let _ = fs::remove_dir(daemon.images().join("lost+found"));
    daemon.start();
    Scene { upstream, daemon, disk }
}

impl Scene {
    /// Another program takes all the space that is left, until the file is removed.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.disk.at.join("filler");
        let mut filler = File::options().append(true).create(true).open(&path).unwrap();
        for piece in [vec![1; 1 << 20], vec![1; 512]] {
            while filler.write_all(&piece).is_ok() {}
        }
        let _ = filler.sync_all();
        path
    }

    fn logged(&self, text: &str) -> bool {
        self.daemon.log().contains(text)
    }

    /// As health tells it, on this port.
    fn health(port: u16) -> String {
        get("/health").send(SocketAddr::from(([127, 0, 0, 1], port))).is(200).text()
    }

    /// What is new is served, and kept or not.
    fn pulls(&self, name: &str, image: &Image, kept: bool) {
        pull(&self.daemon, name, image);
        if kept {
            published(&self.daemon, image);
        }
        assert!(image.blobs().all(|blob| self.daemon.blob(blob.hex()).exists() == kept));
    }

    fn status(&self) -> String {
        out(&self.daemon.run(&["status"]))
    }
}

#[test]
fn a_manifest_that_found_no_room_is_kept_when_there_is_some() {
    needs!("mkfs.ext4", "mount");
    let image = Image::small(1);
    let scene = on("loop", "tag_ttl = \"1s\"", Layout::of("library/app", "1", &image));
    let daemon = &scene.daemon;
    let filler = scene.fill();
    daemon.get(&manifest("library/app")).is(200);
    eventually("there is no room", || scene.logged("the disk is full"));
    // Upstream is not asked for it again and again meanwhile.
    daemon.get(&manifest("library/app")).is(200);
    assert_eq!(scene.upstream.count("GET", "/manifests/"), 1);
    assert_eq!(list(&daemon.images().join("img")), Vec::<String>::new());
    assert!(!daemon.images().join("refs/docker.io").exists());
    fs::remove_file(filler).unwrap();
    eventually("there is room again", || scene.logged("the disk is no longer full"));
    eventually("it is kept", || daemon.manifest(image.manifest.hex()).exists());
    pull(daemon, "library/app", &image);
    published(daemon, &image);
    assert!(ran(daemon, &["check"]).contains("nothing wrong"));
    let listed = ran(daemon, &["list"]);
    assert!(listed.starts_with("docker.io/library/app "), "{listed}");
    assert!(ran(daemon, &["prune", "--blobs"]).starts_with("0 images went with 0 manifests and 0 blobs"));
}

#[test]
fn a_pull_says_that_an_image_is_not_kept() {
    needs!("mkfs.ext4", "mount");
    let image = Image::small(1);
    let text = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let mut layout = Layout::of("library/app", "1", &image);
    layout.add_manifest("library/twin", "1", &Manifest::new(OCI_MANIFEST, format!("{text} ")));
    layout.add("library/other", "1", &Image::small(2));
    let scene = on("loop,errors=remount-ro", "", layout);
    let daemon = &scene.daemon;
    assert!(ran(daemon, &["pull", "app:1"]).ends_with(" fetched\n"));
    scene.disk.turn_read_only();
    for name in ["twin:1", "twin:1", "other:1"] {
        let failed = daemon.run(&["pull", name]);
        assert_eq!(failed.status.code(), Some(1), "{}", out(&failed));
        assert!(err(&failed).contains("Read-only file system"), "{}", err(&failed));
    }
    assert!(ran(daemon, &["pull", "app:1"]).ends_with(", here already\n"));
    assert_eq!(list(&daemon.images().join("refs/docker.io/library")), ["app"]);
}

#[test]
fn a_blob_that_cannot_be_read_nor_put_aside_comes_from_upstream() {
    needs!("mkfs.ext4", "mount");
    if !Path::new("/dev/fuse").exists() {
        return support::skip::report(
            "a_blob_that_cannot_be_read_nor_put_aside_comes_from_upstream",
            "no /dev/fuse",
        );
    }
    let image = Image::of_size(9, 8 * MIB);
    let layer = &image.layers[0];
    let scene = on("loop,errors=remount-ro", "", Layout::of("library/app", "1", &image));
    let daemon = &scene.daemon;
    pull(daemon, "library/app", &image);
    published(daemon, &image);
    let failing = FailingFile::of(layer, 3 * MIB);
    failing.replace(&daemon.blob(layer.hex()));
    scene.disk.turn_read_only();
    for _ in 0..2 {
        assert!(daemon.get(&blob("library/app", &layer.digest)).is(200).body == layer.bytes());
    }
    let part = daemon.send(get(&blob("library/app", &layer.digest)).range("bytes=5000000-5000009")).is(206);
    assert!(part.body == layer.slice(5_000_000, 10));
    assert_eq!(daemon.log().matches("a blob broke off while it was sent").count(), 1, "{}", daemon.log());
    assert!(scene.status().contains("THE DISK IS READ-ONLY since"), "{}", scene.status());
    drop(failing);
}

/// A file that nobody can remove, until dropped.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn made(path: &'a Path) -> Self {
        let mut chattr = Command::new("chattr");
        chattr.arg("+i").arg(path);
        succeed(chattr);
        Self(path)
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(self.0).status();
    }
}

#[test]
fn a_file_that_cannot_be_removed_keeps_no_other() {
    needs!("mkfs.ext4", "mount", "chattr");
    let images: Vec<Image> = (1..=4).map(Image::small).collect();
    let names = ["library/a", "library/b", "library/c", "library/named"];
    let mut layout = Layout::new();
    for (name, image) in names.iter().zip(&images) {
        layout.add(name, "1", image);
    }
    let scene = on("loop", "", layout);
    let daemon = &scene.daemon;
    for (name, image) in names.iter().zip(&images) {
        pull(daemon, name, image);
        published(daemon, image);
    }
    let (stuck, named) = (&images[1].layers[0], &images[3]);
    let path = daemon.blob(stuck.hex());
    let tag = daemon.images().join("refs/docker.io/library/named/_tags/1");
    let immutable = [Immutable::made(&path), Immutable::made(&tag)];
    let pruned = daemon.run(&["prune", "--pattern", "."]);
    assert_eq!(pruned.status.code(), Some(1), "{}", out(&pruned));
    assert!(out(&pruned).contains("3 images went with 3 manifests"), "{}", out(&pruned));
    assert!(err(&pruned).contains("2 files stay; the first: cannot remove"), "{}", err(&pruned));
    let mut left = list(&daemon.images().join("blobs"));
    let mut expected: Vec<_> = named.blobs().chain([stuck]).map(|blob| blob.hex().to_owned()).collect();
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    // What a name leads to that could not be removed has stayed with it.
    scene.upstream.forget();
    pull(daemon, "library/named", named);
    assert!(scene.upstream.seen().is_empty(), "{:?}", scene.upstream.seen());
    // What did not come back is not counted on again.
    let again = ran(daemon, &["prune", "--keep-size", "1kB", "--dry-run"]);
    assert!(again.contains("1 image would go with 1 manifest and 2 blobs"), "{again}");
    drop(immutable);
    assert!(ran(daemon, &["prune", "--pattern", "."]).contains("1 image went with 1 manifest and 3 blobs"));
    daemon.proven();
}

#[test]
fn clients_that_take_nothing_keep_no_other_from_its_bytes() {
    needs!("mkfs.ext4", "mount");
    let image = Image::of_size(9, 100 * MIB);
    let scene = on("loop", "", Layout::of("library/app", "1", &image));
    let target = blob("library/app", &image.layers[0].digest);
    scene.daemon.get(&manifest("library/app")).is(200);
    let idle: Vec<Stream> = (0..16)
        .map(|_| {
            let mut stream = get(&target).open(scene.daemon.addr);
            assert_eq!(stream.read_to(1).len(), 1);
            stream
        })
        .collect();
    assert!(scene.daemon.get(&target).is(200).body == image.layers[0].bytes());
    assert!(scene.logged("others waited for its place"), "{}", scene.daemon.log());
    drop(idle);
}

fn images(count: u64) -> (Vec<(String, Image)>, Layout) {
    let images: Vec<_> = (1..=count).map(|n| (format!("library/app-{n}"), Image::small(n))).collect();
    let mut layout = Layout::new();
    images.iter().for_each(|(name, image)| layout.add(name, "1", image));
    (images, layout)
}

#[test]
fn a_read_only_disk_is_served_from_and_all_is_kept_when_it_can_be_written_to() {
    needs!("mkfs.ext4", "mount");
    let (images, layout) = images(4);
    let pulls = |scene: &Scene, n: usize, kept| scene.pulls(&images[n].0, &images[n].1, kept);
    let port = free_port();
    let mut scene = on("loop", &format!("health = {port}"), layout);
    let remount = |scene: &Scene, how: &str| {
        // What was written just now may still be open for a moment.
        eventually("it is mounted anew", || {
            let mut mount = Command::new("mount");
            mount.args(["-o", &format!("remount,{how}")]).arg(&scene.disk.at);
            mount.stderr(Stdio::null()).status().unwrap().success()
        });
    };
    pulls(&scene, 0, true);
    assert!(scene.daemon.terminate().success());
    remount(&scene, "ro");
    scene.daemon.start();
    eventually("the log has it", || scene.logged("the disk is read-only"));
    assert!(Scene::health(port).contains("degraded"), "{}", Scene::health(port));
    scene.upstream.forget();
    pulls(&scene, 0, true);
    assert!(!scene.upstream.seen().iter().any(|seen| seen.method == "GET"), "{:?}", scene.upstream.seen());
    pulls(&scene, 1, false);
    remount(&scene, "rw");
    eventually("the log has the end", || scene.logged("the disk is no longer read-only"));
    assert!(Scene::health(port).contains("\"ok\""), "{}", Scene::health(port));
    eventually("what waited is kept", || scene.daemon.manifest(images[1].1.manifest.hex()).exists());
    pulls(&scene, 2, true);
    // And once more, under its feet.
    remount(&scene, "ro");
    pulls(&scene, 3, false);
    eventually("it is told again", || scene.daemon.log().matches("the disk is read-only").count() == 2);
    remount(&scene, "rw");
    scene.daemon.proven();
}

#[test]
fn a_disk_that_failed_is_used_again_when_it_is_back() {
    needs!("mkfs.xfs", "xfs_io", "mount");
    let (images, layout) = images(2);
    let port = free_port();
    let scene = on_a(XFS, "loop", &format!("health = {port}"), layout);
    scene.pulls(&images[0].0, &images[0].1, true);
    let mut shutdown = Command::new("xfs_io");
    shutdown.args(["-x", "-c", "shutdown"]).arg(&scene.disk.at);
    succeed(shutdown);
    pull(&scene.daemon, &images[1].0, &images[1].1);
    eventually("the log has it", || scene.logged("the disk is failing"));
    assert!(Scene::health(port).contains("degraded"), "{}", Scene::health(port));
    scene.disk.mount_again();
    eventually("the log has the end", || scene.logged("the disk is no longer failing"));
    assert_eq!(scene.daemon.log().matches("the disk is failing").count(), 1, "{}", scene.daemon.log());
    assert!(Scene::health(port).contains("\"ok\""), "{}", Scene::health(port));
    pull(&scene.daemon, &images[1].0, &images[1].1);
    let last = scene.daemon.manifest(images[1].1.manifest.hex());
    eventually("what waited is kept", || last.exists());
    eventually("what is new is kept", || {
        images[1].1.blobs().all(|blob| scene.daemon.blob(blob.hex()).exists())
    });
    scene.daemon.proven();
}
