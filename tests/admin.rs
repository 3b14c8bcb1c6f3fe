//! Commands: the same with the daemon and without it, at its socket and over the network.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::client::get;
use support::daemon::{BINARY, Daemon, entry, list};
use support::layout::*;
use support::process::{eventually, free_port, run, succeed, tied};
use support::upstream::Upstream;

const TOKEN: &str = "a-token-of-24-characters";

fn manifest(repository: &str) -> String {
    format!("/v2/{repository}/manifests/1?ns=docker.io")
}

fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}?ns=docker.io")
}

/// All of it, as a client would.
fn pull(daemon: &Daemon, repository: &str, image: &Image) {
    assert_eq!(daemon.get(&manifest(repository)).is(200).body, *image.manifest.bytes);
    for layer in image.blobs() {
        assert!(daemon.get(&blob(repository, &layer.digest)).is(200).body == layer.bytes());
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn ran(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

/// Nothing in this part of the cache was used for so long.
fn unused_for(folder: &Path, days: u64) {
    let time = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => unused_for(&path, days),
            false => File::open(path).unwrap().set_modified(time).unwrap(),
        }
    }
}

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.images().join("admin.sock")
}

/// What curl says of an answer at the admin socket: its status and its body.
fn ask(daemon: &Daemon, arguments: &[&str]) -> (u16, String) {
    let mut command = tied("curl");
    command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--unix-socket"]);
    command.arg(socket(daemon)).args(arguments);
    let said = succeed(command);
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// The lines of an answer that was all right.
#[track_caller]
fn lines(daemon: &Daemon, path: &str, request: &Value) -> Vec<Value> {
    let (status, body) = ask(daemon, &["--data", &request.to_string(), &format!("http://ociregistry{path}")]);
    assert_eq!(status, 200, "{body}");
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn commands_say_and_do_the_same_with_the_daemon_and_without_it() {
    let shared = Layer::of_noise(1, 20_000);
    let images: Vec<Image> =
        (2..8).map(|seed| Image::new(vec![shared.clone(), Layer::of_noise(seed, 30_000)])).collect();
    let mut layout = Layout::new();
    for (number, image) in images.iter().enumerate() {
        layout.add(&format!("team/app-{number}"), "1", image);
    }
    let upstream = Upstream::start(layout);
    let keep = "[prune]\nmin_free = \"0%\"\nkeep = [\"docker.io/team/app-5\"]\n";
    let mut daemon = Daemon::with(&format!("tag_ttl = \"1h\"\n{keep}"), &upstream);
    for (number, image) in images.iter().enumerate() {
        pull(&daemon, &format!("team/app-{number}"), image);
    }
    daemon.restart();
    for (number, days) in [(0, 5), (1, 50), (2, 20)] {
        unused_for(&daemon.images().join(format!("refs/docker.io/team/app-{number}")), days);
    }
    // The copy's lock file names the daemon, which is not the copy's.
    let copy = daemon.dir.path().join("copy");
    let mut cp = tied("cp");
    cp.arg("-a").arg(daemon.images()).arg(&copy);
    succeed(cp);
    let damaged = images[4].layers[1].hex().to_owned();
    for folder in [&daemon.images(), &copy] {
        fs::write(folder.join("blobs").join(&damaged), "not what it was").unwrap();
    }
    let both = |arguments: &[&str]| -> String {
        let live = daemon.run(arguments);
        let alone = daemon.run(&[&["--image-path", copy.to_str().unwrap()], arguments].concat());
        assert_eq!((out(&live), live.status.code()), (out(&alone), alone.status.code()), "{arguments:?}");
        assert_eq!(err(&live).replace("the daemon says: ", ""), err(&alone), "{arguments:?}");
        out(&live)
    };

    assert_eq!(both(&["list", "--sort", "name"]).lines().count(), 6);
    for options in [
        &["--json"][..],
        &["--header", "--short-digest", "--totals"],
        &["--blobs"],
        &["--blobs", "--json", "--totals"],
        &["--pattern", "app-[12]:"],
        &["--pattern", "("],
    ] {
        both(&[&["list", "--sort", "name"], options].concat());
    }
    assert!(both(&["pin", "docker.io/team/app-1:1", "later:1"]).contains("later:1 is pinned; it is not in"));
    assert!(
        both(&["list", "--pinned"]).ends_with("docker.io/library/later:1 is pinned and not in the cache\n")
    );
    assert!(both(&["unpin", "later:1", "never"]).ends_with("never:latest was not pinned\n"));

    for (options, going) in [
        (&["--unused-for", "10d"][..], 1),
        (&["--pattern", "app-[25]"], 1),
        (&["--keep-size", "100kB"], 3),
        (&["--blobs"], 0),
        (&["--date", "2020-01-01T00:00:00"], 0),
    ] {
        let said = both(&[&["prune", "--dry-run"], options].concat());
        assert_eq!(said.lines().count(), going + 1, "{options:?}: {said}");
    }
    assert!(both(&["prune", "--unused-for", "10d"]).starts_with("docker.io/team/app-2:1\n1 images went"));
    assert_eq!(both(&["list", "--sort", "name"]).lines().count(), 5);
    assert!(both(&["check"]).contains(&format!("blobs/{damaged}: wrong content")));
    let said: Vec<Value> =
        [&["--config-file", daemon.file().to_str().unwrap()][..], &["--image-path", copy.to_str().unwrap()]]
            .map(|place| {
                let mut command = tied(BINARY);
                command.args(place).args(["check", "--json"]);
                let mut report: Value = serde_json::from_slice(&run(command).stdout).unwrap();
                report["finished"].take();
                report["seconds"].take();
                report
            })
            .into();
    assert_eq!(said[0], said[1]);
    assert!(both(&["check", "--repair"]).contains(&format!("blobs/{damaged}: wrong content")));
    assert!(both(&["check"]).contains("nothing wrong"));
    for folder in [&daemon.images(), &copy] {
        assert!(folder.join("partial").join(format!("{damaged}.bad")).exists());
    }
    // One of the five is pinned, and one is kept by the configuration.
    assert!(both(&["prune", "--pattern", "."]).contains("3 images went with "));
    let files = |folder: &Path| -> BTreeSet<String> {
        ["blobs", "img"].iter().flat_map(|kind| list(&folder.join(kind))).collect()
    };
    assert_eq!(files(&daemon.images()), files(&copy));

    let log = daemon.log();
    for said in [
        "by uid 0: pinned docker.io/team/app-1:1, docker.io/library/later:1",
        "by uid 0: unpinned docker.io/library/later:1",
        "by uid 0: pruned 1 images: ",
        "by uid 0: checked ",
    ] {
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
    }
    assert!(daemon.terminate().success());
    daemon.proven();
}

#[test]
fn a_list_knows_of_uses_that_are_on_no_disk_yet() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    daemon.restart();
    unused_for(&daemon.images().join("refs"), 3);
    let days = || {
        let row: Value = serde_json::from_str(ran(&daemon, &["list", "--json"]).trim()).unwrap();
        let pulled: jiff::Timestamp = row["pulled"].as_str().unwrap().parse().unwrap();
        jiff::Timestamp::now().duration_since(pulled).as_hours() / 24
    };
    assert_eq!(days(), 3);
    daemon.get(&manifest("library/app")).is(200);
    assert_eq!(days(), 0);
}

/// A cache with a name in it for each number, all of them for one manifest.
fn full_of_names(daemon: &Daemon, names: usize) {
    let image = Image::small(1);
    fs::write(daemon.manifest(image.manifest.hex()), &*image.manifest.bytes).unwrap();
    for layer in image.blobs() {
        fs::write(daemon.blob(layer.hex()), layer.bytes()).unwrap();
    }
    let now = jiff::Timestamp::now();
    let tag = json!({
        "digest": image.manifest.digest, "mediaType": OCI_MANIFEST, "size": image.manifest.bytes.len(),
        "fetched": now, "checked": now,
    });
    let tags = daemon.images().join("refs/docker.io/library/app/_tags");
    fs::create_dir_all(&tags).unwrap();
    for number in 0..names {
        fs::write(tags.join(format!("a-tag-with-a-name-that-is-long-{number:060}")), tag.to_string())
            .unwrap();
    }
}

#[test]
fn a_daemon_that_ends_in_the_middle_of_a_list_is_no_short_list() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut daemon = Daemon::configured("");
        full_of_names(&daemon, 20_000);
        let mut command = tied(BINARY);
        command.arg("--config-file").arg(daemon.file()).args(["list", "--json"]);
        let mut lister = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut rows = BufReader::new(lister.stdout.take().unwrap());
        let mut row = String::new();
        rows.read_line(&mut row).unwrap();
        assert!(row.starts_with("{\"image\":\"docker.io/library/app\""), "{row}");
        // It has its place in some buffer; the rest waits for us.
        daemon.process().signal(signal);
        daemon.process().wait();
        let mut rest = String::new();
        rows.read_to_string(&mut rest).unwrap();
        assert!(rest.lines().count() < 19_000);
        let output = lister.wait_with_output().unwrap();
        assert!(
            matches!(output.status.code(), Some(75 | 76)),
            "{signal}: {:?} {}",
            output.status,
            err(&output)
        );
        assert!(!err(&output).is_empty());
    }
}

