//! Looking after the cache of a real daemon: beside it, in it, and without it.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use support::cache::*;
use support::client::{End, get};
use support::daemon::{BINARY, Daemon, list};
use support::layout::*;
use support::process::{eventually, succeed, tied};
use support::terminal::Terminal;
use support::upstream::Upstream;

fn run(daemon: &Daemon, args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("--config-file").arg(daemon.dir.path().join("ociregistry.toml")).args(args);
    command.output().unwrap()
}

/// The files of a folder and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Turns one bit.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_list_beside_the_daemon_shows_what_was_pulled() {
    let child = Image::small(1);
    let index = index(OCI_INDEX, &[(&child.manifest, "amd64")]);
    let mut layout = Layout::of("library/app", "", &child);
    layout.add_manifest("library/app", "1", &index);
    layout.add("team/other", "1", &Image::small(2));
    let upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    assert_eq!(ran(&daemon, &["list"]), "");
    daemon.get(&manifest("library/app")).is(200);
    let by_digest = format!("/v2/library/app/manifests/{}?ns=docker.io", child.manifest.digest);
    daemon.get(&by_digest).is(200);
    daemon.get(&manifest("team/other")).is(200);
    let rows = || ran(&daemon, &["list", "--sort", "name", "--short-digest"]);
    eventually("all is listed", || rows().lines().count() == 3);

    let text = rows();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let short = format!("sha256:{}", &child.manifest.hex()[..12]);
    assert_eq!(words[0][..3], ["docker.io/library/app", &short, "image"]);
    assert_eq!(words[1][..3], ["docker.io/library/app", "1", "list"]);
    assert_eq!(words[2][..3], ["docker.io/team/other", "1", "image"]);
    assert!(words.iter().all(|words| words.len() == 6 && words[3].contains('T') && words[4].contains('T')));
    let header = ran(&daemon, &["list", "--header"]);
    let titles: Vec<&str> = header.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["IMAGE", "TAG/DIGEST", "TYPE", "CREATED", "PULLED", "SIZE(MB)"]);

    let json = ran(&daemon, &["list", "--json", "--pattern", "nothing,app@"]);
    let row: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(row["digest"], child.manifest.digest);
    let size: u64 = child.blobs().map(Blob::size).sum();
    assert_eq!(row["size"], size + child.manifest.bytes.len() as u64);
    assert_eq!((&row["type"], &row["pinned"]), (&Value::from("image"), &Value::from(false)));

    published(&daemon, &child);
    let blobs = ran(&daemon, &["list", "--blobs", "--sort", "size"]);
    assert!(blobs.lines().next().unwrap().starts_with("sha256:"), "{blobs}");
    assert!(child.blobs().all(|layer| blobs.contains(&layer.digest)));
    let totals = ran(&daemon, &["list", "--totals"]);
    assert!(totals.lines().last().unwrap().starts_with("3 listed; the cache holds "), "{totals}");
}

#[test]
fn who_has_seen_enough_of_a_list_is_no_error() {
    let daemon = Daemon::of(&Upstream::start(Layout::new()));
    for n in 0..5000 {
        fs::write(daemon.blob(&format!("{n:064x}")), "").unwrap();
    }
    let mut command = tied("sh");
    command.arg("-c").arg(format!(
        "{{ {BINARY} --image-path {} list --blobs; echo $? >&2; }} | head -n 1",
        daemon.images().display()
    ));
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "0\n");
}

#[test]
fn what_changes_something_goes_on_when_nobody_reads_any_more() {
    let mut layout = Layout::new();
    (1..=8).for_each(|n| layout.add(&format!("team/app-{n}"), "1", &Image::small(n)));
    let upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    let named = (1..=8).map(|n| format!(" team/app-{n}:1")).collect::<String>();
    // By the daemon; the last one cannot be had.
    for (arguments, code) in [
        (format!("pull{named}"), "0"),
        (format!("refresh{named} team/none:1"), "1"),
        ("prune --pattern .".to_owned(), "0"),
    ] {
        let mut command = tied("sh");
        let program =
            format!("{BINARY} --config-file {}", daemon.dir.path().join("ociregistry.toml").display());
        // Nobody reads from the beginning on.
        command.arg("-c").arg(format!("{{ sleep 0.2; {program} {arguments} 2>&-; echo $? >&2; }} | true"));
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{code}\n"), "{arguments}");
        if arguments.starts_with("pull") {
            assert_eq!(ran(&daemon, &["list"]).lines().count(), 8);
        }
    }
    assert_eq!(ran(&daemon, &["list"]), "");
}

