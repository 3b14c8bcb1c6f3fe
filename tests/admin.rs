//! Commands: the same with the daemon and without it, at its socket and over the network.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::cache::*;
use support::client::get;
use support::daemon::{BINARY, Daemon, entry, list};
use support::layout::*;
use support::process::{eventually, run, succeed, tied};
use support::upstream::Upstream;

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
    for (number, age) in [(0, 5), (1, 50), (2, 20), (3, 4), (4, 3), (5, 2)] {
        unused_for(&daemon.images().join(format!("refs/docker.io/team/app-{number}")), days(age));
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
        let live_err = err(&live).replace("the daemon says: ", "");
        // Who fetches is not the same.
        let live_err = live_err
            .replace("the daemon fetches them anew, and its log says how that ends", "fetched anew 1 of 1");
        assert_eq!(live_err, err(&alone), "{arguments:?}");
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
    assert!(both(&["prune", "--unused-for", "10d"]).starts_with("docker.io/team/app-2:1\n1 image went"));
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
    eventually("the daemon has fetched it", || daemon.blob(&damaged).exists());
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
    unused_for(&daemon.images().join("refs"), days(3));
    let age = || {
        let row: Value = serde_json::from_str(ran(&daemon, &["list", "--json"]).trim()).unwrap();
        let pulled: jiff::Timestamp = row["pulled"].as_str().unwrap().parse().unwrap();
        jiff::Timestamp::now().duration_since(pulled).as_hours() / 24
    };
    assert_eq!(age(), 3);
    daemon.get(&manifest("library/app")).is(200);
    assert_eq!(age(), 0);
}

#[test]
fn after_a_crash_commands_act_on_the_folder() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let mut daemon = Daemon::of(&upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    assert!(ran(&daemon, &["list"]).starts_with("docker.io/library/app  1 "));
    daemon.kill();
    assert!(fs::read_to_string(daemon.images().join("lock")).unwrap().contains("/admin.sock"));
    assert_eq!(ran(&daemon, &["pin", "app:1"]), "docker.io/library/app:1 is pinned\n");
    assert!(ran(&daemon, &["prune", "--pattern", "app"]).starts_with("0 images went"));
    ran(&daemon, &["unpin", "app:1"]);
    assert!(ran(&daemon, &["prune", "--pattern", "app"]).contains("1 image went"));
    // It has nothing to say of a process that is over.
    assert_eq!(fs::read_to_string(daemon.images().join("lock")).unwrap().trim(), "");
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
        assert!(output.status.code() == Some(75), "{signal}: {:?} {}", output.status, err(&output));
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
    let note = |mut command: Command| {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut note = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut note).unwrap();
        (child, note)
    };
    let (next, said) = note(command);
    assert_eq!(said, "another command prunes or repairs the cache: waiting for its end\n");
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(daemon.file()).args(["pin", "docker.io/library/app:mine"]);
    let (pinner, said) = note(command);
    assert_eq!(said, "the cache is being pruned or counted: waiting for the end of that\n");
    drop(stream);
    let output = next.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    let output = pinner.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    eventually("it is told", || daemon.log().contains("by uid 0: /prune came to no end, after "));
    let left = list(&tags).len();
    assert!((1..20_000).contains(&left), "{left}");
    assert!(ran(&daemon, &["check"]).contains("nothing wrong"));
    assert_eq!(ran(&daemon, &["list"]).lines().count(), left);
    assert!(ran(&daemon, &["prune", "--pattern", "a-tag"]).contains(&format!("{left} images went")));
}

#[test]
fn a_prune_whose_names_nobody_reads_is_done_all_the_same() {
    let daemon = Daemon::configured("");
    full_of_names(&daemon, 20_000);
    let mut command = tied(BINARY);
    command.arg("--config-file").arg(daemon.file()).args(["prune", "--pattern", "a-tag"]);
    let mut pruner = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // As a pager would, it holds back what it reads.
    let mut said = pruner.stdout.take().unwrap();
    eventually("it is done", || daemon.log().contains("by uid 0: pruned 20000 images"));
    let mut names = String::new();
    said.read_to_string(&mut names).unwrap();
    assert_eq!(names.lines().count(), 20_001);
    assert!(pruner.wait().unwrap().success());
}