#[test]
fn a_prune_whose_client_hangs_up_stops_between_two_images_and_the_next_one_waits_for_that() {
    let daemon = Daemon::configured("");
    full_of_names(&daemon, 20_000);
    let tags = daemon.images().join("refs/docker.io/library/app/_tags");
    let mut stream = UnixStream::connect(socket(&daemon)).unwrap();
    let request = json!({ "patterns": ["a-tag"] }).to_string();
    let head = format!("POST /prune HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", request.len());
    stream.write_all((head + &request).as_bytes()).unwrap();
    stream.read_exact(&mut [0; 2000]).unwrap();
    // It goes on until what it tells fills all that is between us.
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(daemon.file()).args(["prune", "--pattern", "0{59}1$"]);
    let mut next = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(next.stderr.take().unwrap());
    let mut note = String::new();
    said.read_line(&mut note).unwrap();
    assert_eq!(note, "another command prunes or repairs the cache: waiting for its end\n");
    drop(stream);
    let output = next.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    eventually("it is told", || daemon.log().contains("by uid 0: /prune came to no end, after "));
    let left = list(&tags).len();
    assert!((1..20_000).contains(&left), "{left}");
    assert!(ran(&daemon, &["check"]).contains("nothing wrong"));
    assert_eq!(ran(&daemon, &["list"]).lines().count(), left);
    assert!(ran(&daemon, &["prune", "--pattern", "a-tag"]).contains(&format!("{left} images went")));
}

