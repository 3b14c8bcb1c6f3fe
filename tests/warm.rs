//! Images in the cache before anybody asks, by command, and tags asked for anew.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Output, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::Value;
use support::cache::{blob, err, out, ran};
use support::daemon::{BINARY, Daemon, entry, list};
use support::layout::*;
use support::process::{Process, eventually, run, tied};
use support::upstream::{Fault, Upstream};

fn manifest(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}?ns=docker.io")
}

/// All of it, as a client would.
#[track_caller]
fn pull(daemon: &Daemon, repository: &str, image: &Image) {
    assert_eq!(daemon.get(&manifest(repository, &image.manifest.digest)).is(200).body, *image.manifest.bytes);
    for layer in image.blobs() {
        assert!(daemon.get(&blob(repository, &layer.digest)).is(200).body == layer.bytes());
    }
}

/// What it prints, and what it says is wrong.
#[track_caller]
fn fails(output: &Output, code: i32) -> (String, String) {
    let (out, err) = (out(output), err(output));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

fn a_layer(seed: u64) -> Image {
    Image::new(vec![Layer::random(seed, 2 * MIB)])
}

fn bytes_of(image: &Image) -> u64 {
    image.blobs().map(Blob::size).sum()
}

/// The image of two platforms `library/app:1`.
fn two_platforms() -> (Image, Image, Upstream) {
    let (ours, theirs) = (a_layer(1), Image::for_arch("s390x", vec![Layer::random(50, 2 * MIB)]));
    let mut layout = Layout::of("library/app", "", &ours);
    layout.add("library/app", "", &theirs);
    let both = index(OCI_INDEX, &[(&theirs.manifest, "s390x"), (&ours.manifest, "amd64")]);
    layout.add_manifest("library/app", "1", &both);
    (ours, theirs, Upstream::start(layout))
}

#[test]
fn a_pull_by_the_daemon_brings_what_one_platform_needs_and_it_is_served_without_upstream() {
    let (ours, theirs, mut upstream) = two_platforms();
    let daemon = Daemon::of(&upstream);
    let out = ran(&daemon, &["pull", "app:1", "--platform", "linux/amd64"]);
    assert_eq!(out, "docker.io/library/app:1: 2.1 MB fetched\n");
    assert_eq!(upstream.count("", &theirs.manifest.digest), 0);
    let out = ran(&daemon, &["pull", "app:1", "--platform", "linux/amd64"]);
    assert_eq!(out, "docker.io/library/app:1: 2.1 MB, here already\n");
    upstream.stop();
    daemon.get(&manifest("library/app", "1")).is(200);
    pull(&daemon, "library/app", &ours);
    daemon.get(&blob("library/app", &theirs.layers[0].digest)).is(404);
    // Nobody can have them now.
    let (out, err) = fails(&daemon.run(&["pull", "app:1", "--all-platforms"]), 1);
    assert!(out.starts_with("docker.io/library/app:1: failed: manifest sha256:"), "{out}");
    assert!(
        err.starts_with("0 of 1 images in the cache, 0 B fetched; 1 failed:\n  docker.io/library/app:1: "),
        "{err}"
    );
}

#[test]
fn a_pull_of_all_platforms_brings_them_all() {
    let (ours, theirs, mut upstream) = two_platforms();
    let daemon = Daemon::of(&upstream);
    let out = ran(&daemon, &["pull", "--json", "app:1", "--all-platforms"]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["image"], &line["manifests"]), (&"docker.io/library/app:1".into(), &3.into()));
    assert_eq!(line["bytes"], bytes_of(&ours) + bytes_of(&theirs));
    assert_eq!(line["fetched"], line["bytes"]);
    assert_eq!(
        line["digest"],
        daemon.get(&manifest("library/app", "1")).header("docker-content-digest").unwrap()
    );
    upstream.stop();
    pull(&daemon, "library/app", &ours);
    pull(&daemon, "library/app", &theirs);
}

