//! The log as the journal gets it: a socket in its place, in a view of the file system of the daemon's own.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use support::daemon::{BINARY, Daemon, entry};
use support::layout::*;
use support::process::{PATIENCE, Process, eventually, tied};
use support::upstream::{Fault, Upstream};

/// The daemon's command where its standard error is the journal, and the journal is `socket`.
fn journaled(daemon: &Daemon, socket: &std::path::Path) -> Command {
    let log = daemon.dir.path().join("log");
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap().metadata().unwrap();
    let script = "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && \
                  touch /run/systemd/journal/socket && mount --bind \"$0\" /run/systemd/journal/socket && exec \"$@\"";
    let mut command = tied("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(socket).arg(BINARY);
    daemon.add_arguments(&mut command);
    command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
    command
}

/// The daemon's command where its standard error is the journal, for who does not come so far as to log.
fn failing(daemon: &Daemon) -> Command {
    let log = std::fs::File::create(daemon.dir.path().join("log")).unwrap().metadata().unwrap();
    let mut command = daemon.command();
    command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
    command
}

#[test]
fn what_keeps_it_from_starting_is_an_error_to_the_journal() {
    let daemon = Daemon::prepared("proxy = \"http://me:word@127.0.0.1:1\"");
    let run = || {
        let mut process = Process::spawn(failing(&daemon), &daemon.dir.path().join("log"));
        (process.wait().code(), daemon.log())
    };
    let _taken = std::net::TcpListener::bind(daemon.addr).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(71), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("<4>warning: ") && lines[0].contains(": proxy: a secret"), "{said}");
    assert!(lines[1].starts_with("<3>cannot listen on ") && lines.len() == 2, "{said}");

    daemon.configure("prot = 1\ntag_tl = 2");
    let (code, said) = run();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.lines().count() == 2 && said.lines().all(|line| line.starts_with("<3>")), "{said}");
}

#[test]
fn the_log_file_has_what_keeps_it_from_starting_and_its_warnings() {
    let mut daemon = Daemon::prepared("proxy = \"http://me:word@127.0.0.1:1\"");
    let file = daemon.dir.path().join("own.log");
    daemon.options(&["--log-file", file.to_str().unwrap()]);
    let run = || support::process::run(daemon.command());
    let taken = std::net::TcpListener::bind(daemon.addr).unwrap();
    assert_eq!(run().status.code(), Some(71));
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.contains(" WARN  ") && log.contains(": proxy: a secret"), "{log}");
    assert!(log.contains(" ERROR cannot listen on "), "{log}");

    drop(taken);
    std::fs::create_dir(daemon.images()).unwrap();
    std::fs::write(daemon.images().join("of somebody else"), "").unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8(output.stderr).unwrap();
    let error = error.lines().last().unwrap();
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.contains(&format!(" ERROR {error}\n")), "{error}\n{log}");
}

/// The next message's fields: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>, a value behind `=` or behind its length.
fn receive(journal: &UnixDatagram) -> HashMap<String, String> {
    let mut buffer = vec![0; 1 << 17];
    let length = journal.recv(&mut buffer).expect("no message");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut rest, mut fields) = (&buffer[..length], HashMap::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (text(&rest[..end]), &rest[end + 1..]);
        let (name, value);
        if let Some((before, behind)) = line.split_once('=') {
            (name, value, rest) = (before.to_owned(), behind.to_owned(), after);
        } else {
            let (length, after) = after.split_first_chunk().unwrap();
            let (bytes, after) = after.split_at(u64::from_le_bytes(*length) as usize);
            (name, value, rest) = (line, text(bytes), &after[1..]);
        }
        assert!(fields.insert(name, value).is_none(), "said twice");
    }
    fields
}

