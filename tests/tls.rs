//! TLS to clients, and what happens where one side speaks it and the other does not.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};

use support::client::{End, get, raw};
use support::curl::{Curl, Got};
use support::daemon::{Daemon, entry};
use support::http2::{Frame, PREFACE};
use support::layout::*;
use support::process::{eventually, run, tied};
use support::runtimes::Containerd;
use support::tls::{Ca, connect};
use support::upstream::{Fault, Upstream};

const MANIFEST: &str = "/v2/team/app/manifests/1?ns=docker.io";

/// A daemon with a certificate of `ca`, whose files are in its folder.
struct Serving {
    ca: Ca,
    image: Image,
    upstream: Upstream,
    daemon: Daemon,
}

impl Serving {
    fn new() -> Self {
        Self::with("", "")
    }

    /// Who shows no certificate of `ca` is not let in.
    fn verifying() -> Self {
        Self::with("", "client_auth = \"verify\"\nca = \"FOLDER/ca.pem\"")
    }

    /// `FOLDER` stands for the daemon's.
    fn with(keys: &str, tls: &str) -> Self {
        let (ca, image) = (Ca::new(), Image::new(vec![Layer::of_noise(7, 3 * MIB)]));
        let upstream = Upstream::start(Layout::of("team/app", "1", &image));
        let mut daemon = Daemon::prepared("");
        let folder = daemon.dir.path();
        std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        ca.leaf().write(folder, "server");
        let config = format!(
            "prefetch = \"none\"\nnot_found_ttl = 0\n{keys}\n[server_tls]\ncert = \"FOLDER/server.pem\"\n\
             key = \"FOLDER/server.key\"\n{tls}\n{}",
            entry("docker.io", &upstream)
        );
        daemon.configure(&config.replace("FOLDER", folder.to_str().unwrap()));
        daemon.start();
        Self { ca, image, upstream, daemon }
    }

    fn addr(&self) -> SocketAddr {
        self.daemon.addr
    }

    fn file(&self, name: &str) -> PathBuf {
        self.daemon.dir.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr().port())
    }

    fn blob(&self) -> String {
        format!("/v2/team/app/blobs/{}?ns=docker.io", self.image.layers[0].digest)
    }

    fn curl(&self, options: &[&str]) -> Curl {
        let ca = self.file("ca.pem");
        Curl::with(&[&["--cacert", ca.to_str().unwrap(), "--ipv4"], options].concat())
    }

    fn ping(&self, options: &[&str]) -> Got {
        self.curl(options).get(&self.url("/v2/"), &[])
    }

    /// All that a client asks for, over one connection.
    fn pulls(&self, curl: &Curl, version: &str) {
        let layer = &self.image.layers[0];
        let urls = ["/v2/", MANIFEST, &self.blob(), &self.blob()].map(|path| self.url(path));
        let [ping, manifest, missed, hit] =
            <[_; 4]>::try_from(curl.all(&urls.each_ref().map(String::as_str), &[])).unwrap();
        assert_eq!(ping.is(200, version).body, b"{}");
        assert_eq!(manifest.is(200, version).body, *self.image.manifest.bytes);
        assert!(missed.is(200, version).body == layer.bytes());
        assert!(hit.is(200, version).body == layer.bytes());
        let part = curl.get(&urls[3], &["--range", "1000000-1999999"]).is(206, version);
        assert!(part.body == layer.slice(1_000_000, 1_000_000));
    }
}

#[test]
fn curl_pulls_by_http2_and_http1() {
    needs!("curl");
    let serving = Serving::new();
    serving.pulls(&serving.curl(&[]), "2");
    serving.pulls(&serving.curl(&["--http1.1"]), "1.1");
    serving.pulls(&serving.curl(&["--no-alpn"]), "1.1");
    let log = serving.daemon.log();
    assert!(log.contains("\nTls: TLS 1.2 and 1.3\n"), "{log}");
}

#[test]
fn either_version_is_spoken_and_sessions_are_resumed() {
    let serving = Serving::new();
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = serving.ca.client(&[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = connect(&config, serving.addr());
            client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            // A close without close_notify would be an error.
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(client.conn.protocol_version(), Some(spoken));
            assert_eq!(client.conn.handshake_kind(), Some(kind));
        }
    }
}