#[test]
fn a_platform_that_an_image_is_not_for_is_said_with_those_that_it_is_for() {
    let (.., upstream) = two_platforms();
    let daemon = Daemon::of(&upstream);
    let (_, err) = fails(&daemon.run(&["pull", "app:1", "--platform", "linux/arm/v7"]), 1);
    assert!(err.contains("has no image for linux/arm/v7; it has linux/s390x, linux/amd64"), "{err}");
    let (_, err) = fails(&daemon.run(&["pull", "app:1", "--platform", "linux"]), 2);
    assert!(err.contains("os/arch"), "{err}");
}

#[test]
fn without_a_daemon_the_folder_is_filled_and_the_daemon_serves_it_later() {
    let image = a_layer(1);
    let mut upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let entry = entry("docker.io", &upstream);
    let mut daemon = Daemon::prepared(&format!("tag_ttl = \"forever\"\n{entry}"));
    assert!(!daemon.images().exists());
    let out = ran(&daemon, &["pull", "app:1"]);
    assert_eq!(out, "docker.io/library/app:1: 2.1 MB fetched\n");
    daemon.proven();
    assert!(list(&daemon.images().join("partial")).is_empty());
    assert_eq!(ran(&daemon, &["pull", "app:1"]), "docker.io/library/app:1: 2.1 MB, here already\n");
    assert!(image.blobs().all(|layer| upstream.count("GET", &layer.digest) == 1));
    upstream.stop();
    daemon.start();
    assert_eq!(daemon.get(&manifest("library/app", "1")).is(200).body, *image.manifest.bytes);
    pull(&daemon, "library/app", &image);
    // What a daemon that was killed has left behind is no daemon.
    daemon.kill();
    assert_eq!(ran(&daemon, &["pull", "app:1"]), "docker.io/library/app:1: 2.1 MB, here already\n");
    let named = daemon.images().join("admin.sock");
    fails(&daemon.run(&["pull", "app:1", "--admin-socket", named.to_str().unwrap()]), 69);
}

