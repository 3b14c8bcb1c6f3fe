//! What `ociregistry mirror` writes, on the real binary, and used by the runtimes it is written for.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::daemon::{BINARY, Daemon, entry};
use support::layout::*;
use support::process::{run, succeed};
use support::runtimes::{Containerd, Dockerd, Podman, seeing};
use support::upstream::Upstream;
use tempfile::TempDir;

/// The root of a host's file system, with a daemon of its own.
struct Host {
    daemon: Daemon,
    root: TempDir,
}

impl Host {
    fn new(daemon: Daemon) -> Self {
        Self { daemon, root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn mirror(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.arg("--config-file").arg(self.daemon.dir.path().join("ociregistry.toml"));
        command.arg("mirror").args(arguments).arg("--root").arg(self.root.path());
        run(command)
    }

    /// Its standard output, after it exited with this status.
    #[track_caller]
    fn says(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.mirror(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {out}{err}");
        format!("{out}{err}")
    }

    /// Every file with its text.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.insert(path.clone(), fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.root.path(), &mut found);
        found
    }
}

fn upstream() -> Upstream {
    let mut layout = Layout::new();
    for (n, repository) in ["library/busybox", "pause"].into_iter().enumerate() {
        layout.add(repository, "v1", &Image::new(Image::runnable_layers(n as u64)));
    }
    Upstream::start(layout)
}

const IMAGES: [&str; 2] = ["docker.io/library/busybox:v1", "registry.k8s.io/pause:v1"];

#[test]
fn containerd_pulls_every_registry_by_one_file() {
    needs!("containerd", "ctr", "busybox");
    let upstream = upstream();
    let host = Host::new(Daemon::of(&upstream));
    let containerd = Containerd::start();
    host.says(0, &["containerd", "--enable"]);
    for image in IMAGES {
        succeed(containerd.pulling(image, &host.path("etc/containerd/certs.d")));
    }
    assert!(upstream.seen().iter().all(|seen| seen.header("via").is_some()));
    host.says(0, &["containerd", "--disable"]);
    assert!(host.files().is_empty());
}

#[test]
fn containerd_turns_to_the_registry_itself_unless_forbidden() {
    needs!("containerd", "ctr", "busybox");
    let upstream = upstream();
    let registry = format!("localhost:{}", upstream.addr.port());
    let entry = format!("[[registries]]\nname = \"{registry}\"\nscheme = \"http\"\n");
    let mut host = Host::new(Daemon::prepared(&entry));
    let containerd = Containerd::start();
    let pulling = |host: &Host| {
        containerd.pulling(&format!("{registry}/pause:v1"), &host.path("etc/containerd/certs.d"))
    };

    host.says(0, &["containerd", "--enable", "--registry", &registry, "--no-fallback"]);
    assert!(!run(pulling(&host)).status.success());
    assert_eq!(upstream.seen().len(), 0);

    host.says(0, &["containerd", "--enable", "--registry", &registry]);
    succeed(pulling(&host));
    assert!(upstream.seen().iter().all(|seen| seen.header("via").is_none()));

    containerd.remove(&format!("{registry}/pause:v1"));
    upstream.forget();
    host.says(0, &["containerd", "--enable", "--registry", &registry, "--no-fallback"]);
    host.daemon.start();
    succeed(pulling(&host));
    assert!(!upstream.seen().is_empty());
    assert!(upstream.seen().iter().all(|seen| seen.header("via").is_some()));
}

#[test]
fn containerd_takes_the_config_path_that_is_asked_for() {
    needs!("containerd");
    let host = Host::new(Daemon::prepared(""));
    host.write("etc/containerd/config.toml", "version = 2\n");
    let said = host.says(0, &["containerd"]);
    let (_, added) = said.split_once("config.toml want\n").unwrap();
    let (added, _) = added.split_once("\nand then").unwrap();
    host.write("etc/containerd/config.toml", &format!("version = 2\n{added}\n"));
    let mut dump = Command::new("containerd");
    dump.arg("--config").arg(host.path("etc/containerd/config.toml")).args(["config", "dump"]);
    let dump: toml::Table = toml::from_str(&succeed(dump)).unwrap();
    let registry = &dump["plugins"]["io.containerd.grpc.v1.cri"]["registry"];
    assert_eq!(registry["config_path"].as_str(), Some("/etc/containerd/certs.d"));
    assert!(!host.says(0, &["containerd"]).contains("To do:"));
}

#[test]
fn podman_pulls_by_the_drop_in() {
    needs!("podman", "unshare", "busybox");
    let upstream = upstream();
    let host = Host::new(Daemon::of(&upstream));
    host.write("etc/containers/registries.conf", "unqualified-search-registries = [\"docker.io\"]\n");
    host.write("etc/containers/registries.conf.d/a.conf", "short-name-mode = \"disabled\"\n");
    let former = host.files();
    for fallback in [&[][..], &["--no-fallback"]] {
        host.says(0, &[&["podman", "--enable"], fallback].concat());
        let podman = Podman::with_etc(&host.path("etc/containers"));
        for image in IMAGES.into_iter().chain(["busybox:v1"]) {
            podman.pull(image);
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.header("via").is_some()));
    host.says(0, &["podman", "--disable"]);
    assert_eq!(host.files(), former);
}

#[test]
fn skopeo_and_buildah_pull_by_the_same_drop_in() {
    needs!("skopeo", "buildah", "unshare", "busybox");
    let upstream = upstream();
    let host = Host::new(Daemon::of(&upstream));
    host.write("etc/containers/policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}");
    host.says(0, &["podman", "--enable", "--no-fallback"]);
    let (etc, folder) = (host.path("etc/containers"), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (n, image) in IMAGES.iter().enumerate() {
        let mut skopeo = seeing("skopeo", &etc);
        skopeo.args(["copy", &format!("docker://{image}"), &format!("dir:{}", path(&n.to_string()))]);
        succeed(skopeo);
        let mut buildah = seeing("buildah", &etc);
        buildah.args(["--root", &path("root"), "--runroot", &path("run"), "--storage-driver", "vfs"]);
        buildah.args(["pull", image]);
        succeed(buildah);
    }
    assert!(upstream.seen().iter().all(|seen| seen.header("via").is_some()));
}

#[test]
fn podman_turns_to_the_registry_itself_unless_forbidden() {
    needs!("podman", "unshare");
    // Of a name without a port, which the path of a mirror could not hold.
    let registry = format!("127.83.{}.{}", std::process::id() >> 8 & 0x7f, std::process::id() & 0xff);
    let listener = TcpListener::bind((&*registry, 443)).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    let host = Host::new(Daemon::prepared(""));
    let pull = |options: &[&str]| {
        host.says(0, &[&["podman", "--enable", "--registry", &registry], options].concat());
        let podman = Podman::with_etc(&host.path("etc/containers"));
        assert!(!run(podman.pulling(&format!("{registry}/pause:v1"))).status.success());
    };
    pull(&["--no-fallback"]);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    pull(&[]);
    assert!(connections.load(Ordering::SeqCst) > 0);
}

#[test]
fn dockerd_pulls_after_a_reload_of_the_merged_file() {
    needs!("dockerd", "docker", "busybox");
    let upstream = upstream();
    let host = Host::new(Daemon::of(&upstream));
    let former = "{\n\t\"max-concurrent-downloads\": 2,\n\t\"labels\" : [ \"a=b\" ]\n}\n";
    host.write("etc/docker/daemon.json", former);
    let dockerd = Dockerd::configured(&host.path("etc/docker/daemon.json"));
    host.says(0, &["docker", "--enable"]);
    dockerd.reload(&format!("http://{}/", host.daemon.addr));
    dockerd.pull("docker.io/library/busybox:v1");
    assert!(!upstream.seen().is_empty());
    host.says(0, &["docker", "--disable"]);
    assert_eq!(fs::read_to_string(host.path("etc/docker/daemon.json")).unwrap(), former);
}

#[test]
fn a_check_says_what_is_missing() {
    let upstream = upstream();
    let mut host = Host::new(Daemon::configured(&entry("docker.io", &upstream)));
    host.write(
        "etc/containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
    );
    for runtime in ["containerd", "podman", "docker", "k3s", "rke2"] {
        assert!(host.says(1, &[runtime, "--check"]).contains("not enabled"));
        host.says(0, &[runtime, "--enable"]);
        let said = host.says(0, &[runtime, "--check"]);
        assert!(said.contains("is in place") && said.contains("the daemon answers"), "{said}");
        assert!(
            host.says(1, &[runtime, "--check", "--address", "http://127.0.0.1:9"]).contains("not enabled")
        );
    }
    host.daemon.terminate();
    assert!(host.says(1, &["docker", "--check"]).contains("Is the daemon running"));
    host.write("etc/containerd/config.toml", "version = 2\n");
    assert!(host.says(1, &["containerd", "--check"]).contains("config_path is not set"));
}

#[test]
fn nothing_is_written_unless_asked_for() {
    let host = Host::new(Daemon::prepared(""));
    for runtime in ["containerd", "podman", "docker", "k3s", "rke2"] {
        for action in [&[runtime][..], &[runtime, "--print"]] {
            let said = host.says(0, action);
            assert!(said.contains(&host.daemon.addr.to_string()) && said.contains("would be made"), "{said}");
        }
        assert!(host.says(0, &[runtime, "--disable"]).contains("Nothing to take back"));
    }
    assert!(host.files().is_empty());
}

#[test]
fn enabling_again_says_that_there_is_nothing_to_do() {
    let host = Host::new(Daemon::prepared(""));
    for runtime in ["containerd", "podman", "docker", "k3s", "rke2"] {
        assert!(host.says(0, &[runtime, "--enable"]).contains(": written"));
        let files = host.files();
        assert!(host.says(0, &[runtime, "--enable"]).contains(": nothing to change"));
        assert_eq!(host.files(), files);
    }
}

#[test]
fn files_of_others_stay_as_they_are() {
    let host = Host::new(Daemon::prepared(""));
    host.write("etc/containerd/certs.d/_default/hosts.toml", "# mine\n");
    host.write("etc/containers/registries.conf.d/50-ociregistry.conf", "# mine\n");
    host.write("etc/docker/daemon.json", "{ mine }");
    host.write("etc/rancher/k3s/registries.yaml", "mirrors: {\"*\": {endpoint: [\"https://a\"]}}\n");
    let former = host.files();
    for runtime in ["containerd", "podman", "docker", "k3s"] {
        for action in ["--print", "--enable", "--check"] {
            host.says(1, &[runtime, action]);
        }
    }
    for runtime in ["containerd", "podman", "k3s"] {
        host.says(0, &[runtime, "--disable"]);
    }
    assert_eq!(host.files(), former);
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let host = Host::new(Daemon::prepared(""));
    for arguments in [
        &["docker", "--no-fallback"][..],
        &["k3s", "--enable", "--no-fallback"],
        &["docker", "--registry", "quay.io"],
        &["podman", "--enable", "--disable"],
        &["podman", "--disable", "--registry", "quay.io"],
        &["podman", "--registry", "a/b"],
        &["podman", "--address", "127.0.0.1:8080"],
        &["cri-o"],
        &[],
    ] {
        host.says(2, arguments);
    }
    assert!(host.files().is_empty());
}

#[test]
fn nothing_is_written_outside_of_the_root() {
    let host = Host::new(Daemon::prepared(""));
    // A link of the image's, to a file that this host has as well.
    let outside = tempfile::tempdir().unwrap();
    let (file, text) = (outside.path().join("daemon.json"), "{\n  \"debug\": true\n}\n");
    fs::write(&file, text).unwrap();
    host.write("etc/docker/none", "");
    std::os::unix::fs::symlink(&file, host.path("etc/docker/daemon.json")).unwrap();
    let said = host.says(1, &["docker", "--enable"]);
    assert!(said.contains("is a symbolic link to") && said.contains("which is not there"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    let inside = file.to_str().unwrap().trim_start_matches('/');
    host.write(inside, text);
    host.says(0, &["docker", "--enable"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert!(fs::read_to_string(host.path(inside)).unwrap().contains("registry-mirrors"));
    host.says(0, &["docker", "--disable"]);
    assert_eq!(fs::read_to_string(host.path(inside)).unwrap(), text);
    assert!(fs::symlink_metadata(host.path("etc/docker/daemon.json")).unwrap().is_symlink());
}
