//! What every client needs.

use super::*;
use crate::support::client::{connect, raw};
use crate::support::process::eventually;
use crate::support::upstream::{Fault, STRANGE};

#[test]
fn a_head_is_what_the_get_would_be_and_starts_no_blob() {
    let scene = Scene::with("prefetch = \"image\"", 20_000);
    let looked_at = |response: &Response| {
        ["content-type", "content-length", "docker-content-digest", "etag", "accept-ranges", "oci-namespace"]
            .map(|name| response.header(name).map(str::to_owned))
    };
    let targets = [scene.manifest("1"), scene.manifest(&scene.image.manifest.digest), scene.blob()];
    let heads: Vec<_> = targets.iter().map(|target| scene.head(target).is(200)).collect();
    assert!(heads.iter().all(|head| head.body.is_empty()));
    assert_eq!(scene.upstream.count("GET", "/blobs/"), 0);
    for (target, head) in targets.iter().zip(&heads) {
        assert_eq!(looked_at(&scene.get(target).is(200)), looked_at(head), "{target}");
    }
}

#[test]
fn a_range_past_the_end_is_416_with_the_size() {
    let scene = Scene::small();
    let size = scene.layer().size();
    for _cold_and_cached in 0..2 {
        let got = scene.range(&format!("bytes={size}-")).is(416);
        assert_eq!(got.header("content-range").unwrap(), format!("bytes */{size}"));
    }
}

#[test]
fn if_none_match_on_the_get_of_a_manifest_is_304_and_the_etag_is_the_digest() {
    let scene = Scene::small();
    let etag = scene.get(&scene.manifest("1")).is(200).header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", scene.index.digest));
    scene.send(get(&scene.manifest("1")).header("If-None-Match", &etag)).is(304);
}

#[test]
fn errors_are_oci_json() {
    let scene = Scene::small();
    let got = scene.get(&scene.manifest("nope")).refuses(404, "MANIFEST_UNKNOWN");
    assert_eq!(got.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
    let error = &json["errors"][0];
    assert!(
        error["code"].is_string() && error["message"].is_string() && !error["detail"].is_null(),
        "{json}"
    );
}

#[test]
fn writes_are_405_unsupported_with_allow() {
    let scene = Scene::small();
    for method in ["PUT", "POST", "PATCH", "DELETE"] {
        for target in [scene.manifest("1"), "/v2/library/app/blobs/uploads/".to_owned()] {
            let got = scene.send(Request::new(method, &target)).refuses(405, "UNSUPPORTED");
            assert_eq!(got.header("allow"), Some("GET, HEAD"));
        }
    }
}

#[test]
fn upstream_is_asked_with_our_own_accept_and_for_identity() {
    let scene = Scene::small();
    let request = get(&scene.manifest("1")).header("Accept", "text/html").header("Accept-Encoding", "gzip");
    scene.send(request).is(200);
    let seen = scene.upstream.seen();
    let accept = seen[0].header("accept").unwrap();
    for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST] {
        assert!(accept.contains(media_type), "{accept}");
    }
    assert!(seen[0].header("accept-encoding").is_none_or(|value| value == "identity"));
}

#[test]
fn names_of_any_depth_and_shape() {
    let names =
        ["x", "a/b/c/d/e/f", "dots.and-dashes/under__scores/x.y_z", &format!("long/{}", "n".repeat(250))];
    let tags = ["1", "MiXed.Case_Tag", &"T".repeat(128)];
    let image = Image::small(1);
    let mut layout = Layout::new();
    names.iter().for_each(|name| tags.iter().for_each(|tag| layout.add(name, tag, &image)));
    let upstream = Upstream::start(layout);
    let daemon = Daemon::with(&crate::support::daemon::entry("localhost:5000", &upstream), &upstream);
    for registry in ["registry.k8s.io", "reg.example:5000", "localhost:5000"] {
        for name in names {
            for tag in tags {
                let got = daemon.get(&format!("/v2/{registry}/{name}/manifests/{tag}")).is(200);
                assert!(got.body == *image.manifest.bytes);
            }
        }
    }
}

#[test]
fn a_registry_may_be_an_ipv6_address_in_brackets() {
    let image = Image::small(1);
    let upstream = Upstream::start(Layout::of("a/b", "1", &image));
    let daemon = Daemon::with(&crate::support::daemon::entry("[fd00::1]:5000", &upstream), &upstream);
    daemon.get("/v2/[fd00::1]:5000/a/b/manifests/1").is(200);
    daemon.get("/v2/a/b/manifests/1?ns=%5Bfd00%3A%3A1%5D%3A5000").is(200);
}

#[test]
fn sha512_is_a_digest_too() {
    let scene = Scene::small();
    let (blob, manifest) =
        (Blob::with_sha512(vec![7; 100_000]), artifact("application/vnd.tests+json", 300).under_sha512());
    scene.upstream.change(|layout| {
        layout.add_blob("library/app", &blob);
        layout.add_manifest("library/app", "", &manifest);
    });
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", blob.digest);
    assert!(scene.get(&target).is(200).body == blob.bytes());
    assert!(scene.get(&scene.manifest(&manifest.digest)).is(200).body == *manifest.bytes);
    eventually("kept under its name", || scene.daemon.blob(blob.hex()).exists());
}