#[test]
fn root_fills_the_folder_as_the_daemon_would() {
    needs!();
    let image = a_layer(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::prepared("");
    let config = daemon.dir.path().join("c.toml");
    let images = daemon.images().join("below");
    // In a folder that only root may write to, but others may pass.
    fs::set_permissions(daemon.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let keys = |user: &str| format!("image_path = {images:?}\nuser = \"{user}\"\ngroup = \"nogroup\"\n");
    let pull = |user: &str| {
        fs::write(&config, keys(user) + &entry("docker.io", &upstream)).unwrap();
        let mut command = tied(BINARY);
        command.arg("--config-file").arg(&config).args(["pull", "app:1"]);
        run(command)
    };
    let (_, err) = fails(&pull("no-such-user"), 78);
    assert!(err.contains("there is no user `no-such-user`") && !images.exists(), "{err}");
    fails(&pull("nobody"), 0);
    let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    let manifest = images.join("img").join(image.manifest.hex());
    for path in [&images, &images.join("store.json"), &manifest] {
        assert_eq!(fs::metadata(path).unwrap().uid(), nobody, "{}", path.display());
    }
}

/// Images `library/app-1:1` to `library/app-3:1`.
fn three(upstream: &Upstream) -> Vec<Image> {
    let images: Vec<Image> = (1..=3).map(a_layer).collect();
    for (number, image) in images.iter().enumerate() {
        upstream.change(|layout| layout.add(&format!("library/app-{}", number + 1), "1", image));
    }
    images
}

#[test]
fn one_that_fails_does_not_stop_the_others_and_is_summed_up_at_the_end() {
    let upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    let daemon = Daemon::of(&upstream);
    let folder = daemon.dir.path();
    let list = folder.join("some.list");
    fs::write(&list, "# ours\n\napp-2:1   # the second\napp-1:1\nmissing:2\n").unwrap();
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(daemon.file());
    command.args(["pull", "-", "app-1:1", "--file"]).arg(&list);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"docker.io/library/app-3:1\n").unwrap();
    let (out, err) = fails(&child.wait_with_output().unwrap(), 1);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort();
    let fetched = ": 2.1 MB fetched";
    assert_eq!(lines.len(), 4, "{out}");
    for (number, line) in lines[..3].iter().enumerate() {
        assert_eq!(*line, format!("docker.io/library/app-{}:1{fetched}", number + 1));
    }
    assert!(lines[3].starts_with("docker.io/library/missing:2: failed: "), "{out}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "no terminal, no bars");
    let begin = "3 of 4 images in the cache, 6.3 MB fetched; 1 failed:\n  docker.io/library/missing:2: ";
    assert!(err.starts_with(begin) && err.contains("not found") && err.lines().count() == 2, "{err}");
    for (number, image) in images.iter().enumerate() {
        pull(&daemon, &format!("library/app-{}", number + 1), image);
    }
    let (out, err) = fails(&daemon.run(&["pull", "--quiet", "missing:2", "app-1:1"]), 1);
    assert!(out.is_empty() && err.contains("missing:2"), "{out} {err}");
    let (out, _) = fails(&daemon.run(&["pull", "--json", "missing:3"]), 1);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert!(line["error"].as_str().unwrap().contains("not found"), "{line}");
}

#[test]
fn a_list_with_errors_names_its_lines_and_nothing_is_pulled() {
    let upstream = Upstream::start(Layout::new());
    let daemon = Daemon::of(&upstream);
    let list = daemon.dir.path().join("some.list");
    fs::write(&list, "app-1:1\nUPPER\na b\n").unwrap();
    let list = list.to_str().unwrap();
    let (_, err) = fails(&daemon.run(&["pull", "--file", list]), 2);
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines[0].starts_with(&format!("{list}:2: `UPPER`")), "{err}");
    assert!(lines[1].starts_with(&format!("{list}:3: ")) && lines.len() == 2, "{err}");
    let (_, err) = fails(&daemon.run(&["pull", "--file", "/nowhere/list"]), 2);
    assert!(err.starts_with("/nowhere/list: cannot be read: "), "{err}");
    assert!(upstream.seen().is_empty());
}

#[test]
fn bars_are_drawn_on_a_terminal() {
    let image = a_layer(1);
    let layer = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    upstream.hold(&layer.digest, MIB);
    let command = format!("{BINARY} --config-file {} pull app:1", daemon.file().display());
    let log = daemon.dir.path().join("terminal");
    let mut script = tied("script");
    script.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
    script.env("TERM", "xterm").env("COLUMNS", "120");
    let mut process = Process::spawn(script, &log);
    let short = layer.digest.chars().take(19).collect::<String>();
    process.wait_until("bars", || {
        let shown = fs::read_to_string(&log).unwrap_or_default();
        let line = |name: &str, of: &str| {
            shown.lines().any(|line| line.contains(name) && line.contains('━') && line.contains(of))
        };
        line("docker.io/library/app:1", "/2.10 MB") && line(&short, "1.05 MB/2.10 MB")
    });
    upstream.release(&layer.digest);
    assert!(process.wait().success());
    let shown = process.log();
    let end = "docker.io/library/app:1: 2.1 MB fetched";
    assert!(shown.lines().last().unwrap().contains(end), "{shown}");
    pull(&daemon, "library/app", &image);
}

/// How many wait for a download that is under way.
fn waiting(daemon: &Daemon, blob: &Blob) -> Option<u64> {
    let status: Value = serde_json::from_str(&ran(daemon, &["status", "--json"])).unwrap();
    let downloads = status["downloads"].as_array().unwrap();
    downloads.iter().find(|it| it["digest"] == *blob.digest)?["readers"].as_u64()
}

#[test]
fn commands_and_clients_share_one_download() {
    let image = a_layer(1);
    let layer = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    upstream.hold(&layer.digest, MIB);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| pull(&daemon, "library/app", &image));
            scope.spawn(|| ran(&daemon, &["pull", "app:1"]));
        }
        eventually("it began", || upstream.sent(&layer.digest) == MIB);
        eventually("all of them wait", || waiting(&daemon, layer) == Some(4));
        upstream.release(&layer.digest);
    });
    assert!(image.blobs().all(|blob| upstream.sent(&blob.digest) == blob.size()));
    assert_eq!(upstream.count("GET", "/manifests/"), 2, "by the tag and by the digest");
}

