//! What `ociregistry status` tells, against what clients and upstream saw.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::Value;
use support::client::{Request, get, head};
use support::daemon::{Daemon, entry, list};
use support::layout::*;
use support::process::eventually;
use support::systemd::Manager;
use support::upstream::{Fault, Upstream};

/// Counting begins at once, and no image goes.
const AT_ONCE: &str = "[prune]\nmin_free = \"1%\"\nfrequency = \"100ms\"\n";

fn json(daemon: &Daemon) -> Value {
    let output = daemon.run(&["status", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(daemon: &Daemon) -> String {
    String::from_utf8(daemon.run(&["status"]).stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn target(kind: &str, reference: &str) -> String {
    format!("/v2/library/app/{kind}/{reference}?ns=docker.io")
}

fn settled(daemon: &Daemon, image: &Image) {
    eventually("all is in its place", || {
        image.blobs().all(|blob| daemon.blob(blob.hex()).exists())
            && daemon.manifest(image.manifest.hex()).exists()
            && list(&daemon.images().join("partial")).is_empty()
    });
}

fn upstream<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["upstreams"].as_array().unwrap();
    all.iter().find(|upstream| upstream["name"] == name).unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

#[test]
fn served_fetched_and_saved_are_what_clients_and_upstream_count() {
    let image = Image::of_size(1, 9 * MIB);
    let layer = image.layers[0].clone();
    let registry = Upstream::start(Layout::of("library/app", "1", &image)).with_tokens();
    let daemon = Daemon::of(&registry);
    let before = json(&daemon);
    assert_eq!(before["started"], json(&daemon)["started"]);
    let (served, said, asked) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let send = |request: Request, status: u16| {
        let answer = daemon.send(request).is(status);
        let counted = if status < 300 { &served } else { &said };
        counted.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        asked.fetch_add(1, Ordering::Relaxed);
    };
    let tag = target("manifests", "1");
    let blob = target("blobs", &layer.digest);
    send(get(&tag), 200);
    send(head(&tag), 200);
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| send(get(&blob), 200));
        }
    });
    settled(&daemon, &image);
    send(get(&blob), 200);
    send(get(&blob).range("bytes=5-104"), 206);
    send(get(&blob).range("bytes=0-9,20-29"), 206);
    send(get(&target("blobs", &image.config.digest)), 200);
    send(get(&target("manifests", "none")), 404);
    eventually("no answer is under way", || json(&daemon)["requests_under_way"] == 0);
    let after = json(&daemon);
    let grown = |field: &str| number(&after[field]) - number(&before[field]);
    let (served, said, fetched) = (served.into_inner(), said.into_inner(), registry.sent_in_all());
    assert_eq!(fetched, layer.size() + image.config.size() + image.manifest.bytes.len() as u64);
    assert_eq!(grown("bytes_served"), served + said);
    assert_eq!(grown("bytes_fetched"), fetched);
    // What we say ourselves saves nothing.
    assert!(said > 0);
    assert_eq!(number(&after["bytes_saved"]), served - fetched);
    assert_eq!(grown("requests"), asked.into_inner());
    let (hits, misses) = (grown("hits"), grown("misses"));
    // The five are misses until the layer is there; what comes later are hits, and the 404 is neither.
    assert!(hits + misses == 11 && hits >= 5 && misses >= 2, "{hits} hits, {misses} misses");
    assert_eq!(grown("stale"), 0);
    let told = upstream(&after, "docker.io");
    assert_eq!(number(&told["bytes"]), fetched);
    let sent = registry.seen().iter().filter(|seen| seen.path != "/token").count();
    assert_eq!(number(&told["requests"]), sent as u64);
    assert_eq!(upstream(&after, "registry.k8s.io")["state"], "never_asked");
}

#[test]
fn an_upstream_is_what_came_of_asking_it() {
    let mut registry = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let daemon = Daemon::of(&registry);
    let state = || upstream(&json(&daemon), "docker.io").clone();
    // A name that was never asked for is not in the cache.
    let asked = AtomicU64::new(0);
    let ask =
        || daemon.get(&target("manifests", &format!("t{}", asked.fetch_add(1, Ordering::Relaxed)))).status();

    assert_eq!(state()["state"], "never_asked");
    assert!(text(&daemon).contains("never asked"));
    assert_eq!(ask(), 404);
    assert_eq!((&state()["state"], &state()["last_error"]), (&"reachable".into(), &Value::Null));

    registry.stop();
    assert_eq!(ask(), 502);
    let failing = state();
    assert_eq!(failing["state"], "failing");
    assert!(failing["last_error"]["what"].as_str().unwrap().contains("cannot connect"), "{failing}");
    assert!(text(&daemon).contains("FAILING since "), "{}", text(&daemon));
    assert_eq!(ask(), 502);
    let still = state();
    assert_eq!(still["since"], failing["since"]);
    assert!(number(&still["requests"]) > number(&failing["requests"]), "{still}");

    registry.start_again();
    assert_eq!(ask(), 404);
    let again = state();
    assert_eq!((&again["state"], &again["since"]), (&"reachable".into(), &Value::Null));
    assert_eq!(again["last_error"]["what"], still["last_error"]["what"]);

    registry.fault("/manifests/", .., Fault::TooMany { retry_after: 3600 });
    let begun = jiff::Timestamp::now();
    assert_eq!(ask(), 502);
    let limited = state();
    assert_eq!(limited["state"], "limited");
    let until: jiff::Timestamp = limited["until"].as_str().unwrap().parse().unwrap();
    assert!(until.as_second() >= begun.as_second() + 3600, "{limited}");
    assert!(text(&daemon).contains("RATE LIMITED until "), "{}", text(&daemon));

    // What is known outlives a reload, also one that makes all connections anew.
    daemon.configure(&format!("pull_timeout = \"5s\"\n{}", entry("docker.io", &registry)));
    assert!(daemon.run(&["reload"]).status.success());
    assert_eq!(state(), limited);

    registry.mend();
    assert_eq!(ask(), 404);
    assert_eq!((&state()["state"], &state()["until"]), (&"reachable".into(), &Value::Null));
}

/// Files and bytes of a folder, by looking.
fn du(folder: &Path) -> (u64, u64) {
    let sizes: Vec<u64> = list(folder)
        .iter()
        .map(|name| fs::metadata(folder.join(name)).map_or(0, |data| data.len()))
        .collect();
    (sizes.len() as u64, sizes.iter().sum())
}

/// Waits until status and the files say the same, with so many images.
fn counts(daemon: &Daemon, images: u64) {
    eventually("status counts what is there", || {
        let (blobs, manifests) = (du(&daemon.images().join("blobs")), du(&daemon.images().join("img")));
        let cache = json(daemon)["cache"].clone();
        cache
            == serde_json::json!({
                "images": images,
                "manifests": manifests.0,
                "blobs": blobs.0,
                "bytes": blobs.1 + manifests.1,
            })
    });
}

#[test]
fn the_cache_s_size_is_that_of_its_files() {
    let (one, other) = (Image::of_size(1, 3 * MIB), Image::small(2));
    let child = Image::small(3);
    let index = index(OCI_INDEX, &[(&child.manifest, "amd64")]);
    let mut layout = Layout::of("library/app", "1", &one);
    layout.add("library/app", "2", &other);
    layout.add("library/app", "", &child);
    layout.add_manifest("library/app", "both", &index);
    let registry = Upstream::start(layout);
    let mut daemon = Daemon::with(AT_ONCE, &registry);
    counts(&daemon, 0);
    daemon.get(&target("manifests", "1")).is(200);
    settled(&daemon, &one);
    counts(&daemon, 1);
    // By its digest, then by its tag: two names. An index and its child: one.
    daemon.get(&target("manifests", &other.manifest.digest)).is(200);
    settled(&daemon, &other);
    counts(&daemon, 2);
    daemon.get(&target("manifests", "2")).is(200);
    daemon.get(&target("manifests", "both")).is(200);
    daemon.get(&target("manifests", &child.manifest.digest)).is(200);
    settled(&daemon, &child);
    counts(&daemon, 4);
    daemon.terminate();
    assert!(daemon.run(&["pin", "docker.io/library/app:1"]).status.success());
    daemon.start();
    // By a walk they are as many.
    counts(&daemon, 4);
    registry.change(|layout| *layout = Layout::of("library/app", "1", &one));
    daemon.configure(&format!("tag_ttl = 0\n{AT_ONCE}{}", entry("docker.io", &registry)));
    assert!(daemon.run(&["reload"]).status.success());
    daemon.get(&target("manifests", "2")).is(404);
    counts(&daemon, 3);

    let status = json(&daemon);
    assert_eq!(status["pins"], 1);
    let found = nix::sys::statvfs::statvfs(&daemon.images()).unwrap();
    let total = found.blocks() * found.fragment_size();
    assert_eq!(number(&status["disk"]["total"]), total);
    assert!(number(&status["disk"]["free"]) < total);
    assert_eq!(number(&status["disk"]["min_free"]), total / 100);
    assert!(text(&daemon).contains("; 1 pinned; in "), "{}", text(&daemon));
}

#[test]
fn the_cache_s_size_is_that_of_its_files_though_one_was_cut_off_when_it_was_put_aside() {
    let image = Image::of_size(1, 3 * MIB);
    let layer = &image.layers[0];
    let registry = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with(AT_ONCE, &registry);
    daemon.get(&target("manifests", "1")).is(200);
    settled(&daemon, &image);
    counts(&daemon, 1);
    fs::File::options().write(true).open(daemon.blob(layer.hex())).unwrap().set_len(MIB).unwrap();
    assert!(daemon.get(&target("blobs", &layer.digest)).is(200).body == layer.bytes());
    eventually("it is there again", || daemon.blob(layer.hex()).exists());
    assert!(daemon.images().join(format!("partial/{}.bad", layer.hex())).exists());
    counts(&daemon, 1);
}

#[test]
fn what_is_not_counted_yet_is_not_nothing() {
    let registry = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let mut daemon = Daemon::of(&registry);
    daemon.get(&target("manifests", "1")).is(200);
    // A new cache has nothing to count.
    assert_ne!(json(&daemon)["cache"], Value::Null);
    eventually("it is published", || json(&daemon)["cache"]["images"] == 1);
    daemon.restart();
    let status = json(&daemon);
    assert_eq!(
        (&status["cache"], &status["last_prune"], &status["last_check"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let text = text(&daemon);
    assert!(text.contains("cache       being counted; 0 pinned; in /"), "{text}");
    assert!(text.contains("pruned      not since the start\nchecked     never\n"), "{text}");
}

#[test]
fn a_download_shows_how_far_it_is_who_waits_and_what_waits_for_its_turn() {
    let image = Image::new(vec![Layer::random(1, 20 * MIB), Layer::random(2, 5 * MIB)]);
    let (first, second) = (image.layers[0].clone(), image.layers[1].clone());
    let registry = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("max_downloads = 1\nprefetch = \"none\"", &registry);
    registry.hold(&first.digest, 10 * MIB);
    let mut streams: Vec<_> =
        (0..2).map(|_| get(&target("blobs", &first.digest)).open(daemon.addr)).collect();
    streams.iter_mut().for_each(|stream| drop(stream.read_to(MIB)));
    let addr = daemon.addr;
    let waiting = {
        let target = target("blobs", &second.digest);
        thread::spawn(move || get(&target).send(addr).is(200).body)
    };
    eventually("all that may come has come", || {
        let downloads = json(&daemon)["downloads"].clone();
        downloads.as_array().unwrap().len() == 2 && downloads[0]["written"] == 10 * MIB
    });
    let status = json(&daemon);
    let [one, other] = [&status["downloads"][0], &status["downloads"][1]];
    let expected = [
        ("digest", Value::from(&*first.digest)),
        ("registry", "docker.io".into()),
        ("repository", "library/app".into()),
        ("running", true.into()),
        ("size", (20 * MIB).into()),
        ("written", (10 * MIB).into()),
        ("readers", 2.into()),
    ];
    for (field, value) in expected {
        assert_eq!(one[field], value, "{field} in {one:#}");
    }
    assert!(one["rate"].is_u64() && one["since"].is_string());
    assert_eq!((&other["digest"], &other["running"]), (&(&*second.digest).into(), &false.into()));
    assert_eq!((&other["written"], &other["readers"]), (&0.into(), &1.into()));
    let text = text(&daemon);
    assert!(
        text.contains(&format!("docker.io/library/app  {}  10.5 MB of 21.0 MB (50%)", &first.hex()[..12])),
        "{text}"
    );
    assert!(text.contains("2 clients wait") && text.contains("  waiting  1 client waits"), "{text}");
    registry.release(&first.digest);
    streams.into_iter().for_each(|mut stream| drop(stream.read_to(20 * MIB)));
    assert!(waiting.join().unwrap() == second.bytes());
    eventually("nothing is under way", || json(&daemon)["downloads"].as_array().unwrap().is_empty());
}

#[test]
fn rounds_and_checks_are_told() {
    let image = Image::of_size(1, 2 * MIB);
    let registry = Upstream::start(Layout::of("library/app", "1", &image));
    let rounds = "[prune]\nmin_free = \"0%\"\nmax_size = \"1MB\"\nfrequency = \"100ms\"\nkeep = [\"docker.io/library/*\"]\n\
                  [check]\nevery = \"100ms\"\n";
    let mut daemon = Daemon::with(rounds, &registry);
    daemon.get(&target("manifests", "1")).is(200);
    settled(&daemon, &image);
    eventually("a round found too little that may go", || {
        let round = json(&daemon)["last_prune"].clone();
        round["enough"] == false && round["images"] == 0 && round["dry_run"] == false
    });
    eventually("a check found nothing wrong", || json(&daemon)["last_check"]["wrong"] == 0);
    let before = json(&daemon)["last_check"]["finished"].as_str().unwrap().to_owned();
    // The last one is told after a restart, too.
    daemon.configure(&format!(
        "[prune]\nmin_free = \"0%\"\n[check]\nevery = \"\"\n{}",
        entry("docker.io", &registry)
    ));
    daemon.restart();
    let status = json(&daemon);
    let finished = status["last_check"]["finished"].as_str().unwrap();
    assert!(*finished >= *before, "{finished} < {before}");
    assert!(text(&daemon).contains(": nothing wrong"), "{}", text(&daemon));
}

#[test]
fn systemd_hears_in_words_what_has_changed() {
    let image = Image::of_size(1, 8 * MIB);
    let layer = image.layers[0].clone();
    let mut registry = Upstream::start(Layout::of("library/app", "1", &image));
    let entries = entry("docker.io", &registry);
    let mut daemon = Daemon::prepared(&format!("prefetch = \"none\"\n{AT_ONCE}{entries}"));
    let manager = Manager::listen(daemon.dir.path());
    let mut command = daemon.command();
    manager.manage(&mut command);
    daemon.start_by(command);
    registry.hold(&layer.digest, 4 * MIB);
    daemon.get(&target("manifests", "1")).is(200);
    let mut stream = get(&target("blobs", &layer.digest)).open(daemon.addr);
    stream.read_to(MIB);
    let size = image.manifest.bytes.len();
    assert!(size < 1000, "{size}");
    manager.wait_for(&format!("STATUS=1 image, {size} B; 1 request and 1 download under way"));
    registry.release(&layer.digest);
    stream.read_to(8 * MIB);
    drop(stream);
    manager.wait_for("STATUS=1 image, 8.4 MB; nothing under way");
    registry.stop();
    daemon.get(&target("manifests", "other")).is(502);
    let mut last = String::new();
    while !last.starts_with("STATUS=1 image, 8.4 MB; nothing under way; last error ") {
        let next = manager.next().concat();
        assert_ne!(next, last, "said twice");
        last = next;
    }
    assert!(last.contains("cannot pull manifest \"docker.io/library/app:other\""), "{last}");
}