/// Whether the daemon has that file open.
fn reads(daemon: &Daemon, path: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    files.filter_map(Result::ok).any(|file| fs::read_link(file.path()).is_ok_and(|open| open == path))
}

#[test]
fn work_that_tells_nothing_ends_with_who_asked_for_it_and_with_the_daemon() {
    let mut daemon = Daemon::configured("");
    // It takes a while to find out that these are not zeros' digests.
    let large = daemon.blob(&"0".repeat(64));
    File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let begin = |daemon: &Daemon, arguments: &[&str]| {
        let mut command = tied(BINARY);
        command.arg("--config-file").arg(daemon.file()).args(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it reads", || reads(daemon, &large));
        child
    };
    let mut child = begin(&daemon, &["check", "--repair"]);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("it is noticed", || !reads(&daemon, &large));
    let log = daemon.log();
    assert!(log.contains("/repair came to no end, after 0 told: who asked has gone"), "{log}");

    let child = begin(&daemon, &["check"]);
    assert!(daemon.terminate().success());
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(75 | 76)), "{:?} {}", output.status, err(&output));
}

#[test]
fn a_blob_that_is_pruned_while_it_is_read_is_read_to_its_last_byte() {
    let image = Image::of_size(1, 64 * MIB);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    let layer = &image.layers[0];
    let mut stream = get(&blob("library/app", &layer.digest)).open(daemon.addr);
    let begun = stream.read_to(MIB);
    let said = ran(&daemon, &["prune", "--pattern", "library/app"]);
    assert!(said.contains("1 images went with 1 manifests and 2 blobs"), "{said}");
    assert!(!daemon.blob(layer.hex()).exists());
    let rest = stream.read_to(layer.size());
    assert!([begun, rest].concat() == layer.bytes());
    upstream.forget();
    pull(&daemon, "library/app", &image);
    assert_eq!(upstream.sent(&layer.digest), layer.size());
}

