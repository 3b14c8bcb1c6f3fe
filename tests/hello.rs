//! The greeting: an image out of the program itself.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::io::Read;

use serde_json::Value;
use support::daemon::{Daemon, list};
use support::layout::sha256;
use support::process::succeed;
use support::runtimes::{Containerd, Dockerd, Podman, Skopeo};

const TAG: &str = "/v2/library/hello-world/manifests/latest?ns=docker.io";

/// Without any upstream.
fn daemon() -> Daemon {
    let mut daemon = Daemon::prepared("air_gapped = true");
    daemon.options(&["--hello-world"]);
    daemon.start();
    daemon
}

fn json(daemon: &Daemon, target: &str) -> Value {
    serde_json::from_slice(&daemon.get(target).is(200).body).unwrap()
}

fn by_digest(kind: &str, descriptor: &Value) -> String {
    format!("/v2/docker.io/library/hello-world/{kind}/{}", descriptor["digest"].as_str().unwrap())
}

#[test]
fn containerd_pulls_it_and_runs_it_without_any_upstream() {
    needs!("containerd", "ctr", "runc");
    let daemon = daemon();
    let containerd = Containerd::start();
    containerd.mirror("docker.io", daemon.addr);
    let digest = daemon.head(TAG).is(200).header("docker-content-digest").unwrap().to_owned();
    for reference in
        ["docker.io/library/hello-world:latest", &format!("docker.io/library/hello-world@{digest}")]
    {
        containerd.pull(reference);
        let said = containerd.run(reference);
        assert!(said.starts_with("\nHello from ociregistry!\n"), "{said}");
        containerd.remove(reference);
    }
    assert!(list(&daemon.images().join("blobs")).is_empty() && list(&daemon.images().join("img")).is_empty());
}

#[test]
fn podman_skopeo_and_docker_pull_it() {
    needs!("podman", "skopeo", "dockerd", "docker");
    let daemon = daemon();
    let reference = format!("{}/docker.io/hello-world:latest", daemon.addr);
    let skopeo = Skopeo::new();
    let copy = skopeo.copy(&reference, &["--src-tls-verify=false", "--all"]);
    assert_eq!(std::fs::read(copy.join("manifest.json")).unwrap(), daemon.get(TAG).is(200).body);
    Podman::new(daemon.addr, &["docker.io"]).pull("docker.io/library/hello-world:latest");
    let dockerd = Dockerd::start(&[&format!("--registry-mirror=http://{}", daemon.addr)]);
    dockerd.pull("hello-world");
}

#[test]
fn on_each_machine_the_program_says_where_it_runs() {
    needs!("qemu-x86_64-static", "qemu-aarch64-static");
    let daemon = daemon();
    let folder = tempfile::tempdir().unwrap();
    let index = json(&daemon, TAG);
    for (manifest, emulator) in
        index["manifests"].as_array().unwrap().iter().zip(["qemu-x86_64-static", "qemu-aarch64-static"])
    {
        let platform = &manifest["platform"];
        let manifest = json(&daemon, &by_digest("manifests", manifest));
        let config = json(&daemon, &by_digest("blobs", &manifest["config"]));
        assert_eq!((&config["os"], &config["architecture"]), (&platform["os"], &platform["architecture"]));
        let layer = daemon.get(&by_digest("blobs", &manifest["layers"][0])).is(200).body;
        assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&layer));
        tar::Archive::new(&*layer).unpack(folder.path()).unwrap();
        let mut command = support::process::limited(emulator);
        command.arg(folder.path().join(config["config"]["Cmd"][0].as_str().unwrap().trim_start_matches('/')));
        let said = succeed(command);
        let place = format!("linux/{}", platform["architecture"].as_str().unwrap());
        assert!(said.contains("Hello from ociregistry!") && said.contains(&place), "{said}");
    }
}

#[test]
fn it_is_served_as_any_image_is() {
    let daemon = daemon();
    let whole = daemon.get(TAG).is(200);
    let digest = sha256(&whole.body);
    assert_eq!(whole.header("docker-content-digest"), Some(&*digest));
    assert_eq!(whole.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    let head = daemon.head(TAG).is(200);
    assert_eq!(head.header("content-length"), Some(&*whole.body.len().to_string()));
    for same in
        ["/v2/hello-world/manifests/latest", &format!("/v2/index.docker.io/hello-world/manifests/{digest}")]
    {
        assert_eq!(daemon.get(same).is(200).body, whole.body);
    }
    let etag = format!("\"{digest}\"");
    daemon.send(support::client::get(TAG).header("If-None-Match", &etag)).is(304);

    let index: Value = serde_json::from_slice(&whole.body).unwrap();
    let manifest = json(&daemon, &by_digest("manifests", &index["manifests"][0]));
    let target = by_digest("blobs", &manifest["layers"][0]);
    let layer = daemon.get(&target).is(200).body;
    assert_eq!(layer.len() as u64, manifest["layers"][0]["size"].as_u64().unwrap());
    let part = daemon.send(support::client::get(&target).range("bytes=257-262")).is(206);
    assert_eq!(part.body, b"ustar\0");
    let mut path = [0; 5];
    (&*layer).read_exact(&mut path).unwrap();
    assert_eq!(&path, b"hello");
    assert_eq!(daemon.head(&target).is(200).header("content-length"), Some(&*layer.len().to_string()));
}

#[test]
fn nothing_else_of_that_name_is_and_nothing_unless_it_is_switched_on() {
    let mut daemon = daemon();
    daemon.get("/v2/library/hello-world/manifests/linux?ns=docker.io").refuses(404, "MANIFEST_UNKNOWN");
    daemon.get("/v2/quay.io/library/hello-world/manifests/latest").refuses(404, "MANIFEST_UNKNOWN");
    let index = json(&daemon, TAG);
    let child = index["manifests"][0]["digest"].as_str().unwrap();
    daemon.get(&format!("/v2/docker.io/library/busybox/manifests/{child}")).refuses(404, "MANIFEST_UNKNOWN");
    daemon.options(&[]);
    daemon.restart();
    daemon.get(TAG).refuses(404, "MANIFEST_UNKNOWN");
}
