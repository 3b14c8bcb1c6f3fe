//! What a reload says is in force: it really is, and what must not come in force does not.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::cache::{err, manifest, out, ran};
use support::client::get;
use support::daemon::{BINARY, Daemon, entry};
use support::layout::*;
use support::process::{Process, eventually, free_port, succeed, tied};
use support::registry::{PASSWORD, Registry};
use support::tls::{Ca, connect};
use support::upstream::Upstream;

const SECRET_ENTRY: &str = "[[registries]]\nname = \"a.b\"\nauth = { user = \"me\", password = \"word\" }\n";

/// A command in a network of its own: it may listen on all addresses there.
fn apart(program: &[&str]) -> Command {
    let mut command = tied("unshare");
    command.arg("--net").args(program);
    command
}

fn spawn(daemon: &Daemon, command: Command) -> Process {
    Process::spawn(command, &daemon.dir.path().join("log"))
}

#[track_caller]
fn refused_as_open_to_others(daemon: &Daemon) {
    let output = daemon.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let error = err(&output);
    assert!(error.contains("can be reached by others") && error.contains("`a.b`"), "{error}");
}

#[test]
fn credentials_are_not_put_in_force_at_an_address_that_is_open_since_the_start() {
    needs!("unshare");
    let daemon = Daemon::prepared("host = \"0.0.0.0\"");
    let mut command = apart(&[BINARY]);
    daemon.add_arguments(&mut command);
    let mut process = spawn(&daemon, command);
    process.wait_until("the start", || daemon.log().contains("server is running"));
    // By itself the file is right: it would listen on loopback.
    daemon.configure(SECRET_ENTRY);
    assert!(daemon.run(&["config", "check"]).status.success());
    refused_as_open_to_others(&daemon);
    daemon.configure(&format!("clients = [\"192.0.2.1\"]\n{SECRET_ENTRY}"));
    assert!(daemon.run(&["reload"]).status.success());
    // Nor is what made that safe taken away.
    daemon.configure(SECRET_ENTRY);
    refused_as_open_to_others(&daemon);
}

#[test]
fn nor_at_a_socket_of_systemd() {
    needs!("unshare", "systemd-socket-activate");
    let daemon = Daemon::prepared("");
    let unix = daemon.dir.path().join("pull.sock");
    let tcp = format!("0.0.0.0:{}", free_port());
    let mut command = apart(&["systemd-socket-activate", "-l", &tcp, "-l", unix.to_str().unwrap(), BINARY]);
    daemon.add_arguments(&mut command);
    let mut process = spawn(&daemon, command);
    let mut first = None;
    process.wait_until("the start", || {
        first = first.take().or_else(|| UnixStream::connect(&unix).ok());
        daemon.log().contains("server is running")
    });
    daemon.configure(SECRET_ENTRY);
    refused_as_open_to_others(&daemon);
    daemon.configure(&format!("open = true\n{SECRET_ENTRY}"));
    assert!(daemon.run(&["reload"]).status.success());
}

#[test]
fn a_changed_password_is_the_one_that_upstream_is_shown() {
    needs!("docker-registry", "htpasswd");
    let (registry, image) = (Registry::with_htpasswd(&Arc::new(Ca::new())), Image::small(1));
    registry.push("team/app", "1", &image);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "a guess").unwrap();
    let given = format!("password_file = {file:?}");
    let entry = registry.entry("private.example").replace(&format!("password = \"{PASSWORD}\""), &given);
    let daemon = Daemon::configured(&entry);
    let target = "/v2/team/app/manifests/1?ns=private.example";
    daemon.get(target).refuses(403, "DENIED");
    fs::write(&file, PASSWORD).unwrap();
    let said = ran(&daemon, &["reload"]);
    assert!(said.contains("registries.\"private.example\".auth.password_file: changed"), "{said}");
    assert_eq!(daemon.get(target).is(200).body, *image.manifest.bytes);
    for blob in image.blobs() {
        let got = daemon.get(&format!("/v2/team/app/blobs/{}?ns=private.example", blob.digest)).is(200);
        assert!(got.body == blob.bytes());
    }
    fs::write(&file, "another guess").unwrap();
    ran(&daemon, &["reload"]);
    daemon.get("/v2/team/app/manifests/2?ns=private.example").refuses(403, "DENIED");
}