#[test]
fn clients_are_let_in_by_their_certificate() {
    needs!("curl");
    let serving = Serving::verifying();
    assert!(serving.daemon.log().contains("\nTls: TLS 1.2 and 1.3, client certificates verified\n"));
    let folder = serving.file("");
    let right = serving.ca.leaf().write(&folder, "right");
    let wrong = Ca::new().leaf().write(&folder, "wrong");
    let old = serving.ca.leaf_valid(2020, 2021).write(&folder, "old");
    let show = |(cert, key): &(PathBuf, PathBuf)| {
        ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()].map(str::to_owned).to_vec()
    };
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let ping = |shown: &[String]| {
            serving.ping(&[version, &shown.iter().map(String::as_str).collect::<Vec<_>>()].concat())
        };
        ping(&show(&right)).is(200, "2");
        for shown in [vec![], show(&wrong), show(&old)] {
            let refused = ping(&shown);
            assert_eq!(refused.status, 0, "{shown:?}");
            // It has read why (its word for an alert about a certificate is 60), and was not reset.
            let told = refused.complaint.contains("alert") || refused.exit == 60;
            assert!(told, "{shown:?}: {}", refused.complaint);
        }
    }
    eventually("why, in the log", || serving.daemon.log().contains("no TLS handshake"));
}

/// By FIN behind a close_notify: containerd resumes after that.
#[test]
fn a_download_that_fails_ends_short_by_fin() {
    let serving = Serving::new();
    let layer = &serving.image.layers[0];
    serving.upstream.fault(&layer.digest, 0..1, Fault::Cut(2 * MIB));
    serving.upstream.fault(&layer.digest, 1.., Fault::Status(404));
    let mut client = connect(&serving.ca.client(rustls::ALL_VERSIONS), serving.addr());
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", serving.blob());
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![];
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() < 3 << 20, "{} bytes", answer.len());

    serving.upstream.mend();
    let rest = get(&serving.blob()).range(&format!("bytes={}-", 2 * MIB));
    let rest = rest.open_on(serving.ca.connect(serving.addr()), "localhost").whole().is(206);
    assert!(rest.body == layer.slice(2 * MIB, layer.size() - 2 * MIB));
}

#[test]
fn a_plain_request_to_a_port_with_tls_is_told_so() {
    needs!("curl");
    let serving = Serving::new();
    let answer = get("/v2/").send(serving.addr()).is(400);
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let answer = raw(serving.addr(), &[PREFACE, &Frame::settings().bytes()].concat());
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // However much was sent, the answer is not lost to a reset.
    let much = get("/v2/").header("X-Much", &"x".repeat(50_000)).send(serving.addr());
    assert_eq!((much.status(), much.end), (400, End::Whole));
}

#[test]
fn a_hello_to_a_plain_port_is_told_so() {
    needs!("curl");
    let upstream = Upstream::start(Layout::of("team/app", "1", &Image::small(1)));
    let daemon = Daemon::of(&upstream);
    let mut socket = TcpStream::connect(daemon.addr).unwrap();
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat();
    socket.write_all(&hello).unwrap();
    let mut answer = String::new();
    // To its end: a FIN, no reset.
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("use http:// here.\n"), "{answer}");
    let refused = Curl::with(&["--insecure"]).get(&format!("https://{}/v2/", daemon.addr), &[]);
    assert_ne!(refused.exit, 0);
    daemon.get("/v2/").is(200);
}

#[test]
fn a_unix_socket_stays_plain() {
    needs!("curl");
    let serving = Serving::with("listen = [\"unix:FOLDER/s\"]", "");
    let socket = serving.file("s");
    let curl = Curl::with(&["--unix-socket", socket.to_str().unwrap()]);
    curl.get("http://localhost/v2/", &[]).is(200, "1.1");
    serving.ping(&[]).is(200, "2");
}