#[test]
fn who_may_not_give_commands_is_told_who_may() {
    needs!();
    let daemon = Daemon::configured("");
    let program = daemon.dir.path().join("ociregistry");
    fs::copy(BINARY, &program).unwrap();
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(daemon.dir.path(), 0o755);
    // First the folder keeps others out, then only the socket does.
    for (mode, what) in [(0o750, "lock"), (0o755, "admin.sock")] {
        open(&daemon.images(), mode);
        open(&daemon.images().join("lock"), 0o644);
        for command in [
            &["list"][..],
            &["prune", "--blobs"],
            &["pin", "nginx"],
            &["unpin", "nginx"],
            &["check"],
            &["check", "--repair"],
        ] {
            let mut nobody = tied("setpriv");
            nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
            nobody.arg("--config-file").arg(daemon.file()).args(command);
            let output = run(nobody);
            assert_eq!(output.status.code(), Some(77), "{command:?}: {}", err(&output));
            let path = daemon.images().join(what);
            let said = format!("by way of {}: Permission denied", path.display());
            assert!(
                err(&output).contains(&said) && err(&output).contains("usermod -a -G"),
                "{}",
                err(&output)
            );
        }
    }
}

#[test]
fn who_may_use_the_socket_needs_no_permission_on_the_files() {
    needs!();
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::prepared(&entry("docker.io", &upstream));
    let (program, runtime) = (daemon.dir.path().join("ociregistry"), daemon.dir.path().join("run"));
    fs::copy(BINARY, &program).unwrap();
    fs::create_dir(&runtime).unwrap();
    for folder in [daemon.dir.path(), &runtime] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = daemon.command();
    command.env("RUNTIME_DIRECTORY", &runtime);
    daemon.start_by(command);
    fs::set_permissions(daemon.images(), Permissions::from_mode(0o700)).unwrap();
    pull(&daemon, "library/app", &image);
    let socket = runtime.join("admin.sock");
    let group = fs::metadata(&socket).unwrap().gid();
    for (command, said) in [
        (&["list"][..], "docker.io/library/app"),
        (&["check"], "nothing wrong"),
        (&["pin", "app:1"], "docker.io/library/app:1 is pinned"),
        (&["prune", "--pattern", "app"], "0 images went"),
    ] {
        let mut member = tied("setpriv");
        member.args(["--reuid=65534", &format!("--regid={group}"), "--clear-groups", "--"]).arg(&program);
        member.arg("--config-file").arg(daemon.file()).args(command).arg("--admin-socket").arg(&socket);
        let output = run(member);
        assert!(out(&output).contains(said), "{command:?}: {output:?}");
    }
    let log = daemon.log();
    assert!(log.contains("by uid 65534: pinned docker.io/library/app:1"), "{log}");
}

#[test]
fn a_command_of_another_cache_is_not_done() {
    let daemon = Daemon::configured("");
    let (status, body) =
        ask(&daemon, &["-H", "ociregistry-cache: 1-2", "--data", "", "http://ociregistry/images"]);
    assert_eq!(status, 421);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["error"]["kind"], "elsewhere");
    // Named on purpose, it is asked whatever it writes to.
    let path = socket(&daemon);
    let said = ran(&daemon, &["--image-path", "/nowhere", "list", "--admin-socket", path.to_str().unwrap()]);
    assert_eq!(said, "");
    let output = daemon.run(&["list", "--admin-socket", "/nowhere/admin.sock"]);
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
}

