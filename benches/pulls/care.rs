//! Looking after a large cache: time and memory of what walks through all of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use ociregistry::oci::{Algorithm, Digest, MediaType};
use serde_json::json;

use crate::content::{Content, Image};
use crate::daemon::Daemon;
use crate::full::spread;
use crate::load::{self, Target};
use crate::table::{Table, alternate, median};
use crate::upstream;

const IMAGES: usize = 100_000;

/// Of each image, its config included; no two images share one.
const BLOBS: usize = 10;

/// Images of one repository: a few, as most have, or all of them, as nightly builds give it.
const TAGS: [usize; 2] = [10, IMAGES];

/// Images that an eviction takes.
const VICTIMS: usize = 1_000;

/// Bytes of a blob.
const TINY: usize = 16;

/// Clients that pull at the same time, and the pause of each after each pull: as many as a node makes, not as many as
/// it can.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// How long pulls are timed that nothing goes on beside.
const ALONE: Duration = Duration::from_secs(2);

pub fn care(table: &mut Table) {
    // Made once, and used again: a million files take their time.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-care");
    let content = Content::make();
    let upstream = upstream::start(&content);
    for tags in TAGS {
        fill(&folder, tags);
        if tags == TAGS[0] {
            pulls_beside(&folder, &content, upstream, table);
        }
        let shape = format!("100,000 images, {} a repository", if tags == IMAGES { "all" } else { "10" });
        figures(&folder, upstream, &shape, table);
        // What went.
        fill(&folder, tags);
    }
}

/// Time and memory of commands where no daemon runs, and what marking takes of the memory of one.
fn figures(folder: &Path, upstream: SocketAddr, shape: &str, table: &mut Table) {
    let mut row = |name: &str, args: &[&str], seconds: f64, megabytes: f64| {
        let runs: Vec<_> = (0..3).map(|_| run(folder, args)).collect();
        let name = format!("{name} ({shape})");
        table.bound(&format!("{name}, s"), median(runs.iter().map(|run| run.0).collect()), seconds);
        table.bound(
            &format!("{name}, peak MB"),
            median(runs.iter().map(|run| run.1 / 1e6).collect()),
            megabytes,
        );
    };
    row("list", &["list"], 5.0, 64.0);
    row("list, sorted", &["list", "--sort", "pulled"], 6.0, 64.0);
    row("prune --dry-run beside 1,000,000 blobs", &["prune", "--blobs", "--dry-run"], 30.0, 47.0);
    let keep = keep(folder);
    row(
        "prune --keep-size --dry-run of 1,000 images",
        &["prune", "--keep-size", &keep, "--dry-run"],
        35.0,
        47.0,
    );
    let (seconds, peak) = run(folder, &["prune", "--keep-size", &keep]);
    table.bound(&format!("eviction of 1,000 images ({shape}), s"), seconds, 40.0);
    table.bound(&format!("eviction of 1,000 images ({shape}), peak MB"), peak / 1e6, 47.0);

    let daemon = Daemon::start(folder, upstream, QUIET);
    let before = daemon.memory("VmHWM");
    whole(folder, &["prune", "--blobs", "--dry-run"]);
    let more = (daemon.memory("VmHWM") - before) / 1e6;
    table.bound(&format!("memory more of the daemon that marks ({shape}), MB"), more, 32.0);
}

/// A daemon that does nothing by itself.
const QUIET: &str = "tag_ttl = \"forever\"\n[prune]\nenabled = false\n[check]\nevery = \"\"\n";

/// How long pulls of a cached image take while the daemon looks after all of its cache.
fn pulls_beside(folder: &Path, content: &Content, upstream: SocketAddr, table: &mut Table) {
    let daemon = Daemon::start(folder, upstream, QUIET);
    let work: Vec<Vec<Target>> = content.images.iter().take(100).map(Image::requests).collect();
    load::run_all(daemon.address, &work, 1);
    daemon.settle();
    let p99 = |beside: &mut dyn FnMut()| {
        let mut times = load::times(daemon.address, &work, CLIENTS, PAUSE, beside);
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100] * 1e3
    };
    let alone = || p99(&mut || std::thread::sleep(ALONE));
    // What comes with the first pulls is there by then.
    alone();
    let mut row = |what: &str, goal: f64, beside: &mut dyn FnMut() -> f64| {
        let (beside, alone) = alternate(beside, alone);
        table.time(&format!("pull of a cached image while {what}, p99 in ms"), "alone", beside, alone, goal);
    };
    // Who asks prints all of it, with a processor of the host's for some seconds.
    row("100,000 images are listed", 4.0, &mut || p99(&mut || whole(folder, &["list"])));
    row("all is marked", 2.0, &mut || p99(&mut || whole(folder, &["prune", "--blobs", "--dry-run"])));
    let keep = keep(folder);
    row("1,000 images are evicted", 2.0, &mut || {
        let mut child = command(folder, &["prune", "--keep-size", &keep])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a prune");
        let mut names = BufReader::new(child.stdout.take().expect("its output")).lines();
        // All is marked when the first one goes.
        names.next().expect("something goes").expect("a name");
        let mut count = 1;
        let time = p99(&mut || count += names.by_ref().count());
        assert!(child.wait().expect("wait for the prune").success(), "the prune failed");
        assert!(count > VICTIMS / 2, "only {count} went");
        fill(folder, TAGS[0]);
        time
    });
}