#[test]
fn what_writes_says_who_holds_the_cache_where_that_takes_no_commands() {
    let mut daemon = Daemon::of(&Upstream::start(Layout::new()));
    assert!(daemon.terminate().success());
    let file = File::options().write(true).open(daemon.images().join("lock")).unwrap();
    file.write_all_at(b"4711\n", 0).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap();
    for args in [&["prune", "--blobs"][..], &["pin", "nginx"], &["unpin", "nginx"], &["check", "--repair"]] {
        let output = run(&daemon, args);
        assert_eq!(output.status.code(), Some(75), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("in use by process 4711: wait for its end, or stop it"), "{error}");
    }
    assert!(ran(&daemon, &["check"]).contains("nothing wrong"));
    let status = || {
        let output = run(&daemon, &["status"]);
        assert_eq!(output.status.code(), Some(69));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(status().contains("process 4711 writes to"), "{}", status());
    drop(lock);
    // What it left in the file is nobody's.
    assert!(status().contains("no daemon serves from"), "{}", status());
}

#[test]
fn a_pinned_digest_is_listed_though_a_tag_has_it_and_what_is_not_here_is_in_json_too() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    daemon.get(&manifest("library/app")).is(200);
    let pinned = format!("docker.io/library/app@{}", image.manifest.digest);
    ran(&daemon, &["pin", &pinned, "later:1"]);
    let text = ran(&daemon, &["list", "--pinned"]);
    assert!(text.starts_with(&format!("docker.io/library/app  {}", image.manifest.digest)), "{text}");
    assert!(text.ends_with("docker.io/library/later:1 is pinned and not in the cache\n"), "{text}");
    let rows: Vec<Value> = ran(&daemon, &["list", "--pinned", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((rows.len(), &rows[0]["digest"]), (2, &image.manifest.digest.as_str().into()));
    assert_eq!((&rows[1]["image"], &rows[1]["tag"]), (&"docker.io/library/later".into(), &"1".into()));
    assert_eq!(rows[1]["missing"], true);
}

#[test]
fn a_prune_takes_what_no_other_image_needs_and_the_next_pull_fetches_it_anew() {
    let shared = Layer::of_noise(1, 20_000);
    let images = [Image::new(vec![shared.clone(), Layer::of_noise(2, 20_000)]), Image::new(vec![shared])];
    let mut layout = Layout::of("library/goes", "1", &images[0]);
    layout.add("library/stays", "1", &images[1]);
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/goes", &images[0]);
    pull(&daemon, "library/stays", &images[1]);
    assert!(daemon.terminate().success());
    let before = files(&daemon.images());

    let dry = ran(&daemon, &["prune", "--pattern", "/goes:", "--dry-run"]);
    assert!(dry.starts_with("docker.io/library/goes:1\n"), "{dry}");
    assert!(dry.contains("1 image would go with 1 manifest and 2 blobs"), "{dry}");
    assert_eq!(files(&daemon.images()), before);
    let done = ran(&daemon, &["prune", "--pattern", "/goes:"]);
    assert_eq!(done, dry.replace("would go", "went").replace("would come", "came"));

    let own: Vec<&Blob> = images[0].blobs().filter(|layer| !daemon.blob(layer.hex()).exists()).collect();
    assert_eq!(own.len(), 2);
    assert!(images[1].blobs().all(|layer| daemon.blob(layer.hex()).exists()));
    assert!(!daemon.images().join("refs/docker.io/library/goes").exists());
    daemon.proven();
    upstream.forget();
    daemon.start();
    pull(&daemon, "library/stays", &images[1]);
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    pull(&daemon, "library/goes", &images[0]);
    assert!(own.iter().all(|layer| upstream.sent(&layer.digest) == layer.size()));
    assert_eq!(upstream.sent(&images[1].layers[0].digest), 0);
}

#[test]
fn dates_ages_and_sizes_choose_what_goes() {
    let images: Vec<Image> = (1..=3).map(Image::small).collect();
    let mut layout = Layout::new();
    for (number, image) in images.iter().enumerate() {
        layout.add(&format!("library/app-{number}"), "1", image);
    }
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::of(&upstream);
    for (number, image) in images.iter().enumerate() {
        pull(&daemon, &format!("library/app-{number}"), image);
    }
    assert!(daemon.terminate().success());
    for (number, age) in [(0, 5), (1, 50), (2, 20)] {
        unused_for(&daemon.images().join(format!("refs/docker.io/library/app-{number}")), days(age));
    }
    let would_go = |args: &[&str]| {
        let text = ran(&daemon, &[&["prune", "--dry-run"], args].concat());
        let mut names: Vec<char> =
            text.lines().filter_map(|line| line.strip_suffix(":1")?.chars().last()).collect();
        names.sort();
        names.into_iter().collect::<String>()
    };
    assert_eq!(would_go(&["--unused-for", "10d"]), "12");
    assert_eq!(would_go(&["--unused-for", "10d", "--pattern", "app-2"]), "2");
    assert_eq!(would_go(&["--unused-for", "60d"]), "");
    // All were fetched just now.
    assert_eq!(would_go(&["--older-than", "1h"]), "");
    assert_eq!(would_go(&["--date", "2020-01-01T00:00:00"]), "");
    assert_eq!(would_go(&["--date", "2100-01-01T00:00:00"]), "012");
    // Each is a layer of some 20 kB and a little: the one that was not used for longest goes first.
    assert_eq!(would_go(&["--keep-size", "100kB"]), "");
    assert_eq!(would_go(&["--keep-size", "50kB"]), "1");
    assert_eq!(would_go(&["--keep-size", "30kB"]), "12");
    assert_eq!(would_go(&["--keep-size", "0"]), "012");
    ran(&daemon, &["prune", "--keep-size", "30kB"]);
    assert!(images[0].blobs().all(|layer| daemon.blob(layer.hex()).exists()));
    assert_eq!(list(&daemon.images().join("blobs")).len(), 2);
}

#[test]
fn rounds_take_what_is_old_while_pulls_go_on() {
    let old = Image::small(1);
    let pinned = Image::small(2);
    let kept = Image::small(3);
    let mut layout = Layout::of("library/old", "1", &old);
    layout.add("library/pinned", "1", &pinned);
    layout.add("team/kept", "1", &kept);
    let live: Vec<Image> = (10..40).map(Image::small).collect();
    for (number, image) in live.iter().enumerate() {
        layout.add(&format!("live/app-{number}"), "1", image);
    }
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::of(&upstream);
    for (repository, image) in [("library/old", &old), ("library/pinned", &pinned), ("team/kept", &kept)] {
        pull(&daemon, repository, image);
    }
    assert!(daemon.terminate().success());
    unused_for(&daemon.images().join("refs"), days(3));
    assert_eq!(
        ran(&daemon, &["pin", "pinned:1", "later:1"]),
        "docker.io/library/pinned:1 is pinned\n\
         docker.io/library/later:1 is pinned; it is not in the cache yet\n"
    );
    let rounds = "[prune]\nmin_free = \"0%\"\nduration = \"1d\"\nfrequency = \"100ms\"\nkeep = [\"docker.io/team/*\"]\n";
    let entry = support::daemon::entry("docker.io", &upstream);
    daemon.configure(&format!("tag_ttl = \"1h\"\n{rounds}{entry}"));
    upstream.forget();
    daemon.start();
    thread::scope(|scope| {
        for part in 0..3 {
            let (daemon, live) = (&daemon, &live);
            scope.spawn(move || {
                for (number, image) in live.iter().enumerate().skip(part * 10).take(10) {
                    let repository = format!("live/app-{number}");
                    pull(daemon, &repository, image);
                    pull(daemon, &repository, image);
                }
            });
        }
        eventually("the old one is gone", || old.blobs().all(|layer| !daemon.blob(layer.hex()).exists()));
    });
    for (number, image) in live.iter().enumerate() {
        pull(&daemon, &format!("live/app-{number}"), image);
        let repository = format!("live/app-{number}/");
        assert!(image.blobs().all(|layer| upstream.count("GET", &layer.digest) == 1), "{repository}");
        assert_eq!(upstream.count("GET", &format!("{repository}manifests/")), 1);
    }
    let log = daemon.log();
    assert!(log.contains("pruned 1 images: 1 manifests and 2 blobs"), "{log}");
    for image in [&pinned, &kept] {
        assert!(image.blobs().all(|layer| daemon.blob(layer.hex()).exists()), "{log}");
    }
    let shown = ran(&daemon, &["list", "--pinned"]);
    assert!(shown.starts_with("docker.io/library/pinned"), "{shown}");
    assert!(shown.ends_with("docker.io/library/later:1 is pinned and not in the cache\n"), "{shown}");
    assert!(daemon.terminate().success());
    daemon.proven();
}

#[test]
fn a_reload_changes_what_rounds_take() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    // What was used is written down at the end.
    daemon.restart();
    unused_for(&daemon.images().join("refs"), days(3));
    let rounds = "[prune]\nmin_free = \"0%\"\nduration = \"2d\"\nfrequency = \"100ms\"\n";
    daemon.configure(&format!("{rounds}{}", support::daemon::entry("docker.io", &upstream)));
    daemon.process().signal(nix::sys::signal::Signal::SIGHUP);
    eventually("it is gone", || image.blobs().all(|layer| !daemon.blob(layer.hex()).exists()));
    upstream.forget();
    pull(&daemon, "library/app", &image);
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
}

/// A file system in memory, mounted until dropped.
struct Disk(PathBuf);

impl Disk {
    fn of(mebibytes: u64, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none"]).arg(at);
        succeed(mount);
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_gets_full_loses_what_was_not_used_for_longest() {
    let images: Vec<Image> = (1..=4).map(|seed| Image::of_size(seed, 20 * MIB)).collect();
    let mut layout = Layout::new();
    for (number, image) in images.iter().enumerate() {
        layout.add(&format!("library/app-{number}"), "1", image);
    }
    let upstream = Upstream::start(layout);
    // The rounds come once an hour: what is seen here comes of the disk.
    let mut daemon = Daemon::with("[prune]\nmin_free = \"30%\"", &upstream);
    daemon.terminate();
    fs::remove_dir_all(daemon.images()).unwrap();
    let disk = Disk::of(100, &daemon.images());
    daemon.start();
    for number in [0, 1, 2] {
        pull(&daemon, &format!("library/app-{number}"), &images[number]);
        published(&daemon, &images[number]);
    }
    assert!(daemon.terminate().success());
    for (number, age) in [(0, 2), (1, 9), (2, 5)] {
        unused_for(&daemon.images().join(format!("refs/docker.io/library/app-{number}")), days(age));
    }
    daemon.start();
    // 40 MiB are free; with this one it is 20, and 32 have to be.
    pull(&daemon, "library/app-3", &images[3]);
    let gone = |number: usize| images[number].blobs().all(|layer| !daemon.blob(layer.hex()).exists());
    eventually("the one that was not used for longest is gone", || gone(1));
    eventually("the round is over", || daemon.log().contains("pruned 1 image"));
    for number in [0, 2, 3] {
        assert!(images[number].blobs().all(|layer| daemon.blob(layer.hex()).exists()), "{number}");
    }
    assert!(daemon.terminate().success());
    daemon.proven();
    drop(disk);
}

#[test]
fn what_a_check_puts_aside_is_fetched_anew() {
    let image = Image::new(vec![Layer::random(1, 5 * MIB), Layer::of_noise(2, 20_000)]);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    let layer = &image.layers[0];
    flip(&daemon.blob(layer.hex()), 3 * MIB);

    // Looking changes nothing, and goes on beside the daemon.
    let output = run(&daemon, &["check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("blobs/{}: wrong content", layer.hex())), "{text}");
    let json: Value = serde_json::from_slice(&run(&daemon, &["check", "--json"]).stdout).unwrap();
    assert_eq!((&json["wrong"], &json["findings"][0]["fault"]), (&1.into(), &"wrong_content".into()));
    assert!(daemon.blob(layer.hex()).exists());

    let repair = |daemon: &Daemon, told: &str| {
        let repaired = run(daemon, &["check", "--repair"]);
        assert_eq!(repaired.status.code(), Some(1));
        let text = String::from_utf8(repaired.stderr).unwrap();
        assert!(text.contains(told), "{text}");
    };
    let is_whole = |daemon: &Daemon| {
        assert!(ran(daemon, &["check"]).contains("nothing wrong"));
        assert!(ran(daemon, &["list"]).starts_with("docker.io/library/app "));
        daemon.proven();
    };
    // By the daemon in the background.
    upstream.forget();
    repair(&daemon, "the daemon fetches them anew");
    assert!(daemon.images().join(format!("partial/{}.bad", layer.hex())).exists());
    eventually("it is told", || daemon.log().contains("fetched anew all 1 that a check put aside"));
    assert_eq!(upstream.sent(&layer.digest), layer.size());
    is_whole(&daemon);
    // Without one by the command. With a manifest its names go, too.
    assert!(daemon.terminate().success());
    flip(&daemon.blob(layer.hex()), 3 * MIB);
    repair(&daemon, "fetched anew 1 of 1");
    is_whole(&daemon);
    flip(&daemon.manifest(image.manifest.hex()), 3);
    repair(&daemon, "fetched anew 2 of 2");
    is_whole(&daemon);
    upstream.forget();
    daemon.start();
    pull(&daemon, "library/app", &image);
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}

#[test]
fn the_daemon_checks_its_cache_in_idle_time_and_remembers_when() {
    let image = Image::new(vec![Layer::random(1, 2 * MIB)]);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"\n[check]\nevery = \"1s\"", &upstream);
    pull(&daemon, "library/app", &image);
    let layer = &image.layers[0];
    eventually("it is published", || daemon.blob(layer.hex()).exists());
    let check = daemon.images().join("check.json");
    eventually("a check is over", || check.exists());
    let policies = |name: &str| -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let named = stats.filter(|stat| stat.contains(&format!("({name})")));
        // Field 41, counted from behind the name.
        named.map(|stat| stat.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap().to_owned()).collect()
    };
    assert_eq!(policies("check"), ["5"], "SCHED_IDLE");
    assert_eq!(policies("publish"), ["0"]);

    upstream.forget();
    flip(&daemon.blob(layer.hex()), MIB);
    eventually("it is told", || daemon.log().contains("1 wrong, 1 of them repaired"));
    eventually("it is fetched anew", || daemon.log().contains("fetched anew all 1 that a check put aside"));
    assert_eq!(upstream.sent(&layer.digest), layer.size());
    daemon.proven();
    assert!(daemon.terminate().success());

    // Not every start is followed by a check: what counts is when the last one was.
    let report: Value = serde_json::from_slice(&fs::read(&check).unwrap()).unwrap();
    assert!(report["finished"].is_string() && report["checked"]["blobs"]["files"].is_u64(), "{report}");
    daemon.configure(&format!("[check]\nevery = \"1d\"\n{}", support::daemon::entry("docker.io", &upstream)));
    fs::write(daemon.dir.path().join("log"), "").unwrap();
    daemon.start();
    thread::sleep(Duration::from_secs(3));
    assert!(!daemon.log().contains("checked "), "{}", daemon.log());
}

#[test]
fn a_blob_that_is_too_short_is_fetched_anew_before_it_is_served() {
    let image = Image::new(vec![Layer::random(1, 2 * MIB), Layer::of_noise(2, 20_000)]);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    for restarted in [false, true] {
        pull(&daemon, "library/app", &image);
        published(&daemon, &image);
        if restarted {
            daemon.restart();
        }
        for layer in &image.layers {
            let file = File::options().write(true).open(daemon.blob(layer.hex())).unwrap();
            file.set_len(layer.size() / 2).unwrap();
        }
        upstream.forget();
        pull(&daemon, "library/app", &image);
        assert!(image.layers.iter().all(|layer| upstream.sent(&layer.digest) == layer.size()));
        eventually("it is there again", || {
            image.layers.iter().all(|layer| daemon.blob(layer.hex()).exists())
        });
        for layer in &image.layers {
            fs::remove_file(daemon.images().join(format!("partial/{}.bad", layer.hex()))).unwrap();
        }
        daemon.proven();
    }
}

#[test]
fn a_size_that_a_manifest_gets_wrong_costs_no_good_blob() {
    let image = Image::small(1);
    let layer = &image.layers[0];
    let text = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let wrong = text.replace(&format!("\"size\": {}", layer.size()), "\"size\": 5");
    assert_ne!(text, wrong);
    let mut layout = Layout::of("library/app", "1", &image);
    layout.add_manifest("library/wrong", "1", &Manifest::new(OCI_MANIFEST, wrong));
    let upstream = Upstream::start(layout);
    let daemon = Daemon::with("prefetch = \"none\"", &upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    daemon.get(&manifest("library/wrong")).is(200);
    upstream.forget();
    assert!(daemon.get(&blob("library/app", &layer.digest)).is(200).body == layer.bytes());
    assert_eq!(upstream.sent(&layer.digest), 0);
    assert!(!list(&daemon.images().join("partial")).iter().any(|name| name.ends_with(".bad")));
}

#[test]
fn a_blob_that_breaks_off_while_it_is_sent_is_cut_and_the_next_request_gets_all_of_it() {
    let image = Image::of_size(1, 64 * MIB);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    let layer = &image.layers[0];
    let mut stream = get(&blob("library/app", &layer.digest)).open(daemon.addr);
    stream.read_to(MIB);
    let file = File::options().write(true).open(daemon.blob(layer.hex())).unwrap();
    file.set_len(40 * MIB).unwrap();
    assert_eq!(stream.whole().end, End::Short);
    eventually("it is put aside", || !daemon.blob(layer.hex()).exists());
    let whole = daemon.get(&blob("library/app", &layer.digest)).is(200);
    assert!(whole.body == layer.bytes());
}

/// What a list goes by: the name, the time it was fetched, how long ago it was used, and its manifest. Its blobs a list
/// does not look at.
fn listed(cache: &Path, repository: &str, tag: &str, fetched: &str, unused: Duration, manifest: &Manifest) {
    fs::write(cache.join("img").join(manifest.hex()), &*manifest.bytes).unwrap();
    let folder = cache.join("refs/docker.io").join(repository).join("_tags");
    fs::create_dir_all(&folder).unwrap();
    let record = json!({
        "digest": manifest.digest, "mediaType": manifest.media_type, "size": manifest.bytes.len(),
        "fetched": fetched, "checked": fetched,
    });
    let file = folder.join(tag);
    fs::write(&file, record.to_string()).unwrap();
    File::open(file).unwrap().set_modified(SystemTime::now() - unused).unwrap();
}

/// Of one layer that is so large.
fn manifest_of(seed: u64, size: u64) -> Manifest {
    let descriptor = |digit: u64, size: u64| {
        let digest = format!("sha256:{seed:063x}{digit}");
        json!({ "mediaType": OCI_LAYER, "digest": digest, "size": size })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(0, 2), "layers": [descriptor(1, size)],
    });
    Manifest::json(OCI_MANIFEST, &manifest)
}

/// With a cache that was made, and no process.
fn ended() -> Daemon {
    let mut daemon = Daemon::of(&Upstream::start(Layout::new()));
    assert!(daemon.terminate().success());
    daemon
}

#[test]
fn a_list_is_in_the_order_that_is_asked_for() {
    let daemon = ended();
    for (seed, (name, day, unused, size)) in
        [("a", 2, 30, 1), ("b", 4, 40, 3), ("c", 1, 10, 2), ("d", 3, 20, 4)].into_iter().enumerate()
    {
        let fetched = format!("2026-01-0{day}T12:00:00Z");
        let manifest = manifest_of(seed as u64, size * 10_000_000);
        listed(&daemon.images(), name, "1", &fetched, days(unused), &manifest);
    }
    let order = |column: &str| -> String {
        let text = ran(&daemon, &["list", "--sort", column]);
        text.lines().map(|line| line.strip_prefix("docker.io/").unwrap().chars().next().unwrap()).collect()
    };
    assert_eq!(order("name"), "abcd");
    assert_eq!(order("created"), "cadb");
    assert_eq!(order("pulled"), "badc");
    assert_eq!(order("size"), "dbca");

    for (digit, unused, size) in [("1", 20, 2), ("2", 10, 3), ("3", 30, 1)] {
        let path = daemon.blob(&digit.repeat(64));
        fs::write(&path, vec![0; size * 10_000]).unwrap();
        File::open(path).unwrap().set_modified(SystemTime::now() - days(unused)).unwrap();
    }
    let order = |column: &str| -> String {
        let text = ran(&daemon, &["list", "--blobs", "--sort", column]);
        text.lines().map(|line| line.strip_prefix("sha256:").unwrap().chars().next().unwrap()).collect()
    };
    assert_eq!(order("name"), "123");
    assert_eq!(order("created"), "312");
    assert_eq!(order("size"), "213");
}

#[test]
fn a_list_of_many_images_fits_a_terminal_of_80_columns() {
    let daemon = ended();
    let repository = "team/some-application-with-a-rather-long-name";
    for number in 0..1010u64 {
        // The last ones, which come when the table is on the terminal already, are the largest and of the longer type.
        let last = number > 1005;
        let manifest = match last {
            true => manifest_of(number, 123_456_789_012),
            false => index(OCI_INDEX, &[(&manifest_of(number, 1), "amd64")]),
        };
        let tag = format!("v{number:05}");
        listed(&daemon.images(), repository, &tag, "2026-01-31T12:00:00Z", days(1), &manifest);
    }
    let mut command = Command::new(BINARY);
    command.arg("--config-file").arg(daemon.file()).args(["list", "--sort", "name", "--header", "--totals"]);
    let seen = Terminal::of(&command, 30, 80).ended();
    let lines: Vec<&str> = seen.lines().map(|line| line.trim_end_matches('\r')).collect();
    assert_eq!(lines.len(), 1 + 1010 + 1, "{seen}");
    let wide: Vec<_> = lines.iter().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    for (number, line) in lines[1..=1010].iter().enumerate() {
        assert!(line.contains(&format!("  v{number:05}  ")), "{line}");
    }
    assert!(lines[1010].ends_with("  123456.79") && lines[1010].contains("  image  "), "{}", lines[1010]);
}

/// Three images that were not used for so many days, in the cache of a daemon that is not running.
fn unused(upstream: &Upstream, images: &[Image; 3], ages: [u64; 3]) -> Daemon {
    let mut daemon = Daemon::of(upstream);
    for (number, image) in images.iter().enumerate() {
        let repository = format!("library/app-{number}");
        upstream.change(|layout| layout.add(&repository, "1", image));
        pull(&daemon, &repository, image);
        published(&daemon, image);
    }
    assert!(daemon.terminate().success());
    for (number, age) in ages.into_iter().enumerate() {
        unused_for(&daemon.images().join(format!("refs/docker.io/library/app-{number}")), days(age));
    }
    daemon
}

/// Starts it with rounds as these keys say, ten a second.
fn with_rounds(daemon: &mut Daemon, upstream: &Upstream, keys: &str) {
    let rounds = format!("[prune]\nmin_free = \"0%\"\nfrequency = \"100ms\"\n{keys}\n");
    daemon.configure(&format!("{rounds}{}", support::daemon::entry("docker.io", upstream)));
    daemon.options(&["--log-level", "debug"]);
    daemon.start();
}

fn holds(daemon: &Daemon, image: &Image) -> bool {
    image.blobs().all(|layer| daemon.blob(layer.hex()).exists())
}

#[test]
fn rounds_by_creation_take_what_was_fetched_long_ago_though_it_is_used() {
    let upstream = Upstream::start(Layout::new());
    let images = [1, 2, 3].map(Image::small);
    let mut daemon = unused(&upstream, &images, [1, 30, 1]);
    // The first came long ago, the others just now.
    for file in files(&daemon.images().join("refs/docker.io/library/app-0")) {
        let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        record["fetched"] = json!("2020-01-31T12:00:00Z");
        fs::write(&file, record.to_string()).unwrap();
        File::open(&file).unwrap().set_modified(SystemTime::now() - days(1)).unwrap();
    }
    with_rounds(&mut daemon, &upstream, "type = \"created\"\nduration = \"20d\"");
    eventually("the old one goes", || images[0].blobs().all(|layer| !daemon.blob(layer.hex()).exists()));
    eventually("the round is over", || daemon.log().contains("pruned 1 images"));
    assert!(holds(&daemon, &images[1]) && holds(&daemon, &images[2]), "{}", daemon.log());
}

#[test]
fn a_round_takes_no_more_images_than_it_may_those_first_that_were_not_used_for_longest() {
    let upstream = Upstream::start(Layout::new());
    let images = [1, 2, 3].map(Image::small);
    let mut daemon = unused(&upstream, &images, [40, 50, 30]);
    with_rounds(&mut daemon, &upstream, "duration = \"10d\"\ncount = 1");
    eventually("all are gone", || images.iter().all(|image| !holds(&daemon, image)));
    eventually("each in a round of its own", || daemon.log().matches("pruned 1 images").count() == 3);
    let log = daemon.log();
    let at = |number: usize| log.find(&format!("pruned \"docker.io/library/app-{number}:1\"")).unwrap();
    assert!(at(1) < at(0) && at(0) < at(2), "{log}");
}

#[test]
fn rounds_that_only_say_what_would_go_take_nothing() {
    let upstream = Upstream::start(Layout::new());
    let images = [1, 2, 3].map(Image::small);
    let mut daemon = unused(&upstream, &images, [40, 50, 0]);
    let before = files(&daemon.images().join("refs"));
    with_rounds(&mut daemon, &upstream, "duration = \"10d\"\ndry_run = true");
    eventually("rounds are told", || daemon.log().matches("would prune 2 images").count() >= 3);
    assert!(daemon.terminate().success());
    assert_eq!(files(&daemon.images().join("refs")), before);
    assert!(images.iter().all(|image| holds(&daemon, image)));
}

#[test]
fn a_manifest_that_rotted_is_put_aside_when_it_is_asked_for_and_fetched_anew() {
    let image = Image::small(1);
    let mut upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    let hex = image.manifest.hex();
    let by_digest = format!("/v2/library/app/manifests/{}?ns=docker.io", image.manifest.digest);
    let aside = daemon.images().join(format!("partial/{hex}.bad"));
    for target in [manifest("library/app"), by_digest] {
        // What memory has of it is right.
        assert!(daemon.terminate().success());
        flip(&daemon.manifest(hex), 10);
        let wrong = fs::read(daemon.manifest(hex)).unwrap();
        daemon.start();
        upstream.forget();
        assert_eq!(daemon.get(&target).is(200).body, *image.manifest.bytes, "{target}");
        assert_eq!(upstream.count("GET", "/manifests/"), 1, "{target}");
        assert_eq!(fs::read(&aside).unwrap(), wrong);
        eventually("the good one is kept", || daemon.manifest(hex).exists());
        fs::remove_file(&aside).unwrap();
    }
    daemon.restart();
    upstream.stop();
    pull(&daemon, "library/app", &image);
    daemon.proven();
}
