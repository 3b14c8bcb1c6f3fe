//! The HTTP that clients see: every route, every way to name a registry, every kind of content.

mod support;

use support::client::{Response, get, head, raw};
use support::daemon::{Daemon, entry};
use support::layout::*;
use support::upstream::Upstream;

const WRITES: [&str; 4] = ["PUT", "POST", "PATCH", "DELETE"];

fn small() -> (Image, Upstream, Daemon) {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    (image, upstream, daemon)
}

/// The headers that a client looks at.
fn looked_at(response: &Response) -> Vec<Option<&str>> {
    ["content-type", "content-length", "docker-content-digest", "etag", "accept-ranges"]
        .map(|name| response.header(name))
        .to_vec()
}

#[test]
fn the_ping_is_answered_without_an_upstream() {
    let (_, upstream, daemon) = small();
    daemon.get("/v2/").is(200);
    daemon.head("/v2/").is(200);
    assert!(upstream.seen().is_empty());
}

#[test]
fn head_answers_what_get_would_cold_and_cached() {
    let (image, _upstream, daemon) = small();
    let digest = &image.manifest.digest;
    for target in [
        "/v2/team/app/manifests/1?ns=registry.k8s.io".to_string(),
        format!("/v2/team/app/manifests/{digest}?ns=registry.k8s.io"),
        format!("/v2/team/app/blobs/{}?ns=registry.k8s.io", image.config.digest),
    ] {
        let cold = daemon.head(&target).is(200);
        let whole = daemon.get(&target).is(200);
        let cached = daemon.head(&target).is(200);
        assert_eq!(looked_at(&cold), looked_at(&whole), "{target}");
        assert_eq!(looked_at(&cached), looked_at(&whole), "{target}");
        assert_eq!(whole.header("content-length").unwrap(), whole.body.len().to_string());
        assert_eq!(whole.header("content-encoding"), None);
        assert!(cold.body.is_empty() && cached.body.is_empty());
    }
    let manifest = daemon.get("/v2/team/app/manifests/1?ns=registry.k8s.io").is(200);
    assert_eq!(manifest.header("docker-content-digest"), Some(&**digest));
    assert_eq!(manifest.header("content-type"), Some(OCI_MANIFEST));
    assert_eq!(manifest.body, *image.manifest.bytes);
}

#[test]
fn a_known_manifest_is_304_to_get_and_200_to_head() {
    let (image, _upstream, daemon) = small();
    let target = "/v2/team/app/manifests/1?ns=registry.k8s.io";
    let etag = daemon.get(target).is(200).header("etag").unwrap().to_string();
    assert_eq!(etag, format!("\"{}\"", image.manifest.digest));
    for known in [etag.clone(), format!("\"other\", {etag}")] {
        let answer = daemon.send(get(target).header("If-None-Match", &known)).is(304);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("etag"), Some(&*etag));
        // containerd gives up a pull whose HEAD is answered 304
        daemon.send(head(target).header("If-None-Match", &known)).is(200);
    }
    daemon.send(get(target).header("If-None-Match", "\"other\"")).is(200);
}