#[test]
fn files_that_will_not_do_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (cert, key) = ca.leaf().write(folder.path(), "a");
    let (old, old_key) = ca.leaf_valid(2020, 2021).write(folder.path(), "old");
    let missing = folder.path().join("missing");
    for (cert, key, said) in [
        (&cert, &missing, format!("server_tls.key: {}: cannot be read: No such file", missing.display())),
        (
            &cert,
            &old_key,
            format!("server_tls.key: {}: is not the key of the certificate in", old_key.display()),
        ),
        (&key, &key, format!("server_tls.cert: {}: no certificate in it", key.display())),
        (&old, &old_key, format!("server_tls.cert: {}: expired on 2021-01-01 00:00:00 UTC", old.display())),
    ] {
        let config = folder.path().join("c.toml");
        std::fs::write(&config, format!("[server_tls]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
        for subcommand in [&["serve"][..], &["config", "check"]] {
            let mut command = tied(support::daemon::BINARY);
            command.arg("--config-file").arg(&config).args(subcommand);
            let output = run(command);
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{complaint}");
            assert!(complaint.contains(&said), "{complaint}\nwanted: {said}");
        }
    }
}

#[test]
fn a_handshake_that_is_cut_anywhere_leaves_nothing_behind() {
    let serving = Serving::verifying();
    let before = serving.daemon.descriptors();
    let mut client = rustls::ClientConnection::new(
        serving.ca.client(rustls::ALL_VERSIONS),
        rustls::pki_types::ServerName::try_from("localhost").unwrap(),
    )
    .unwrap();
    let mut hello = vec![];
    client.write_tls(&mut hello).unwrap();
    for length in 0..hello.len() {
        let mut socket = TcpStream::connect(serving.addr()).unwrap();
        socket.write_all(&hello[..length]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
    }
    eventually("all is closed", || serving.daemon.descriptors() <= before);
}

/// What containerd is told in hosts.toml.
fn host(scheme: &str, addr: SocketAddr, more: &str) -> String {
    format!("[host.\"{scheme}://{addr}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  {more}\n")
}

fn containerd_pulls(hosts: &str, serving: &Serving) {
    let containerd = Containerd::start();
    containerd.hosts("docker.io", hosts);
    containerd.pull("docker.io/team/app:1");
    containerd.remove("docker.io/team/app:1");
    serving.upstream.forget();
    containerd.pull("docker.io/team/app:1");
    assert_eq!(serving.upstream.count("GET", "/blobs/"), 0, "it came from us");
}

#[test]
fn containerd_pulls_with_our_authority() {
    needs!("containerd", "ctr");
    let serving = Serving::new();
    let ca = format!("ca = {:?}", serving.file("ca.pem"));
    containerd_pulls(&host("https", serving.addr(), &ca), &serving);
}

#[test]
fn containerd_pulls_with_a_certificate_of_its_own() {
    needs!("containerd", "ctr");
    let serving = Serving::verifying();
    let (cert, key) = serving.ca.leaf().write(&serving.file(""), "node");
    let shown = format!("ca = {:?}\n  client = [[{cert:?}, {key:?}]]", serving.file("ca.pem"));
    containerd_pulls(&host("https", serving.addr(), &shown), &serving);
}

/// The certificate that is shown on a new connection, and an answer over it.
fn shown(serving: &Serving, client: &mut support::tls::Client) -> Vec<u8> {
    client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = [0; 4096];
    let length = client.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "{}", serving.daemon.log());
    client.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload_and_a_broken_one_never() {
    let serving = Serving::new();
    let config = serving.ca.client(rustls::ALL_VERSIONS);
    let mut kept = connect(&config, serving.addr());
    let first = shown(&serving, &mut kept);

    serving.ca.leaf().write(&serving.file(""), "server");
    let output = serving.daemon.run(&["reload"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("server_tls.cert: changed"), "{output:?}");
    let renewed = shown(&serving, &mut connect(&config, serving.addr()));
    assert_ne!(first, renewed);
    assert_eq!(first, shown(&serving, &mut kept));

    std::fs::write(serving.file("server.pem"), "nothing").unwrap();
    let output = serving.daemon.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("server.pem: no certificate in it"), "{text}");
    assert_eq!(renewed, shown(&serving, &mut connect(&config, serving.addr())));
}

#[test]
fn containerd_resumes_what_was_cut_short() {
    needs!("containerd", "ctr");
    let serving = Serving::new();
    let layer = &serving.image.layers[0].digest;
    serving.upstream.fault(layer, 0..1, Fault::Cut(MIB));
    serving.upstream.fault(layer, 1..2, Fault::Status(404));
    let containerd = Containerd::start();
    let ca = format!("ca = {:?}", serving.file("ca.pem"));
    containerd.hosts("docker.io", &host("https", serving.addr(), &ca));
    containerd.pull("docker.io/team/app:1");
    let log = serving.daemon.log();
    assert!(log.lines().any(|line| line.contains(layer) && line.contains("cut=")), "{log}");
    assert!(log.lines().any(|line| line.contains(layer) && line.contains("status=206")), "{log}");
}

/// It tries TLS first where it is told of a CA or to skip verifying, and goes by the answer.
#[test]
fn containerd_that_was_told_of_tls_pulls_in_the_clear() {
    needs!("containerd", "ctr");
    let image = Image::small(3);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image));
    let folder = tempfile::tempdir().unwrap();
    let (cert, _) = Ca::new().leaf().write(folder.path(), "a");
    let containerd = Containerd::start();
    for told in ["skip_verify = true", &format!("ca = {cert:?}")] {
        upstream.forget();
        let daemon = Daemon::of(&upstream);
        containerd.hosts("docker.io", &host("http", daemon.addr, told));
        containerd.pull("docker.io/team/app:1");
        containerd.remove("docker.io/team/app:1");
        assert!(!upstream.seen().is_empty(), "{told}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Ca::new().leaf().write(folder.path(), "a");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let config = folder.path().join("c.toml");
    std::fs::write(&config, format!("[server_tls]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
    let mut command = tied(support::daemon::BINARY);
    command.arg("--config-file").arg(&config).args(["config", "check"]);
    let output = run(command);
    assert!(output.status.success());
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.starts_with("warning: ") && warning.contains("can be read by every user"), "{warning}");
}
