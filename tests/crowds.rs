//! Many downloads at once that get nowhere, and images that name more than anybody pulls: all others go on, and memory
//! stays what it is.

mod support;

use std::thread;

use support::client::get;
use support::daemon::Daemon;
use support::layout::*;
use support::process::eventually;
use support::upstream::Upstream;

fn target(blob: &Blob) -> String {
    format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest)
}

/// Each is asked for, begins, and stops there; then its client has gone.
fn stalled(upstream: &Upstream, daemon: &Daemon, blobs: &[Blob], range: Option<&str>) {
    thread::scope(|scope| {
        for part in blobs.chunks(blobs.len().div_ceil(20)) {
            scope.spawn(move || {
                for blob in part {
                    let request = get(&target(blob));
                    let request = match range {
                        Some(range) => request.range(range),
                        None => request,
                    };
                    assert!(request.open(daemon.addr).head.status < 300);
                }
            });
        }
    });
    eventually("all have begun", || blobs.iter().all(|blob| upstream.count("GET", &blob.digest) > 0));
}

#[test]
fn six_hundred_downloads_that_stall_hold_up_nobody() {
    let blobs: Vec<_> = (0..600).map(|seed| Blob::random(1000 + seed, MIB + 1)).collect();
    let healthy = Image::of_size(5, 4 * MIB);
    let mut layout = Layout::of("library/healthy", "1", &healthy);
    for blob in &blobs {
        layout.add_blob("library/app", blob);
    }
    let upstream = Upstream::start(layout);
    let daemon = Daemon::with("max_downloads = 1000\n", &upstream);
    for blob in &blobs {
        upstream.hold(&blob.digest, 1000);
    }
    stalled(&upstream, &daemon, &blobs, None);
    for blob in healthy.blobs() {
        let target = format!("/v2/library/healthy/blobs/{}?ns=docker.io", blob.digest);
        assert!(daemon.get(&target).is(200).body == blob.bytes());
    }
    for blob in &blobs {
        upstream.release(&blob.digest);
    }
    assert!(daemon.get(&target(&blobs[0])).is(200).body == blobs[0].bytes());
}

#[test]
fn a_far_range_whose_client_has_gone_takes_nobodys_place() {
    let blobs: Vec<_> = (0..17).map(|seed| Blob::random(2000 + seed, 20 * MIB)).collect();
    let mut layout = Layout::new();
    for blob in &blobs {
        layout.add_blob("library/app", blob);
    }
    let upstream = Upstream::start(layout);
    let daemon = Daemon::with("max_downloads = 100\n", &upstream);
    for blob in &blobs {
        upstream.hold(&blob.digest, 1000);
    }
    stalled(&upstream, &daemon, &blobs, None);
    let (last, others) = blobs.split_last().unwrap();
    let far = format!("bytes={}-", 15 * MIB);
    // Upstream sends some of these, and then no more.
    for blob in others {
        upstream.hold(&blob.digest, 16 * MIB);
    }
    stalled(&upstream, &daemon, others, Some(&far));
    let far = daemon.send(get(&target(last)).range(&format!("bytes={}-{}", 15 * MIB, 15 * MIB + 99))).is(206);
    assert!(far.body == last.slice(15 * MIB, 100));
    assert!(upstream.count("GET", &last.digest) == 2, "it waited for the download");
}

#[test]
fn an_image_of_twenty_thousand_layers_costs_no_more_memory_than_its_manifest() {
    let layer = |number: usize| {
        let digest = sha256(&number.to_le_bytes());
        serde_json::json!({ "mediaType": OCI_LAYER, "digest": digest, "size": 2_000_000 })
    };
    let mut layout = Layout::new();
    for image in 0..3 {
        let layers: Vec<_> = (0..20_000).map(|number| layer(image * 20_000 + number)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layer((1 << 30) + image), "layers": layers,
        });
        layout.add_manifest(
            "library/app",
            &image.to_string(),
            &Manifest::new(OCI_MANIFEST, manifest.to_string()),
        );
    }
    let upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    for image in 0..3 {
        daemon.get(&format!("/v2/library/app/manifests/{image}?ns=docker.io")).is(200);
    }
    // None of them is there: all are asked for in turn, as far as that goes.
    eventually("it has had enough", || upstream.count("GET", "/blobs/") == 3 * 1024);
    let peak = daemon.peak_memory();
    assert!(peak < 160 << 10, "{peak} KiB");
}
