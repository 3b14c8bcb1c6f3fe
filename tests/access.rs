//! Who may pull, and what.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::client::{Request, Response, get};
use support::daemon::{BINARY, Daemon};
use support::layout::*;
use support::process::{run, succeed, tied};
use support::runtimes::Skopeo;
use support::upstream::Upstream;
use tempfile::TempDir;

const APP: &str = "/v2/library/app/manifests/1?ns=docker.io";

fn upstream() -> (Image, Upstream) {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    (image, upstream)
}

/// Sends from another address of this host.
fn from(source: [u8; 4], request: Request, to: SocketAddr) -> Response {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::from(source)), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    request.header("Connection", "close").open_on(Box::new(stream), &to.to_string()).whole()
}

fn login(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Asks for the manifest of `app` with a password.
fn pull_as(daemon: &Daemon, user: &str, password: &str) -> Response {
    daemon.send(get(APP).header("Authorization", &login(user, password)))
}

/// A file that htpasswd(1) wrote.
fn htpasswd(folder: &Path, users: &[(&str, &str, &str)]) -> PathBuf {
    let file = folder.join("htpasswd");
    let lines = users.iter().map(|(options, user, password)| {
        let mut command = tied("htpasswd");
        command.args([options, user, password]);
        succeed(command)
    });
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    file
}

/// What `config check` says of a file, or `serve` to one that will not do.
fn checked(command: &[&str], config: &str) -> (Output, String, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, config).unwrap();
    let mut check = tied(BINARY);
    check.arg("--config-file").arg(&file).args(command);
    let output = run(check);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said, folder)
}

#[test]
fn only_clients_that_are_named_may_pull_and_others_are_told_who_they_are() {
    let (image, upstream) = upstream();
    let daemon = Daemon::with("clients = [\"127.0.0.2\", \"127.0.1.0/24\"]", &upstream);
    let blob = format!("/v2/library/app/blobs/{}?ns=docker.io", image.layers[0].digest);
    for target in ["/v2/", APP, &blob, "/", "/v2/library/app/manifests/1?ns=no%20registry"] {
        let refused = daemon.get(target).refuses(403, "DENIED");
        assert!(refused.text().contains("127.0.0.1 is none of the clients"), "{}", refused.text());
    }
    assert!(upstream.seen().is_empty());
    for source in [[127, 0, 0, 2], [127, 0, 1, 77]] {
        from(source, get("/v2/"), daemon.addr).is(200);
        assert_eq!(from(source, get(APP), daemon.addr).is(200).body, *image.manifest.bytes);
        assert!(from(source, get(&blob), daemon.addr).is(200).body == image.layers[0].bytes());
    }
    for source in [[127, 0, 0, 3], [127, 0, 2, 77]] {
        from(source, get(APP), daemon.addr).refuses(403, "DENIED");
    }
}

#[test]
fn a_unix_socket_is_for_those_who_may_use_its_file() {
    let (image, upstream) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let keys = format!("clients = [\"127.0.0.2\"]\nlisten = [\"unix:{}\"]", path.display());
    let daemon = Daemon::with(&keys, &upstream);
    daemon.get(APP).refuses(403, "DENIED");
    let socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let request = get(APP).header("Connection", "close");
    assert_eq!(request.open_on(Box::new(socket), "localhost").whole().is(200).body, *image.manifest.bytes);
}

#[test]
fn users_pull_with_their_passwords_and_nobody_else() {
    needs!("htpasswd");
    let (image, upstream) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let file = htpasswd(folder.path(), &[("-Bbn", "me", "right"), ("-bnBC7", "you", "also: räight")]);
    let daemon = Daemon::with(&format!("htpasswd = {:?}", file.display().to_string()), &upstream);
    for target in ["/v2/", APP] {
        let refused = daemon.get(target).refuses(401, "UNAUTHORIZED");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"ociregistry\""));
    }
    for (user, password) in [("me", "wrong"), ("me", ""), ("you", "right"), ("nobody", "right"), ("", "")] {
        let refused = pull_as(&daemon, user, password).refuses(401, "UNAUTHORIZED");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"ociregistry\""));
    }
    for header in ["Bearer abc", "Basic", "Basic %%%", "Basic bWU="] {
        daemon.send(get(APP).header("Authorization", header)).refuses(401, "UNAUTHORIZED");
    }
    assert!(upstream.seen().is_empty());
    for (user, password) in [("me", "right"), ("me", "right"), ("you", "also: räight")] {
        assert_eq!(pull_as(&daemon, user, password).is(200).body, *image.manifest.bytes);
    }
    for seen in upstream.seen() {
        assert_eq!(seen.header("authorization"), None, "{seen:?}");
    }
    for secret in ["right", &login("me", "right")] {
        assert!(!daemon.log().contains(secret), "{}", daemon.log());
    }
}

