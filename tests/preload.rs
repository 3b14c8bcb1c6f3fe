//! Images that the configuration lists, fetched when the daemon starts.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::cache::{err, pull, ran};
use support::client::get;
use support::daemon::{BINARY, Daemon, entry};
use support::layout::*;
use support::process::{eventually, free_port, run};
use support::systemd::Manager;
use support::upstream::Upstream;

/// What it says is wrong.
#[track_caller]
fn fails(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", err(output));
    err(output)
}

/// Images `library/app-1:1` to `library/app-3:1`.
fn three(upstream: &Upstream) -> Vec<Image> {
    let images: Vec<Image> = (1..=3).map(|seed| Image::new(vec![Layer::random(seed, 2 * MIB)])).collect();
    for (number, image) in images.iter().enumerate() {
        upstream.change(|layout| layout.add(&format!("library/app-{}", number + 1), "1", image));
    }
    images
}

/// A daemon that is told to preload these images, with what `keys` say.
struct Preloading {
    daemon: Daemon,
    manager: Manager,
    health: SocketAddr,
}

impl Preloading {
    fn of(upstream: &Upstream, keys: &str, images: &str) -> Self {
        let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut daemon = Daemon::prepared("");
        let folder = daemon.dir.path().join("lists");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.list"), format!("# to have\n{images}\n")).unwrap();
        let pattern = folder.join("*.list").display().to_string();
        let keys = format!("preload_images = {pattern:?}\nhealth = {}\n{keys}", health.port());
        daemon.configure(&format!("{keys}\n{}", entry("docker.io", upstream)));
        let manager = Manager::listen(daemon.dir.path());
        let mut command = daemon.command();
        manager.manage(&mut command);
        daemon.start_by(command);
        Self { daemon, manager, health }
    }

    /// In order of their names.
    fn pinned(&self) -> Vec<String> {
        let bytes = fs::read(self.daemon.images().join("pins.json")).unwrap();
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        json["pins"].as_object().unwrap().keys().cloned().collect()
    }
}

#[test]
fn a_start_waits_for_what_is_preloaded_while_pulls_are_answered() {
    let upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    let layer = &images[0].layers[0];
    upstream.hold(&layer.digest, MIB);
    let mut it = Preloading::of(&upstream, "", "app-1:1\nmissing:1\napp-2:1");
    let first = it.manager.next();
    assert!(first[0].starts_with("STATUS=Preloading images: 0 of 3"), "{first:?}");
    assert!(first[1].starts_with("EXTEND_TIMEOUT_USEC="), "{first:?}");
    let daemon = &it.daemon;
    eventually("one is being fetched, two have ended", || {
        let log = daemon.log();
        upstream.sent(&layer.digest) == MIB
            && log.contains("preloaded \"docker.io/library/app-2:1\", 2.1 MB fetched")
            && log.contains("cannot preload \"docker.io/library/missing:1\"")
    });
    let answer = get("/health").send(it.health).is(503);
    assert!(answer.text().contains("images are being preloaded"), "{}", answer.text());
    pull(daemon, "library/app-3", &images[2]);
    // A reload is not taken for the end of the start.
    ran(daemon, &["reload"]);
    let wanted = "STATUS=Preloading images: 2 of 3; downloading 1.0 MB of 2.1 MB";
    loop {
        let later = it.manager.next();
        assert!(!later.contains(&"READY=1".to_owned()), "{later:?}");
        if later[0] == wanted {
            break;
        }
    }
    assert!(!daemon.log().contains("server is running"));

    upstream.release(&layer.digest);
    it.manager.wait_for("READY=1");
    get("/health").send(it.health).is(200);
    eventually("it says so", || daemon.log().contains("preloaded 2 of 3 images, 4.2 MB fetched"));
    assert_eq!(
        it.pinned(),
        ["docker.io/library/app-1:1", "docker.io/library/app-2:1", "docker.io/library/missing:1"]
    );
    assert!(it.daemon.terminate().success());
    let out = ran(&it.daemon, &["prune", "--older-than", "0s"]);
    assert!(out.contains("2 that fit stay, being pinned"), "{out}");
    it.daemon.start();
    pull(&it.daemon, "library/app-1", &images[0]);
    assert_eq!(upstream.count("GET", &layer.digest), 1);
}

#[test]
fn a_start_that_is_told_to_end_does_not_wait() {
    let upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    upstream.hold(&images[0].layers[0].digest, MIB);
    let mut it = Preloading::of(&upstream, "", "app-1:1");
    eventually("it began", || upstream.sent(&images[0].layers[0].digest) == MIB);
    assert!(it.daemon.terminate().success());
    assert!(!it.manager.drain().contains(&"READY=1".to_owned()));
    assert!(!it.daemon.log().contains("server is running"));
}

