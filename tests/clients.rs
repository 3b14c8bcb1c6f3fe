//! The clients themselves: through us with the upstream there, without it, and after a restart of ours.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use support::daemon::{Daemon, list};
use support::layout::*;
use support::process::eventually;
use support::recorder::Recorder;
use support::registry::Registry;
use support::runtimes::{Containerd, Dockerd, Podman, Skopeo};
use support::upstream::Upstream;

const IMAGES: [(&str, &str, &str); 3] = [
    ("docker.io", "library/busybox", "1.36"),
    ("registry.k8s.io", "pause", "3.10"),
    ("registry.k8s.io", "deep/name/of/six/path/segments", "v1"),
];

/// One upstream for all registries: an OCI index, a Docker list, and an image without an index.
fn upstream() -> Upstream {
    let mut layout = Layout::new();
    let other = Image::for_arch("s390x", vec![Layer::of_noise(9, 1000)]);
    for (n, (_, repository, tag)) in IMAGES.iter().enumerate() {
        let layers = Image::runnable_layers(n as u64);
        let image = if n == 1 { Image::docker(layers) } else { Image::new(layers) };
        let children = [(&other.manifest, "s390x"), (&image.manifest, "amd64")];
        layout.add(repository, "", &other);
        match n {
            0 => layout.add_manifest(repository, tag, &index(OCI_INDEX, &children)),
            1 => layout.add_manifest(repository, tag, &index(DOCKER_LIST, &children)),
            _ => layout.add_manifest(repository, tag, &image.manifest),
        }
        for blob in image.blobs() {
            layout.add_blob(repository, blob);
        }
        layout.add_manifest(repository, "", &image.manifest);
    }
    Upstream::start(layout)
}

fn reference(n: usize) -> String {
    let (registry, repository, tag) = IMAGES[n];
    format!("{registry}/{repository}:{tag}")
}

/// Pulls through a new daemon, then with the upstream gone, then with the daemon restarted too.
fn thrice(mut pull: impl FnMut(&Daemon)) {
    let mut upstream = upstream();
    let mut daemon = Daemon::with("tag_ttl = 0", &upstream);
    pull(&daemon);
    assert!(!upstream.seen().is_empty());
    upstream.stop();
    pull(&daemon);
    daemon.restart();
    pull(&daemon);
    daemon.proven();
}

#[test]
fn containerd_pulls_and_runs_what_it_pulled() {
    needs!("containerd", "ctr", "runc", "busybox");
    let containerd = Containerd::start();
    thrice(|daemon| {
        for registry in ["docker.io", "registry.k8s.io"] {
            containerd.mirror(registry, daemon.addr);
        }
        for n in 0..IMAGES.len() {
            containerd.pull(&reference(n));
            assert_eq!(containerd.run(&reference(n)), format!("ran {n}\n"));
            containerd.remove(&reference(n));
        }
    });
}

#[test]
fn podman_pulls_by_path_and_by_mirror() {
    needs!("podman", "busybox");
    thrice(|daemon| {
        for n in 0..IMAGES.len() {
            let podman = Podman::new(daemon.addr, &["docker.io", "registry.k8s.io"]);
            podman.pull(&format!("{}/{}", daemon.addr, reference(n)));
            let podman = Podman::new(daemon.addr, &["docker.io", "registry.k8s.io"]);
            podman.pull(&reference(n));
        }
    });
}

#[test]
fn podman_pulls_parts_of_a_zstd_chunked_layer() {
    needs!("podman", "skopeo", "docker-registry");
    let files: Vec<_> = (0..1000).map(|n| (format!("file-{n}"), Blob::random(n, 10_000).bytes())).collect();
    let entries: Vec<_> = files.iter().map(|(name, bytes)| (&**name, &**bytes, 0o644)).collect();
    let mut registry = Registry::plain();
    let image = Image::new(vec![Layer::uncompressed(&entries)]);
    Skopeo::new().push(&image, &format!("{}/team/app:chunked", registry.addr), "zstd:chunked");
    let daemon = Daemon::configured(&registry.entry("docker.io"));
    for round in ["not cached", "cached"] {
        let recorder = Recorder::of(daemon.addr);
        let podman = Podman::partial(recorder.addr);
        podman.pull(&format!("{}/docker.io/team/app:chunked", recorder.addr));
        let most = recorder.ranges().iter().map(|range| range.split(',').count()).max();
        assert!(most > Some(500), "{round}: {:?}", recorder.ranges());
        for (name, bytes) in &files {
            assert!(std::fs::read(podman.files().join(name)).unwrap() == *bytes, "{round}: {name}");
        }
        eventually("the layer and the config are kept", || list(&daemon.images().join("blobs")).len() == 2);
        registry.stop();
    }
    daemon.proven();
}

#[test]
fn skopeo_inspects_and_copies() {
    needs!("skopeo", "busybox");
    let skopeo = Skopeo::new();
    thrice(|daemon| {
        for (n, (registry, repository, tag)) in IMAGES.iter().enumerate() {
            let reference = format!("{}/{}", daemon.addr, reference(n));
            assert_eq!(skopeo.inspect(&reference)["Architecture"], "amd64");
            let copy = skopeo.copy(&reference, &["--src-tls-verify=false", "--all"]);
            let manifest = daemon.get(&format!("/v2/{repository}/manifests/{tag}?ns={registry}")).is(200);
            assert_eq!(std::fs::read(copy.join("manifest.json")).unwrap(), manifest.body);
        }
    });
}

#[test]
fn dockerd_pulls_by_path() {
    needs!("dockerd", "docker", "busybox");
    let dockerd = Dockerd::start(&[]);
    thrice(|daemon| {
        for n in 0..IMAGES.len() {
            let reference = format!("localhost:{}/{}", daemon.addr.port(), reference(n));
            dockerd.pull(&reference);
            dockerd.remove(&reference);
        }
    });
}

#[test]
fn dockerd_pulls_by_registry_mirrors() {
    needs!("dockerd", "docker", "busybox");
    let mut upstream = upstream();
    let mut daemon = Daemon::with("tag_ttl = 0", &upstream);
    let dockerd = Dockerd::start(&[&format!("--registry-mirror=http://{}", daemon.addr)]);
    let pull = || {
        dockerd.pull("busybox:1.36");
        dockerd.remove("busybox:1.36");
    };
    pull();
    assert!(!upstream.seen().is_empty());
    upstream.stop();
    pull();
    daemon.restart();
    pull();
}