#[test]
fn more_downloads_may_run_at_once() {
    let (slow, other) = (Image::of_size(1, 4 * MIB), Image::small(2));
    let mut layout = Layout::of("library/slow", "1", &slow);
    layout.add("library/other", "1", &other);
    let upstream = Upstream::start(layout);
    let entry = entry("docker.io", &upstream);
    let daemon = Daemon::configured(&format!("max_downloads = 1\n{entry}"));
    let held = &slow.layers[0].digest;
    upstream.hold(held, MIB);
    // All of an image is fetched with its manifest; what nobody waits for never jumps the queue.
    daemon.get(&manifest("library/slow")).is(200);
    eventually("the only place is taken", || upstream.count("GET", held) == 1);
    daemon.configure(&format!("max_downloads = 8\n{entry}"));
    let said = ran(&daemon, &["reload"]);
    assert!(said.contains("max_downloads: 1 → 8\n"), "{said}");
    daemon.get(&manifest("library/other")).is(200);
    eventually("another image is there", || other.blobs().all(|blob| daemon.blob(blob.hex()).exists()));
    assert!(!daemon.blob(hex_of(held)).exists());
    upstream.release(held);
}

#[test]
fn who_may_pull_and_what_follows_the_configuration() {
    needs!("htpasswd");
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let entry = entry("docker.io", &upstream);
    let daemon = Daemon::configured(&entry);
    let mut command = tied("htpasswd");
    command.args(["-Bbn", "me", "right"]);
    let users = daemon.dir.path().join("users");
    fs::write(&users, succeed(command)).unwrap();
    let app = manifest("library/app");
    let elsewhere = "/v2/app/manifests/1?ns=other.example";
    let connection = support::client::connect(daemon.addr);
    let (answer, mut connection) = get(&app).open_on(connection, "host").whole_and_connection();
    answer.is(200);
    for (keys, target, status) in [
        ("clients = [\"192.0.2.1\"]", &*app, 403),
        ("clients = [\"127.0.0.0/8\"]", &app, 200),
        (&format!("htpasswd = {users:?}"), &app, 401),
        ("deny = [\"docker.io/library/*\"]", &app, 403),
        ("allow = [\"quay.io/**\"]", &app, 403),
        ("unlisted = \"deny\"", elsewhere, 403),
        ("", &app, 200),
    ] {
        daemon.configure(&format!("{keys}\n{entry}"));
        ran(&daemon, &["reload"]);
        assert_eq!(daemon.get(target).status(), status, "{keys}");
        // Also for who was let in before.
        let answer;
        (answer, connection) = get(target).open_on(connection, "host").whole_and_connection();
        assert_eq!(answer.status(), status, "{keys}");
    }

    // A password that was right is not, once it is another.
    daemon.configure(&format!("htpasswd = {users:?}\n{entry}"));
    ran(&daemon, &["reload"]);
    let basic = format!("Basic {}", STANDARD.encode("me:right"));
    let asked = get(&app).header("Authorization", &basic);
    daemon.send(asked.clone()).is(200);
    let mut command = tied("htpasswd");
    command.args(["-Bbn", "me", "another"]);
    fs::write(&users, succeed(command)).unwrap();
    assert_eq!(out(&daemon.run(&["reload"])), "htpasswd: changed\n");
    daemon.send(asked).refuses(401, "UNAUTHORIZED");
}

#[test]
fn tls_is_turned_on_and_off_and_asks_for_certificates() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let entry = entry("docker.io", &upstream);
    let daemon = Daemon::configured(&entry);
    let (ca, folder) = (Ca::new(), daemon.dir.path());
    let (cert, key) = ca.leaf().write(folder, "server");
    let authority = folder.join("ca.pem");
    fs::write(&authority, ca.pem()).unwrap();
    let plain = support::client::connect(daemon.addr);
    let (answer, plain) = get("/v2/").open_on(plain, "host").whole_and_connection();
    answer.is(200);

    let tls = format!("[server_tls]\ncert = {cert:?}\nkey = {key:?}\n");
    daemon.configure(&format!("{tls}{entry}"));
    let said = ran(&daemon, &["reload"]);
    assert!(said.contains("server_tls.cert") && !said.contains("needs a restart"), "{said}");
    get(&manifest("library/app")).open_on(ca.connect(daemon.addr), "localhost").whole().is(200);
    daemon.get("/v2/").is(400);
    // A connection stays what it is.
    let (answer, plain) = get("/v2/").open_on(plain, "host").whole_and_connection();
    answer.is(200);

    daemon.configure(&format!("{tls}client_auth = \"verify\"\nca = {authority:?}\n{entry}"));
    let said = ran(&daemon, &["reload"]);
    assert!(said.contains("server_tls.client_auth: none → verify\n"), "{said}");
    let mut nobody = connect(&ca.client(rustls::ALL_VERSIONS), daemon.addr);
    let mut answer = Vec::new();
    let _ = nobody.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(nobody.read_to_end(&mut answer).is_err() && answer.is_empty(), "{answer:?}");

    daemon.configure(&entry);
    ran(&daemon, &["reload"]);
    daemon.get(&manifest("library/app")).is(200);
    get("/v2/").open_on(plain, "host").whole().is(200);
}
