//! What can be spoken over which connection, and what becomes of those that misbehave.

#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::client::{End, Request, get};
use support::curl::Curl;
use support::daemon::Daemon;
use support::http2::{
    ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, PREFACE, REFUSED_STREAM, RST_STREAM, SETTINGS, Wire,
};
use support::layout::*;
use support::process::{PATIENCE, eventually, free_port, run, tied};
use support::upstream::{Fault, Upstream};

const MANIFEST: &str = "/v2/team/app/manifests/1?ns=docker.io";

fn serving() -> (Image, Upstream, Daemon) {
    serving_with("")
}

fn serving_with(keys: &str) -> (Image, Upstream, Daemon) {
    let image = Image::of_size(7, 3 * MIB);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image));
    let daemon = Daemon::with(&format!("prefetch = \"none\"\nnot_found_ttl = 0\n{keys}"), &upstream);
    (image, upstream, daemon)
}

fn blob(image: &Image) -> String {
    format!("/v2/team/app/blobs/{}?ns=docker.io", image.layers[0].digest)
}

/// All that a client asks for: the ping, a manifest, a blob when missed and when hit, a range.
fn pulls(curl: &Curl, base: &str, image: &Image, version: &str) {
    let (manifest, layer) = (format!("{base}{MANIFEST}"), format!("{base}{}", blob(image)));
    assert_eq!(curl.get(&format!("{base}/v2/"), &[]).is(200, version).body, b"{}");
    let manifest = curl.get(&manifest, &[]).is(200, version);
    assert_eq!(manifest.body, *image.manifest.bytes);
    assert_eq!(manifest.header("docker-content-digest"), Some(&*image.manifest.digest));
    for _ in ["missed", "hit"] {
        let got = curl.get(&layer, &[]).is(200, version);
        assert_eq!(got.header("content-length").unwrap(), image.layers[0].size().to_string());
        assert!(got.body == image.layers[0].bytes());
    }
    let part = curl.get(&layer, &["--range", "1000000-1999999"]).is(206, version);
    assert!(part.body == image.layers[0].slice(1_000_000, 1_000_000));
    assert_eq!(
        part.header("content-range").unwrap(),
        format!("bytes 1000000-1999999/{}", image.layers[0].size())
    );
    let head = curl.get(&layer, &["--head"]).is(200, version);
    assert_eq!(head.header("content-length").unwrap(), image.layers[0].size().to_string());
    let missing = curl.get(&format!("{base}/v2/team/app/manifests/2?ns=docker.io"), &[]).is(404, version);
    assert!(String::from_utf8_lossy(&missing.body).contains("MANIFEST_UNKNOWN"));
}

#[test]
fn curl_pulls_over_http2_in_the_clear() {
    needs!("curl");
    let (image, _upstream, daemon) = serving();
    pulls(&Curl::with(&["--http2-prior-knowledge"]), &format!("http://{}", daemon.addr), &image, "2");
}

#[test]
fn curl_pulls_over_http1() {
    needs!("curl");
    let (image, _upstream, daemon) = serving();
    let base = format!("http://{}", daemon.addr);
    pulls(&Curl::with(&["--http1.1"]), &base, &image, "1.1");
    // It asks to go over to HTTP/2, which is for the server to take or leave.
    pulls(&Curl::with(&["--http2"]), &base, &image, "1.1");
}

#[test]
fn curl_pulls_over_ipv6_and_over_a_unix_socket() {
    needs!("curl");
    let folder = tempfile::tempdir().unwrap();
    let (socket, port) = (folder.path().join("s"), free_port());
    let (image, _upstream, mut daemon) =
        serving_with(&format!("listen = [\"[::1]:{port}\", \"unix:{}\"]\n", socket.display()));
    let over_socket = ["--unix-socket", socket.to_str().unwrap()];
    for (option, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        pulls(&Curl::with(&[option]), &format!("http://[::1]:{port}"), &image, version);
        pulls(&Curl::with(&[&over_socket[..], &[option]].concat()), "http://anything", &image, version);
    }
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    eventually("its line of the log", || daemon.log().contains("ip=unix"));

    // What a crash leaves behind is replaced, and an orderly end leaves nothing.
    daemon.kill();
    assert!(socket.exists());
    daemon.start();
    UnixStream::connect(&socket).unwrap();
    daemon.terminate();
    assert!(!socket.exists());
}

#[test]
fn where_it_cannot_listen_it_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _taken = std::net::TcpListener::bind(taken).unwrap();
    for (listen, why) in [
        (taken.to_string(), "Another program has this port"),
        ("192.0.2.1:8080".to_owned(), "No interface of this host has the address 192.0.2.1"),
        (format!("unix:{}", file.display()), "something else than a socket"),
        ("unix:/no/such/folder/s".to_owned(), "There is no folder /no/such/folder"),
    ] {
        let daemon = Daemon::prepared(&format!("listen = [\"{listen}\"]\n"));
        let output = run(daemon.command());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(71), "{said}");
        assert!(said.starts_with(&format!("cannot listen on {listen}: ")) && said.contains(why), "{said}");
    }
}