/// Whether the daemon has that file open.
fn reads(daemon: &Daemon, path: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    files.filter_map(Result::ok).any(|file| fs::read_link(file.path()).is_ok_and(|open| open == path))
}

/// Of the daemon's threads of that name: proc_pid_stat(5).
fn niceness(daemon: &Daemon, name: &str) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let named = |stat: String| {
        let (before, fields) = stat.rsplit_once(") ")?;
        before.ends_with(&format!("({name}")).then(|| fields.split(' ').nth(16)?.parse().ok()).flatten()
    };
    stats.filter_map(named).collect()
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
    assert_eq!(niceness(&daemon, "command"), [0]);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("it is noticed", || !reads(&daemon, &large));
    let said = "/repair came to no end, after 0 told: who asked has gone";
    eventually("it is told", || daemon.log().contains(said));

    // What only looks leaves the processor to pulls.
    let child = begin(&daemon, &["check"]);
    assert_eq!(niceness(&daemon, "command"), [10]);
    assert!(daemon.terminate().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code() == Some(75), "{:?} {}", output.status, err(&output));
}

#[test]
fn a_blob_that_is_pruned_while_it_is_read_is_read_to_its_last_byte() {
    let image = Image::of_size(1, 64 * MIB);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
    let layer = &image.layers[0];
    let mut stream = get(&blob("library/app", &layer.digest)).open(daemon.addr);
    let begun = stream.read_to(MIB);
    let said = ran(&daemon, &["prune", "--pattern", "library/app"]);
    assert!(said.contains("1 image went with 1 manifest and 2 blobs"), "{said}");
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
        (&["--data", "{}"], "/prune", 400, "request", "say which images are meant"),
        (&["--data", "[[\"x\"]]"], "/prune", 400, "request", "want a JSON object"),
        (
            &["--data", "{\"patterns\": [\"\"]}"],
            "/prune",
            400,
            "request",
            "an empty pattern is found in every",
        ),
        (&["--data", "{\"patterns\": [\"zz\", \"\"]}"], "/images", 400, "request", "an empty pattern is"),
        (&["--data", "{\"patterns\": [\"(\"]}"], "/images", 400, "request", "no regular expression"),
        (&["--data", "{\"action\": \"pin\", \"images\": [\"A/B\"]}"], "/pins", 400, "request", "A"),
        (&["--data", "{}"], "/pins", 400, "request", "missing field `action`"),
        (&["--data", "{\"action\": \"pin\", \"images\": []}"], "/pins", 400, "request", "say which images"),
        (&["--data", "{\"x\": 1}"], "/reload", 400, "request", "unknown field `x`"),
        (&["-X", "GET"], "/reload", 405, "command", "want POST"),
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
    assert!(body.contains("the request is larger than 1048576 bytes"), "{body}");
    for command in [&["list"][..], &["list", "--blobs"], &["prune"]] {
        for pattern in ["", ",", "zz,"] {
            let output = daemon.run(&[command, &["--pattern", pattern]].concat());
            assert_eq!(output.status.code(), Some(2), "{command:?} {pattern:?}");
            assert!(err(&output).contains("an empty pattern is found in every name"), "{}", err(&output));
        }
    }
}

#[test]
fn what_somebody_has_to_mend_is_said_alike_by_the_daemon_and_without_it() {
    let mut daemon = Daemon::configured("");
    fs::write(daemon.images().join("pins.json"), "{").unwrap();
    for serves in [true, false] {
        for command in [&["list"][..], &["prune", "--blobs"], &["pin", "nginx"], &["check"]] {
            let output = daemon.run(command);
            assert_eq!(output.status.code(), Some(78), "{command:?}: {}", err(&output));
            assert!(err(&output).contains("pins.json cannot be understood: EOF"), "{}", err(&output));
        }
        if serves {
            let (status, body) = ask(&daemon, &["--data", "", "http://ociregistry/images"]);
            let json: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &json["error"]["kind"]), (500, &"cache".into()));
            assert!(daemon.terminate().success());
        }
    }
}

#[test]
fn answers_at_the_socket_are_lines_that_end_with_what_came_of_it() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let daemon = Daemon::with("tag_ttl = \"1h\"", &upstream);
    pull(&daemon, "library/app", &image);
    published(&daemon, &image);
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
