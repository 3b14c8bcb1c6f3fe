//! Which registry a request means.

use super::*;
use crate::support::daemon::entry;

/// Three registries with an image each; which of them answered?
struct Three {
    images: [Image; 3],
    _upstreams: [Upstream; 3],
    daemon: Daemon,
}

impl Three {
    fn new() -> Self {
        let names = ["docker.io", "registry.k8s.io", "reg.example:5000"];
        let images = [1, 2, 3].map(Image::small);
        let upstreams = [0, 1, 2].map(|n| Upstream::start(Layout::of("library/app", "1", &images[n])));
        let daemon = Daemon::configured(&[0, 1, 2].map(|n| entry(names[n], &upstreams[n])).concat());
        Self { images, _upstreams: upstreams, daemon }
    }

    #[track_caller]
    fn answers(&self, target: &str, who: usize) {
        assert!(self.daemon.get(target).is(200).body == *self.images[who].manifest.bytes, "{target}");
    }
}

#[test]
fn ns_is_percent_encoded() {
    Three::new().answers("/v2/library/app/manifests/1?ns=reg.example%3A5000", 2);
}

#[test]
fn ns_may_come_with_the_same_registry_or_an_alias_of_it_in_the_path() {
    let three = Three::new();
    three.answers("/v2/registry.k8s.io/library/app/manifests/1?ns=registry.k8s.io", 1);
    three.answers("/v2/reg.example:5000/library/app/manifests/1?ns=reg.example%3A5000", 2);
    three.answers("/v2/docker.io/library/app/manifests/1?ns=registry-1.docker.io", 0);
    three.answers("/v2/index.docker.io/app/manifests/1?ns=docker.io", 0);
}

#[test]
fn regctl_says_registry_1_docker_io() {
    Three::new().answers("/v2/library/app/manifests/1?ns=registry-1.docker.io", 0);
}

#[test]
fn dockers_graph_drivers_mirror_docker_io_without_ns() {
    Three::new().answers("/v2/library/app/manifests/1", 0);
}

#[test]
fn dockers_containerd_store_and_buildkit_begin_with_a_head_and_no_ping() {
    let scene = Scene::small();
    let target = scene.manifest("1");
    let head = scene.head(&target).is(200);
    assert_eq!(head.header("docker-content-digest"), Some(&*scene.index.digest));
    scene.get(&scene.manifest(&scene.index.digest)).is(200);
}

#[test]
fn docker_io_has_three_names_and_understands_library() {
    let three = Three::new();
    for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
        three.answers(&format!("/v2/{name}/library/app/manifests/1"), 0);
        three.answers(&format!("/v2/{name}/app/manifests/1"), 0);
        three.answers(&format!("/v2/app/manifests/1?ns={name}"), 0);
    }
}

#[test]
fn soci_nydus_and_older_stargz_name_nothing_and_get_the_default_registry() {
    let image = Image::small(4);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image));
    let daemon = Daemon::with("default_ns = \"registry.k8s.io\"", &upstream);
    let got = daemon.get("/v2/team/app/manifests/1").is(200);
    assert!(got.body == *image.manifest.bytes);
    let tag = daemon.images().join("refs/registry.k8s.io/team/app/_tags/1");
    crate::support::process::eventually("it is kept under the default", || tag.exists());
}

#[test]
fn containerds_override_path_without_a_path_takes_v2_away() {
    let three = Three::new();
    three.answers("/library/app/manifests/1?ns=registry.k8s.io", 1);
    let blob = &three.images[1].layers[0];
    let got = three.daemon.get(&format!("/library/app/blobs/{}?ns=registry.k8s.io", blob.digest)).is(200);
    assert!(got.body == blob.bytes());
}