/// The size of the cache that an eviction of so many images leaves.
fn keep(folder: &Path) -> String {
    let bytes = |name: &str| -> u64 {
        let entries = fs::read_dir(folder.join("cache").join(name)).expect("list a folder");
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    };
    let (_, manifest) = image(0);
    let each = (manifest.len() + BLOBS * TINY) as u64;
    format!("{}B", bytes("img") + bytes("blobs") - VICTIMS as u64 * each)
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ociregistry"));
    command.args(["--config-file", "/dev/null", "--image-path"]).arg(folder.join("cache")).args(args);
    command.stdout(Stdio::null());
    command
}

/// Runs a command to its end.
fn whole(folder: &Path, args: &[&str]) {
    assert!(command(folder, args).status().expect("run a command").success(), "{args:?} failed");
}

/// The same: seconds, and bytes of memory at the most.
fn run(folder: &Path, args: &[&str]) -> (f64, f64) {
    let begun = Instant::now();
    let mut child = command(folder, args).spawn().expect("start the command");
    let mut peak = 0.0;
    let status = loop {
        if let Ok(status) = fs::read_to_string(format!("/proc/{}/status", child.id())) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
            peak = f64::max(peak, kilobytes.unwrap_or(0.0) * 1024.0);
        }
        if let Some(status) = child.try_wait().expect("wait for the command") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{args:?} ended with {status}");
    (begun.elapsed().as_secs_f64(), peak)
}

/// The names of an image's blobs, and its manifest.
fn image(number: usize) -> (Vec<String>, String) {
    let blobs: Vec<_> = (0..BLOBS).map(|part| spread(number * BLOBS + part)).collect();
    let descriptor = |hex: &String| json!({ "mediaType": "application/octet-stream", "digest": format!("sha256:{hex}"), "size": TINY });
    let descriptors: Vec<_> = blobs.iter().map(descriptor).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_IMAGE,
        "config": descriptors[0], "layers": descriptors[1..],
    });
    (blobs, manifest.to_string())
}

/// Makes what is missing of the cache, with so many images of one repository. Image 0 was not used for longest.
fn fill(folder: &Path, tags: usize) {
    let cache = folder.join("cache");
    for name in ["blobs", "img", "partial"] {
        fs::create_dir_all(cache.join(name)).expect("make a folder");
    }
    fs::write(cache.join("store.json"), "{\"version\": 1, \"id\": \"bench\"}\n").expect("write store.json");
    // What they lead to is the same in each shape.
    let references = folder.join(format!("refs-{tags}"));
    fs::create_dir_all(&references).expect("make a folder");
    let link = cache.join("refs");
    if fs::read_link(&link).ok().as_ref() != Some(&references) {
        let _ = fs::remove_file(&link);
        symlink(&references, &link).expect("link the references");
    }
    let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for number in 0..IMAGES {
        let (blobs, manifest) = image(number);
        let digest = Digest::of(Algorithm::Sha256, manifest.as_bytes());
        let repository = number / tags;
        let folder = references.join(format!("bench.example/team-{}/app-{repository}", repository % 7));
        let tag = folder.join(format!("_tags/v{number}"));
        let content = cache.join("img").join(digest.hex());
        let paths: Vec<_> = blobs.iter().map(|hex| cache.join("blobs").join(hex)).collect();
        if [&tag, &content].into_iter().chain(paths.last()).all(|path| path.exists()) {
            continue;
        }
        for path in paths {
            // A hole: it takes no space of the disk's.
            File::create(path).and_then(|file| file.set_len(TINY as u64)).expect("make a blob");
        }
        fs::write(content, &manifest).expect("write a manifest");
        let fetched = "2026-01-31T12:00:00.123456789Z";
        let by_digest = json!({
            "mediaType": MediaType::OCI_IMAGE, "size": manifest.len(), "fetched": fetched, "asked": false
        });
        let mut by_tag = by_digest.clone();
        by_tag["digest"] = json!(digest);
        by_tag["checked"] = json!(fetched);
        by_tag.as_object_mut().expect("an object").remove("asked");
        let of_digest = folder.join("_manifests").join(digest.hex());
        for (path, json) in [(of_digest, by_digest), (tag, by_tag)] {
            fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
            fs::write(&path, json.to_string()).expect("write a reference");
            let used = begun + Duration::from_secs(number as u64);
            File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(used))
                .expect("set a time");
        }
    }
}
