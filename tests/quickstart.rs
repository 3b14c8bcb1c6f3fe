//! The first page of the manual, typed by a new user: from the first start to what the log says of the second.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use support::client::get;
use support::daemon::{BINARY, entry};
use support::layout::*;
use support::process::{Process, eventually, free_port, limited, succeed};
use support::upstream::Upstream;

/// A folder with `bin/ociregistry` in it, as `make server` leaves it, and one thing that the page has not: a
/// configuration which makes this upstream registry.k8s.io.
struct Checkout {
    dir: tempfile::TempDir,
    port: u16,
}

impl Checkout {
    fn of(upstream: &Upstream) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // For everybody, like /tmp.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::copy(BINARY, dir.path().join("bin/ociregistry")).unwrap();
        std::fs::write(dir.path().join("ociregistry.toml"), entry("registry.k8s.io", upstream)).unwrap();
        Self { dir, port: free_port() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap()
    }

    /// What a user who is not root types, in place of /tmp/images a folder of this test's, and another port.
    fn typed(&self, line: &str) -> String {
        line.replace("/tmp/images", &format!("{}/images", self.path().display()))
            .replace("8080", &self.port.to_string())
    }

    fn serve(&self, line: &str) -> Process {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            "--pdeathsig",
            "KILL",
            "--",
        ]);
        command.args(self.typed(line).split(' ')).current_dir(self.path());
        let mut process = Process::spawn(command, &self.path().join("log"));
        let addr = SocketAddr::from(([127, 0, 0, 1], self.port));
        process.wait_until("an answer", || get("/v2/").try_open(addr).is_some());
        process
    }

    fn shell(&self, line: &str) -> String {
        let mut command = limited("sh");
        command.args(["-c", &self.typed(line)]);
        succeed(command)
    }
}

/// Everything that the banner says, in its order.
fn is_banner(log: &str, pid: u32, port: u16, command_line: &str) {
    let rule = "-".repeat(70);
    let lines: Vec<_> =
        log.lines().skip_while(|line| *line != rule).skip(1).take_while(|line| *line != rule).collect();
    let [title, version, started, listening, user, process, tls, command] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(title, "OCI Registry: pull-only, pull-through, caching OCI Distribution Server");
    let date =
        version.strip_prefix(concat!("Version: ", env!("CARGO_PKG_VERSION"), ", build date: ")).unwrap();
    assert!(date.parse::<jiff::Timestamp>().is_ok(), "{version}");
    let time =
        started.strip_prefix("Started: ").and_then(|rest| rest.strip_suffix(&format!(" (port {port})")));
    let (time, zone) = time.unwrap().rsplit_once(' ').unwrap();
    let time = jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f %z", time).unwrap();
    let now = jiff::Timestamp::now();
    assert!(!zone.is_empty() && time <= now && now.as_second() - time.as_second() < 600, "{started}");
    assert_eq!(listening, format!("Listening on: 127.0.0.1:{port}"));
    assert_eq!(user, "Running as (uid:gid) 65534:65534");
    assert_eq!(process, format!("Process id: {pid}"));
    assert_eq!(tls, "Tls: none");
    assert_eq!(command, format!("Command line: {command_line}"));
}

#[test]
fn the_page_works_as_it_is_typed() {
    needs!("curl", "find");
    let image = Image::small(1);
    let list = index(DOCKER_LIST, &[(&image.manifest, "amd64")]);
    let mut layout = Layout::of("kube-scheduler", "image", &image);
    layout.add_manifest("kube-scheduler", "v1.29.1", &list);
    let mut upstream = Upstream::start(layout);
    let page = Checkout::of(&upstream);

    let line = "bin/ociregistry --config-file ociregistry.toml --image-path /tmp/images serve --port 8080";
    let mut server = page.serve(line);
    is_banner(&page.log(), server.pid(), page.port, &page.typed(line));

    let digest = &image.manifest.digest;
    let curls = [
        ("curl -fsS localhost:8080/v2/kube-scheduler/manifests/v1.29.1?ns=registry.k8s.io".to_owned(), &list),
        ("curl -fsS localhost:8080/v2/registry.k8s.io/kube-scheduler/manifests/v1.29.1".to_owned(), &list),
        (
            format!("curl -fsS localhost:8080/v2/kube-scheduler/manifests/{digest}?ns=registry.k8s.io"),
            &image.manifest,
        ),
    ];
    let curl_all = || {
        for (curl, manifest) in &curls {
            assert_eq!(page.shell(curl).as_bytes(), &*manifest.bytes, "{curl}");
        }
    };
    curl_all();

    // The blobs come with the manifest.
    let wanted: Vec<_> = image
        .blobs()
        .map(|blob| format!("/tmp/images/blobs/{}", blob.hex()))
        .chain([&list, &image.manifest].map(|manifest| format!("/tmp/images/img/{}", manifest.hex())))
        .map(|path| page.typed(&path))
        .collect();
    eventually("all of it is in the cache", || {
        let found = page.shell("find /tmp/images");
        wanted.iter().all(|path| found.lines().any(|line| line == path))
    });

    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
    upstream.stop();
    std::fs::remove_file(page.path().join("log")).unwrap();
    let line = "bin/ociregistry --config-file ociregistry.toml --image-path /tmp/images --log-level info serve --port 8080";
    let mut server = page.serve(line);
    is_banner(&page.log(), server.pid(), page.port, &page.typed(line));
    curl_all();
    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
    let log = page.log();
    for line in [
        "server is running".to_owned(),
        "serving manifest from cache: \"registry.k8s.io/kube-scheduler:v1.29.1\"".to_owned(),
        format!("serving manifest from cache: \"registry.k8s.io/kube-scheduler@{digest}\""),
        "GET:/v2/kube-scheduler/manifests/v1.29.1?ns=registry.k8s.io status=200".to_owned(),
        page.typed("host=localhost:8080 ip="),
    ] {
        assert!(log.contains(&line), "no {line} in\n{log}");
    }
}