#[test]
fn a_whole_pull_hashes_its_password_once_and_guesses_beside_it_change_nothing() {
    needs!("htpasswd");
    let image = Image::new((0..10).map(|seed| Layer::of_noise(seed, 20_000)).collect());
    let upstream = Upstream::start(Layout::of("library/app", "1", &image));
    let folder = tempfile::tempdir().unwrap();
    let file = htpasswd(folder.path(), &[("-bnBC12", "me", "the right one"), ("-bnBC5", "you", "another")]);
    let mut daemon = Daemon::with(&format!("htpasswd = {:?}", file.display().to_string()), &upstream);
    daemon.terminate();
    daemon.options(&["--log-level", "debug"]);
    daemon.start();
    // Each request on a connection of its own, several of them at once.
    let pull = || {
        assert_eq!(pull_as(&daemon, "me", "the right one").is(200).body, *image.manifest.bytes);
        std::thread::scope(|scope| {
            for blob in image.blobs() {
                let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
                let request = get(&target).header("Authorization", &login("me", "the right one"));
                let daemon = &daemon;
                scope.spawn(move || assert!(daemon.send(request).is(200).body == blob.bytes()));
            }
        });
    };
    pull();
    for (user, password) in [("me", "a guess"), ("me", "a guess"), ("you", "a guess"), ("hunter2", "a guess")]
    {
        pull_as(&daemon, user, password).refuses(401, "UNAUTHORIZED");
    }
    pull();
    // What is in its queue gets into the log.
    assert!(daemon.terminate().success());
    let log = daemon.log();
    let hashed = |line: &&str| line.contains("DEBUG hashed a password");
    // Of `me` the right one and the guess, which is remembered as well; nobody's name is not written down.
    let of = |user: &str| log.lines().filter(hashed).filter(|line| line.contains(user)).count();
    assert_eq!((of("user=\"me\""), of("user=\"you\""), of("")), (2, 1, 4), "{log}");
    for secret in ["the right one", "a guess", "hunter2", &login("me", "the right one")[6..]] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn skopeo_pulls_with_a_users_password() {
    needs!("htpasswd", "skopeo");
    let (image, upstream) = upstream();
    let folder = tempfile::tempdir().unwrap();
    let file = htpasswd(folder.path(), &[("-Bbn", "me", "right")]);
    let daemon = Daemon::with(&format!("htpasswd = {:?}", file.display().to_string()), &upstream);
    let reference = format!("{}/docker.io/library/app:1", daemon.addr);
    let skopeo = Skopeo::new();
    let copy = skopeo.copy(&reference, &["--src-tls-verify=false", "--src-creds=me:right"]);
    assert_eq!(std::fs::read(copy.join("manifest.json")).unwrap(), *image.manifest.bytes);
}

#[test]
fn hashes_of_another_kind_are_refused_with_their_line() {
    needs!("htpasswd");
    let folder = tempfile::tempdir().unwrap();
    for (options, found) in
        [("-mbn", "an MD5 hash"), ("-sbn", "a SHA-1 hash"), ("-bnp", "a hash of an unknown kind")]
    {
        let file = htpasswd(folder.path(), &[("-Bbn", "me", "right"), (options, "you", "hunter2")]);
        let config = format!("\nhtpasswd = {:?}", file.display().to_string());
        let (output, said, _folder) = checked(&["serve"], &config);
        assert_eq!(output.status.code(), Some(78), "{said}");
        // htpasswd ends its output with an empty line.
        let place = format!("{}:3: user `you` has {found}", file.display());
        assert!(said.contains(&place) && said.contains("c.toml:2: htpasswd: "), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn credentials_and_an_open_port_want_a_word_on_who_may_pull() {
    needs!("htpasswd");
    let folder = tempfile::tempdir().unwrap();
    let file = htpasswd(folder.path(), &[("-Bbn", "me", "right")]);
    let entry = "[[registries]]\nname = \"quay.io\"\nauth = { user = \"u\", password = \"hunter2\" }\n";
    for listen in ["host = \"0.0.0.0\"", "listen = [\"[::]:5000\"]"] {
        let (output, said, _folder) = checked(&["serve"], &format!("{listen}\n{entry}"));
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("can be reached by others") && said.contains("`quay.io`"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        let htpasswd = format!("htpasswd = {:?}", file.display().to_string());
        for word in ["open = true", "clients = [\"10.0.0.0/8\"]", &htpasswd] {
            let (output, said, _folder) =
                checked(&["config", "check"], &format!("{listen}\n{word}\n{entry}"));
            assert!(output.status.success(), "{word}: {said}");
        }
        assert!(checked(&["config", "check"], listen).0.status.success());
    }
}

#[test]
fn what_is_denied_or_not_allowed_is_refused_though_it_is_in_the_cache() {
    let (image, upstream) = upstream();
    let mut daemon = Daemon::of(&upstream);
    let blob = format!("/v2/library/app/blobs/{}?ns=docker.io", image.layers[0].digest);
    daemon.get(APP).is(200);
    daemon.get(&blob).is(200);
    let entry = support::daemon::entry("docker.io", &upstream);
    let mut with = |keys: &str| {
        daemon.terminate();
        daemon.configure(&format!("{keys}\n{entry}"));
        daemon.start();
        daemon.get("/v2/").is(200);
        let answers = [APP, &blob, "/v2/index.docker.io/app/manifests/1", "/v2/app/manifests/1"]
            .map(|target| daemon.get(target));
        (answers, daemon.get("/v2/quay.io/a/manifests/1"))
    };
    for (keys, reason) in [
        ("deny = [\"docker.io/library/*\"]", "`deny` has docker.io/library/*"),
        ("deny = [\"registry-1.docker.io/app\"]", "`deny` has registry-1.docker.io/app"),
        ("allow = [\"docker.io/**\"]\ndeny = [\"**/app\"]", "`deny` has **/app"),
        ("allow = [\"quay.io/**\"]", "no pattern of `allow` matches it"),
    ] {
        for answer in with(keys).0 {
            let refused = answer.refuses(403, "DENIED");
            assert!(refused.text().contains(reason), "{keys}: {}", refused.text());
            assert!(refused.text().contains("docker.io/library/app"), "{}", refused.text());
        }
    }
    let (answers, other) = with("allow = [\"docker.io/library/*\"]\nunlisted = \"deny\"");
    answers.into_iter().for_each(|answer| drop(answer.is(200)));
    assert!(other.refuses(403, "DENIED").text().contains("no pattern of `allow`"));
    let (answers, other) = with("unlisted = \"deny\"");
    answers.into_iter().for_each(|answer| drop(answer.is(200)));
    assert!(other.refuses(403, "DENIED").text().contains("quay.io has no entry in the configuration"));
}

#[test]
fn no_port_and_no_spelling_passes_a_deny() {
    let (_, upstream) = upstream();
    let keys = "deny = [\"docker.io/**\", \"quay.io/**\", \"[::1]:5000/**\"]\nallow = [\"**\"]\nunlisted = \"allow\"";
    let daemon = Daemon::with(keys, &upstream);
    let mut hosts = ["quay.io:443", "quay.io:80", "QUAY.io:0443", "[0::1]:5000", "[::1]:05000"]
        .map(str::to_owned)
        .to_vec();
    for alias in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
        hosts.extend([":443", ":0443", ":80"].map(|port| format!("{alias}{port}")));
    }
    for host in hosts {
        for target in ["manifests/1".to_owned(), "tags/list".into(), format!("blobs/{}", sha256(b""))] {
            let escaped = host.replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
            let by_ns = daemon.get(&format!("/v2/library/app/{target}?ns={escaped}"));
            let by_path = daemon.get(&format!("/v2/{escaped}/library/app/{target}"));
            for refused in [by_ns, by_path] {
                assert!(refused.refuses(403, "DENIED").text().contains("`deny` has "), "{host}");
            }
        }
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn docker_io_is_one_registry_by_its_ports_too() {
    let (image, upstream) = upstream();
    let daemon = Daemon::of(&upstream);
    for host in
        ["docker.io:443", "index.docker.io:443", "registry-1.docker.io:0443", "registry-1.docker.io:80"]
    {
        let answer = daemon.get(&format!("/v2/{host}/library/app/manifests/1"));
        assert_eq!(answer.is(200).body, *image.manifest.bytes, "{host}");
    }
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
}

#[test]
fn unlisted_registries_may_be_anywhere_where_that_is_said_but_not_at_metadata_services() {
    let (_, upstream) = upstream();
    let daemon = Daemon::configured("unlisted = \"allow\"");
    // It is asked, and speaks no TLS.
    let target = |host: &str| format!("/v2/library/app/manifests/1?ns={}", host.replace(':', "%3A"));
    daemon.get(&target(&upstream.addr.to_string())).refuses(502, "UNAVAILABLE");
    daemon.get(&target("169.254.169.254")).refuses(403, "DENIED");
}

#[test]
fn without_a_default_registry_a_request_is_told_how_to_name_one() {
    let (image, upstream) = upstream();
    let mut daemon = Daemon::with("", &upstream);
    assert_eq!(daemon.get("/v2/library/app/manifests/1").is(200).body, *image.manifest.bytes);
    daemon.terminate();
    daemon.options(&["--default-ns", ""]);
    daemon.start();
    let blob = format!("/v2/library/app/blobs/{}", image.layers[0].digest);
    for target in ["/v2/library/app/manifests/1", &blob] {
        let refused = daemon.get(target).refuses(400, "NAME_INVALID");
        for way in ["?ns=", "X-Registry", "default_ns", "/v2/<registry>/"] {
            assert!(refused.text().contains(way), "{}", refused.text());
        }
    }
    daemon.get(APP).is(200);
    daemon.get("/v2/docker.io/library/app/manifests/1").is(200);
}