#[test]
fn what_is_asked_wrongly_is_answered_with_what_is_wanted() {
    let daemon = Daemon::configured("");
    for (arguments, path, status, kind, said) in [
        (&["--data", "{"][..], "/prune", 400, "request", "the request for /prune is not right: EOF"),
        (&["--data", "{\"blob\": true}"], "/prune", 400, "request", "unknown field `blob`, expected one of"),
        (&["--data", "{}"], "/prune", 400, "request", "say which images are to go"),
        (&["--data", "{\"patterns\": [\"(\"]}"], "/images", 400, "request", "no regular expression"),
        (&["--data", "{\"action\": \"pin\", \"images\": [\"A/B\"]}"], "/pins", 400, "request", "A"),
        (&["--data", "{}"], "/pins", 400, "request", "missing field `action`"),
        (&["-X", "GET"], "/prune", 405, "command", "want POST"),
        (&["-X", "POST"], "/status", 405, "command", "want GET"),
        (&[], "/nothing", 404, "command", "no such command: GET /nothing"),
        (&[], "/cmd/stop", 404, "command", "no such command: GET /cmd/stop"),
    ] {
        let (got, body) = ask(&daemon, &[arguments, &[&format!("http://ociregistry{path}")]].concat());
        let json: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got, &json["error"]["kind"]), (status, &kind.into()), "{path}: {body}");
        assert!(json["error"]["message"].as_str().unwrap().contains(said), "{path}: {body}");
    }
    let large = daemon.dir.path().join("large");
    fs::write(&large, vec![b' '; 2 << 20]).unwrap();
    let large = format!("@{}", large.display());
    let (status, body) =
        ask(&daemon, &["-H", "Expect:", "--data-binary", &large, "http://ociregistry/prune"]);
    assert_eq!(status, 400, "{body}");
}

#[test]
fn answers_at_the_socket_are_lines_that_end_with_what_came_of_it() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    let listed = lines(&daemon, "/images", &json!({ "totals": true }));
    assert_eq!(listed[0]["item"]["digest"], image.manifest.digest);
    assert_eq!(listed[1]["done"]["listed"], 1);
    assert_eq!(listed[1]["done"]["usage"]["blobs"]["files"], 2);
    let blobs = lines(&daemon, "/blobs", &json!({ "count": 1 }));
    assert!(blobs.len() == 2 && blobs[1]["done"]["listed"] == 1, "{blobs:?}");
    let pinned = lines(&daemon, "/pins", &json!({ "action": "pin", "images": ["app:1"] }));
    assert_eq!(pinned[0]["item"]["image"], "docker.io/library/app:1");
    assert_eq!(pinned[1]["done"], json!({ "changed": 1 }));
    let everything = json!({ "unused_since": jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1) });
    assert_eq!(lines(&daemon, "/prune", &everything)[0]["done"]["kept"], 1);
    lines(&daemon, "/pins", &json!({ "action": "unpin", "images": ["app:1"] }));
    for path in ["/check", "/repair"] {
        assert_eq!(lines(&daemon, path, &json!({}))[0]["done"]["wrong"], 0);
    }
    let pruned = lines(&daemon, "/prune", &everything);
    assert_eq!(pruned[0], json!({ "item": "docker.io/library/app:1" }));
    assert_eq!(pruned[1]["done"]["images"], 1);
}

/// A daemon that takes commands over the network, too.
struct Networked {
    daemon: Daemon,
    address: SocketAddr,
}