#[test]
fn an_admin_finds_requests_and_failures_by_their_fields() {
    needs!("unshare");
    let (image, other) = (Image::small(1), Image::small(2));
    let mut layout = Layout::of("library/app", "1", &image);
    layout.add("library/app", "latest", &image);
    layout.add("library/app", "other", &other);
    let upstream = Upstream::start(layout);
    let mut daemon = Daemon::prepared(&format!(
        "always_pull_latest = true\nprefetch = \"none\"\n{}",
        entry("docker.io", &upstream)
    ));
    daemon.options(&["--log-level", "debug"]);
    let path = daemon.dir.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    daemon.start_by(journaled(&daemon, &path));
    let digest = {
        let answer = daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
        answer.header("docker-content-digest").unwrap().to_owned()
    };
    let find = |name: &str, value: &str| loop {
        let message = receive(&journal);
        if message.get(name).is_some_and(|found| found == value) {
            return message;
        }
    };
    let host = upstream.addr.to_string();
    let pulling = find("MESSAGE", "pulling manifest from upstream: \"docker.io/library/app:1\"");
    assert_eq!((&*pulling["UPSTREAM"], &*pulling["PRIORITY"]), (&*host, "6"));
    let request = find("CACHE", "miss");
    let target = "GET:/v2/library/app/manifests/1?ns=docker.io";
    for (name, value) in [
        ("OCI_REGISTRY", "docker.io"),
        ("OCI_REPOSITORY", "library/app"),
        ("OCI_REFERENCE", "1"),
        ("OCI_DIGEST", &digest),
        ("CLIENT", "127.0.0.1"),
        ("STATUS", "200"),
        ("UPSTREAM", &host),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "ociregistry"),
    ] {
        assert_eq!(request.get(name).map(String::as_str), Some(value), "{name} {request:#?}");
    }
    assert!(request["MESSAGE"].starts_with(&format!("{target} status=200 bytes=")), "{request:#?}");
    for name in ["BYTES", "DURATION_MS"] {
        assert!(request.contains_key(name), "{name} {request:#?}");
    }
    // What was done for it elsewhere is found by it.
    assert_eq!(pulling["REQUEST_ID"], request["REQUEST_ID"]);
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
    let request = find("CACHE", "hit");
    assert_eq!((&*request["PRIORITY"], request.get("UPSTREAM")), ("6", None));
    let latest = "/v2/library/app/manifests/latest?ns=docker.io";
    daemon.get(latest).is(200);
    // Only a whole image is served stale.
    for blob in image.blobs() {
        daemon.get(&support::cache::blob("library/app", &blob.digest)).is(200);
    }
    upstream.fault("/manifests/", .., Fault::Status(500));
    let id =
        daemon.get("/v2/library/app/manifests/2?ns=docker.io").header("x-request-id").unwrap().to_owned();
    let pulling = find("OCI_REFERENCE", "2");
    assert_eq!(pulling["UPSTREAM"], host);
    let again = find("UPSTREAM", &host);
    assert!(again["MESSAGE"].starts_with("asking again: "), "{again:#?}");
    assert_eq!((&*again["PRIORITY"], &again["REQUEST_ID"]), ("7", &id));
    let failure = find("PRIORITY", "4");
    assert_eq!((&*failure["OCI_REFERENCE"], &*failure["UPSTREAM"]), ("2", &*host));
    assert!(failure["ERROR"].contains("500"), "{failure:#?}");
    assert_eq!((&pulling["REQUEST_ID"], &failure["REQUEST_ID"]), (&id, &id));
    let request = find("STATUS", "502");
    assert_eq!(request["REQUEST_ID"], id);
    assert!(request["ERROR"].contains("500"), "{request:#?}");
    daemon.get(latest).is(200);
    let request = find("CACHE", "stale");
    assert_eq!((&*request["STATUS"], &*request["OCI_REFERENCE"]), ("200", "latest"));
    // What is wrong in earnest.
    upstream.fault("/blobs/", .., Fault::Flip(5));
    let digest = &other.layers[0].digest;
    let answer = daemon.get(&support::cache::blob("library/app", digest));
    let wrong = find("PRIORITY", "3");
    assert_eq!(Some(&*wrong["REQUEST_ID"]), answer.header("x-request-id"));
    assert_eq!((&*wrong["OCI_REPOSITORY"], &*wrong["OCI_REFERENCE"]), ("library/app", &**digest));
    assert!(wrong["ERROR"].contains("upstream sent"), "{wrong:#?}");
    // Nothing of it went to the standard error.
    assert!(!daemon.log().contains("status="), "{}", daemon.log());
}

#[test]
fn a_journal_that_stalls_stalls_nobody() {
    needs!("unshare");
    let mut daemon = Daemon::prepared("");
    let path = daemon.dir.path().join("journal");
    // Nobody reads it, until the end.
    let journal = UnixDatagram::bind(&path).unwrap();
    daemon.start_by(journaled(&daemon, &path));
    let mut stream = std::net::TcpStream::connect(daemon.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (rounds, together) = (100, 100);
    let requests = "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".repeat(together);
    let mut answers = vec![0; 1 << 16];
    for _ in 0..rounds {
        stream.write_all(requests.as_bytes()).unwrap();
        let mut text = String::new();
        while text.matches("HTTP/1.1 200 ").count() < together || !text.ends_with("{}") {
            let length = stream.read(&mut answers).unwrap();
            assert_ne!(length, 0, "{text}");
            text += std::str::from_utf8(&answers[..length]).unwrap();
        }
    }
    let dropped = || -> u64 {
        let status = daemon.run(&["status", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        json["log_lines_dropped"].as_u64().unwrap()
    };
    assert!(dropped() > 0);
    journal.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 16];
    eventually("the loss is told", || {
        while let Ok(length) = journal.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.contains("lines of this log were dropped") {
                return true;
            }
        }
        false
    });
}
