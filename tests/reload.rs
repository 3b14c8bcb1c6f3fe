//! A configuration that is read anew while the daemon serves, and what commands hear of it.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use nix::sys::signal::Signal;
use support::client::get;
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::process::eventually;
use support::systemd::Manager;
use support::upstream::Upstream;

const MIB: u64 = 1 << 20;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn target(blob: &Blob) -> String {
    format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest)
}

#[test]
fn a_download_and_a_connection_live_through_reloads_good_and_bad() {
    let image = Image::of_size(1, 20 * MIB);
    let blob = image.layers[0].clone();
    let upstream = Upstream::start(Layout::of("library/app", "1", &image)).with_tokens();
    let other = Upstream::start(Layout::of("library/app", "1", &Image::small(2)));
    let daemon = Daemon::with("", &upstream);
    upstream.hold(&blob.digest, 10 * MIB);
    let mut stream = get(&target(&blob)).open(daemon.addr);
    let begun = stream.read_to(MIB);
    let kept = support::client::connect(daemon.addr);
    let (answer, kept) = get("/v2/").open_on(kept, "host").whole_and_connection();
    answer.is(200);
    let tokens = upstream.tokens_issued();

    let configuration = |more: &str| format!("{more}\n{}", entry("docker.io", &upstream));
    daemon.configure(&configuration("tag_ttl = \"5m\""));
    let good = daemon.run(&["reload"]);
    assert!(good.status.success(), "{}", err(&good));
    let removed = |name: &str| format!("registries.\"{name}\": removed\n");
    let expected = ["tag_ttl: 1m → 5m\n", &removed("registry.k8s.io"), &removed("reg.example:5000")];
    for line in expected {
        assert!(out(&good).contains(line), "{}", out(&good));
    }
    daemon.configure("tag_tl = 3");
    let bad = daemon.run(&["reload"]);
    assert_eq!(bad.status.code(), Some(1));
    let place = format!("{}:5: tag_tl: unknown key; did you mean `tag_ttl`?", daemon.file().display());
    assert!(err(&bad).contains("is refused") && err(&bad).contains(&place), "{}", err(&bad));
    daemon.configure(&configuration("tag_ttl = \"5m\""));
    assert_eq!(out(&daemon.run(&["reload"])), "nothing to put in force has changed\n");

    upstream.release(&blob.digest);
    let rest = stream.read_to(blob.size());
    assert!([begun, rest].concat() == blob.bytes());
    get("/v2/").open_on(kept, "host").whole().is(200);
    assert_eq!(upstream.sent(&blob.digest), blob.size());
    // Its token was kept: the same registry was asked for it once.
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    assert_eq!(upstream.tokens_issued(), tokens);

    daemon.configure(&format!("default_ns = \"x.example\"\n{}", entry("x.example", &other)));
    assert!(daemon.run(&["reload"]).status.success());
    daemon.get("/v2/library/app/manifests/1").is(200);
    assert_eq!(other.count("GET", "/manifests/1"), 1);
}

#[test]
fn a_hangup_reloads_and_opens_the_log_anew_and_systemd_hears_of_it() {
    let mut daemon = Daemon::prepared("");
    let manager = Manager::listen(daemon.dir.path());
    let log = daemon.dir.path().join("own.log");
    daemon.options(&["--log-file", log.to_str().unwrap()]);
    let mut command = daemon.command();
    manager.manage(&mut command);
    daemon.start_by(command);
    manager.wait_for("READY=1");
    fs::rename(&log, daemon.dir.path().join("own.log.1")).unwrap();
    let hang_up = |daemon: &mut Daemon| {
        daemon.process().signal(Signal::SIGHUP);
        let reloading = manager.wait_for("RELOADING=1");
        assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
        manager.wait_for("READY=1").concat()
    };
    let status = hang_up(&mut daemon);
    assert!(!status.contains("refused"), "{status}");
    eventually("the log is written anew", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("read anew"))
    });

    daemon.configure("prot = 5");
    let status = hang_up(&mut daemon);
    assert!(status.contains("is refused") && status.contains("prot: unknown key"), "{status}");
    daemon.get("/v2/").is(200);
}

#[test]
fn the_log_level_follows_the_configuration() {
    let daemon = Daemon::configured("");
    let level = |level: &str| {
        let path = daemon.file();
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("log_level", _)) => format!("log_level = \"{level}\""),
            _ => line.to_owned(),
        });
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        assert!(daemon.run(&["reload"]).status.success());
    };
    level("error");
    daemon.get("/v2/?quiet").is(200);
    level("info");
    daemon.get("/v2/?told").is(200);
    eventually("it is told", || daemon.log().contains("GET:/v2/?told"));
    assert!(!daemon.log().contains("?quiet"));
}

#[test]
fn what_needs_a_restart_is_named_until_there_is_one() {
    let daemon = Daemon::configured("listen = []");
    let port = daemon.addr.port();
    let text = fs::read_to_string(daemon.file()).unwrap();
    fs::write(daemon.file(), text.replace(&format!("port = {port}"), "port = 9")).unwrap();
    for _ in 0..2 {
        let output = daemon.run(&["reload"]);
        assert!(out(&output).contains(&format!("needs a restart: port: {port} → 9\n")), "{}", out(&output));
    }
    daemon.get("/v2/").is(200);
}

