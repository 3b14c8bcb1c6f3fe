//! Looking after a large cache: time and memory of what walks through all of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
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

/// Images of one repository.
const TAGS: usize = 10;

/// Images that an eviction takes.
const VICTIMS: usize = 1_000;

/// Bytes of a blob.
const TINY: usize = 16;

/// Pulls that are timed, by each of four clients, and the pause after each: as many as a node makes, not as many as
/// it can.
const PULLS: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);

pub fn care(table: &mut Table) {
    // Made once, and used again: a million files take their time.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-care");
    let cache = folder.join("cache");
    fill(&cache);
    pulls_beside_it(&folder, table);
    let mut row = |name: &str, args: &[&str], seconds: f64, megabytes: f64| {
        let runs: Vec<_> = (0..3).map(|_| run(&cache, args)).collect();
        table.bound(&format!("{name}, s"), median(runs.iter().map(|run| run.0).collect()), seconds);
        table.bound(
            &format!("{name}, peak MB"),
            median(runs.iter().map(|run| run.1 / 1e6).collect()),
            megabytes,
        );
    };
    row("list of 100,000 images", &["list"], 5.0, 64.0);
    row("list of 100,000 images, sorted", &["list", "--sort", "pulled"], 6.0, 64.0);
    row("prune --dry-run beside 1,000,000 blobs", &["prune", "--blobs", "--dry-run"], 30.0, 47.0);
    let size: usize = fs::read_dir(cache.join("img"))
        .map_or(0, |all| all.filter_map(|one| Some(one.ok()?.metadata().ok()?.len() as usize)).sum());
    let each = (size + IMAGES * BLOBS * TINY) / IMAGES;
    let keep = format!("{}B", (IMAGES - VICTIMS) * each);
    row(
        "prune --keep-size --dry-run of 1,000 images",
        &["prune", "--keep-size", &keep, "--dry-run"],
        35.0,
        47.0,
    );
    let (seconds, peak) = run(&cache, &["prune", "--keep-size", &keep]);
    table.bound("eviction of 1,000 images of 100,000, s", seconds, 40.0);
    table.bound("eviction of 1,000 images of 100,000, peak MB", peak / 1e6, 47.0);
    // For the next run.
    fill(&cache);
}

/// How long pulls of a cached image take while the daemon walks through all of it, and what that takes of its memory.
fn pulls_beside_it(folder: &Path, table: &mut Table) {
    let content = Content::make();
    let daemon = Daemon::start(
        folder,
        upstream::start(&content),
        "tag_ttl = \"forever\"\n[prune]\nenabled = false\n[check]\nevery = \"\"\n",
    );
    let work: Vec<Vec<Target>> = content.images.iter().take(100).map(Image::requests).collect();
    load::run_all(daemon.address, &work, 1);
    daemon.settle();
    let p99 = || {
        let mut times = load::times(daemon.address, &work, 4, PULLS, PAUSE);
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100] * 1e3
    };
    // What pulls take anyhow is there by then.
    p99();
    let before = daemon.memory("VmHWM");
    let marking = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ociregistry"));
        command.args(["--config-file", "/dev/null", "--image-path"]).arg(folder.join("cache"));
        command.args(["prune", "--blobs", "--dry-run"]).stdout(Stdio::null());
        let mut child = command.spawn().expect("start a prune");
        let time = p99();
        assert!(child.try_wait().expect("look at the prune").is_none(), "the prune ended before the pulls");
        assert!(child.wait().expect("wait for the prune").success(), "the prune failed");
        time
    };
    let (beside, alone) = alternate(marking, p99);
    table.time("pull of a cached image while all is marked, p99 in ms", "alone", beside, alone, 2.0);
    let more = (daemon.memory("VmHWM") - before) / 1e6;
    table.bound("memory more while 100,000 images are marked, MB", more, 32.0);
}

/// Runs a command on the cache: seconds, and bytes of memory at the most.
fn run(cache: &Path, args: &[&str]) -> (f64, f64) {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ociregistry"))
        .args(["--config-file", "/dev/null", "--image-path"])
        .arg(cache)
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .expect("start the command");
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

/// Makes what is missing. Image 0 was not used for longest.
fn fill(cache: &Path) {
    for folder in ["blobs", "img", "refs", "partial"] {
        fs::create_dir_all(cache.join(folder)).expect("make a folder");
    }
    fs::write(cache.join("store.json"), "{\"version\": 1, \"id\": \"bench\"}\n").expect("write store.json");
    let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for number in 0..IMAGES {
        let tag = reference(cache, number, &format!("_tags/v{number}"));
        if tag.exists() {
            continue;
        }
        let mut descriptors = Vec::new();
        for part in 0..BLOBS {
            let hex = spread(number * BLOBS + part);
            descriptors.push(json!({
                "mediaType": "application/octet-stream", "digest": format!("sha256:{hex}"), "size": TINY
            }));
            // A hole: it takes no space of the disk's.
            File::create(cache.join("blobs").join(hex))
                .and_then(|file| file.set_len(TINY as u64))
                .expect("make a blob");
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_IMAGE,
            "config": descriptors[0], "layers": descriptors[1..],
        });
        let manifest = manifest.to_string();
        let digest = Digest::of(Algorithm::Sha256, manifest.as_bytes());
        fs::write(cache.join("img").join(digest.hex()), &manifest).expect("write a manifest");
        let fetched = "2026-01-31T12:00:00.123456789Z";
        let by_digest = json!({
            "mediaType": MediaType::OCI_IMAGE, "size": manifest.len(), "fetched": fetched, "asked": false
        });
        let mut by_tag = by_digest.clone();
        by_tag["digest"] = json!(digest);
        by_tag["checked"] = json!(fetched);
        by_tag.as_object_mut().expect("an object").remove("asked");
        let of_digest = reference(cache, number, &format!("_manifests/{}", digest.hex()));
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

fn reference(cache: &Path, number: usize, name: &str) -> PathBuf {
    let repository = number / TAGS;
    cache.join(format!("refs/bench.example/team-{}/app-{repository}", repository % 7)).join(name)
}
