//! Whether pulls would work, as those who watch over the host ask it.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::client::{Request, Response, get, head};
use support::daemon::Daemon;
use support::layout::*;
use support::process::{eventually, free_port, succeed};
use support::upstream::{Fault, Upstream};

struct Watched {
    daemon: Daemon,
    health: SocketAddr,
}

impl Watched {
    fn of(mut daemon: Daemon) -> Self {
        let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
        daemon.options(&["--health", &health.port().to_string()]);
        daemon.start();
        Self { daemon, health }
    }

    fn ask(&self) -> Response {
        get("/health").send(self.health)
    }

    /// The status, and the reason where there is one.
    #[track_caller]
    fn is(&self, code: u16, status: &str) -> String {
        let answer = self.ask().is(code);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(json["status"], status, "{json}");
        json["reason"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn it_is_well_whether_or_not_its_upstreams_are() {
    let watched =
        Watched::of(Daemon::prepared("[[registries]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\""));
    watched.daemon.get("/v2/a/manifests/1").refuses(502, "UNAVAILABLE");
    assert_eq!(watched.is(200, "ok"), "");
    let answer = head("/health").send(watched.health).is(200);
    assert_eq!(answer.header("content-length"), Some(&*watched.ask().body.len().to_string()));
    get("/").send(watched.health).is(404);
    get("/v2/").send(watched.health).is(404);
    let post = Request::new("POST", "/health").send(watched.health).is(405);
    assert_eq!(post.header("allow"), Some("GET, HEAD"));
    watched.daemon.get("/health").is(404);
    assert!(watched.daemon.log().contains(&format!("http://{}/health", watched.health)));
}

#[test]
fn it_is_not_while_the_store_cannot_be_written_to() {
    let watched = Watched::of(Daemon::prepared(""));
    let (blobs, elsewhere) =
        (watched.daemon.images().join("blobs"), watched.daemon.dir.path().join("elsewhere"));
    watched.is(200, "ok");
    std::fs::rename(&blobs, &elsewhere).unwrap();
    let reason = watched.is(503, "unavailable");
    assert!(reason.contains(blobs.to_str().unwrap()) && reason.contains("No such file"), "{reason}");
    std::fs::rename(&elsewhere, &blobs).unwrap();
    watched.is(200, "ok");
    assert_eq!(support::daemon::list(&watched.daemon.images().join("partial")), Vec::<String>::new());
}

/// A file system of a megabyte, as long as this is there.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&at);
        succeed(mount);
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_worth_a_word() {
    needs!("mount", "umount");
    let daemon = Daemon::prepared("");
    let _small = Small::mount(daemon.images());
    let watched = Watched::of(daemon);
    watched.is(200, "ok");
    let filler = watched.daemon.images().join("filler");
    assert!(std::fs::write(&filler, vec![1; 2 << 20]).is_err());
    let reason = watched.is(200, "degraded");
    assert!(reason.contains("No space left on device"), "{reason}");
    std::fs::remove_file(filler).unwrap();
    watched.is(200, "ok");
}

#[test]
fn it_is_not_once_it_is_told_to_end() {
    let image = Image::of_size(1, 3 * MIB);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    upstream.fault("/blobs/", .., Fault::Stall(MIB));
    let daemon = Daemon::prepared(&support::daemon::entry("docker.io", &upstream));
    let mut watched = Watched::of(daemon);
    let blob = format!("/v2/library/app/blobs/{}", image.layers[0].digest);
    let mut running = get(&blob).open(watched.daemon.addr);
    running.read_to(100);
    watched.daemon.process().signal(Signal::SIGTERM);
    eventually("the end is told", || watched.ask().status() == 503);
    assert!(watched.is(503, "unavailable").contains("ending"));
    drop(running);
    assert!(watched.daemon.process().wait().success());
}

#[test]
fn a_port_in_use_is_said_to_be_the_healths() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut daemon = Daemon::prepared("");
    daemon.options(&["--health", &port.to_string()]);
    let output = support::process::run(daemon.command());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(71), "{said}");
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port} for --health")), "{said}");
}

#[test]
fn idle_connections_keep_nobody_out() {
    let watched = Watched::of(Daemon::prepared(""));
    let begun = std::time::Instant::now();
    let idle: Vec<_> = (0..80).map(|_| std::net::TcpStream::connect(watched.health).unwrap()).collect();
    assert_eq!(watched.is(200, "ok"), "");
    assert!(begun.elapsed() < std::time::Duration::from_secs(25), "they have 30 s each");
    let mut socket: Vec<_> = Vec::new();
    for _ in 0..80 {
        let path = watched.daemon.images().join("admin.sock");
        socket.push(std::os::unix::net::UnixStream::connect(path).unwrap());
    }
    assert!(watched.daemon.run(&["status"]).status.success());
    drop((idle, socket));
}