#[test]
fn a_download_that_fails_resets_its_stream_and_leaves_the_connection() {
    needs!("curl");
    let (image, upstream, daemon) = serving();
    let layer = &image.layers[0];
    let fail_after = |bytes| {
        upstream.mend();
        upstream.fault(&layer.digest, 0..1, Fault::Cut(bytes));
        upstream.fault(&layer.digest, 1.., Fault::Status(404));
    };
    fail_after(MIB);
    let mut wire = Wire::connect(daemon.addr);
    wire.send(&[Frame::get(1, &blob(&image))]);
    assert_eq!(wire.next_of(&[RST_STREAM]).unwrap().stream, 1);
    wire.send(&[Frame::get(3, "/v2/")]);
    assert_eq!(wire.next_of(&[HEADERS]).unwrap().stream, 3);

    fail_after(MIB);
    let (url, curl) =
        (format!("http://{}{}", daemon.addr, blob(&image)), Curl::with(&["--http2-prior-knowledge"]));
    let cut = curl.get(&url, &[]);
    // CURLE_HTTP2_STREAM: it was not closed cleanly.
    assert_eq!((cut.exit, cut.status), (92, 200), "{}", cut.complaint);
    assert!(cut.complaint.contains("INTERNAL_ERROR"), "{}", cut.complaint);
    assert!((cut.body.len() as u64) < 3 * MIB && cut.body == layer.slice(0, cut.body.len() as u64));
    upstream.mend();
    let rest = curl.get(&url, &["--range", &format!("{}-", cut.body.len())]).is(206, "2");
    assert!([cut.body, rest.body].concat() == layer.bytes());
}

/// As podman asks for parts of zstd:chunked layers.
#[test]
fn a_range_header_of_20_kb_is_read() {
    needs!("curl");
    let (image, _upstream, daemon) = serving();
    let ranges: Vec<_> =
        (0..1024).map(|n| format!("{}-{}", 1_000_000 + n * 1000, 1_000_000 + n * 1000 + 9)).collect();
    let header = format!("Range: bytes={}", ranges.join(","));
    assert!(header.len() > 16 << 10);
    for option in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{}{}", daemon.addr, blob(&image));
        let got = Curl::with(&[option]).get(&url, &["--header", &header]);
        assert!(matches!((got.exit, got.status), (0, 200 | 206)), "{option}: {got:?}");
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    needs!("curl");
    let (_, _upstream, daemon) = serving();
    let url = format!("http://{}/v2/", daemon.addr);
    let header = |n: u32| format!("X-Large-{n}: {}", "x".repeat(16_000));
    let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(header);
    let large = ["-H", &a, "-H", &b, "-H", &c, "-H", &d, "-H", &e];
    assert_eq!(Curl::with(&["--http1.1"]).get(&url, &large).status, 431);
    let http2 = Curl::with(&["--http2-prior-knowledge"]);
    assert_ne!(http2.get(&url, &large).status, 200);
    http2.get(&url, &large[..6]).is(200, "2");
}

#[test]
fn rapid_reset_ends_the_connection_and_nothing_else() {
    let (image, _upstream, daemon) = serving();
    // From now on nothing is asked of the upstream, to which a connection is kept.
    daemon.get(MANIFEST).is(200);
    daemon.get(&blob(&image)).is(200);
    let before = daemon.descriptors();
    let mut wire = Wire::connect(daemon.addr);
    let storm: Vec<_> = (0..2000)
        .map(|n| 2 * n + 1)
        .flat_map(|id| [Frame::get(id, &blob(&image)), Frame::cancel(id)])
        .collect();
    wire.send(&storm);
    let goaway = wire.next_of(&[GOAWAY]).expect("a GOAWAY before the end");
    assert_eq!(goaway.error(), ENHANCE_YOUR_CALM);
    while wire.next().is_some() {}
    drop(wire);
    daemon.get(MANIFEST).is(200);
    eventually("all is closed", || daemon.descriptors() <= before);
}

#[test]
fn streams_are_bounded() {
    let (image, upstream, daemon) = serving();
    upstream.hold(&image.layers[0].digest, 0);
    let mut wire = Wire::connect(daemon.addr);
    let settings = wire.next_of(&[SETTINGS]).unwrap();
    let most = settings.setting(3).expect("MAX_CONCURRENT_STREAMS");
    assert!((100..=1000).contains(&most), "{most}");
    assert!(settings.setting(6).unwrap() >= 32 << 10, "MAX_HEADER_LIST_SIZE");
    let streams: Vec<_> = (0..=most).map(|n| Frame::get(2 * n + 1, &blob(&image))).collect();
    wire.send(&streams);
    let refused = wire.next_of(&[RST_STREAM]).unwrap();
    assert_eq!((refused.stream, refused.error()), (2 * most + 1, REFUSED_STREAM));
    upstream.release(&image.layers[0].digest);
    wire.next_of(&[HEADERS]).unwrap();
}