#[test]
fn manifests_of_4_mib_and_unknown_types_come_byte_for_byte() {
    let scene = Scene::small();
    let manifests = [
        artifact("application/vnd.cncf.helm.config.v1+json", 4 << 20),
        Manifest::new(OCI_MANIFEST, "{ \"schemaVersion\":2,\r\n \"odd\" : [ ] }\n"),
    ];
    for manifest in &manifests {
        scene.upstream.change(|layout| layout.add_manifest("library/app", "odd", manifest));
        let got = scene.get(&scene.manifest(&manifest.digest)).is(200);
        assert!(got.body == *manifest.bytes);
        assert_eq!(got.header("content-type"), Some(&*manifest.media_type));
    }
}

#[test]
fn foreign_layers_never_fail_an_image() {
    let scene = Scene::with("prefetch = \"image\"", 20_000);
    let mut json: serde_json::Value = serde_json::from_slice(&scene.image.manifest.bytes).unwrap();
    json["layers"].as_array_mut().unwrap().insert(
        0,
        serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": format!("sha256:{}", "1".repeat(64)), "size": 5, "urls": ["https://example.invalid/x"],
        }),
    );
    let foreign = Manifest::json(OCI_MANIFEST, &json);
    scene.upstream.change(|layout| layout.add_manifest("library/app", "foreign", &foreign));
    scene.get(&scene.manifest("foreign")).is(200);
    assert!(scene.get(&scene.blob()).is(200).body == scene.layer().bytes());
    assert_eq!(scene.upstream.count("", &"1".repeat(64)), 0);
}

#[test]
fn blobs_of_zero_bytes_exist() {
    let scene = Scene::small();
    let empty = Blob::new(vec![]);
    scene.upstream.change(|layout| layout.add_blob("library/app", &empty));
    let target = format!("/v2/library/app/blobs/{}?ns=docker.io", empty.digest);
    for _cold_and_cached in 0..2 {
        let got = scene.get(&target).is(200);
        assert_eq!((got.header("content-length"), got.body.len()), (Some("0"), 0));
        // containerd from 2.1 on asks for `bytes=0-` of whatever there is.
        assert_eq!(scene.send(get(&target).range("bytes=0-")).is(200).body.len(), 0);
    }
}

#[test]
fn http_1_0_keep_alive_and_pipelining() {
    let scene = Scene::small();
    assert!(scene.send(get(&scene.blob()).http10()).is(200).body == scene.layer().bytes());
    let host = scene.daemon.addr.to_string();
    let mut connection = connect(scene.daemon.addr);
    for _ in 0..3 {
        let answer;
        (answer, connection) = get(&scene.blob()).open_on(connection, &host).whole_and_connection();
        assert!(answer.is(200).body == scene.layer().bytes());
    }
    let one = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let last = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    assert_eq!(
        raw(scene.daemon.addr, format!("{one}{one}{last}").as_bytes()).matches("HTTP/1.1 200").count(),
        3
    );
}

#[test]
fn http_2_with_prior_knowledge() {
    needs!("curl");
    let scene = Scene::small();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--http2-prior-knowledge", "-w", "%{http_version}", "-o", "/dev/null"]);
    curl.arg(format!("http://{}{}", scene.daemon.addr, scene.blob()));
    assert_eq!(crate::support::process::succeed(curl), "2");
}

#[test]
fn every_header_is_our_own() {
    const OURS: [&str; 15] = [
        "accept-ranges",
        "age",
        "connection",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "oci-filters-applied",
        "oci-namespace",
        "server",
        "vary",
        "x-request-id",
    ];
    let scene = Scene::with("prefetch = \"none\"\ntag_ttl = 0\nnot_found_ttl = 0\n", 20_000);
    let lists = ["tags/list".to_owned(), format!("referrers/{}", scene.image.manifest.digest)];
    let mut targets = vec![scene.blob(), scene.manifest("1"), scene.manifest("none"), "/v2/".to_owned()];
    targets.push(scene.manifest(&scene.image.manifest.digest));
    targets.extend(lists.map(|list| format!("/v2/library/app/{list}?ns=docker.io")));
    for fault in [None, None, Some(Fault::Status(401)), Some(Fault::Status(403)), Some(Fault::Status(500))] {
        if let Some(fault) = &fault {
            scene.upstream.fault("/v2/", .., fault.clone());
        }
        for target in &targets {
            for answer in [scene.get(target), scene.head(target), scene.send(get(target).range("bytes=1-2"))]
            {
                for (name, value) in &answer.head.headers {
                    assert!(
                        OURS.contains(&&*name.to_ascii_lowercase()),
                        "{target} {fault:?}: {name}: {value}"
                    );
                }
            }
        }
        scene.upstream.mend();
    }
    let strange: Vec<_> = STRANGE.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert!(!strange.iter().any(|name| OURS.contains(&&**name)));
}