#[test]
fn ranges_of_a_cached_blob() {
    let image = Image::of_size(2, 3 * MIB + 10);
    let upstream = Upstream::start(Layout::of("team/app", "1", &image));
    let daemon = Daemon::of(&upstream);
    let (blob, size) = (&image.layers[0], image.layers[0].size());
    let target = format!("/v2/team/app/blobs/{}?ns=docker.io", blob.digest);
    let whole = daemon.get(&target).is(200);
    assert_eq!(sha256(&whole.body), blob.digest);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    upstream.forget();
    for (range, start, end) in [
        ("0-0".to_string(), 0, 1),
        ("0-1".to_string(), 0, 2),
        ("0-".to_string(), 0, size),
        (format!("{MIB}-{}", 2 * MIB), MIB, 2 * MIB + 1),
        (format!("{}-", size - 1), size - 1, size),
        ("-7".to_string(), size - 7, size),
        (format!("-{}", size + 5), 0, size),
        (format!("5-{size}"), 5, size), // as regctl resumes
        (format!("5-{}", size + 100), 5, size),
    ] {
        let part = daemon.send(get(&target).range(&format!("bytes={range}"))).is(206);
        assert_eq!(
            part.header("content-range").unwrap(),
            format!("bytes {start}-{}/{size}", end - 1),
            "{range}"
        );
        assert!(part.body == blob.slice(start, end - start), "{range}");
        assert_eq!(part.header("accept-ranges"), Some("bytes"));
    }
    for range in [format!("{size}-"), format!("{}-{}", size + 1, size + 2)] {
        let past = daemon.send(get(&target).range(&format!("bytes={range}"))).is(416);
        assert_eq!(past.header("content-range").unwrap(), format!("bytes */{size}"));
    }
    for unknown in ["lines=1-2", "bytes=5-3", "bytes=a-b"] {
        assert_eq!(daemon.send(get(&target).range(unknown)).is(200).body.len() as u64, size, "{unknown}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn writes_are_405_and_say_what_is_allowed() {
    let (_, upstream, daemon) = small();
    for target in ["/v2/", "/v2/team/app/manifests/1", "/v2/team/app/blobs/uploads/"] {
        for method in WRITES {
            let answer =
                daemon.send(support::client::Request::new(method, target)).refuses(405, "UNSUPPORTED");
            let allow = answer.header("allow").unwrap();
            assert!(allow.contains("GET") && allow.contains("HEAD"), "{allow}");
        }
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn what_upstream_does_not_have_is_404_with_a_code_of_the_spec() {
    let (image, _upstream, daemon) = small();
    let none = sha256(b"nothing like this");
    for (target, code) in [
        ("/v2/team/app/manifests/2?ns=docker.io".to_string(), "MANIFEST_UNKNOWN"),
        ("/v2/no/such/manifests/1?ns=docker.io".to_string(), "MANIFEST_UNKNOWN"),
        (format!("/v2/team/app/manifests/{none}?ns=docker.io"), "MANIFEST_UNKNOWN"),
        (format!("/v2/team/app/blobs/{none}?ns=docker.io"), "BLOB_UNKNOWN"),
        ("/v2/team/app/manifests/sha256-0123.sig?ns=docker.io".to_string(), "MANIFEST_UNKNOWN"),
        // a manifest's digest is looked for among the blobs too
        (format!("/v2/team/app/blobs/{}?ns=docker.io", image.manifest.digest), "BLOB_UNKNOWN"),
    ] {
        let answer = daemon.get(&target).refuses(404, code);
        assert!(answer.header("content-type").unwrap().starts_with("application/json"));
        assert_eq!(answer.header("www-authenticate"), None);
        assert!(daemon.head(&target).is(404).body.is_empty());
    }
}

#[test]
fn what_cannot_be_a_digest_is_refused_without_asking() {
    let (_, upstream, daemon) = small();
    for digest in ["sha256:zz", "sha256:", "sha256:ABCD", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let blob = daemon.get(&format!("/v2/team/app/blobs/{digest}?ns=docker.io"));
        assert!([400, 404].contains(&blob.status()), "{digest}: {}", blob.status());
        blob.code();
        let manifest = daemon.get(&format!("/v2/team/app/manifests/{digest}?ns=docker.io"));
        assert!([400, 404].contains(&manifest.status()), "{digest}: {}", manifest.status());
        manifest.code();
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_registry_is_named_by_header_ns_path_or_default() {
    let images = [1, 2, 3].map(Image::small);
    let names = ["docker.io", "registry.k8s.io", "reg.example:5000"];
    let upstreams = [0, 1, 2].map(|n| Upstream::start(Layout::of("library/app", "1", &images[n])));
    let entries = [0, 1, 2].map(|n| entry(names[n], &upstreams[n])).concat();
    let daemon = Daemon::configured(&format!("deny = [\"registry.k8s.io/library/secret\"]\n{entries}"));
    let who = |response: Response| {
        let response = response.is(200);
        (0..3).find(|n| response.body == *images[*n].manifest.bytes).unwrap()
    };
    let path = "/v2/library/app/manifests/1";
    assert_eq!(who(daemon.get(path)), 0);
    assert_eq!(who(daemon.get("/v2/app/manifests/1")), 0, "library/ is understood");
    for alias in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
        assert_eq!(who(daemon.get(&format!("{path}?ns={alias}"))), 0);
        assert_eq!(who(daemon.get(&format!("/v2/{alias}/app/manifests/1"))), 0);
    }
    assert_eq!(who(daemon.get(&format!("{path}?ns=registry.k8s.io"))), 1);
    assert_eq!(who(daemon.get("/v2/registry.k8s.io/library/app/manifests/1")), 1);
    assert_eq!(who(daemon.send(get(path).header("X-Registry", "registry.k8s.io"))), 1);
    assert_eq!(who(daemon.get(&format!("{path}?ns=reg.example%3A5000"))), 2);
    assert_eq!(who(daemon.get("/v2/reg.example:5000/library/app/manifests/1")), 2);
    let named = daemon.get(&format!("{path}?ns=registry.k8s.io"));
    assert_eq!(named.header("oci-namespace"), Some("registry.k8s.io"));
    let refused = daemon.get("/v2/library/secret/manifests/1?ns=registry.k8s.io").refuses(403, "DENIED");
    assert_eq!(refused.header("oci-namespace"), Some("registry.k8s.io"));

    // both the same: one; two different ones: a contradiction
    assert_eq!(who(daemon.get("/v2/registry.k8s.io/library/app/manifests/1?ns=registry.k8s.io")), 1);
    assert_eq!(who(daemon.get("/v2/docker.io/app/manifests/1?ns=registry-1.docker.io")), 0);
    let both = daemon.get("/v2/registry.k8s.io/library/app/manifests/1?ns=docker.io").is(400);
    both.code();
    let both = get("/v2/registry.k8s.io/library/app/manifests/1").header("X-Registry", "docker.io");
    daemon.send(both).is(400).code();

    // a mirror that is told to use itself goes by the path
    let own = format!("ns=127.0.0.1%3A{}", daemon.addr.port());
    assert_eq!(who(daemon.get(&format!("/v2/registry.k8s.io/library/app/manifests/1?{own}"))), 1);
    // containerd's override_path without a path
    assert_eq!(who(daemon.get("/library/app/manifests/1?ns=registry.k8s.io")), 1);
}

#[test]
fn without_a_default_a_registry_has_to_be_named() {
    let upstream = Upstream::start(Layout::of("library/app", "1", &Image::small(1)));
    let daemon = Daemon::with("default_ns = \"\"", &upstream);
    daemon.get("/v2/library/app/manifests/1").is(400).code();
    daemon.get("/v2/library/app/manifests/1?ns=docker.io").is(200);
}

#[test]
fn names_and_tags_of_every_shape() {
    let names =
        ["a/b/c/d/e/f", "x", "dots.and-dashes/under__scores/x.y_z", &format!("long/{}", "n".repeat(240))];
    let tags = ["1", "MiXed.Case_Tag", &"T".repeat(128), "sha256-0123456789abcdef.sig"];
    let mut layout = Layout::new();
    let image = Image::small(1);
    for name in names {
        for tag in tags {
            layout.add(name, tag, &image);
        }
    }
    let upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    for name in names {
        for tag in tags {
            let target = format!("/v2/{name}/manifests/{tag}?ns=registry.k8s.io");
            assert_eq!(daemon.get(&target).is(200).body, *image.manifest.bytes);
            upstream.forget();
            daemon.get(&target).is(200);
            assert_eq!(upstream.count("", "/manifests/"), 0, "{target} is cached");
        }
    }
}

#[test]
fn content_of_every_kind_comes_back_byte_for_byte() {
    let repository = "charts/thing";
    let (sha512_blob, empty) = (Blob::with_sha512(vec![7; 100_000]), Blob::new(vec![]));
    let image = Image::docker(vec![Layer::of_noise(9, 1000)]);
    let inner = index(OCI_INDEX, &[(&image.manifest, "amd64")]);
    let manifests = [
        artifact("application/vnd.cncf.helm.config.v1+json", 4 << 20),
        artifact("application/vnd.tests.unheard-of+json", 300).under_sha512(),
        index(DOCKER_LIST, &[(&image.manifest, "amd64"), (&image.manifest, "arm64")]),
        index(OCI_INDEX, &[(&inner, ""), (&image.manifest, "s390x")]),
        inner,
        Manifest::new(OCI_MANIFEST, "{ \"schemaVersion\":2,\r\n \"odd\" : [ ] }\n"),
    ];
    let mut layout = Layout::of(repository, "docker", &image);
    layout.add_blob(repository, &sha512_blob);
    layout.add_blob(repository, &empty);
    for (n, manifest) in manifests.iter().enumerate() {
        layout.add_manifest(repository, &format!("t{n}"), manifest);
    }
    let upstream = Upstream::start(layout);
    let daemon = Daemon::of(&upstream);
    for round in ["pulled", "cached"] {
        for (n, manifest) in manifests.iter().enumerate() {
            for reference in [&manifest.digest, &format!("t{n}")] {
                let got = daemon.get(&format!("/v2/{repository}/manifests/{reference}?ns=docker.io")).is(200);
                assert!(got.body == *manifest.bytes, "{round} {reference}");
                assert_eq!(got.header("content-type"), Some(&*manifest.media_type), "{round} {reference}");
                if *reference == manifest.digest {
                    assert_eq!(got.header("docker-content-digest"), Some(&*manifest.digest));
                }
            }
        }
        for blob in [&sha512_blob, &empty] {
            let got = daemon.get(&format!("/v2/{repository}/blobs/{}?ns=docker.io", blob.digest)).is(200);
            assert!(got.body == blob.bytes(), "{round} {}", blob.digest);
            assert_eq!(got.header("content-length").unwrap(), blob.size().to_string());
        }
        if round == "pulled" {
            support::process::eventually("the blobs are published", || {
                daemon.blob(sha512_blob.hex()).exists() && daemon.blob(empty.hex()).exists()
            });
        }
    }
}

#[test]
fn a_manifest_is_cached_for_its_repository_and_a_blob_for_all() {
    let (image, upstream, daemon) = small();
    let blob = &image.layers[0].digest;
    daemon.get("/v2/team/app/manifests/1?ns=docker.io").is(200);
    daemon.get(&format!("/v2/team/app/blobs/{blob}?ns=docker.io")).is(200);
    let other = format!("/v2/team/other/manifests/{}?ns=docker.io", image.manifest.digest);
    daemon.get(&other).refuses(404, "MANIFEST_UNKNOWN");
    upstream.forget();
    daemon.get(&format!("/v2/team/other/blobs/{blob}?ns=docker.io")).is(200);
    assert!(upstream.seen().is_empty());
}

#[test]
fn upstream_is_asked_with_our_own_headers() {
    let (_, upstream, daemon) = small();
    let request = get("/v2/team/app/manifests/1?ns=docker.io")
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .header("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
        .header("Authorization", "Basic Y2xpZW50OnNlY3JldA==");
    daemon.send(request).is(200);
    let seen = upstream.seen();
    let manifest = seen.iter().find(|seen| seen.path.contains("/manifests/")).unwrap();
    assert_eq!(manifest.header("authorization"), None);
    let accept: String = manifest
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .map(|(_, value)| format!("{value},"))
        .collect();
    for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST] {
        assert!(accept.contains(media_type), "{accept}");
    }
    assert!(manifest.header("accept-encoding").is_none_or(|value| value == "identity"));
    assert!(manifest.header("via").unwrap().contains("ociregistry-"));
}

#[test]
fn a_request_that_has_been_here_before_is_508() {
    let (_, upstream, daemon) = small();
    // A HEAD, since a GET starts downloads that would be seen too.
    daemon.head("/v2/team/app/manifests/1?ns=docker.io").is(200);
    let via = upstream.seen()[0].header("via").unwrap().to_string();
    upstream.forget();
    let target = "/v2/team/app/manifests/2?ns=docker.io";
    daemon.send(get(target).header("Via", &format!("1.1 proxy, {via}"))).is(508);
    assert!(upstream.seen().is_empty());
    daemon.send(get(target).header("Via", "1.1 proxy")).is(404);
}

#[test]
fn http_1_0_keep_alive_and_pipelining() {
    let (image, _upstream, daemon) = small();
    let target = format!("/v2/team/app/blobs/{}?ns=docker.io", image.layers[0].digest);
    let old = daemon.send(get(&target).http10()).is(200);
    assert!(old.body == image.layers[0].bytes());
    assert_eq!(old.header("content-length").unwrap(), image.layers[0].size().to_string());

    let host = daemon.addr.to_string();
    let mut connection = support::client::connect(daemon.addr);
    for _ in 0..3 {
        let answer;
        (answer, connection) = get(&target).open_on(connection, &host).whole_and_connection();
        assert!(answer.is(200).body == image.layers[0].bytes());
    }
    let one = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let last = format!(
        "GET /v2/team/app/manifests/2?ns=docker.io HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    let answers = raw(daemon.addr, format!("{one}{one}{last}").as_bytes());
    let statuses: Vec<&str> =
        answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "404"]);
}

#[test]
fn a_tls_hello_on_the_plain_port_is_told_so() {
    let (_, _upstream, daemon) = small();
    let hello = [&[0x16, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3][..], &[0; 94]].concat();
    let answer = raw(daemon.addr, &hello);
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "), "{answer:?}");
}

#[test]
fn every_request_is_a_line_of_the_log() {
    let (image, _upstream, daemon) = small();
    let target = "/v2/team/app/manifests/1?ns=docker.io";
    for host in ["mirror.example:5000", "[::1]:80"] {
        daemon.send(get(target).header("Host", host)).is(200);
    }
    let line = |cache: &str| {
        let ends = format!("cache={cache}");
        daemon.log().lines().find(|line| line.ends_with(&ends)).map(str::to_owned)
    };
    support::process::eventually("two lines", || line("miss").is_some() && line("hit").is_some());
    for (cache, host) in [("miss", "mirror.example:5000"), ("hit", "[::1]:80")] {
        let line = line(cache).unwrap();
        let told = line.split_once(" INFO  ").unwrap().1;
        let (before, after) = told.split_once(" latency=").unwrap();
        assert_eq!(before, format!("GET:{target} status=200 bytes={}", image.manifest.bytes.len()));
        let (latency, after) = after.split_once(' ').unwrap();
        let number = latency.trim_end_matches(char::is_alphabetic);
        assert!(number.parse::<f64>().is_ok() && latency.ends_with('s'), "{line}");
        assert_eq!(after, format!("host={host} ip=127.0.0.1 cache={cache}"));
    }
    let log = daemon.log();
    assert!(log.contains("server is running"), "{log}");
    assert!(log.contains("pulling manifest from upstream: \"docker.io/team/app:1\""), "{log}");
    assert!(log.contains("serving manifest from cache: \"docker.io/team/app:1\""), "{log}");
}