impl Networked {
    fn of(upstream: &Upstream, keys: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let daemon = Daemon::prepared("");
        fs::write(daemon.dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::set_permissions(daemon.dir.path().join("token"), Permissions::from_mode(0o600)).unwrap();
        let mut networked = Self { daemon, address };
        networked.configure(upstream, keys);
        networked.daemon.start();
        networked
    }

    fn configure(&self, upstream: &Upstream, keys: &str) {
        let token = self.daemon.dir.path().join("token");
        let admin = format!("[admin]\nlisten = \"{}\"\ntoken_file = {token:?}\n", self.address);
        self.daemon.configure(&format!("{keys}\n{admin}{}", entry("docker.io", upstream)));
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status, media type and body.
    fn curl(&self, path: &str, options: &[&str]) -> (u16, String, String) {
        let mut command = tied("curl");
        command.args(["--silent", "--show-error", "--write-out", "\n%{http_code} %{content_type}"]);
        command.args(options).arg(self.url(path));
        let said = succeed(command);
        let (body, end) = said.rsplit_once('\n').unwrap();
        let (status, media_type) = end.split_once(' ').unwrap();
        (status.parse().unwrap(), media_type.to_owned(), body.to_owned())
    }

    /// With the token, and these options of curl.
    fn ask(&self, path: &str, options: &[&str]) -> (u16, String) {
        let token = format!("Authorization: Bearer {TOKEN}");
        let (status, _, body) = self.curl(path, &[&["--header", &token], options].concat());
        (status, body)
    }

    #[track_caller]
    fn text(&self, path: &str, options: &[&str]) -> String {
        let (status, body) = self.ask(path, options);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    #[track_caller]
    fn json(&self, path: &str, options: &[&str]) -> Value {
        let body = self.text(path, &[&["--header", "Accept: application/json"], options].concat());
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }
}

#[test]
fn over_the_network_there_is_nothing_without_the_token() {
    let upstream = Upstream::start(Layout::new());
    let networked = Networked::of(&upstream, "");
    for token in [None, Some("Bearer wrong"), Some("Bearer"), Some("Basic YTpi")] {
        let token = token.map(|token| format!("Authorization: {token}"));
        let header: Vec<&str> = token.iter().flat_map(|token| ["--header", token]).collect();
        for (path, method) in [
            ("/status", "GET"),
            ("/cmd/stop", "GET"),
            ("/cmd/prune", "DELETE"),
            ("/prune", "POST"),
            ("/", "GET"),
        ] {
            let options = [&header[..], &["-X", method, "--include"]].concat();
            let (status, media_type, said) = networked.curl(path, &options);
            assert_eq!((status, &*media_type), (401, "application/json"), "{path}: {said}");
            assert!(said.to_lowercase().contains("www-authenticate: bearer\r\n"), "{said}");
        }
    }
    let (status, body) = networked.ask("/status", &[]);
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["pid"], networked.daemon.pid());
    let listed = networked.text("/images", &["--data", ""]);
    assert_eq!(listed, "{\"done\":{\"listed\":0,\"missing\":[]}}\n");
    assert!(!networked.daemon.log().contains("can listen in on"), "{}", networked.daemon.log());
    assert!(!networked.daemon.log().contains(TOKEN));
    let strangers = "requests for commands without the token: 1, the last one from 127.0.0.1:";
    assert_eq!(networked.daemon.log().matches(strangers).count(), 1);

    // Another token counts from a reload on.
    fs::write(networked.daemon.dir.path().join("token"), "another-token-of-26-letters").unwrap();
    let said = ran(&networked.daemon, &["reload"]);
    assert_eq!(said, "admin.token_file: changed\n");
    assert_eq!(networked.ask("/status", &[]).0, 401);
    let other = ["--header", "Authorization: Bearer another-token-of-26-letters"];
    assert_eq!(networked.curl("/status", &other).0, 200);
}

#[test]
fn a_token_is_wanted_at_the_start_and_what_is_open_to_others_is_said_to_be_in_the_clear() {
    let mut daemon = Daemon::prepared("[admin]\nlisten = \"127.0.0.1:1\"");
    let output = run(daemon.command());
    assert_eq!(output.status.code(), Some(78));
    let place = format!("{}:6: admin.listen: has no token, want one of", daemon.file().display());
    assert!(err(&output).starts_with(&place), "{}", err(&output));

    let port = free_port();
    daemon.configure(&format!("[admin]\nlisten = \"0.0.0.0:{port}\"\ntoken = \"{TOKEN}\""));
    daemon.start();
    let warning = format!("who can listen in on 0.0.0.0:{port} can read the token of commands");
    eventually("it is warned of", || daemon.log().contains("server is running"));
    assert_eq!(daemon.log().matches(&warning).count(), 1);
    assert!(!ran(&daemon, &["config", "show"]).contains(TOKEN));
}

#[test]
fn the_commands_of_the_go_program_have_its_names_and_the_columns_of_list() {
    let child = Image::small(1);
    let index = index(OCI_INDEX, &[(&child.manifest, "amd64")]);
    let mut layout = Layout::of("library/app", "", &child);
    layout.add_manifest("library/app", "1", &index);
    let other = Image::small(2);
    layout.add("team/other", "1", &other);
    let upstream = Upstream::start(layout);
    let networked = Networked::of(&upstream, "tag_ttl = \"1h\"");
    let daemon = &networked.daemon;
    daemon.get(&manifest("library/app")).is(200);
    daemon.get(&format!("/v2/library/app/manifests/{}?ns=docker.io", child.manifest.digest)).is(200);
    for layer in child.blobs() {
        daemon.get(&blob("library/app", &layer.digest)).is(200);
    }
    pull(daemon, "team/other", &other);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };

    let manifests = networked.text("/cmd/manifest/list", &[]);
    assert_eq!(sorted(&manifests), sorted(&ran(daemon, &["list"])));
    assert_eq!(manifests.lines().count(), 3);
    assert_eq!(networked.text("/cmd/manifest/list?count=1", &[]).lines().count(), 1);
    assert_eq!(networked.text("/cmd/manifest/list?count=-1&pattern=other:,nothing", &[]).lines().count(), 1);
    let json = networked.json("/cmd/manifest/list?pattern=app:", &[]);
    assert_eq!((&json[0]["type"], &json[0]["tag"]), (&"list".into(), &"1".into()));
    assert_eq!(networked.json("/cmd/manifest/list?pattern=nothing", &[]), json!([]));
    assert_eq!(networked.json("/cmd/manifest/list", &[]).as_array().unwrap().len(), 3);

    let images = networked.text("/cmd/image/list", &[]);
    let kinds: Vec<&str> = images.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(kinds, ["image", "blob", "blob", "image", "blob", "blob"], "{images}");
    let layer = &other.layers[0];
    let found = networked.json(&format!("/cmd/image/list?digest={}", &layer.hex()[10..30]), &[]);
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["image"], "docker.io/team/other");
    let named: Vec<&str> =
        found[0]["blobs"].as_array().unwrap().iter().map(|b| b["digest"].as_str().unwrap()).collect();
    assert!(other.blobs().all(|layer| named.contains(&&*layer.digest)) && named.len() == 2, "{found}");