#[test]
fn a_changed_secret_is_named_and_not_shown() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter1").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let entry =
        format!("{}auth = {{ user = \"me\", password_file = {file:?} }}\n", entry("docker.io", &upstream));
    let daemon = Daemon::configured(&entry);
    fs::write(&file, "hunter2").unwrap();
    let output = daemon.run(&["reload"]);
    assert_eq!(out(&output), "registries.\"docker.io\".auth.password_file: changed\n");
    fs::remove_file(&file).unwrap();
    let output = daemon.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains(&format!("in {} cannot be read", file.display())), "{}", err(&output));
    assert!(!daemon.log().contains("hunter"));
}

#[test]
fn a_credential_of_systemd_is_said_to_be_that_of_the_start() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let entry = entry("docker.io", &upstream);
    let mut daemon = Daemon::prepared(&format!("{entry}auth.token_credential = \"hub\"\n"));
    std::fs::write(daemon.dir.path().join("hub"), "hunter2").unwrap();
    let mut command = daemon.command();
    command.env("CREDENTIALS_DIRECTORY", daemon.dir.path());
    daemon.start_by(command);
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    assert_eq!(upstream.seen()[0].header("authorization"), Some("Bearer hunter2"));
    let output = out(&daemon.run(&["reload"]));
    assert!(
        output.contains("auth.token_credential: systemd handed this credential over at the start"),
        "{output}"
    );
}

#[test]
fn status_says_how_it_is() {
    let image = Image::of_size(1, 4 * MIB);
    let blob = image.layers[0].clone();
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::of(&upstream);
    upstream.hold(&blob.digest, 2 * MIB);
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    let mut stream = get(&target(&blob)).open(daemon.addr);
    stream.read_to(MIB);
    let json: serde_json::Value = serde_json::from_str(&out(&daemon.run(&["status", "--json"]))).unwrap();
    assert_eq!(json["pid"], daemon.pid());
    assert_eq!(json["addresses"], serde_json::json!([daemon.addr.to_string()]));
    assert_eq!((&json["hits"], &json["misses"], &json["stale"]), (&1.into(), &2.into(), &0.into()));
    assert_eq!(json["requests_under_way"], 1);
    assert_eq!(json["last_error"], serde_json::Value::Null);
    let downloads = json["downloads"].as_array().unwrap();
    let download = downloads.iter().find(|download| download["digest"] == *blob.digest).unwrap();
    assert_eq!((&download["size"], &download["readers"]), (&(4 * MIB).into(), &1.into()));
    let text = out(&daemon.run(&["status"]));
    assert!(text.contains(&daemon.addr.to_string()) && text.contains("1 client waits"), "{text}");
    upstream.release(&blob.digest);
    drop(stream);

    daemon.terminate();
    let output = daemon.run(&["status"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(err(&output).contains("no daemon serves from"), "{}", err(&output));
    daemon.start();
    daemon.kill();
    let output = daemon.run(&["status"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(err(&output).contains("no daemon takes commands at"), "{}", err(&output));
}

#[test]
fn an_upstream_that_is_down_is_told_once_and_counted() {
    let mut upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let daemon = Daemon::of(&upstream);
    upstream.stop();
    for n in 0..5 {
        let answer = daemon.get(&format!("/v2/library/app/manifests/{n}?ns=docker.io"));
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!((answer.is(502).code().as_str(), id.len()), ("UNAVAILABLE", 16));
    }
    eventually("the requests are logged", || daemon.log().matches("status=502").count() == 5);
    assert_eq!(daemon.log().matches("WARN").count(), 1, "{}", daemon.log());
    let json: serde_json::Value = serde_json::from_str(&out(&daemon.run(&["status", "--json"]))).unwrap();
    assert!(json["last_error"]["what"].as_str().unwrap().contains("app:4"), "{json:#}");
}

#[test]
fn json_lines_have_the_fields_that_programs_look_for() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let daemon = Daemon::with("log_format = \"json\"", &upstream);
    let manifest = daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    daemon.get("/v2/library/app/manifests/2?ns=docker.io").is(404);
    let lines = || -> Vec<serde_json::Value> {
        let log = daemon.log();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    };
    let of = |status: u16| lines().into_iter().find(|line| line["status"] == status);
    eventually("the lines are written", || of(200).is_some() && of(404).is_some());
    let line = lines().into_iter().find(|line| line["cache"] == "miss").unwrap();
    let fields = [
        ("message", "GET:/v2/library/app/manifests/1?ns=docker.io"),
        ("oci_registry", "docker.io"),
        ("oci_repository", "library/app"),
        ("oci_reference", "1"),
        ("oci_digest", manifest.header("docker-content-digest").unwrap()),
        ("client", "127.0.0.1"),
        ("level", "INFO"),
    ];
    for (name, value) in fields {
        assert_eq!(line[name], value, "{line:#}");
    }
    assert_eq!(line["bytes"], manifest.body.len());
    assert!(line["duration_ms"].is_number() && line["request_id"].is_string(), "{line:#}");
    assert!(of(404).unwrap()["error"].as_str().unwrap().contains("not found"));
}
