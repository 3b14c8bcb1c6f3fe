//! Commands over the network, and what the manual says of all of them.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::cache::*;
use support::client::get;
use support::daemon::{Daemon, entry, list};
use support::layout::*;
use support::process::{eventually, free_port, run, succeed, tied};
use support::upstream::Upstream;

const TOKEN: &str = "a-token-of-24-characters";

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
    assert_eq!(listed, "{\"done\":{\"listed\":0,\"missing\":[],\"unreadable\":0}}\n");
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

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    daemon.configure(&format!("[admin]\nlisten = \"{listen}\"\ntoken = \"{TOKEN}\""));
    let output = run(daemon.command());
    assert_eq!(output.status.code(), Some(71));
    assert!(
        err(&output).contains(&format!("cannot listen on {listen} for admin.listen")),
        "{}",
        err(&output)
    );

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
    published(daemon, &child);
    published(daemon, &other);
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
    assert!(dry.starts_with("docker.io/team/other:1\n1 image would go with 1 manifest and 2 blobs"), "{dry}");
    assert!(daemon.blob(layer.hex()).exists());
    let json = networked.json(prune, &["-X", "DELETE"]);
    assert_eq!(
        (&json["images"], &json["report"]["dry_run"]),
        (&json!(["docker.io/team/other:1"]), &true.into())
    );
    let (status, body) = networked.ask("/cmd/prune?type=accessed", &["-X", "DELETE"]);
    assert_eq!((status, &*body), (400, "dur is missing, want a duration such as 30d, 12h or 10m\n"));
    assert_eq!(networked.ask("/cmd/manifest/list?pattern=(", &[]).0, 400);
    assert_eq!(networked.ask(&format!("{prune},"), &["-X", "DELETE"]).0, 400);
    assert_eq!(networked.ask("/cmd/prune", &[]).0, 405);
    let (status, body) = networked.ask("/cmd/else", &[]);
    assert!(status == 404 && body.starts_with("{\"error\":"), "{body}");
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
    assert!(!networked.daemon.images().join("admin.sock").exists());
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
        include_str!("../src/admin/pull.rs"),
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
            .replace(
                "/run/ociregistry/admin.sock",
                networked.daemon.images().join("admin.sock").to_str().unwrap(),
            )
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