    let blobs = networked.text("/cmd/blob/list", &[]);
    assert_eq!(sorted(&blobs), sorted(&ran(daemon, &["list", "--blobs"])));
    let found = networked.json(&format!("/cmd/blob/list?substr={}", &layer.hex()[10..30]), &[]);
    assert_eq!((&found[0]["digest"], found.as_array().unwrap().len()), (&layer.digest.as_str().into(), 1));
    assert_eq!(networked.json("/cmd/blob/list?count=2", &[]).as_array().unwrap().len(), 2);

    // Unless it is said, nothing goes.
    let prune = "/cmd/prune?type=pattern&expr=other:";
    let dry = networked.text(prune, &["-X", "DELETE"]);
    assert!(
        dry.starts_with("docker.io/team/other:1\n1 images would go with 1 manifests and 2 blobs"),
        "{dry}"
    );
    assert!(daemon.blob(layer.hex()).exists());
    let json = networked.json(prune, &["-X", "DELETE"]);
    assert_eq!(
        (&json["images"], &json["report"]["dry_run"]),
        (&json!(["docker.io/team/other:1"]), &true.into())
    );
    let (status, body) = networked.ask("/cmd/prune?type=accessed", &["-X", "DELETE"]);
    assert_eq!((status, &*body), (400, "dur is missing, want a duration such as 30d, 12h or 10m\n"));
    assert_eq!(networked.ask("/cmd/manifest/list?pattern=(", &[]).0, 400);
    assert_eq!(networked.ask("/cmd/prune", &[]).0, 405);
    assert_eq!(networked.ask("/cmd/else", &[]).0, 404);
    let none = networked.json("/cmd/prune?type=created&dur=1d&dryRun=false", &["-X", "DELETE"]);
    assert_eq!((&none["images"], &none["report"]["images"]), (&json!([]), &0.into()));
    let done = networked.text(&format!("{prune}&dryRun=false&count=-1"), &["-X", "DELETE"]);
    assert_eq!(done, dry.replace("would go", "went").replace("would come", "came"));
    assert!(!daemon.blob(layer.hex()).exists());
    assert!(daemon.log().contains("by 127.0.0.1:"), "{}", daemon.log());
}