/// Starts a command of the daemon's configuration in the background.
fn spawn(daemon: &Daemon, args: &[&str]) -> Process {
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(daemon.file()).args(args);
    Process::spawn(command, &daemon.dir.path().join("command"))
}

#[test]
fn an_interrupted_command_says_what_is_done_and_the_daemon_goes_on() {
    let upstream = Upstream::start(Layout::new());
    let images = three(&upstream);
    let daemon = Daemon::of(&upstream);
    let layer = &images[1].layers[0];
    upstream.hold(&layer.digest, MIB);
    let mut command = spawn(&daemon, &["pull", "app-1:1", "app-2:1"]);
    command.wait_until("the other is done and this one has begun", || {
        upstream.sent(&layer.digest) == MIB && command_log(&daemon).contains("app-1:1: 2.1 MB fetched")
    });
    command.signal(Signal::SIGINT);
    assert_eq!(command.wait().code(), Some(130));
    let said = command_log(&daemon);
    assert!(said.contains("interrupted: 1 of 2 images in the cache, 2.1 MB fetched"), "{said}");
    // It goes on: abandoned is "finish".
    eventually("nobody waits", || waiting(&daemon, layer) == Some(0));
    upstream.release(&layer.digest);
    eventually("it is finished", || daemon.blob(layer.hex()).exists());
    pull(&daemon, "library/app-2", &images[1]);
    assert_eq!(upstream.sent(&layer.digest), layer.size());
}

fn command_log(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.dir.path().join("command")).unwrap_or_default()
}

#[test]
fn a_download_that_a_command_abandons_pauses_where_that_is_asked_for() {
    let image = a_layer(1);
    let layer = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("abandoned = \"1ms\"", &upstream);
    upstream.hold(&layer.digest, MIB);
    let mut command = spawn(&daemon, &["pull", "app:1"]);
    command.wait_until("it began", || upstream.sent(&layer.digest) == MIB);
    command.kill();
    eventually("it pauses", || daemon.log().contains("paused download of docker.io/library/app@"));
    upstream.release(&layer.digest);
    ran(&daemon, &["pull", "app:1"]);
    pull(&daemon, "library/app", &image);
}

#[test]
fn an_interrupted_command_without_a_daemon_goes_on_where_it_was() {
    let image = Image::new(vec![Layer::random(1, 8 * MIB)]);
    let layer = &image.layers[0];
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::prepared(&entry("docker.io", &upstream));
    upstream.hold(&layer.digest, 4 * MIB);
    let mut command = spawn(&daemon, &["pull", "app:1"]);
    let partial = daemon.images().join("partial").join(layer.hex());
    command.wait_until("half of it", || fs::metadata(&partial).is_ok_and(|data| data.len() == 4 * MIB));
    command.signal(Signal::SIGTERM);
    assert_eq!(command.wait().code(), Some(130), "{}", command.log());
    assert!(command.log().contains("interrupted: 0 of 1 images"), "{}", command.log());
    upstream.release(&layer.digest);
    ran(&daemon, &["pull", "app:1"]);
    let seen = upstream.seen();
    let last = seen.iter().rfind(|seen| seen.path.ends_with(&layer.digest)).unwrap();
    assert!(last.header("range").unwrap().starts_with(&format!("bytes={}-", 4 * MIB)));
    daemon.proven();
}