/// Every beginning of a request, then a FIN or a reset.
fn cut_everywhere(daemon: &Daemon, request: &[u8]) {
    let before = daemon.descriptors();
    for length in 0..=request.len() {
        for reset in [false, true] {
            let mut socket = TcpStream::connect(daemon.addr).unwrap();
            socket.write_all(&request[..length]).unwrap();
            if reset {
                socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            } else {
                socket.shutdown(Shutdown::Write).unwrap();
            }
        }
    }
    daemon.get("/v2/").is(200);
    eventually("all is closed", || daemon.descriptors() <= before);
}

#[test]
fn a_request_that_is_cut_anywhere_leaves_nothing_behind() {
    let (image, _upstream, daemon) = serving();
    daemon.get(&blob(&image)).is(200);
    let http1 = format!("GET {} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=5-\r\n\r\n", blob(&image));
    cut_everywhere(&daemon, http1.as_bytes());
    let http2 = [PREFACE, &Frame::settings().bytes(), &Frame::get(1, &blob(&image)).bytes()].concat();
    cut_everywhere(&daemon, &http2);
    cut_everywhere(&daemon, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00");
}

/// As `nc -N` does.
#[test]
fn who_has_closed_its_half_is_answered() {
    let (image, upstream, daemon) = serving();
    let ask = |target: &str| {
        let mut socket = TcpStream::connect(daemon.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        socket
    };
    let answer = |mut socket: TcpStream, body: &[u8]| {
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(body));
    };
    answer(ask("/v2/"), b"{}");
    let layer = &image.layers[0];
    upstream.hold(&layer.digest, MIB);
    let waits = ask(&blob(&image));
    eventually("it was asked for", || upstream.count("GET", &layer.digest) == 1);
    upstream.release(&layer.digest);
    answer(waits, &layer.bytes());
    answer(ask(&blob(&image)), &layer.bytes());
}

#[test]
fn a_request_of_http_1_1_has_one_host() {
    let (_, _upstream, daemon) = serving();
    for (head, status) in [
        ("GET /v2/ HTTP/1.1\r\n", "400"),
        ("GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n", "400"),
        ("GET /v2/ HTTP/1.1\r\nHost:\r\n", "200"),
        ("GET /v2/ HTTP/1.0\r\n", "200"),
    ] {
        let mut socket = TcpStream::connect(daemon.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
        assert_eq!(answer.contains("UNSUPPORTED"), status == "400", "{answer}");
    }
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let (_, _upstream, daemon) = serving();
    let mut socket = TcpStream::connect(daemon.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET /v2/ HTTP/1.1\r\nHost:").unwrap();
    assert_eq!(socket.read(&mut [0; 100]).unwrap(), 0, "closed by FIN, without an answer");
}

/// Sixteen connections is what there is with so few descriptors.
#[test]
fn who_keeps_connections_without_need_keeps_nobody_out() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image));
    let mut daemon = Daemon::prepared(&support::daemon::entry("docker.io", &upstream));
    let mut command = tied("prlimit");
    command.args(["--nofile=304:304", support::daemon::BINARY]);
    daemon.add_arguments(&mut command);
    daemon.start_by(command);
    let mut kept: Vec<_> = (0..40).map(|_| TcpStream::connect(daemon.addr).unwrap()).collect();
    for socket in kept.iter_mut().step_by(2) {
        socket.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    daemon.get(MANIFEST).is(200);
    assert!(!daemon.log().contains("cannot accept"), "{}", daemon.log());
}

#[test]
fn targets_of_every_form_are_answered() {
    let (_, _upstream, daemon) = serving();
    for (target, status) in [("http://localhost/v2/", 200), ("*", 404), ("/v2/?", 200)] {
        assert_eq!(daemon.get(target).status(), status, "{target}");
    }
    daemon.send(Request::new("CONNECT", "localhost:80")).is(405);
    eventually("their lines of the log", || daemon.log().contains("GET:/v2/ status=200"));
}

/// A client that sends more than we read is not reset before it has read the answer.
#[test]
fn what_is_sent_behind_a_request_does_not_cost_its_answer() {
    let (_, _upstream, daemon) = serving();
    for body in [10, 100_000] {
        let upload = Request::new("POST", "/v2/team/app/blobs/uploads/").body(vec![b'x'; body]);
        assert_eq!(daemon.send(upload).refuses(405, "UNSUPPORTED").end, End::Whole);
    }
    daemon.send(get("/v2/").header("Expect", "100-continue")).is(200);
}