#[test]
fn stop_ends_the_daemon_as_a_signal_would() {
    let image = Image::of_size(1, 3 * MIB);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut networked = Networked::of(&upstream, "");
    pull(&networked.daemon, "library/app", &image);
    let mut running = get(&blob("library/app", &image.layers[0].digest)).open(networked.daemon.addr);
    running.read_to(100);
    assert_eq!(networked.json("/cmd/stop", &[]), json!({ "ends": true }));
    running.read_to(image.layers[0].size());
    assert!(networked.daemon.process().wait().success());
    let log = networked.daemon.log();
    assert!(log.contains("told to end") && log.contains("server is ending"), "{log}");
    assert!(!socket(&networked.daemon).exists());
}

const MANUAL: &str = include_str!("../docs/admin-api.md");

/// Methods and paths that the manual has a heading for, in its order.
fn documented() -> Vec<(&'static str, &'static str)> {
    let headings = MANUAL.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(|heading| heading.split_once(' ').unwrap()).collect()
}

#[test]
fn the_manual_has_every_command_and_no_other() {
    let sources = [
        include_str!("../src/admin/desk.rs"),
        include_str!("../src/admin/care.rs"),
        include_str!("../src/admin/old.rs"),
    ];
    // What is a path in them is a command's.
    let is_path =
        |text: &&str| text.starts_with('/') && text[1..].bytes().all(|b| b.is_ascii_lowercase() || b == b'/');
    let built: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split('"').filter(is_path))
        .filter(|path| path.len() > 1)
        .collect();
    let manual: BTreeSet<&str> = documented().into_iter().map(|(_, path)| path).collect();
    assert_eq!(manual, built.into_iter().filter(|path| *path != "/cmd/").collect());
    assert!(manual.len() > 10, "{manual:?}");
}

#[test]
fn every_example_of_the_manual_works() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("pause", "3.10", &image));
    let mut networked = Networked::of(&upstream, "");
    let config = fs::read_to_string(networked.daemon.file()).unwrap();
    fs::write(networked.daemon.file(), config + &entry("registry.k8s.io", &upstream)).unwrap();
    networked.daemon.restart();
    networked.daemon.get("/v2/pause/manifests/3.10?ns=registry.k8s.io").is(200);
    let files = || list(&networked.daemon.images().join("blobs")).len();
    eventually("it is published", || files() == 2);

    let mut documented = documented().into_iter();
    let mut blocks = MANUAL.split("```");
    while let Some(block) = blocks.nth(1) {
        let Some(example) = block.strip_prefix("sh\n") else { continue };
        let (method, path) = documented.next().unwrap();
        assert!(example.contains(path), "{method} {path} has another example: {example}");
        let script = example
            .replace("/run/ociregistry/admin.sock", socket(&networked.daemon).to_str().unwrap())
            .replace(
                "/etc/ociregistry/admin-token",
                networked.daemon.dir.path().join("token").to_str().unwrap(),
            )
            .replace("http://127.0.0.1:8082", &networked.url(""))
            .replace("curl ", "curl --silent --show-error --fail-with-body ");
        let mut shell = tied("sh");
        shell.args(["-ec", &script]);
        let said = succeed(shell);
        println!("{method} {path}\n{said}");
        let empty = path == "/cmd/stop" || !said.is_empty();
        assert!(empty, "{method} {path}");
    }
    assert_eq!(documented.next(), None);
    assert!(networked.daemon.process().wait().success());
}
