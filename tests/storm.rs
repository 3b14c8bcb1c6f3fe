//! Many clients pull many images that share layers, and images go all the while: whatever anybody gets is right, and
//! what is kept in the end is whole.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::cache::*;
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::process::{PATIENCE, eventually};
use support::upstream::Upstream;

const CLIENTS: usize = 6;
const IMAGES: usize = 24;

/// Each has a layer of its own, one of a few that many have, and one that all have. The odd ones are of an index.
struct Fleet {
    images: Vec<Image>,
    indexes: Vec<Manifest>,
    upstream: Upstream,
}

fn repository(number: usize) -> String {
    format!("team-{}/app-{number}", number % 3)
}

impl Fleet {
    fn start() -> Self {
        // Large enough to be streamed.
        let common = Layer::random(1, 3 * MIB / 2);
        let bases: Vec<Layer> = (10..14).map(|seed| Layer::of_noise(seed, 50_000)).collect();
        let image = |number: usize| {
            let own = Layer::of_noise(100 + number as u64, 20_000 + 5_000 * (number as u64 % 7));
            Image::new(vec![common.clone(), bases[number % bases.len()].clone(), own])
        };
        let images: Vec<Image> = (0..IMAGES).map(image).collect();
        let mut layout = Layout::new();
        let mut indexes = Vec::new();
        for (number, image) in images.iter().enumerate() {
            let index = index(OCI_INDEX, &[(&image.manifest, "amd64")]);
            if number.is_multiple_of(2) {
                layout.add(&repository(number), "1", image);
            } else {
                layout.add(&repository(number), "", image);
                layout.add_manifest(&repository(number), "1", &index);
            }
            indexes.push(index);
        }
        Self { images, indexes, upstream: Upstream::start(layout) }
    }

    /// One image as a client would, every byte compared.
    fn pull(&self, daemon: &Daemon, number: usize) {
        let (image, name) = (&self.images[number], repository(number));
        let manifest = |reference: &str| {
            daemon.get(&format!("/v2/{name}/manifests/{reference}?ns=docker.io")).is(200).body
        };
        if number.is_multiple_of(2) {
            assert!(manifest("1") == *image.manifest.bytes);
        } else {
            assert!(manifest("1") == *self.indexes[number].bytes);
            assert!(manifest(&image.manifest.digest) == *image.manifest.bytes);
        }
        for blob in image.blobs() {
            let target = format!("/v2/{name}/blobs/{}?ns=docker.io", blob.digest);
            assert!(daemon.get(&target).is(200).body == blob.bytes(), "{target}");
        }
    }

    /// Clients pull in an order of their own until `enough`; how often they did.
    fn storm(&self, daemon: &Daemon, beside: impl FnOnce()) -> usize {
        let (over, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (over, pulls) = (&over, &pulls);
                scope.spawn(move || {
                    let mut number = client;
                    while !over.load(Relaxed) {
                        self.pull(daemon, number % IMAGES);
                        pulls.fetch_add(1, Relaxed);
                        // 24 and these steps have no divisor in common.
                        number += [1, 5, 7, 11, 13, 17][client];
                    }
                });
            }
            // A client that fails ends the test, not only itself.
            let _over = Over(&over);
            beside();
        });
        pulls.into_inner()
    }

    /// After all: everything is what its name says, every name leads to all that it needs, and what is listed is
    /// served without upstream.
    fn is_whole(&self, daemon: &mut Daemon) {
        assert!(daemon.terminate().success());
        daemon.proven();
        let report: Value = serde_json::from_slice(&daemon.run(&["check", "--json"]).stdout).unwrap();
        assert_eq!(report["wrong"], 0, "{report}");
        daemon.start();
        self.upstream.forget();
        let listed = ran(daemon, &["list", "--json"]);
        let names: Vec<String> = listed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|row| row["tag"] == "1")
            .map(|row| row["image"].as_str().unwrap().strip_prefix("docker.io/").unwrap().to_owned())
            .collect();
        assert!(!names.is_empty());
        for number in (0..IMAGES).filter(|number| names.contains(&repository(*number))) {
            self.pull(daemon, number);
        }
        assert_eq!(self.upstream.seen().len(), 0, "{:?}", self.upstream.seen());
        // And the rest comes anew.
        (0..IMAGES).for_each(|number| self.pull(daemon, number));
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Images of a summary such as `3 images went with …`.
fn went(said: &str) -> usize {
    said.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn prunes_on_command_cost_no_pull_a_byte() {
    let fleet = Fleet::start();
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &fleet.upstream);
    let kinds = [
        &["--keep-size", "1800kB"][..],
        &["--pattern", "^docker.io/team-1/"],
        &["--unused-for", "1ms"],
        &["--keep-size", "2300kB", "--pattern", "app-[0-9]+:1"],
        &["--blobs"],
        &["--older-than", "1ms"],
        &["--pattern", "."],
    ];
    let mut images = [0; 7];
    // All kinds but --blobs, whose turn comes when nothing is left over, find images to take.
    let took = |images: &[usize; 7]| (0..7).all(|kind| kind == 4 || images[kind] > 0);
    let pulls = fleet.storm(&daemon, || {
        let deadline = Instant::now() + PATIENCE;
        for round in 0.. {
            if round >= 10 && took(&images) || Instant::now() > deadline {
                break;
            }
            for (kind, options) in kinds.iter().enumerate() {
                images[kind] += went(&ran(&daemon, &[&["prune"], *options].concat()));
            }
            if round % 3 == 2 {
                assert!(ran(&daemon, &["check"]).contains("nothing wrong"));
            }
        }
    });
    // It was a storm, and things went in it.
    assert!(pulls > 4 * IMAGES, "{pulls}");
    assert!(took(&images) && images[4] == 0, "{images:?}");
    fleet.is_whole(&mut daemon);
}

#[test]
fn rounds_that_keep_the_cache_small_cost_no_pull_a_byte() {
    let fleet = Fleet::start();
    let rounds = "[prune]\nmin_free = \"0%\"\nmax_size = \"2100kB\"\nfrequency = \"100ms\"\n";
    let mut daemon = Daemon::prepared("");
    daemon.configure(&format!("tag_ttl = \"1h\"\n{rounds}{}", entry("docker.io", &fleet.upstream)));
    daemon.start();
    let refs = daemon.images().join("refs");
    let rounds = || daemon.log().matches("pruned ").count();
    let pulls = fleet.storm(&daemon, || {
        let deadline = Instant::now() + PATIENCE;
        while rounds() < 15 {
            assert!(Instant::now() < deadline, "{} rounds took anything:\n{}", rounds(), daemon.log());
            // Rounds spare what was used within the hour.
            unused_for(&refs, days(1));
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(pulls > IMAGES, "{pulls}");
    let size = || -> u64 {
        let of = |folder: &str| -> u64 {
            let entries = fs::read_dir(daemon.images().join(folder)).unwrap();
            entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
        };
        of("blobs") + of("img")
    };
    eventually("the cache is as small as it is to be", || {
        unused_for(&refs, days(1));
        size() <= 2_100_000
    });
    fleet.is_whole(&mut daemon);
}