#[test]
fn what_is_preloaded_in_the_background_holds_up_nothing() {
    let upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    let layer = &images[0].layers[0];
    upstream.hold(&layer.digest, MIB);
    let it = Preloading::of(&upstream, "preload = \"background\"", "app-1:1");
    assert_eq!(it.manager.next()[0], "READY=1");
    get("/health").send(it.health).is(200);
    eventually("it began", || upstream.sent(&layer.digest) == MIB);
    assert_eq!(it.pinned(), ["docker.io/library/app-1:1"]);
    upstream.release(&layer.digest);
    eventually("it is there", || it.daemon.log().contains("preloaded 1 of 1 images"));
    pull(&it.daemon, "library/app-1", &images[0]);
}

#[test]
fn what_cannot_be_had_when_it_starts_is_tried_again() {
    let mut upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    upstream.stop();
    let it = Preloading::of(&upstream, "pull_timeout = 1000", "app-1:1\napp-2:1");
    it.manager.wait_for("READY=1");
    eventually("it says so", || it.daemon.log().contains("preloaded 0 of 2 images"));
    upstream.start_again();
    eventually("they are here", || it.daemon.log().matches("2.1 MB fetched").count() == 2);
    upstream.stop();
    pull(&it.daemon, "library/app-1", &images[0]);
    pull(&it.daemon, "library/app-2", &images[1]);
}

/// What `serve --preload-images` says to these parts of a list of lists, and where it was said.
fn refused(folder: &Path, lists: &str) -> String {
    let mut command = Command::new(BINARY);
    let images: PathBuf = folder.join("images");
    command.current_dir(folder).arg("--image-path").arg(images);
    command.args(["serve", "--user", "root", "--preload-images", lists]);
    fails(&run(command), 78)
}

#[test]
fn lists_that_cannot_be_read_keep_it_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("good.list"), "app:1\n").unwrap();
    fs::write(path.join("bad.list"), "app:1\n\nUPPER # no\n").unwrap();
    fs::write(path.join("image.tar.gz"), b"\x1f\x8b\x08\x00\x00\x00").unwrap();
    let said = refused(path, "good.list, bad.list");
    let wanted = format!("--preload-images: {}:3: `UPPER`", path.join("bad.list").display());
    assert!(said.starts_with(&wanted) && said.lines().count() == 1, "{said}");
    let said = refused(path, "*.list,nowhere");
    assert!(said.contains("bad.list:3: ") && said.contains("/nowhere: cannot be read: "), "{said}");
    let said = refused(path, "image.tar.gz");
    assert!(said.contains("image.tar.gz: an archive, and those cannot be read yet"), "{said}");

    let config = path.join("c.toml");
    let check = |lists: &str| {
        fs::write(&config, format!("\npreload_images = {lists:?}\n")).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("--config-file").arg(&config).args(["config", "check"]);
        run(command)
    };
    let said = fails(&check(path.join("bad.list").to_str().unwrap()), 78);
    assert!(
        said.starts_with(&format!("{}:2: preload_images: {}", config.display(), path.display())),
        "{said}"
    );
    let said = fails(&check("relative.list"), 78);
    assert!(said.contains("want absolute paths"), "{said}");
    let output = check(path.join("none-*.list").to_str().unwrap());
    assert!(output.status.success() && err(&output).contains("no file matches"), "{}", err(&output));
}

#[test]
fn lists_on_the_command_line_are_preloaded() {
    let mut upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    let mut daemon = Daemon::prepared(&entry("docker.io", &upstream));
    let lists = ["first", "second"].map(|name| daemon.dir.path().join(name));
    fs::write(&lists[0], "app-1:1\n").unwrap();
    fs::write(&lists[1], "# another\napp-3:1\n").unwrap();
    let [first, second] = lists.map(|list| list.display().to_string());
    daemon.options(&["--preload-images", &format!("{first},{second}")]);
    daemon.start();
    eventually("they are here", || daemon.log().contains("preloaded 2 of 2 images, 4.2 MB fetched"));
    let pinned = ran(&daemon, &["list", "--pinned", "--json"]);
    assert!(pinned.contains("library/app-1\"") && pinned.contains("library/app-3\""), "{pinned}");
    assert!(!pinned.contains("app-2"), "{pinned}");
    upstream.stop();
    pull(&daemon, "library/app-1", &images[0]);
    pull(&daemon, "library/app-3", &images[2]);
}