#[test]
fn what_is_there_is_fine_without_any_upstream_and_what_is_not_is_said() {
    let upstream = Upstream::start(Layout::new());
    three(&upstream);
    let entry = entry("docker.io", &upstream);
    let mut daemon = Daemon::prepared(&entry);
    ran(&daemon, &["pull", "app-1:1"]);
    upstream.forget();
    let list = daemon.dir.path().join("some.list");
    fs::write(&list, "app-1:1\napp-2:1\n").unwrap();
    let keys =
        format!("air_gapped = true\npreload_images = {:?}\nhello_world = true", list.display().to_string());
    daemon.configure(&format!("{keys}\n{entry}"));
    for _ in 0..2 {
        let (out, err) = fails(&daemon.run(&["pull", "app-1:1", "app-2:1", "hello-world"]), 1);
        assert!(
            out.contains("app-1:1: 2.1 MB, here already") && out.contains("hello-world:latest: "),
            "{out}"
        );
        let said = "docker.io/library/app-2:1: not in the cache, and this registry is air-gapped";
        assert!(err.contains(said) && err.contains("2 of 3 images"), "{err}");
        let (_, err) = fails(&daemon.run(&["refresh", "app-1:1"]), 1);
        assert!(err.contains("air-gapped"), "{err}");
        if !daemon.images().join("admin.sock").exists() {
            daemon.start();
        }
    }
    eventually("it is ready", || daemon.log().contains("server is running"));
    assert!(daemon.log().contains("cannot preload \"docker.io/library/app-2:1\""), "{}", daemon.log());
    assert!(daemon.log().contains("preloaded 1 of 2 images"), "{}", daemon.log());
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_refresh_sees_at_once_that_a_tag_has_moved() {
    let (old, new) = (a_layer(1), a_layer(2));
    let upstream = Upstream::start(Layout::of("library/app", "1", &old));
    let mut daemon = Daemon::with("tag_ttl = \"forever\"", &upstream);
    let tag = manifest("library/app", "1");
    assert_eq!(daemon.get(&tag).is(200).body, *old.manifest.bytes);
    let unchanged = format!("docker.io/library/app:1: unchanged, {}\n", old.manifest.digest);
    assert_eq!(ran(&daemon, &["refresh", "app:1"]), unchanged);
    upstream.change(|layout| layout.add("library/app", "1", &new));
    assert_eq!(daemon.get(&tag).is(200).body, *old.manifest.bytes);
    let moved = format!("docker.io/library/app:1: {} → {}\n", old.manifest.digest, new.manifest.digest);
    assert_eq!(ran(&daemon, &["refresh", "app:1"]), moved);
    assert_eq!(daemon.get(&tag).is(200).body, *new.manifest.bytes);

    let (out, err) = fails(&daemon.run(&["refresh", "--json", "none:1", "app:1"]), 1);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["error"].as_str().unwrap().contains("not found"), "{out}");
    assert_eq!(
        (&lines[1]["digest"], &lines[1]["before"]),
        (&lines[1]["before"], &new.manifest.digest.into())
    );
    assert!(err.starts_with("docker.io/library/none:1: ") && err.lines().count() == 1, "{err}");
    assert!(err.contains("none:1: upstream has it no more, and it is forgotten here ("), "{err}");

    // Without a daemon on the folder.
    daemon.terminate();
    upstream.change(|layout| layout.add("library/app", "1", &old));
    let out = ran(&daemon, &["refresh", "app:1"]);
    assert!(out.contains(&format!("→ {}", old.manifest.digest)), "{out}");
    upstream.fault("/manifests/", .., Fault::Status(503));
    let (_, err) = fails(&daemon.run(&["refresh", "app:1"]), 1);
    assert!(err.contains("503"), "{err}");
    daemon.start();
    assert_eq!(daemon.get(&tag).is(200).body, *old.manifest.bytes);
}
